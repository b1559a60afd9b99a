"""Encode clips to whole patches, and decode patches in one call or as a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from voxcpm.config import VoxCPM2Config

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE

Side = Literal["left", "right"]


def encode_clip(codec: AudioVAE, config: VoxCPM2Config, wav: Tensor, pad: Side) -> Tensor:
    """Encode [S] at the codec's input rate to [N, P, D] float32 on the CPU, zero-padded to whole patches on one side.

    References are padded on the right. Prompts are padded on the left, so that their speech extends to the first generated
    patch.
    """
    missing = -wav.shape[-1] % config.patch_samples
    wav = F.pad(wav.float(), (missing, 0) if pad == "left" else (0, missing))
    with torch.inference_mode():
        z = codec.encode(wav.view(1, 1, -1).to(codec.device))
    # Clone outside inference mode, so that a cache can be used in training later.
    return z[0].transpose(0, 1).reshape(-1, config.patch_size, config.feat_dim).float().cpu().clone()


def _latents(patches: Tensor, codec: AudioVAE) -> Tensor:
    """[n, P, D] -> [1, D, n*P] on the codec's device."""
    return patches.reshape(1, -1, patches.shape[-1]).transpose(1, 2).to(device=codec.device, dtype=torch.float32)


def decode_patches(codec: AudioVAE, config: VoxCPM2Config, patches: Tensor, context: Tensor) -> Tensor:
    """Decode patches [n, P, D] that follow the context [C, P, D] to [n * samples per patch] float32 on the CPU.

    The context is decoded with them, and its audio is cut off.
    """
    with torch.inference_mode():
        wav = codec.decode(_latents(torch.cat((context.to(patches), patches)), codec))
    return wav[0, 0, len(context) * config.out_patch_samples :].float().cpu().clone()


class PatchStream:
    """A decoder of patches as they arrive: the same audio as `decode_patches`, one patch at a time.

    The context is decoded first to set the state. `cold=True` starts from zeros, as the official code does. In a
    continuation, the first 0.8 s then differ from the non-streaming audio.
    """

    def __init__(self, codec: AudioVAE, context: Tensor, cold: bool = False) -> None:
        self.codec = codec
        with torch.inference_mode():
            warm = len(context) > 0 and not cold
            self.state = codec.warm_state(_latents(context, codec)) if warm else codec.init_decoder_state(batch=1)

    def push(self, patches: Tensor) -> Tensor:
        """Decode the next patches [n, P, D] to [n * samples per patch] float32 on the CPU."""
        with torch.inference_mode():
            wav, self.state = self.codec.decode_stream(_latents(patches, self.codec), self.state)
        return wav[0, 0].float().cpu().clone()
