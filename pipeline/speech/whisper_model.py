"""faster-whisper's model with one addition: a shorter window for short clips."""

from __future__ import annotations

from typing import Any

import numpy as np
from faster_whisper import WhisperModel


class Model(WhisperModel):  # type: ignore[misc]
    """See the module docstring."""

    model: Any
    margin_frames: int | None = None
    """How much of the padding after a clip the encoder computes (None: all)."""

    def encode(self, features: np.ndarray) -> Any:
        """Encode float32 [mels, frames] to what the decoder attends to."""
        if self.margin_frames is not None:
            # Padding is exactly 0 in every band; a frame of audio, silent or not, never is.
            filled = np.flatnonzero(features.any(axis=tuple(range(features.ndim - 1))))
            length = (int(filled[-1]) + 1 if len(filled) else 0) + self.margin_frames
            # In steps of half a second: every new length costs the library some preparation.
            features = np.ascontiguousarray(features[..., : -(-length // 50) * 50])
        return super().encode(features)
