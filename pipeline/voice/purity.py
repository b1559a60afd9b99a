"""Measure whether one voice speaks in all of a clip: the part of it that differs most from the rest."""

from __future__ import annotations

import numpy as np

from pipeline.voice.encoders import EncoderName

#: Purity below which a clip holds a second voice, by encoder. GE2E's is measured (benchmarks/quality/speakers.py): clips
#: with one voice fall below 0.7 in one of a hundred cases, clips with two voices one after the other in nine of ten.
#: ECAPA's cosines are lower for one voice and much lower for two. Its limit is set below the value with which its users
#: cluster, and is not measured here.
LEAST_PURITY: dict[EncoderName, float] = {"ge2e": 0.7, "ecapa": 0.35}


def purity(prints: np.ndarray) -> float | None:
    """Return the smallest cosine between the mean voiceprint of a run of windows and that of all others; prints [N, W], in
    order of time.

    A voice that varies does so from window to window, and the means of its parts stay alike. A second voice speaks alone in
    a part of the clip, at an end or within. None for fewer than two windows: there is nothing to compare.
    """
    count = len(prints)
    if count < 2:
        return None
    sums = np.zeros((count + 1, prints.shape[1]))
    np.cumsum(prints, axis=0, out=sums[1:])
    # The sum of the run from i to j is sums[j] - sums[i]; the products of the sums hold everything that is needed of it.
    products = sums @ sums.T
    own = np.diag(products)
    square = own[:, None] + own[None] - 2 * products
    whole = products[-1][None] - products[-1][:, None]
    between = whole - square
    rest = own[-1] - 2 * whole + square
    first, last = np.triu_indices(count + 1, k=1)
    part = last - first < count
    first, last = first[part], last[part]
    lengths = np.sqrt(np.maximum(square[first, last], 1e-12) * np.maximum(rest[first, last], 1e-12))
    return float(np.clip((between[first, last] / lengths).min(), -1.0, 1.0))
