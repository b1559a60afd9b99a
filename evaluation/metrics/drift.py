"""Drift within a long take: loudness, pitch, rate and voice of windows, and their slopes per minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from evaluation.metrics.base import Plain, Take, Value
from evaluation.metrics.voice_measures import RATE, semitones

if TYPE_CHECKING:
    from pipeline.voice.encoders import SpeakerEncoder

LEAST_S = 20.0
"""Shorter takes are not measured."""
WINDOW_S, HOP_S = 5.0, 2.5
_LIST = pa.list_(pa.float64())
_SERIES = ("times", "level_db", "pitch_st", "rate_series", "voice_series")
_FIGURES = (
    "level_slope",
    "pitch_slope",
    "rate_slope",
    "voice_slope",
    "level_drift",
    "pitch_drift",
    "rate_drift",
    "voice_last",
)


class Drift(Plain):
    """Columns:

    `times`: middles of windows of 5 s, in seconds. `level_db` (LUFS), `pitch_st` (semitones from the median of the take),
    `rate_series` (syllables per second that were heard) and `voice_series` (GE2E cosine to the first window): by window; None if a
    window has no such figure. `..._slope`: per minute, in dB, semitones, percent of the median rate, and cosine (Theil-Sen).
    `..._drift`: slopes without their sign. `voice_last`: mean cosine of the last quarter of the windows to the first window.
    """

    name = "drift"
    version = 1
    weights: tuple[str, ...] = ("ge2e",)
    uses: tuple[str, ...] = ("transcript",)
    schema = pa.schema(
        [*(pa.field(name, pa.float64()) for name in _FIGURES), *(pa.field(name, _LIST) for name in _SERIES)]
    )
    values: tuple[Value, ...] = (
        Value("level_drift", "drift of loudness", "dB/min", "lower", digits=2, smallest=0.5),
        Value("pitch_drift", "drift of pitch", "st/min", "lower", digits=2, smallest=0.25),
        Value("rate_drift", "drift of rate", "%/min", "lower", digits=1, smallest=2.0),
        Value("voice_last", "voice at the end, GE2E to the beginning", "cosine", "higher", digits=3, smallest=0.01),
    )

    def __init__(self) -> None:
        self._encoder: SpeakerEncoder | None = None

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"window_s": WINDOW_S, "hop_s": HOP_S, "least_s": LEAST_S}

    def load(self) -> None:
        """Load GE2E. Raises WeightsMissing."""
        from pipeline.voice.encoders import load_encoder

        self._encoder = load_encoder("ge2e", "cpu")

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. None for takes below 20 s."""
        return [self._row(take) if take.seconds >= LEAST_S else None for take in takes]

    def _row(self, take: Take) -> dict[str, Any]:
        from pipeline.quality.levels import loudness_lufs
        from pipeline.voice.prosody import track_pitch

        samples = take.audio(RATE)
        starts = np.arange(0.0, len(samples) / RATE - WINDOW_S + 1e-6, HOP_S)
        windows = [samples[round(start * RATE) : round((start + WINDOW_S) * RATE)] for start in starts]
        times = (starts + WINDOW_S / 2).tolist()
        pitch = [_median_pitch(track_pitch(window)) for window in windows]
        known = [hz for hz in pitch if hz is not None]
        middle = float(np.median(known)) if known else 1.0
        series: dict[str, list[float | None]] = {
            "level_db": [loudness_lufs(window) for window in windows],
            "pitch_st": [None if hz is None else semitones(hz, middle) for hz in pitch],
            "rate_series": _rates(take.given["transcript"], starts.tolist()),
            "voice_series": self._voice(windows),
        }
        rates = [rate for rate in series["rate_series"] if rate is not None]
        usual = float(np.median(rates)) if rates else 0.0
        rate_slope = slope(times, series["rate_series"])
        slopes = {
            "level_slope": slope(times, series["level_db"]),
            "pitch_slope": slope(times, series["pitch_st"]),
            "rate_slope": None if rate_slope is None or not usual else 100 * rate_slope / usual,
            # The first window is the reference.
            "voice_slope": slope(times[1:], series["voice_series"][1:]),
        }
        drifts = {
            name.replace("slope", "drift"): None if value is None else abs(value)
            for name, value in slopes.items()
            if name != "voice_slope"
        }
        last = [value for value in series["voice_series"][-max(1, len(windows) // 4) :] if value is not None]
        return {**slopes, **drifts, "voice_last": float(np.mean(last)) if last else None, "times": times, **series}

    def _voice(self, windows: Sequence[np.ndarray]) -> list[float | None]:
        """Return the cosine of each window to the first one that is not silent; None for silent windows."""
        assert self._encoder is not None
        loud = [number for number, window in enumerate(windows) if np.abs(window).max() > 1e-3]
        found: list[float | None] = [None] * len(windows)
        if loud:
            means = [partials.mean(axis=0) for partials in self._encoder.partials([windows[number] for number in loud])]
            prints = [mean / max(float(np.linalg.norm(mean)), 1e-9) for mean in means]
            for number, one in zip(loud, prints, strict=True):
                found[number] = float(one @ prints[0])
        return found


def slope(times: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Return the Theil-Sen slope per minute: the median slope of all pairs. None with fewer than three values."""
    points = [(time, value) for time, value in zip(times, values, strict=True) if value is not None]
    if len(points) < 3:
        return None
    x, y = (np.array(side, dtype=np.float64) for side in zip(*points, strict=True))
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])) * 60)


def _median_pitch(pitch: np.ndarray) -> float | None:
    voiced = pitch[pitch > 0]
    return float(np.median(voiced)) if len(voiced) >= 10 else None


def _rates(transcript: Mapping[str, Any], starts: Sequence[float]) -> list[float | None]:
    """Return the syllables per second of the words whose middle is in each window; None without words."""
    from pipeline.text.counts import count_syllables

    words = [word for word in transcript.get("words") or [] if word["start"] is not None and word["end"] is not None]
    middles = np.array([(word["start"] + word["end"]) / 2 for word in words])
    sizes = np.array([count_syllables(word["word"]) for word in words], dtype=np.float64)
    if not len(words):
        return [None] * len(starts)
    inside = [(middles >= start) & (middles < start + WINDOW_S) for start in starts]
    return [float(sizes[mask].sum() / WINDOW_S) if mask.any() else None for mask in inside]
