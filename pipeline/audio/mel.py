"""Mel filters: the bank of triangles that librosa computes by default."""

from __future__ import annotations

import numpy as np


def mel_filters(n_mels: int, n_fft: int, rate: int) -> np.ndarray:
    """Return triangular filters of equal area on Slaney's mel scale: float32 [n_mels, n_fft // 2 + 1].

    Slaney's scale is linear below 1 kHz (200/3 Hz per mel) and logarithmic above (27 mels for a factor of 6.4). A filter that is
    narrower than a bin of the spectrum may be empty.
    """

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    mels = np.linspace(0, to_mel(rate / 2), n_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    # The last bin of an odd length lies below half of the rate.
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    rising = (bins[None] - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins[None]) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
