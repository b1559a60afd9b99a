"""DNSMOS P.835: predicted ratings of speech signal, background and overall quality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.records import PCM_RATE

WINDOW = 144_160
"""Samples per prediction: 9.01 s at 16 kHz."""

# Calibration of the network's raw outputs to listeners' ratings (the published non-personalised fit), highest power first.
_SIGNAL = np.poly1d([-0.08397278, 1.22083953, 0.0052439])
_BACKGROUND = np.poly1d([-0.13166888, 1.60915514, -0.39604546])
_OVERALL = np.poly1d([-0.06766283, 1.11546468, 0.04602535])


class Dnsmos:
    """The P.835 network (ONNX, one thread)."""

    def __init__(self, folder: Path) -> None:
        self._net = one_thread(next(folder.rglob("sig_bak_ovr.onnx")))
        self._input = self._net.get_inputs()[0].name

    def rate(self, samples: np.ndarray, hop_s: float) -> tuple[float, float, float]:
        """Return (signal, background, overall), each 1-5, of float32 [S] at 16 kHz: the mean over windows `hop_s` apart.

        A clip shorter than 9.01 s is repeated until it fills the window, as in the reference implementation.
        """
        raw = np.concatenate(
            [self._net.run(None, {self._input: window[None]})[0] for window in windows(samples, hop_s)]
        ).astype(np.float64)
        signal, background, overall = (fit(raw[:, i]).mean() for i, fit in enumerate((_SIGNAL, _BACKGROUND, _OVERALL)))
        return float(signal), float(background), float(overall)


def one_thread(path: Path) -> Any:
    """Return an ONNX session on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def windows(samples: np.ndarray, hop_s: float) -> list[np.ndarray]:
    """Return float32 windows of 9.01 s, `hop_s` apart; the last one ends with the clip, so that no audio is left out."""
    samples = samples.astype(np.float32)
    if len(samples) < WINDOW:
        return [np.resize(samples, WINDOW)]
    hop = max(1, round(hop_s * PCM_RATE))
    starts = list(range(0, len(samples) - WINDOW + 1, hop))
    if starts[-1] + WINDOW < len(samples):
        starts.append(len(samples) - WINDOW)
    return [samples[start : start + WINDOW] for start in starts]
