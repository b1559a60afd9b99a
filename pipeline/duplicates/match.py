"""Find fingerprints of the same audio: candidates by votes of equal keys, then a count of the bits that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.duplicates.audio_print import SILENT

_STEP = 4
"""Words between the three that make a key: 128 ms, so that their bits are nearly independent."""
NEAR = 4
"""Each entry of a bucket is compared with the four after it: linear in the number of copies, and groups are transitive."""
FENCE = 16
"""Silent words between two fingerprints: neither a key nor a comparison reaches from one into the next."""
_CHANCE = 0.25
"""Share of the bits that may differ in the words around two equal keys, which are compared at once."""
VOTES, FEW_WORDS = 2, 4_000_000
"""Equal keys at one offset that make a candidate. One is enough in up to `FEW_WORDS` words (36 hours of speech), because few
agree by chance. It finds clips below a second."""
KEY_BIT = 24
"""The lowest bit of a key in the values of `print_keys`."""
_PASS_WORDS = 30_000_000
"""Words (270 hours of speech) whose keys are sorted at once; more are done key range by key range."""
_BLOCK = 1 << 18
"""Equal keys whose surroundings are compared at once: 12 MB."""
_SPAN = 24
"""Words (0.8 s) over which errors are averaged to find the stretches that two fingerprints share."""
_SHORTEST = 10
"""Minimum number of words (a clip of 0.65 s) for a comparison."""
_MOST, _LESS_WHEN_SHORT = 0.22, 1.6
"""Maximum share of differing bits in a shared stretch of n words: 0.22, and 0.30 - 1.6/n for short ones. Other audio
differs in 0.34 and more (1 % quantile), short clips by chance in less. The same phrase spoken again by the same voice
differs in at least 0.23; codecs change 0.01 to 0.14."""
_MOST_IN_PART = 0.16
"""The same for a stretch that is not most of either clip: there, a phrase repeated by the same voice comes down to 0.2."""
MOST_OF_IT = 0.7
"""Minimum share of a clip's words for it to be the same clip."""


@dataclass(frozen=True)
class Match:
    """Fingerprints `first` and `second` (positions in the list, first < second) share a stretch of audio.

    `offset`: words by which the second starts after the first. `words`: number of words that they share; `of_first` and
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
    """Return pairs of uint16 fingerprints that share audio, each pair at most once. For a group of copies these are not all
    pairs, but enough to connect it.

    Linear in the words except for the sort of the keys.
    """
    best: dict[tuple[int, int], Match] = {}
    for first, second, offset in _candidates(prints):
        match = compare(prints[first], prints[second], offset, first, second)
        if match is not None and ((first, second) not in best or match.words > best[first, second].words):
            best[first, second] = match
    return [best[pair] for pair in sorted(best)]


def compare(one: np.ndarray, two: np.ndarray, offset: int, first: int = 0, second: int = 1) -> Match | None:
    """Return what two fingerprints share if the second begins `offset` words after the first, or one word more or less;
    None if nothing."""
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
    # A word is shared if a window that holds it is: widen each good window's start to the whole window.
    edges = np.zeros(len(wrong) + 1, dtype=np.int64)
    starts = np.flatnonzero(good)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + span, -1)
    shared = np.cumsum(edges[:-1]) > 0
    words, errors = int(shared.sum()), float(wrong[shared].mean())
    if errors > limit(words):
        return None
    # Frames in which only one of the two has sound are not a difference: the other's pause was filled by noise or cut off
    # at its floor.
    share = [words / (len(wrong) + outside) for outside in beyond]
    if max(share) < MOST_OF_IT and (errors > _MOST_IN_PART or words < _SPAN):
        return None
    return Match(first, second, offset, words, share[0], share[1], errors)


def limit(words: int) -> float:
    """Return the maximum share of differing bits in `words` words of the same audio."""
    return min(_MOST, 0.30 - _LESS_WHEN_SHORT / words)


def _candidates(prints: Sequence[np.ndarray]) -> Iterator[tuple[int, int, int]]:
    """Yield (first, second, offset) that keys vote for."""
    fence = np.zeros(FENCE, dtype=np.uint16)
    words = np.concatenate([part for own in prints for part in (fence, own)] + [fence])
    starts = np.cumsum([FENCE, *(len(own) + FENCE for own in prints)])[:-1]
    heard, three = _heard(words)
    passes = max(1, -(-len(heard) // _PASS_WORDS))
    for part in range(passes):
        place, key = _keys(three, heard, part, passes)
        yield from _votes(words, key, place, starts, 1 if len(heard) <= FEW_WORDS else VOTES)


def print_keys(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (keys uint64 `[2 n]`, places int64 `[2 n]`) of fingerprints with fences between them.

    The upper bits, from `KEY_BIT`, are those of `_keys`. The 24 bits below are the other bytes of the three words: the closer
    two places are, the more of these agree.
    """
    heard, three = _heard(words)
    low, high = (part.astype(np.uint64) for part in _bytes_of(three))
    second = high | np.uint64(1 << 24)
    keys = np.concatenate([low << np.uint64(KEY_BIT) | high, second << np.uint64(KEY_BIT) | low])
    return keys, np.concatenate([heard, heard])


def _heard(words: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return (places at which a key begins, the three words of each)."""
    three = [words[i * _STEP : max(0, len(words) - (2 - i) * _STEP)] for i in range(3)]
    heard = np.flatnonzero((three[0] != SILENT) & (three[1] != SILENT) & (three[2] != SILENT))
    return heard, [word[heard] for word in three]


def _bytes_of(three: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (low bytes, high bytes) of three words, uint32."""
    wide = [word.astype(np.uint32) for word in three]
    low = (wide[0] & 0xFF) | (wide[1] & 0xFF) << 8 | (wide[2] & 0xFF) << 16
    return low, (wide[0] >> 8) | (wide[1] >> 8) << 8 | (wide[2] >> 8) << 16


def _keys(three: list[np.ndarray], place: np.ndarray, part: int, passes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (places int64, keys uint32). Keys are the low bytes of three words, and their high bytes; noise and narrow
    bands damage the two independently. Bit 24 tells them apart. Each of several passes takes one range of keys."""
    low, high = _bytes_of(three)
    key, place = np.concatenate([low, high | np.uint32(1 << 24)]), np.concatenate([place, place])
    if passes > 1:
        mine = key % passes == part
        key, place = key[mine], place[mine]
    order = np.lexsort((place, key))
    return place[order], key[order]


def _votes(
    words: np.ndarray, key: np.ndarray, place: np.ndarray, starts: np.ndarray, needed: int
) -> Iterator[tuple[int, int, int]]:
    # A fingerprint without words starts at its fence: the last start before a place belongs to the fingerprint that holds
    # it.
    owner = np.searchsorted(starts, place, side="right") - 1
    found = []
    for step in range(1, NEAR + 1):
        hit = np.flatnonzero((key[step:] == key[:-step]) & (owner[step:] != owner[:-step]))
        hit = hit[alike(words, place[hit], place[hit + step])]
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


def alike(words: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return bool [N]: True if the words around two places agree better than those around equal keys do by chance."""
    passed = np.zeros(len(one), dtype=bool)
    near = np.arange(-FENCE // 2, FENCE // 2 + 2 * _STEP)
    for start in range(0, len(one), _BLOCK):
        part = slice(start, start + _BLOCK)
        a, b = words[one[part, None] + near], words[two[part, None] + near]
        both = (a != SILENT) & (b != SILENT)
        wrong = np.where(both, np.bitwise_count(a ^ b), 0).sum(axis=1)
        passed[part] = wrong <= _CHANCE * 16 * both.sum(axis=1)
    return passed
