"""Latents of clips: through the codec once, then from memory or from a folder."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from trainer.config import TrainError
from trainer.corpora import RATE, Corpora

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE
    from voxcpm.config import VoxCPM2Config

_SLACK_S = 0.005
"""Seconds by which a clip may differ from its index row: times are rounded to samples of the native rate."""


class Latents:
    """Latents of segments, float32 [A, P, D]: the least recently used of `memory_s` seconds of audio stay in memory.

    folder: also kept on the disk, by codec, so that a later run does not encode again (written whole or not at all).
    """

    def __init__(
        self,
        corpora: Corpora,
        codec: AudioVAE,
        config: VoxCPM2Config,
        folder: str | Path | None = None,
        memory_s: float = 3600.0,
    ) -> None:
        self._corpora, self._codec, self._config = corpora, codec, config
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._held = 0
        self._room = round(memory_s * RATE / config.patch_samples)
        self._folder = Path(folder) / codec_digest(codec) if folder is not None else None

    def get(self, segment_id: str, patches: int) -> Tensor:
        """float32 [patches, P, D] of one segment. TrainError when its audio is not as long as the index says."""
        if segment_id in self._memory:
            self._memory.move_to_end(segment_id)
            return self._memory[segment_id]
        latents = self._read(segment_id, patches)
        if latents is None:
            samples = self._corpora.clip(segment_id)
            self._check(segment_id, samples, patches)
            latents = encode_clip(self._codec, samples, patches, self._config)
            self._write(segment_id, latents)
        self._memory[segment_id] = latents
        self._held += len(latents)
        while self._held > self._room and len(self._memory) > 1:
            self._held -= len(self._memory.popitem(last=False)[1])
        return latents

    def _check(self, segment_id: str, samples: np.ndarray, patches: int) -> None:
        """Rather than cut a clip silently, or pad it with seconds of nothing."""
        size, slack = self._config.patch_samples, round(_SLACK_S * RATE)
        if not (patches - 1) * size - slack <= len(samples) <= patches * size + slack:
            raise TrainError(
                f"segment {segment_id} has {len(samples) / RATE:.2f} s of audio, its index row speaks of"
                f" {(patches - 1) * size / RATE:.2f} to {patches * size / RATE:.2f} s; run: voxmill fsck"
                f" {self._corpora.parts[0].path}"
            )

    def _file(self, segment_id: str) -> Path | None:
        return None if self._folder is None else self._folder / segment_id[:2] / f"{segment_id}.npy"

    def _read(self, segment_id: str, patches: int) -> Tensor | None:
        path = self._file(segment_id)
        if path is None or not path.is_file():
            return None
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError):
            return None
        wanted = (patches, self._config.patch_size, self._config.feat_dim)
        return torch.from_numpy(values) if values.shape == wanted and values.dtype == np.float32 else None

    def _write(self, segment_id: str, latents: Tensor) -> None:
        path = self._file(segment_id)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
        with draft.open("wb") as file:
            np.save(file, latents.numpy(), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


@torch.no_grad()
def encode_clip(codec: AudioVAE, samples: np.ndarray, patches: int, config: VoxCPM2Config) -> Tensor:
    """float32 [A, P, D] on the CPU: latents of a 16 kHz clip (float32 [S]), zero padded on the right to whole patches."""
    wanted = patches * config.patch_samples
    padded = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    device = next(codec.parameters()).device
    mu = codec.encode(torch.from_numpy(padded)[None, None].to(device))
    return mu[0].T.reshape(patches, config.patch_size, config.feat_dim).float().cpu().clone()


def codec_digest(codec: AudioVAE) -> str:
    """A short hash of the encoder's weights: latents of different encoders never mix."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        if name.startswith("encoder."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
