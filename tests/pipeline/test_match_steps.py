"""Each step of matching prints against plain loops, and the exact place of every limit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_match import flipped, words

from pipeline.duplicates import match
from pipeline.duplicates.audio_print import SILENT
from pipeline.duplicates.match import compare

ZERO = np.zeros(0, dtype=np.int64)


def alike(one: list[int], two: list[int]) -> bool:
    """Whether a quarter of the bits differ at the most, of words heard on both sides."""
    heard = [(a, b) for a, b in zip(one, two, strict=True) if a != SILENT and b != SILENT]
    return sum((a ^ b).bit_count() for a, b in heard) <= 4 * len(heard)


def plain_candidates(prints: list[np.ndarray], needed: int) -> list[tuple[int, int, int]]:
    """(first, second, offset) in order: equal bytes of three words, four words apart, in surroundings that agree."""
    buckets: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for number, own in enumerate(prints):
        for place in range(len(own) - 8):
            three = own[place : place + 9 : 4].tolist()
            if SILENT not in three:
                buckets.setdefault((0, *(word % 256 for word in three)), []).append((number, place))
                buckets.setdefault((1, *(word // 256 for word in three)), []).append((number, place))
    votes: dict[tuple[int, int, int], int] = {}
    padded = [[SILENT] * 16 + own.tolist() + [SILENT] * 16 for own in prints]
    for bucket in buckets.values():
        for at, (first, one) in enumerate(bucket):
            for second, two in bucket[at + 1 : at + 5]:
                around = [padded[n][16 + p - 8 : 16 + p + 16] for n, p in ((first, one), (second, two))]
                if first != second and alike(*around):
                    key = (first, second, one - two)
                    votes[key] = votes.get(key, 0) + 1
    return sorted(key for key, count in votes.items() if count >= needed)


def alphabet_prints(seed: int) -> list[np.ndarray]:
    """Prints of few different words, so that keys are crowded; damaged copies, pauses and prints without a word among them."""
    dice = np.random.default_rng(seed)
    letters = np.array([SILENT, 0x01FE, 0xFE01, 0x01F1, 0x7E01, 0xFEFE], dtype=np.uint16)
    whole = dice.choice(letters[1:], 40)
    prints = [np.zeros(0, dtype=np.uint16)] if seed % 2 else []
    for _ in range(8):
        own = whole[int(dice.integers(0, 4)) :].copy()
        spoiled = dice.random(len(own)) < dice.uniform(0.0, 0.6)
        own[spoiled] = dice.choice(letters, int(spoiled.sum()))
        prints.append(own)
    # The last has one key with the one before it: its high bytes are others.
    return [*prints, np.zeros(0, dtype=np.uint16), whole[:8], whole[:9], whole[:9] ^ np.uint16(0x0300)]


@pytest.mark.parametrize("seed", range(4))
def test_candidates_are_those_of_a_plain_search(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = alphabet_prints(seed)
    wanted = plain_candidates(prints, 1)
    assert list(match._candidates(prints)) == wanted and len(wanted) > 20
    monkeypatch.setattr(match, "FEW_WORDS", 10)
    two = plain_candidates(prints, 2)
    assert list(match._candidates(prints)) == two and 5 < len(two) < len(wanted)


def test_keys_are_three_low_bytes_or_three_high_bytes() -> None:
    three = [np.array([word], dtype=np.uint16) for word in (0x1335, 0x5779, 0x9BBD)]
    place, key = match._keys(three, np.array([7]), 0, 1)
    assert key.tolist() == [0x00BD7935, 0x019B5713] and place.tolist() == [7, 7]
    dice = np.random.default_rng(1)
    three = [dice.integers(1, 600, 300, dtype=np.uint16) for _ in range(3)]
    at = np.arange(300) * 2
    place, key = match._keys(three, at, 0, 1)
    rows = list(zip(key.tolist(), place.tolist(), strict=True))
    wanted = []
    for spot, a, b, c in zip(at.tolist(), *(word.tolist() for word in three), strict=True):
        wanted.append((a % 256 + b % 256 * 2**8 + c % 256 * 2**16, spot))
        wanted.append((a // 256 + b // 256 * 2**8 + c // 256 * 2**16 + 2**24, spot))
    assert rows == sorted(wanted)
    parts: list[tuple[int, int]] = []
    for part in range(3):
        place, key = match._keys(three, at, part, 3)
        assert (key % 3 == part).all() and len(key)
        parts += zip(key.tolist(), place.tolist(), strict=True)
    assert sorted(parts) == rows


def test_keys_are_sorted_in_as_many_passes_as_they_fill(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []

    def keys(three: list[np.ndarray], place: np.ndarray, part: int, passes: int) -> tuple[np.ndarray, np.ndarray]:
        asked.append((len(place), part, passes))
        return ZERO, ZERO

    monkeypatch.setattr(match, "_keys", keys)
    own = words(np.random.default_rng(2), 108)
    for most, passes in ((99, 2), (100, 1), (1000, 1), (50, 2), (34, 3)):
        monkeypatch.setattr(match, "_PASS_WORDS", most)
        asked.clear()
        assert list(match._candidates([own])) == []
        assert asked == [(100, part, passes) for part in range(passes)]


def test_an_entry_of_a_bucket_meets_the_four_after_it() -> None:
    prints = np.full((7, 16), SILENT, dtype=np.uint16)
    line = np.concatenate([prints.ravel(), np.zeros(16, dtype=np.uint16)])
    starts = np.arange(7) * 16
    place = starts + np.array([8, 9, 8, 8, 8, 8, 8])
    found = list(match._votes(line, np.full(7, 5, dtype=np.uint32), place, starts, 1))
    shift = [0, 1, 0, 0, 0, 0, 0]
    assert found == [(a, b, shift[a] - shift[b]) for a, b in itertools.combinations(range(7), 2) if b - a <= 4]
    assert list(match._votes(line, np.arange(7, dtype=np.uint32), place, starts, 1)) == []
    assert list(match._votes(line, np.full(7, 5, dtype=np.uint32), place, starts, 2)) == []


@pytest.mark.parametrize("block", [1, 2, 100])
def test_surroundings_are_eight_words_before_and_fifteen_after(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match, "_BLOCK", block)
    dice = np.random.default_rng(3)
    one = words(dice, 50) | np.uint16(1)

    def passes(places: list[int], bits: int = 16, silent: int = 0) -> list[bool]:
        """For places 19, 20 and 21 of the first against the same of the second, which differs in these words."""
        two = one.copy()
        for bit in range(bits):
            two[places] ^= np.uint16(1 << bit)
        two[two == SILENT] = 1
        two[12 : 12 + silent] = SILENT
        line = np.concatenate([one, two])
        at = np.array([19, 20, 21])
        return match.alike(line, at, at + 50).tolist()

    assert passes([]) == [True] * 3
    # 96 bits are a quarter of 24 words. The places see the words 11 to 34, 12 to 35 and 13 to 36.
    most = [13, 14, 22, 24, 28, 34]
    assert passes(most) == [True, True, True] and passes([*most, 29]) == [False, False, False]
    assert passes([*most, 11]) == [False, True, True] and passes([*most, 12]) == [False, False, True]
    assert passes([*most, 35]) == [True, False, False] and passes([*most, 36]) == [True, True, False]
    assert passes([*most, 10, 37]) == [True, True, True]
    assert passes(list(range(12, 36)), 4) == [True] * 3 and passes(list(range(11, 37)), 5) == [False] * 3
    # A word that is silent on one side counts neither as different nor as heard: 20 words may differ in 80 bits.
    assert passes([20, 22, 24, 28, 30], silent=4)[1] and not passes([20, 22, 24, 28, 30, 32], silent=4)[1]
    assert not passes([20, 22, 24, 28, 30], silent=5)[1]


def spread(count: int, bits: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Two prints; `bits` of each word differ."""
    one = words(np.random.default_rng(4), count) | np.uint16(0x8000)
    two = one.copy()
    for place, number in enumerate(bits):
        two[place] ^= np.uint16((1 << number) - 1)
    return one, two


def shared(one: np.ndarray, two: np.ndarray) -> tuple[int, float] | None:
    found = compare(one, two, 0)
    return None if found is None else (found.words, found.errors)


def test_stretches_that_agree_only_by_what_they_have_in_common_are_not_shared() -> None:
    """Every window of 24 words holds the twelve that agree; of all 36 words 29 % of the bits differ."""
    assert shared(*spread(36, [7] * 12 + [0] * 12 + [7] * 12)) is None
    found = shared(*spread(36, [5] * 12 + [0] * 12 + [5] * 12))
    assert found is not None and found[0] == 36 and found[1] == pytest.approx(10 / 48)


def test_the_limit_itself_is_still_the_same_audio() -> None:
    middle = [3, 4] * 11 + [3]
    assert sum(middle) == 80
    assert shared(*spread(25, [4, *middle, 4])) == (25, 0.22)
    assert shared(*spread(25, [4, *middle, 5])) == (24, 84 / 384)
    # Of twelve words a sixth may differ.
    assert shared(*spread(12, [3, 3, 2] * 4)) == (12, 1 / 6)
    assert shared(*spread(12, [3, 3, 3] + [3, 3, 2] * 3)) is None


def parts(count: int, bits: list[int], rest: int) -> tuple[np.ndarray, np.ndarray]:
    """Two prints of which the end of one and the start of the other are the same audio."""
    dice = np.random.default_rng(5)
    one, two = spread(count, bits)
    return np.concatenate([words(dice, rest), one]), np.concatenate([two, words(dice, rest)])


def test_a_part_has_its_own_limits() -> None:
    for count, bits, rest, found in (
        (24, [0], 11, True), (23, [0], 11, False), (23, [0], 9, True),
        (25, [3, 2] * 12 + [4], 30, True), (25, [3, 2] * 12 + [5], 30, False),
        (28, [3] * 28, 12, True), (28, [3] * 28, 13, False),
    ):  # fmt: skip
        result = compare(*parts(count, bits, rest), rest)
        assert (result is not None) == found
        if result is not None:
            assert (result.words, result.offset) == (count, rest)
            assert result.errors == sum(bits) / (16 * count)
            assert result.of_first == result.of_second == count / (count + rest)


def test_a_word_is_shared_when_a_window_that_holds_it_is() -> None:
    one, two = spread(60, [0] * 30 + [16] * 30)
    two[two == SILENT] = 1
    # Five words of which all bits differ are 5/24 of a window, six are too many.
    found = compare(one, two, 0)
    assert found is not None and found.words == 35
    assert (found.of_first, found.of_second) == (35 / 60, 35 / 60)
    flipped_again = flipped(one, [0, 59], 3)
    assert shared(one, flipped_again) == (60, 2 / 960)


def test_of_a_pair_the_longest_stretch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates come in any order, several for a pair; some are refused."""
    lengths: dict[tuple[int, int], list[int | None]] = {
        (0, 1): [None, 20, 30, None, 25],
        (0, 2): [None],
        (1, 2): [40, 12, None],
        (0, 3): [11],
    }
    waiting = [(first, second, at) for (first, second), found in lengths.items() for at in range(len(found))]
    monkeypatch.setattr(match, "_candidates", lambda prints: waiting)

    def fake(one: object, two: object, offset: int, first: int, second: int) -> match.Match | None:
        length = lengths[first, second][offset]
        return None if length is None else match.Match(first, second, offset, length, 1.0, 1.0, 0.0)

    monkeypatch.setattr(match, "compare", fake)
    found = [(m.first, m.second, m.offset, m.words) for m in match.match_prints([ZERO] * 4)]
    assert found == [(0, 1, 2, 30), (0, 3, 0, 11), (1, 2, 0, 40)]
