"""Pairs of a recording and its reconstruction, aligned: what the metrics of codecs compare."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.base import Take, read_clip, resampled

RATE = 48_000
"""Samples per second at which two clips are aligned."""
LONGEST_LAG_S = 0.05
LEAST_CORRELATION = 0.3
"""Correlation below which two clips have no waveform in common. Two readings of one text reached 0.16 (336 pairs of EmoDB and
RAVDESS); Opus at 6 kbit/s had 0.83 or more."""
ROUND_TRIP = "round_trip"
"""Key in the notes of a take: the system says that this is a reconstruction, however little it resembles the original."""


@dataclass(frozen=True)
class Pair:
    """A recording and its reconstruction, float32 [S] of the same length at 48 kHz.

    `lag`: samples by which the reconstruction came late; it is undone. `correlation`: of the two waveforms, -1 to 1.
    """

    wanted: np.ndarray
    made: np.ndarray
    lag: int
    correlation: float

    @property
    def lag_ms(self) -> float:
        """The lag in milliseconds."""
        return 1000 * self.lag / RATE

    def at(self, rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (recording, reconstruction) at a sample rate."""
        return resampled(self.wanted, RATE, rate), resampled(self.made, RATE, rate)


def pair_of(take: Take) -> Pair | None:
    """Return the take beside the recording of its item (`Item.human`).

    None: the take is not a reconstruction, such as another reading of the same text. Without a waveform in common, the system must
    have said that it is one (`ROUND_TRIP`); the lag then counts as 0. None also without a sample in common.

    Raises EvaluationError if the recording cannot be read.
    """
    assert take.item.human is not None
    wanted, made = read_clip(take.item.human, RATE), take.audio(RATE)
    lag = best_lag(wanted, made, round(LONGEST_LAG_S * RATE))
    pair = shifted(wanted, made, lag)
    if not len(pair.wanted):
        return None
    if pair.correlation >= LEAST_CORRELATION:
        return pair
    notes = take.row.get("notes")
    return shifted(wanted, made, 0) if notes and json.loads(notes).get(ROUND_TRIP) else None


def best_lag(wanted: np.ndarray, made: np.ndarray, longest: int) -> int:
    """Return by how many samples `made` comes later than `wanted`: where their correlation is largest, within `longest`.

    Of lags that fit equally well (silence), the smallest.
    """
    if not len(wanted) or not len(made):
        return 0
    size = 1 << (len(wanted) + len(made) + longest).bit_length()
    spectrum = np.fft.rfft(made.astype(np.float64), size) * np.conj(np.fft.rfft(wanted.astype(np.float64), size))
    products = np.fft.irfft(spectrum, size)
    lags = np.arange(-longest, longest + 1)
    found = products[lags]
    best = np.flatnonzero(found >= found.max() - 1e-9 * abs(found.max()))
    return int(lags[best[np.abs(lags[best]).argmin()]])


def shifted(wanted: np.ndarray, made: np.ndarray, lag: int) -> Pair:
    """Return the pair with a lag undone and the ends trimmed to the same length."""
    late, early = made[max(lag, 0) :], wanted[max(-lag, 0) :]
    length = min(len(late), len(early))
    late, early = late[:length], early[:length]
    a, b = early.astype(np.float64), late.astype(np.float64)
    energy = float(np.sqrt((a @ a) * (b @ b)))
    return Pair(early, late, lag, float(a @ b) / energy if energy else 0.0)
