"""Distill-MOS: the quality of speech as a small network predicts it, without a second recording.

It hears noise, clipping and missing treble. It was trained on ratings of transmitted speech and does not judge how natural a
synthetic voice is: the figure is a score, never a mean opinion score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from evaluation.metrics.base import Plain, Take, Value

if TYPE_CHECKING:
    from evaluation.metrics.quality.distillmos_net import DistillMosNet

WINDOWS = 4
"""Windows per pass. One window takes 130 MB."""


class Distillmos(Plain):
    """Mean score of windows of 7.68 s, at most 1 s apart, of 16 kHz audio with a peak of 1. On the CPU."""

    name = "distillmos"
    version = 1
    values = (Value("distillmos", "Distill-MOS", "score", "higher", smallest=0.1),)
    schema = pa.schema([("distillmos", pa.float64())])
    weights = ("distillmos",)
    _net: DistillMosNet | None = None

    def load(self) -> None:
        """See `Metric`."""
        from catalogs.weights.registry import resolve_file
        from evaluation.metrics.quality.distillmos_net import load_net

        self._net = load_net(resolve_file("distillmos", ".pt"))

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`."""
        return [{"distillmos": self.rate(take.audio(16_000))} for take in takes]

    def rate(self, samples: np.ndarray) -> float:
        """Return the score of float32 [S] at 16 kHz."""
        import torch

        from evaluation.metrics.quality.distillmos_net import windows_of

        assert self._net is not None, "load() comes first"
        windows = torch.from_numpy(windows_of(samples))
        with torch.inference_mode():
            scores = torch.cat([self._net(part) for part in windows.split(WINDOWS)])
        return float(scores.mean())
