"""`tts_model` as the official package has it: a module whose children and small attributes have the official names.

Code around the official model reads them: servers (vLLM-Omni's talker takes 22), converters, training scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from voxcpm.model.backbone import VoxCPM2
from voxcpm.sequence.prompt_layout import AUDIO_END, AUDIO_START, REFERENCE_END, REFERENCE_START

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE
    from voxcpm.config import VoxCPM2Config


class TTSModule(nn.Module):
    """The children of a backbone and its codec in one module, under the names of the official checkpoint's keys.

    `backbone` is the same model without the codec. A child that is replaced in one of the two is replaced in both.
    """

    audio_start_token = AUDIO_START
    audio_end_token = AUDIO_END
    ref_audio_start_token = REFERENCE_START
    ref_audio_end_token = REFERENCE_END
    backbone: VoxCPM2
    audio_vae: AudioVAE
    stop_actn: nn.Module

    def __init__(self, backbone: VoxCPM2, audio_vae: AudioVAE) -> None:
        super().__init__()
        # Not a registered child: the state dict would hold its tensors twice.
        self.__dict__["backbone"] = backbone
        self.audio_vae = audio_vae
        self.stop_actn = nn.SiLU()
        self.training = backbone.training

    @property  # type: ignore[override]
    def _modules(self) -> MutableMapping[str, nn.Module | None]:
        """The registered children: the backbone's, then this module's."""
        own: dict[str, nn.Module | None] = self.__dict__["_modules"]
        backbone = self.__dict__.get("backbone")
        return own if backbone is None else _Children(backbone._modules, own)

    @_modules.setter
    def _modules(self, value: dict[str, nn.Module | None]) -> None:
        self.__dict__["_modules"] = value

    def __getattr__(self, name: str) -> Any:
        backbone = self.__dict__.get("backbone")
        if backbone is not None and name in backbone._modules:
            return backbone._modules[name]
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        backbone = self.__dict__.get("backbone")
        if backbone is not None and name in backbone._modules:
            setattr(backbone, name, value)
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Apply `.to()` and its like. The codec changes its device only: it computes in float32."""

        def in_its_dtype(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            return made if made.dtype == tensor.dtype else tensor.to(made.device)

        for name, child in self.named_children() if recurse else ():
            child._apply(in_its_dtype if name == "audio_vae" else fn)
        return super()._apply(fn, recurse=False)  # type: ignore[no-untyped-call]

    @property
    def config(self) -> VoxCPM2Config:
        """The checkpoint's config."""
        return self.backbone.config

    @property
    def patch_size(self) -> int:
        """Latent frames per patch, P."""
        return self.config.patch_size

    @property
    def feat_dim(self) -> int:
        """Width of a latent frame, D."""
        return self.config.feat_dim

    @property
    def sample_rate(self) -> int:
        """Sample rate of the output audio, Hz."""
        return self.config.out_sample_rate

    @property
    def _encode_sample_rate(self) -> int:
        """Sample rate of the clips that the codec encodes, Hz."""
        return self.config.sample_rate

    @property
    def chunk_size(self) -> int:
        """Input samples per latent frame."""
        return self.audio_vae.chunk_size

    @property
    def _decode_chunk_size(self) -> int:
        """Output samples per latent frame."""
        return self.audio_vae.decode_chunk_size

    @property
    def lora_config(self) -> Any:
        """The `LoRAConfig` of the adapters, None without adapters."""
        return self.backbone.lora_config

    def _make_ref_prefix(self, ref_feat: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the start of a sequence with a reference [R, P, D]: its start token, its patches, its end token.

        Tokens [R+2] int32, features [R+2, P, D] float32 (zeros at tokens), text mask and audio mask [R+2] int32.
        """
        count = len(ref_feat)
        tokens, audio_mask = torch.zeros(2, count + 2, dtype=torch.int32, device=device).unbind()
        tokens[0], tokens[-1] = REFERENCE_START, REFERENCE_END
        audio_mask[1:-1] = 1
        features = torch.zeros(count + 2, self.patch_size, self.feat_dim, device=device)
        features[1:-1] = ref_feat.to(features)
        return tokens, features, 1 - audio_mask, audio_mask


class _Children(MutableMapping[str, "nn.Module | None"]):
    """Two dicts of children as one. A child is set and deleted where it is; a new one is set in the second."""

    def __init__(self, first: dict[str, nn.Module | None], second: dict[str, nn.Module | None]) -> None:
        self._first, self._second = first, second

    def _home(self, name: str) -> dict[str, nn.Module | None]:
        return self._first if name in self._first else self._second

    def __getitem__(self, name: str) -> nn.Module | None:
        return self._home(name)[name]

    def __setitem__(self, name: str, child: nn.Module | None) -> None:
        self._home(name)[name] = child

    def __delitem__(self, name: str) -> None:
        del self._home(name)[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._first
        yield from self._second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)
