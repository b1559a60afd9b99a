"""The ECAPA-TDNN speaker encoder of SpeechBrain: 192 values, for a machine with its weights and preferably a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.records import PCM_RATE

_PARTIAL_S, _HOP_S = 3.0, 1.5


class Ecapa:
    """SpeechBrain's `spkrec-ecapa-voxceleb`, loaded from a local folder; batched over windows of 3 s."""

    width = 192

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from speechbrain.inference.speaker import EncoderClassifier

        self._net: Any = EncoderClassifier.from_hparams(
            source=str(folder),
            savedir=str(folder),
            run_opts={"device": device},
            overrides={"pretrained_path": str(folder)},
        )

    def partials(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return, per clip, unit-length voiceprints of its windows of 3 s every 1.5 s: float32 [N, 192], N >= 1. The clips,
        float32 [S] at 16 kHz, are computed in one batch."""
        import torch

        size, hop = int(_PARTIAL_S * PCM_RATE), int(_HOP_S * PCM_RATE)
        windows: list[np.ndarray] = []
        counts = []
        for samples in clips:
            starts = range(0, max(1, len(samples) - size // 2), hop)
            windows += [samples[start : start + size] for start in starts]
            counts.append(len(starts))
        lengths = torch.tensor([len(window) / size for window in windows]).clamp(max=1.0)
        batch = torch.from_numpy(np.stack([np.pad(w, (0, size - len(w))) for w in windows]).astype(np.float32))
        with torch.inference_mode():
            prints = self._net.encode_batch(batch, lengths)[:, 0].cpu().numpy()
        prints = np.asarray(prints / np.linalg.norm(prints, axis=1, keepdims=True).clip(1e-9), dtype=np.float32)
        return np.split(prints, np.cumsum(counts)[:-1])
