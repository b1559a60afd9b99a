"""Which prints are of the same audio: candidates by votes of equal keys, then a count of the bits that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.duplicates.audio_print import SILENT

_STEP = 4
"""Words between the three that make a key: 128 ms, so that their bits are nearly independent."""
_NEAR = 4
"""Each entry of a bucket is compared with the four after it: linear in the number of copies, and groups are transitive."""
_AROUND = 16
_CHANCE = 0.25
"""Words around two equal keys that are compared at once, and the share of their bits that may differ."""
_VOTES, _FEW_WORDS = 2, 4_000_000
"""Equal keys at one offset that make a candidate. One is enough in up to `_FEW_WORDS` words (36 hours of speech), because few
agree by chance. It finds clips below a second."""
_PASS_WORDS = 30_000_000
"""Words (270 hours of speech) whose keys are sorted at once; more are done key range by key range."""
_BLOCK = 1 << 18
"""Equal keys whose surroundings are compared at once: 12 MB."""
_SPAN = 24
"""Words (0.8 s) over which errors are averaged to see which stretches two prints share."""
_SHORTEST = 10
"""Words (a clip of 0.65 s) below which nothing is said."""
_MOST, _LESS_WHEN_SHORT = 0.22, 1.6
"""Share of differing bits up to which a stretch of n words is shared: 0.22, and 0.30 - 1.6/n for short ones. Other audio
differs in 0.34 and more (1 % quantile), short clips by chance in less; the same phrase spoken again by the same voice in
0.23 at the least; codecs change 0.01 to 0.14."""
_MOST_IN_PART = 0.16
"""The same for a stretch that is not most of either clip: one voice saying a phrase twice comes down to 0.2 there."""
MOST_OF_IT = 0.7
"""Share of a clip's words from which it is the same clip."""


@dataclass(frozen=True)
class Match:
    """Prints `first` and `second` (positions in the list, first < second) share a stretch of audio.

    `offset`: words by which the second's start lies behind the first's. `words`: words they share; `of_first` and
    `of_second`: as shares of each one's words. `errors`: share of bits that differ there.
    """

    first: int
    second: int
    offset: int
    words: int
    of_first: float
    of_second: float
    errors: float


def match_prints(prints: Sequence[np.ndarray]) -> list[Match]:
    """Pairs of uint16 prints that share audio, at most one a pair: not all pairs of a group of copies, but enough to connect it.

    Linear in the words but for the sort of the keys.
    """
    best: dict[tuple[int, int], Match] = {}
    for first, second, offset in _candidates(prints):
        match = compare(prints[first], prints[second], offset, first, second)
        if match is not None and ((first, second) not in best or match.words > best[first, second].words):
            best[first, second] = match
    return [best[pair] for pair in sorted(best)]


def compare(one: np.ndarray, two: np.ndarray, offset: int, first: int = 0, second: int = 1) -> Match | None:
    """What two prints share when the second begins `offset` words behind the first (or one word beside that); None: nothing."""
    found = [m for o in (offset, offset - 1, offset + 1) if (m := _overlap(one, two, o, first, second)) is not None]
    return max(found, key=lambda match: (match.words, -match.errors), default=None)


def _overlap(one: np.ndarray, two: np.ndarray, offset: int, first: int, second: int) -> Match | None:
    a, b = one[max(0, offset) :], two[max(0, -offset) :]
    length = min(len(a), len(b))
    beyond = [int((side != SILENT).sum()) - int((part[:length] != SILENT).sum()) for side, part in ((one, a), (two, b))]
    a, b = a[:length], b[:length]
    both = (a != SILENT) & (b != SILENT)
    a, b = a[both], b[both]
    if len(a) < _SHORTEST:
        return None
    wrong = np.bitwise_count(a ^ b).astype(np.float64) / 16.0
    span = min(_SPAN, len(wrong))
    sums = np.concatenate([[0.0], np.cumsum(wrong)])
    good = (sums[span:] - sums[:-span]) / span <= limit(span)
    if not good.any():
        return None
    # A word is shared when a window that holds it is: widen each good window's start to the whole window.
    edges = np.zeros(len(wrong) + 1, dtype=np.int64)
    starts = np.flatnonzero(good)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + span, -1)
    shared = np.cumsum(edges[:-1]) > 0
    words, errors = int(shared.sum()), float(wrong[shared].mean())
    if errors > limit(words):
        return None
    # If only one of them is heard, the other's pause was filled by noise or cut off at its floor: that is not a difference.
    share = [words / (len(wrong) + outside) for outside in beyond]
    if max(share) < MOST_OF_IT and (errors > _MOST_IN_PART or words < _SPAN):
        return None
    return Match(first, second, offset, words, share[0], share[1], errors)


def limit(words: int) -> float:
    """Share of differing bits up to which `words` words are of the same audio."""
    return min(_MOST, 0.30 - _LESS_WHEN_SHORT / words)


def _candidates(prints: Sequence[np.ndarray]) -> Iterator[tuple[int, int, int]]:
    """(first, second, offset) that keys vote for."""
    fence = np.zeros(_AROUND, dtype=np.uint16)
    words = np.concatenate([part for own in prints for part in (fence, own)] + [fence])
    starts = np.cumsum([_AROUND, *(len(own) + _AROUND for own in prints)])[:-1]
    # Fences are silence: no key and no comparison reaches from one print into the next.
    three = [words[i * _STEP : len(words) - (2 - i) * _STEP] for i in range(3)]
    heard = np.flatnonzero((three[0] != SILENT) & (three[1] != SILENT) & (three[2] != SILENT))
    passes = max(1, -(-len(heard) // _PASS_WORDS))
    for part in range(passes):
        place, key = _keys([word[heard] for word in three], heard, part, passes)
        yield from _votes(words, key, place, starts, 1 if len(heard) <= _FEW_WORDS else _VOTES)


def _keys(three: list[np.ndarray], place: np.ndarray, part: int, passes: int) -> tuple[np.ndarray, np.ndarray]:
    """(places int64, keys uint32): the low bytes of three words, and their high bytes, which noise and narrow bands spoil
    independently of each other; bit 24 tells them apart. One of several passes takes one range of keys."""
    wide = [word.astype(np.uint32) for word in three]
    low = (wide[0] & 0xFF) | (wide[1] & 0xFF) << 8 | (wide[2] & 0xFF) << 16
    high = (wide[0] >> 8) | (wide[1] >> 8) << 8 | (wide[2] >> 8) << 16 | np.uint32(1 << 24)
    key, place = np.concatenate([low, high]), np.concatenate([place, place])
    if passes > 1:
        mine = key % passes == part
        key, place = key[mine], place[mine]
    order = np.lexsort((place, key))
    return place[order], key[order]


def _votes(
    words: np.ndarray, key: np.ndarray, place: np.ndarray, starts: np.ndarray, needed: int
) -> Iterator[tuple[int, int, int]]:
    # Of a print without words the start is its fence's: the last start before a place is the one of the print that holds it.
    owner = np.searchsorted(starts, place, side="right") - 1
    found = []
    for step in range(1, _NEAR + 1):
        hit = np.flatnonzero((key[step:] == key[:-step]) & (owner[step:] != owner[:-step]))
        hit = hit[_alike(words, place[hit], place[hit + step])]
        first, second = owner[hit], owner[hit + step]
        offset = (place[hit] - starts[first]) - (place[hit + step] - starts[second])
        found.append(np.stack([first, second, offset]))
    # Places rise within a key: the first of a pair is the smaller number.
    pairs = np.concatenate(found, axis=1)
    pairs = pairs[:, np.lexsort(pairs[::-1])]
    if not pairs.shape[1]:
        return
    new = np.concatenate([[True], (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)])
    begin = np.flatnonzero(new)
    votes = np.diff(np.concatenate([begin, [pairs.shape[1]]]))
    for first, second, offset in pairs[:, begin[votes >= needed]].T.tolist():
        yield int(first), int(second), int(offset)


def _alike(words: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """bool [N]: whether the words around two places agree better than those around equal keys do by chance."""
    passed = np.zeros(len(one), dtype=bool)
    near = np.arange(-_AROUND // 2, _AROUND // 2 + 2 * _STEP)
    for start in range(0, len(one), _BLOCK):
        part = slice(start, start + _BLOCK)
        a, b = words[one[part, None] + near], words[two[part, None] + near]
        both = (a != SILENT) & (b != SILENT)
        wrong = np.where(both, np.bitwise_count(a ^ b), 0).sum(axis=1)
        passed[part] = wrong <= _CHANCE * 16 * both.sum(axis=1)
    return passed
