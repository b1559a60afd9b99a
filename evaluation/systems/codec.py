"""Round trips of a list's recordings: through the codec of a checkpoint, or only through a lower sample rate.

A codec that hears 16 kHz cannot be nearer to a 48 kHz recording than an ideal 16 kHz band: `resample:16000` is its limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalogs.files import file_sha256
from evaluation.errors import EvaluationError, SpeakError
from evaluation.metrics.codec.pairs import ROUND_TRIP
from evaluation.systems.base import Ask, Speech
from evaluation.systems.folder import read_speech

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE

LOWEST_RATE, HIGHEST_RATE = 4_000, 192_000


class Codec:
    """Answers with `Item.human` after the AudioVAE of a checkpoint: its mean latents, decoded at the codec's output rate."""

    batch = 1
    seeded = False

    def __init__(self, argument: str, device: str = "cpu") -> None:
        """argument: a checkpoint folder, a hub id, or a folder that `voxmill train-codec` wrote."""
        import torch

        from voxcpm.errors import CheckpointError
        from voxcpm.model.utils import resolve_runtime_device
        from voxcpm.weights.checkpoint import codec_file, find_checkpoint, load_codec

        try:
            self._device = torch.device(resolve_runtime_device(device, "cpu"))
            folder = find_checkpoint(argument)
            self._codec: AudioVAE | None = load_codec(folder, self._device).fold_weight_norm()
            self._file = codec_file(folder)
        except (FileNotFoundError, CheckpointError, ValueError) as error:
            raise EvaluationError(f"codec:{argument}: {error}") from None
        self.name = f"codec:{Path(argument).name}"

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        assert self._codec is not None
        rates = {"sample_rate": self._codec.sample_rate, "out_sample_rate": self._codec.out_sample_rate}
        return {"kind": "codec", "sha256": file_sha256(self._file), "device": self._device.type, **rates}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`."""
        return [_round_trip(ask, self._through) for ask in asks]

    def _through(self, samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        import soxr
        import torch

        assert self._codec is not None
        heard = soxr.resample(samples, rate, self._codec.sample_rate).astype(np.float32)
        with torch.inference_mode():
            # The bandwidth that is asked for is that of the recording, as in training.
            latents = self._codec.encode(torch.from_numpy(heard)[None].to(self._device))
            out = self._codec.decode(latents, min(rate, self._codec.out_sample_rate))[0, 0].float().cpu().numpy()
        # The codec fills the last frame with zeros.
        made = self._codec.out_sample_rate
        return out[: round(len(samples) * made / rate)], made

    def close(self) -> None:
        """See `System`."""
        self._codec = None


class Resample:
    """Answers with `Item.human` after an ideal band limit: resampled to a rate and back."""

    batch = 1
    seeded = False

    def __init__(self, argument: str) -> None:
        """argument: the rate in Hz."""
        if not argument.isdigit() or not LOWEST_RATE <= int(argument) <= HIGHEST_RATE:
            raise EvaluationError(
                f"resample:{argument}: not a sample rate in Hz from {LOWEST_RATE} to {HIGHEST_RATE}, such as resample:16000"
            )
        self._rate = int(argument)
        self.name = f"resample:{self._rate}"

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {"kind": "resample", "rate": self._rate}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`."""
        return [_round_trip(ask, self._through) for ask in asks]

    def _through(self, samples: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        import soxr

        if self._rate >= rate:
            return samples, rate
        back = soxr.resample(soxr.resample(samples, rate, self._rate, "VHQ"), self._rate, rate, "VHQ")
        return back[: len(samples)], rate

    def close(self) -> None:
        """See `System`."""


def _round_trip(ask: Ask, through: Callable[[np.ndarray, int], tuple[np.ndarray, int]]) -> Speech | Exception:
    if ask.item.human is None:
        return SpeakError("the list has no recording of this text")
    recording = read_speech(ask.item.human)
    if isinstance(recording, Exception):
        return recording
    if not len(recording.samples):
        return SpeakError(f"{ask.item.human} has no audio")
    started = time.perf_counter()
    samples, rate = through(recording.samples, recording.rate)
    return Speech(samples, rate, wall_s=time.perf_counter() - started, notes={ROUND_TRIP: True})
