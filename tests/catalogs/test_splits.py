"""Splits: nothing that links two clips is divided, shares are met as far as groups allow, and growth moves little."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.exchange.request import parse_splits
from catalogs.exchange.splits import LEFT_OUT, SplitKeys, SplitResult, assign, key_of, text_key

SPLITS = parse_splits("train=0.8,validation=0.1,test=0.1")
Clip = tuple[int, int, int, int, float]


def divided(clips: list[Clip], seed: int = 0, same_text: str = "link") -> SplitResult:
    """Assign clips of (session, speaker, group, text, seconds); 0 links nothing."""
    columns = [np.array([clip[place] for clip in clips], dtype=np.uint64) for place in range(4)]
    seconds = np.array([clip[4] for clip in clips], dtype=np.float64)
    keys = SplitKeys(columns[0] + np.uint64(1), columns[1:3], columns[3], seconds)
    return assign(keys, SPLITS, seed, "link" if same_text == "link" else "leave-out")


clips = st.lists(
    st.tuples(
        st.integers(0, 25), st.integers(0, 12), st.integers(0, 40), st.integers(0, 40), st.floats(0.5, 30, width=16)
    ),
    max_size=80,
)


@settings(max_examples=80)
@given(clips, st.integers(0, 3), st.sampled_from(["link", "leave-out"]))
def test_what_links_clips_is_never_divided(found: list[Clip], seed: int, same_text: str) -> None:
    result = divided(found, seed, same_text)
    places: dict[tuple[int, int], set[int]] = defaultdict(set)
    for clip, split in zip(found, result.of_clip.tolist(), strict=True):
        if split == LEFT_OUT:
            assert same_text == "leave-out" and clip[3]
            continue
        for place, key in enumerate(clip[:4]):
            if key or place == 0:
                places[place, int(key)].add(split)
    assert all(len(splits) == 1 for splits in places.values())
    assert (result.of_clip == LEFT_OUT).sum() == result.left_out
    total = sum(clip[4] for clip in found)
    for number, split in enumerate(SPLITS):
        # A held-out split is never larger than its share.
        assert number == 0 or result.seconds[split.name] <= split.share * total + 1e-6
    again = divided(found, seed, same_text)
    assert (again.of_clip == result.of_clip).all()


def test_shares_are_met_and_growth_moves_little() -> None:
    generator = np.random.default_rng(1)
    sessions = [(int(generator.integers(1, 2**62)), float(generator.uniform(60, 600))) for _ in range(330)]
    many: list[Clip] = [(session, 0, 0, 0, seconds) for session, seconds in sessions]
    moved = []
    for seed in range(20):
        before, after = divided(many[:300], seed), divided(many, seed)
        for result, count in ((before, 300), (after, 330)):
            total = sum(clip[4] for clip in many[:count])
            assert all(abs(result.seconds[split.name] / total - split.share) < 0.02 for split in SPLITS)
        moved.append(float((before.of_clip != after.of_clip[:300]).mean()))
    assert max(moved) <= 0.05, moved
    assert not (divided(many, 0).of_clip == divided(many, 1).of_clip).all()


def test_a_group_that_is_too_large_goes_to_the_first_split() -> None:
    result = divided([(1, 0, 0, 0, 50.0), (2, 0, 0, 0, 40.0), (3, 0, 0, 0, 10.0)])
    assert result.of_clip.tolist()[:2] == [0, 0] and result.of_clip[2] in (1, 2)
    assert (result.components, result.too_large, result.largest_share) == (3, 2, 0.5)
    joined = divided([(1, 0, 0, 7, 50.0), (2, 0, 0, 7, 50.0)])
    assert (joined.components, joined.joined_by_text) == (1, 1)
    assert divided([]).of_clip.tolist() == []


def test_texts_are_compared_without_case_marks_and_punctuation() -> None:
    assert text_key("Größe, 水!") == text_key("GRÖSSE 水") != text_key("Größe")
    assert text_key(None) == text_key("...") == "" and key_of("") == key_of(None) == 0
