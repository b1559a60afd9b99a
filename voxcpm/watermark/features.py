"""What the detector sees of audio: how much louder or quieter each band of each frame is than its surroundings."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from voxcpm.watermark.pattern import BANDS, FRAMES, FRAMES_PER_SECOND, STRENGTHS_DB, band_edges

Floats = NDArray[np.float32]

RATE = 16_000
"""Hz of the audio that the detector works on."""

HOP = RATE // FRAMES_PER_SECOND
FRAME = 2 * HOP

_RANGE_DB = 100.0
"""Cells that are more than this below the loudest one carry nothing. Quiet cells are marked too, e.g. high bands and pauses."""

_SILENCE_DB = -80.0
"""Cells below this level carry nothing, however quiet the clip is. Rounding to 16 bits alone gives -72 dB in a narrow band."""

_MEAN_BANDS, _MEAN_FRAMES = 9, 9
"""A cell is compared with the mean over as many bands, then over as many frames."""

_CLIP = 2.5
"""A cell counts for at most this many standard deviations of its band."""

_BAND_WEIGHTS = (STRENGTHS_DB / STRENGTHS_DB.mean()).astype(np.float32)
"""A band counts as much as the mark changes it: for a known change in noise, the best weight is the change."""

_GATE_PERCENTILE, _GATE_DB, _GATE_FLOOR = 15, 5.0, 0.4
"""A cell at the level that a band is below in 15 % of the time counts less: it may be noise that came after the mark."""


def band_powers(samples: Floats, speed: float = 1.0, tempo: float = 1.0, halves: int = 2) -> list[Floats]:
    """Return the power of each band [T, BANDS] of samples at 16 kHz, at `halves` offsets within a hop.

    speed: the audio was played as many times faster, with its pitch. tempo: as many times faster with the pitch kept.
    """
    count = int((len(samples) - FRAME) * speed * tempo / HOP * halves) + 1
    if len(samples) < FRAME or count < 1:
        return [np.zeros((0, BANDS), np.float32)] * halves
    places = np.rint(np.arange(count) * (HOP / halves / speed / tempo)).astype(np.int64)
    places = places[places + FRAME <= len(samples)]
    window = np.hanning(FRAME + 1)[:-1].astype(np.float32)
    spectra = np.fft.rfft(sliding_window_view(samples, FRAME)[places] * window, axis=1)
    powers = ((spectra.real**2 + spectra.imag**2) @ _weights(speed)).astype(np.float32)
    return [powers[half::halves] for half in range(halves)]


def _weights(speed: float) -> Floats:
    """Return the share of each bin in each band [bins, BANDS]. At another speed, an edge between two bands may divide a bin."""
    bins, bin_hz = FRAME // 2 + 1, RATE / FRAME
    # A bin belongs to the band in which its center lies; it covers half a bin to each side.
    edges = (np.ceil(band_edges() / bin_hz) - 0.5) * speed
    above = np.clip(np.arange(bins)[:, None] + 0.5 - edges[None, :], 0, 1)
    return (above[:, :-1] - above[:, 1:]).astype(np.float32)


def cells(powers: Floats) -> Floats:
    """Return what each cell [T, BANDS] says: its level over its surroundings, in deviations of its band.

    It counts less if it is quiet, and as much as a mark changes its band.
    """
    if not len(powers):
        return powers
    levels = 10 * np.log10(powers + np.float32(1e-12))
    heard = (levels > max(levels.max() - _RANGE_DB, _SILENCE_DB)).astype(np.float32)
    found = _over_mean(levels * heard, heard, _MEAN_BANDS, axis=1)
    found = _over_mean(found, heard, _MEAN_FRAMES, axis=0)
    spread = np.sqrt((found**2).sum(axis=0) / np.maximum(heard.sum(axis=0), 1))
    found = np.clip(found / np.maximum(spread, 1e-3), -_CLIP, _CLIP)
    floor = np.percentile(levels, _GATE_PERCENTILE, axis=0).astype(np.float32)
    loud = 1 / (1 + np.exp(-np.clip((levels - floor - _GATE_DB) / _GATE_DB, -30, 30)))
    return (found * _BAND_WEIGHTS * (_GATE_FLOOR + (1 - _GATE_FLOOR) * loud) * heard).astype(np.float32)


def _over_mean(values: Floats, heard: Floats, width: int, axis: int) -> Floats:
    """Return values less the mean of the cells heard within `width`, 0 if a cell is not heard."""
    mean = _box(values, width, axis) / np.maximum(_box(heard, width, axis), 1)
    return ((values - mean) * heard).astype(np.float32)


def _box(values: Floats, width: int, axis: int) -> Floats:
    """Return the sum of the values within `width` around each place."""
    side = width // 2
    padding = [(0, 0), (0, 0)]
    padding[axis] = (side + 1, side)
    sums = np.pad(values, padding).cumsum(axis=axis, dtype=np.float64)
    length = values.shape[axis]
    upper, lower = np.arange(width, width + length), np.arange(length)
    return (sums.take(upper, axis) - sums.take(lower, axis)).astype(np.float32)


def fold(values: Floats) -> Floats:
    """Return the sum of the periods of the pattern [FRAMES, BANDS] of cells [T, BANDS]."""
    periods = -(-len(values) // FRAMES)
    padded = np.zeros((periods * FRAMES, BANDS), np.float32)
    padded[: len(values)] = values
    return padded.reshape(periods, FRAMES, BANDS).sum(axis=0)
