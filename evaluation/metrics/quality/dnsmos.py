"""DNSMOS P.835 and P.808 as published figures have them: with the windows of the reference implementation (speechmos).

A corpus is rated without overlapping windows, which is ten times faster; those figures differ for clips of more than 9 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from evaluation.metrics.base import Plain, Take, Value
from pipeline.audio.mel import mel_filters
from pipeline.quality.dnsmos import WINDOW, one_thread, windows
from pipeline.records import PCM_RATE

if TYPE_CHECKING:
    from pipeline.quality.dnsmos import Dnsmos

_HOP_S = 1.0
_FFT, _HOP, _MELS = 321, 160, 120


class DnsmosMetric(Plain):
    """Predicted ratings, 1 to 5: mean of windows of 9.01 s, 1 s apart, of 16 kHz audio."""

    name = "dnsmos"
    version = 1
    values = (
        Value("dnsmos_ovrl", "DNSMOS OVRL", "score", "higher", smallest=0.05),
        Value("dnsmos_sig", "DNSMOS SIG", "score", "higher", smallest=0.05),
        Value("dnsmos_bak", "DNSMOS BAK", "score", "higher", smallest=0.05),
        Value("dnsmos_p808", "DNSMOS P.808", "score", "higher", smallest=0.05),
    )
    schema = pa.schema([(value.column, pa.float64()) for value in values])
    weights = ("dnsmos",)
    _p835: Dnsmos | None = None
    _p808: P808 | None = None

    def load(self) -> None:
        """See `Metric`."""
        from catalogs.weights.registry import resolve
        from pipeline.quality.dnsmos import Dnsmos

        folder = resolve("dnsmos")
        self._p835, self._p808 = Dnsmos(folder), P808(folder)

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`."""
        return [self.rate(take.audio(PCM_RATE)) for take in takes]

    def rate(self, samples: np.ndarray) -> dict[str, Any]:
        """Return the row of float32 [S] at 16 kHz."""
        assert self._p835 is not None and self._p808 is not None, "load() comes first"
        samples = reference_length(samples)
        signal, background, overall = self._p835.rate(samples, _HOP_S)
        figures = (overall, signal, background, self._p808.rate(samples))
        return {value.column: figure for value, figure in zip(self.values, figures, strict=True)}


class P808:
    """The P.808 network (ONNX, one thread): one rating of the whole, from mel spectra."""

    def __init__(self, folder: Path) -> None:
        self._net = one_thread(next(folder.rglob("model_v8.onnx")))
        self._input = self._net.get_inputs()[0].name

    def rate(self, samples: np.ndarray) -> float:
        """Return the mean rating of the windows of float32 [S] at 16 kHz, 1 s apart."""
        features = [mel_levels(window[:-_HOP]) for window in windows(samples, _HOP_S)]
        return float(np.mean([self._net.run(None, {self._input: frames[None]})[0][0, 0] for frames in features]))


def reference_length(samples: np.ndarray) -> np.ndarray:
    """Return float32 [S] at 16 kHz as the reference implementation hears it.

    A clip is doubled until it is 9.01 s long. Its windows begin at whole seconds; what is left after the last one is not heard.
    """
    samples = np.asarray(samples, dtype=np.float32)
    while len(samples) < WINDOW:
        samples = np.concatenate([samples, samples])
    # There are `seconds - 9` windows and not one more, even if another one would fit.
    count = max(1, len(samples) // PCM_RATE - 9)
    return samples[: WINDOW + (count - 1) * PCM_RATE]


def mel_levels(samples: np.ndarray) -> np.ndarray:
    """Return float32 [frames, 120]: mel power in dB below the loudest, at least -80 dB, as (dB + 40) / 40."""
    padded = np.pad(samples.astype(np.float64), _FFT // 2)
    window = np.hanning(_FFT + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP] * window
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ mel_filters(_MELS, _FFT, PCM_RATE).T.astype(np.float64)
    levels = 10 * np.log10(np.maximum(power, 1e-10))
    levels -= levels.max()
    return np.asarray((np.maximum(levels, -80.0) + 40) / 40, dtype=np.float32)
