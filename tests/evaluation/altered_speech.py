"""Real speech with a planted change: rate, pitch, both, loudness, over the whole clip or growing with time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE = 16_000
_WINDOW, _SEARCH = 640, 200


def read(path: Path) -> np.ndarray:
    """Float32 [S] at 16 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, RATE), dtype=np.float32)


def stretched(samples: np.ndarray, factor: float) -> np.ndarray:
    """The same pitch, `factor` times as long: frames are overlapped where they fit best (WSOLA)."""
    half = _WINDOW // 2
    window = np.hanning(_WINDOW)
    count = int((len(samples) * factor - _WINDOW) / half)
    padded = np.pad(samples.astype(np.float64), (_SEARCH, _WINDOW + _SEARCH + half))
    out = np.zeros(count * half + _WINDOW)
    place = _SEARCH
    for number in range(count):
        out[number * half : number * half + _WINDOW] += window * padded[place : place + _WINDOW]
        wanted = padded[place + half : place + half + _WINDOW]
        middle = min(round((number + 1) * half / factor), len(samples) - 1) + _SEARCH
        near = padded[middle - _SEARCH : middle + _SEARCH + _WINDOW]
        place = middle - _SEARCH + int(np.argmax(np.correlate(near, wanted, "valid")))
    return out.astype(np.float32)


def sped(samples: np.ndarray, factor: float) -> np.ndarray:
    """As a tape that runs `factor` times as fast: pitch and rate rise together."""
    return np.asarray(soxr.resample(samples, RATE, RATE / factor), dtype=np.float32)


def shifted(samples: np.ndarray, semitones: float) -> np.ndarray:
    """Another pitch (and formants), the same rate."""
    factor = 2 ** (semitones / 12)
    return sped(stretched(samples, factor), factor)


def glided(samples: np.ndarray, semitones: float) -> np.ndarray:
    """A tape that becomes faster: the pitch rises steadily from none to `semitones` at the end."""
    speed = 2 ** (np.linspace(0.0, semitones, len(samples)) / 12)
    places = np.concatenate([[0.0], np.cumsum(speed)])
    places = places[places < len(samples) - 1]
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)


def faded(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Gain that changes steadily from 0 to `decibels` at the end."""
    return (samples * 10 ** (np.linspace(0.0, decibels, len(samples)) / 20)).astype(np.float32)
