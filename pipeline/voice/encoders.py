"""The speaker encoders by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from catalogs.weights.registry import resolve
from pipeline.runtime.devices import Device, pick_device

EncoderName = Literal["ge2e", "ecapa"]


class SpeakerEncoder(Protocol):
    """Computes voiceprints."""

    width: int

    def partials(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return, per clip (float32 [S] at 16 kHz), unit-length voiceprints of its windows: float32 [N, width], N >= 1."""


def load_encoder(name: EncoderName, device: Device) -> SpeakerEncoder:
    """Return the encoder with its weights. Raises WeightsMissing if they are not on this machine. GE2E always runs on one
    core of the CPU."""
    folder = resolve(name)
    if name == "ecapa":
        from pipeline.voice.ecapa import Ecapa

        return Ecapa(folder, pick_device(device))
    import torch

    from pipeline.voice.ge2e import Ge2e

    torch.set_num_threads(1)
    return Ge2e(folder)
