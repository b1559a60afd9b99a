"""Group voiceprints by average-linkage clustering of cosines, for the hundreds or thousands of segments of a session."""

from __future__ import annotations

import numpy as np

#: Minimum mean cosine of two groups of one voice, by the width of the voiceprint (256: GE2E, 192: ECAPA). GE2E's was
#: measured by benchmarks/quality/speakers.py on sessions that mix four and five voices: 0.78 keeps groups of any kind 97 %
#: pure. A voice that reads stays mostly in one group, a voice that acts seven moods is split into several. ECAPA's is the
#: value with which its users cluster, not measured here.
ONE_VOICE = {256: 0.78, 192: 0.45}
#: Another voice begins if the cosine of the speech on both sides of a pause is below this. GE2E's finds 86 % of the changes
#: of voice over pauses up to 0.6 s. The price is unnecessary cuts in pauses: one in four in acted speech, none in a read
#: book.
ANOTHER_VOICE = {256: 0.72, 192: 0.45}
#: The same for a voice's resting pitch. There it matters more that a voice's moods stay together than that no other voice
#: is among them. With 0.55, expressive speech is separated from calm as well as if the speakers were known.
ALL_MOODS = {256: 0.55, 192: 0.3}

_AT_ONCE = 3000
"""Maximum voiceprints that are compared pair by pair (72 MB). Of more, blocks are clustered first and then their groups."""


def cluster(prints: np.ndarray, threshold: float) -> np.ndarray:
    """Return labels int [N] for unit-length voiceprints [N, W]: groups are merged while the mean cosine between them is >=
    threshold.

    Labels are numbered by first appearance, so that the same input always gives the same names.
    """
    raw = _labels(prints, threshold)
    order: dict[int, int] = {}
    return np.array([order.setdefault(int(label), len(order)) for label in raw], dtype=int)


def _labels(prints: np.ndarray, threshold: float) -> np.ndarray:
    if len(prints) <= _AT_ONCE:
        return _average_linkage(prints, threshold)
    own = np.zeros(len(prints), dtype=int)
    found = 0
    for start in range(0, len(prints), _AT_ONCE):
        block = _average_linkage(prints[start : start + _AT_ONCE], threshold)
        own[start : start + len(block)] = block + found
        found += int(block.max()) + 1
    if found >= len(prints):
        return own
    sums = np.zeros((found, prints.shape[1]))
    np.add.at(sums, own, prints)
    # The product of two groups' means is the mean cosine between their members, which average linkage uses.
    means = sums / np.bincount(own, minlength=found)[:, None]
    return _labels(means, threshold)[own]


def _average_linkage(prints: np.ndarray, threshold: float) -> np.ndarray:
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(prints) < 2:
        return np.zeros(len(prints), dtype=int)
    cosine = np.clip(prints @ prints.T, -1.0, 1.0)
    upper = np.triu_indices(len(prints), k=1)
    distance = np.maximum(1.0 - cosine[upper], 0.0)
    labels = fcluster(linkage(distance, method="average"), t=1.0 - threshold, criterion="distance")
    return np.asarray(labels, dtype=int) - 1
