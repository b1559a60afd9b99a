"""The ends of a clip: whether somebody was still speaking where it was cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.records import PCM_RATE

EDGE_S = 0.03
"""Seconds that count as the end of a clip."""
_FRAME = PCM_RATE // 100
# Speech is the frames within 25 dB of the loudest twentieth.
_SPEECH_RANGE = 10**-2.5
_FLOOR = 1e-10
# With less contrast between speech and background, an end cannot be told from a middle.
_LEAST_CONTRAST_DB = 6.0
# A word that begins there is below the first value, on the scale of `measure_edges`, in its first 10 ms. It rises by the
# second value within 30 ms more.
_ONSET_BELOW, _ONSET_RISE, _ONSET_FRAMES = 0.5, 0.1, 4


@dataclass(frozen=True)
class Levels:
    """Level of speech and of the background of a stretch of audio, dB relative to full scale."""

    speech_db: float
    floor_db: float

    def place(self, samples: np.ndarray) -> float | None:
        """Return where the level of float32 [S] lies between the background (0) and the speech (1), in dB. Return None if
        the two are less than 6 dB apart."""
        contrast = self.speech_db - self.floor_db
        if contrast < _LEAST_CONTRAST_DB or not len(samples):
            return None
        return float((_decibel(float(np.mean(np.square(samples, dtype=np.float64)))) - self.floor_db) / contrast)


def measure_levels(samples: np.ndarray) -> Levels:
    """Return the levels of float32 [S] at 16 kHz, by frames of 10 ms: the quietest tenth is the background."""
    count = max(1, len(samples) // _FRAME)
    padded = np.pad(samples, (0, max(0, count * _FRAME - len(samples))))[: count * _FRAME]
    power = np.sort(np.square(padded, dtype=np.float64).reshape(count, _FRAME).mean(axis=1))
    loudest = power[-max(1, count // 20) :].mean()
    return Levels(
        _decibel(float(power[power >= loudest * _SPEECH_RANGE].mean())),
        _decibel(float(power[: max(1, count // 10)].mean())),
    )


def measure_edges(samples: np.ndarray) -> tuple[float | None, float | None]:
    """Return (head, tail) of float32 [S] at 16 kHz: how much of the voice is in the first and the last 30 ms.

    0 is the clip's own background, 1 the level of its speech, on a scale of dB. A clip that was cut in a pause has about 0,
    one that was cut within a word 0.3 and more (`benchmarks/quality/cuts.py`). None if the clip is shorter than 0.2 s or
    speech and background are less than 6 dB apart.
    """
    width = round(EDGE_S * PCM_RATE)
    if len(samples) < 6 * width:
        return None, None
    levels = measure_levels(samples)
    return levels.place(samples[:width]), levels.place(samples[-width:])


def begins_softly(samples: np.ndarray) -> bool:
    """Return True if the voice rises from the first 10 ms of float32 [S] at 16 kHz as at the start of a word. For samples
    in reverse: if it falls at the end.

    This is for ends that somebody else cut close to the voice: a whole word may have begun within 30 ms, and
    `measure_edges` finds voice there. A word that was cut in two is near its full level from the first sample, or falls
    from there. Return False if `measure_edges` gives None.
    """
    if len(samples) < 6 * round(EDGE_S * PCM_RATE):
        return False
    levels = measure_levels(samples)
    frames = [levels.place(samples[i * _FRAME : (i + 1) * _FRAME]) for i in range(_ONSET_FRAMES)]
    if frames[0] is None:
        return False
    first, *others = (-np.inf if frame is None else frame for frame in frames)
    return bool(first < _ONSET_BELOW and max(others) >= first + _ONSET_RISE)


def _decibel(power: float) -> float:
    return float(10 * np.log10(max(power, _FLOOR)))
