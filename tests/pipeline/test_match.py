"""Which prints share audio: short clips, few keys left by damage, crowded keys, and blocks that must not change the answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.duplicates import match
from pipeline.duplicates.audio_print import SILENT
from pipeline.duplicates.match import Match, compare, limit, match_prints

SEEDS = st.integers(0, 2**32 - 1)


def words(dice: np.random.Generator, count: int) -> np.ndarray:
    """A print of random words, none of them silent."""
    return dice.integers(1, 2**16, count, dtype=np.uint16)


def flipped(own: np.ndarray, places: list[int], bit: int) -> np.ndarray:
    """A copy in which one bit differs in each of these words."""
    copy = own.copy()
    copy[places] ^= np.uint16(1 << bit)
    return copy


def damaged(dice: np.random.Generator, own: np.ndarray, share: float) -> np.ndarray:
    """A copy in which each bit differs with a probability of `share`."""
    flips = (dice.random((len(own), 16)) < share) @ (1 << np.arange(16))
    return np.maximum(own ^ flips.astype(np.uint16), 1).astype(np.uint16)


def found(prints: list[np.ndarray]) -> list[tuple[int, int, int]]:
    return [(match.first, match.second, match.offset) for match in match_prints(prints)]


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(10, 14), st.integers(0, 20), st.booleans())
def test_a_short_clip_is_found_within_a_long_one(seed: int, length: int, offset: int, later: bool) -> None:
    dice = np.random.default_rng(seed)
    whole = words(dice, 40)
    part = whole[offset : offset + length]
    strangers = [words(dice, 60) for _ in range(3)]
    prints = [part, *strangers, whole] if later else [whole, *strangers, part]
    assert found(prints) == [(0, 4, -offset if later else offset)]
    assert found([whole, part[:9]]) == [], "less than 0.65 s says nothing"


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([0, 1]), st.booleans())
def test_one_key_that_is_left_finds_a_short_clip(seed: int, place: int, low: bool) -> None:
    dice = np.random.default_rng(seed)
    own = words(dice, 10)
    # The keys of ten words begin at 0 and 1 and take every fourth word. One bit spoils each of the three others.
    other = 1 - place
    copy = flipped(flipped(flipped(own, [other], 0), [other + 4], 15), [place + 8], 15 if low else 0)
    prints = [own, words(dice, 30), copy]
    assert found(prints) == [(0, 2, 0)]


def test_many_words_ask_for_two_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(3)
    own = words(dice, 10)
    one_vote = flipped(flipped(flipped(own, [1], 0), [5], 15), [8], 15)
    two_votes = flipped(flipped(own, [1], 0), [5], 15)
    # Four keys' places, of three words each, are heard in the two prints: that is the number which is compared.
    monkeypatch.setattr(match, "FEW_WORDS", 4)
    assert found([own, one_vote]) == [(0, 1, 0)] and found([own, two_votes]) == [(0, 1, 0)]
    monkeypatch.setattr(match, "FEW_WORDS", 3)
    assert found([own, one_vote]) == [] and found([own, two_votes]) == [(0, 1, 0)]


@pytest.mark.parametrize("bit", range(16))
def test_a_copy_is_found_by_either_half_of_its_words(bit: int) -> None:
    dice = np.random.default_rng(bit)
    own = words(dice, 40)
    copy = flipped(own, list(range(40)), bit)
    (shared,) = match_prints([own, *(words(dice, 60) for _ in range(6)), np.maximum(copy, 1)])
    assert (shared.first, shared.second, shared.offset, shared.words) == (0, 7, 0, 40)
    assert shared.errors == pytest.approx(1 / 16)


@pytest.mark.parametrize("between", [0, 1, 2, 3])
def test_other_clips_with_the_same_key_do_not_hide_a_copy(between: int) -> None:
    """Three words that many clips have in common (a tone, a jingle's beat): the copy is the fourth of them."""
    dice = np.random.default_rng(between)
    own = words(dice, 12)
    prints = [own]
    for _ in range(between):
        other = words(dice, 12)
        other[[2, 6, 10]] = own[[2, 6, 10]]
        prints.append(other)
    spoiled = flipped(flipped(own, [0, 1, 3, 5, 9], 0), [0, 1, 3, 5, 9], 15)
    assert found([*prints, spoiled]) == [(0, between + 1, 0)]


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_heavy_damage_all_over_is_still_the_same_audio(seed: int) -> None:
    dice = np.random.default_rng(seed)
    own = words(dice, 800)
    matched = match_prints([own, *(damaged(dice, own, 0.185) for _ in range(4))])
    assert {pair.first for pair in matched} == {0}


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_blocks_and_passes_do_not_change_what_is_found(seed: int) -> None:
    dice = np.random.default_rng(seed)
    originals = [words(dice, int(length)) for length in dice.integers(30, 60, 6)]
    prints = [*originals, *(damaged(dice, own, 0.05)[int(dice.integers(0, 5)) :] for own in originals)]
    prints.append(np.zeros(0, dtype=np.uint16))
    whole = match_prints(prints)
    assert len(whole) >= 5
    with pytest.MonkeyPatch.context() as patch:
        for block in (1, 7):
            patch.setattr(match, "_BLOCK", block)
            assert match_prints(prints) == whole
        for most in (1, 100):
            patch.setattr(match, "_PASS_WORDS", most)
            assert match_prints(prints) == whole


def test_the_longer_of_two_stretches_is_reported() -> None:
    dice = np.random.default_rng(5)
    short, long = words(dice, 30), words(dice, 50)
    one = np.concatenate([short, words(dice, 40), long])
    for two, offset in (
        (np.concatenate([long, words(dice, 40), short]), 70),
        (np.concatenate([short, words(dice, 55), long]), -15),
    ):
        (shared,) = match_prints([one, two])
        assert shared.offset == offset and shared.words == pytest.approx(50, abs=12)
        (shared,) = match_prints([two, one])
        assert shared.offset == -offset


@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_the_offset_with_the_fewest_errors_is_told(beside: int) -> None:
    """Words change slowly: at the offsets beside the right one they agree nearly as well."""
    dice = np.random.default_rng(6)
    whole = flipped(np.full(60, 0x5A5A, dtype=np.uint16), list(range(0, 60, 3)), 4)
    part = whole[20:45]
    shared = compare(whole, part, 20 + beside)
    assert shared is not None and (shared.offset, shared.errors, shared.words) == (20, 0.0, 25)
    assert compare(words(dice, 60), part, 20) is None
    assert compare(part, whole, -20) == Match(0, 1, -20, 25, 1.0, 25 / 60, 0.0)


def test_pauses_are_no_difference() -> None:
    dice = np.random.default_rng(7)
    own = words(dice, 40)
    copy = own.copy()
    copy[10:20] = SILENT
    (shared,) = match_prints([own, copy])
    # Where only one is heard, nothing is compared, and nothing counts as missing.
    assert (shared.words, shared.errors, shared.of_first, shared.of_second) == (30, 0.0, 1.0, 1.0)
    (shared,) = match_prints([own, copy[:35]])
    assert (shared.words, shared.of_first, shared.of_second) == (25, 25 / 30, 1.0)


def test_a_part_must_agree_better_than_a_copy() -> None:
    """A phrase spoken twice by one voice differs in 20 % of the bits, and is not most of either clip."""
    dice = np.random.default_rng(8)
    own = words(dice, 100)
    near, far = (flipped(own, list(range(100)), 1) for _ in range(2))
    for bit in (3, 6):
        far = flipped(far, list(range(100)), bit)
    assert compare(own, far, 0) is not None, "three bits of sixteen: 19 %"
    ends = [words(dice, 60) for _ in range(4)]
    assert compare(np.concatenate([ends[0], own, ends[1]]), np.concatenate([ends[2], far, ends[3]]), 0) is None
    shared = compare(np.concatenate([ends[0], own, ends[1]]), np.concatenate([ends[2], near, ends[3]]), 0)
    assert shared is not None and shared.words == pytest.approx(100, abs=20)
    # It is most of one of them: whatever follows in the other, it is the same clip.
    assert compare(np.concatenate([ends[0], own, ends[1]]), far, 60) is not None


def test_limits_of_what_is_the_same() -> None:
    assert limit(10) == pytest.approx(0.14) and limit(16) == pytest.approx(0.2)
    assert limit(20) == pytest.approx(0.22) and limit(1000) == 0.22
    own = words(np.random.default_rng(9), 40)
    bits = [own.copy() for _ in range(2)]
    for bit in range(3):
        bits[0] = flipped(bits[0], list(range(40)), bit)
    bits[1] = flipped(bits[0], list(range(40)), 3)
    (three, four) = (compare(own, copy, 0) for copy in bits)
    assert three is not None and three.errors == pytest.approx(3 / 16) and four is None
