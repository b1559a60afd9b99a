"""Grouping voice prints: average-linkage clustering by cosine, for the hundreds of segments of a session."""

from __future__ import annotations

import numpy as np


def cluster(prints: np.ndarray, threshold: float) -> np.ndarray:
    """Labels int [N] for unit-length prints [N, W]: groups are merged while the mean cosine between them is >= threshold.

    Labels are numbered by first appearance, so that the same input always gives the same names.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(prints) < 2:
        return np.zeros(len(prints), dtype=int)
    cosine = np.clip(prints @ prints.T, -1.0, 1.0)
    upper = np.triu_indices(len(prints), k=1)
    distance = np.maximum(1.0 - cosine[upper], 0.0)
    raw = fcluster(linkage(distance, method="average"), t=1.0 - threshold, criterion="distance")
    order: dict[int, int] = {}
    return np.array([order.setdefault(int(label), len(order)) for label in raw])
