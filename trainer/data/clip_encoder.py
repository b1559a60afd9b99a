"""Encode clips with the codec into the latents that training uses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from catalogs.corpus.latents import LatentForm
from voxcpm.audiovae import AudioVAE
from voxcpm.audiovae.encoder import Encoder
from voxcpm.audiovae.folded import FoldedEncoder
from voxcpm.audiovae.state import Histories, encoder_history_shapes, zero_histories

_CHUNK_FRAMES = 8
"""Latent frames per pass on the CPU: few enough to stay in its cache (0.65 s for 4 s of speech; 0.76 s with 32 frames)."""


class ClipEncoder:
    """Encodes clips at the codec's rate into latents, float32 on the CPU, without gradients.

    On a CPU the encoder's weights are folded once, at the first clip (2.5 times as fast as the trainable form); batching gains
    nothing there. On a GPU clips are encoded together, right padded. The encoder is causal, so the padding does not change the
    latents of a clip.
    """

    def __init__(self, codec: AudioVAE, patch_size: int) -> None:
        self._codec, self._patch_size = codec, patch_size
        self._folded: FoldedEncoder | None = None

    @property
    def sample_rate(self) -> int:
        """Rate of the clips, Hz."""
        return self._codec.sample_rate

    @property
    def patch_samples(self) -> int:
        """Number of samples per patch."""
        return self._patch_size * self._codec.config.hop_length

    def __call__(self, clip: np.ndarray, patches: int) -> Tensor:
        """Return float32 [patches, P, D] of one clip (float32 [S]), cut to the patches or zero padded on the right."""
        return self.encode_all([clip], [patches])[0]

    @torch.no_grad()
    def encode_all(self, clips: Sequence[np.ndarray], patches: Sequence[int]) -> list[Tensor]:
        """Return float32 [A, P, D] for each clip; clips of similar lengths need the least padding."""
        device = next(self._codec.encoder.parameters(), torch.empty(0)).device
        if device.type == "cpu" and isinstance(self._codec.encoder, Encoder):
            frames = [self._on_cpu(self._padded(clip, count)) for clip, count in zip(clips, patches, strict=True)]
        else:
            longest = max(patches)
            together = np.stack(
                [self._padded(clip, longest, count) for clip, count in zip(clips, patches, strict=True)]
            )
            frames = list(self._codec.encode(torch.from_numpy(together)[:, None].to(device)).float().cpu())
        return [
            mean[:, : count * self._patch_size].T.reshape(count, self._patch_size, -1).clone()
            for mean, count in zip(frames, patches, strict=True)
        ]

    def _padded(self, clip: np.ndarray, patches: int, own: int | None = None) -> np.ndarray:
        samples = clip[: (own or patches) * self.patch_samples]
        return np.pad(samples, (0, patches * self.patch_samples - len(samples)))

    def _on_cpu(self, samples: np.ndarray) -> Tensor:
        """Encode one padded clip, a few frames at a time; return [D, F]."""
        encoder, config = self._codec.encoder, self._codec.config
        assert isinstance(encoder, Encoder)
        if self._folded is None:
            self._folded = FoldedEncoder(encoder)
        shapes = encoder_history_shapes(config)
        past = zero_histories(shapes, 1, True, torch.float32, torch.device("cpu"))
        parts = []
        for part in torch.from_numpy(samples)[None, None].split(_CHUNK_FRAMES * config.hop_length, dim=2):
            histories = Histories(past)
            parts.append(self._folded(part, histories))
            past = histories.state()
        return torch.cat(parts, dim=2)[0]


def codec_digest(codec: AudioVAE) -> str:
    """Return a short hash of the encoder's weights, so that latents of different encoders never mix. The decoder may be trained
    further without changing it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.encoder.state_dict().items()):
        digest.update(f"encoder.{name}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def latent_form(codec: AudioVAE, patch_size: int) -> LatentForm:
    """Return the form in which the codec's latents are stored."""
    return LatentForm(codec_digest(codec), patch_size, codec.config.latent_dim)


def to_bits(latents: Tensor) -> np.ndarray:
    """Round float32 [A, P, D] to bfloat16; return its bits as uint16 [A, P, D]."""
    return latents.to(torch.bfloat16).view(torch.uint16).numpy()


def from_bits(bits: np.ndarray) -> Tensor:
    """Convert bfloat16 bits, uint16 [A, P, D], to float32."""
    return torch.from_numpy(bits.copy()).view(torch.bfloat16).float()
