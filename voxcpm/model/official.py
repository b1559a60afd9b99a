"""The model's parts with the official constructors and calls, for converters (ONNX, TensorRT, MLX) that build them one by one.

State dicts have the keys of the checkpoint. Nothing of ours uses them: see voxcpm.official.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxcpm.config import CFMConfig, LMConfig, RopeScaling, TowerConfig, VoxCPM2Config
from voxcpm.model.attention import CAUSAL, FULL
from voxcpm.model.decode_state import KVCache
from voxcpm.model.flow import FlowMatching
from voxcpm.model.locdit import LocDiT
from voxcpm.model.locenc import LocEnc
from voxcpm.model.tower import Tower


@dataclass(frozen=True, kw_only=True)
class MiniCPM4Config(LMConfig):
    """A tower's sizes, made of the fields of `lm_config` in config.json; `rope_scaling` may be a dict."""

    def __post_init__(self) -> None:
        if isinstance(self.rope_scaling, Mapping):
            object.__setattr__(self, "rope_scaling", RopeScaling.from_dict(self.rope_scaling, "rope_scaling"))


def _tower(config: LMConfig) -> TowerConfig:
    return VoxCPM2Config(lm_config=config).tslm


class MiniCPMModel(Tower):
    """A tower that also returns its keys and values, and then continues step by step."""

    kv_cache: _StepCache | None = None  #: see `setup_cache`

    def __init__(self, config: LMConfig) -> None:
        super().__init__(_tower(config))

    def forward(  # type: ignore[override]
        self, inputs_embeds: Tensor, is_causal: bool = True
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """[B, T, H] -> ([B, T, H], keys and values of every layer, each [B, K, T, hd])."""
        kept = _KeptCache()
        hidden = super().forward(inputs_embeds, CAUSAL if is_causal else FULL, cache=kept)
        return hidden, kept.layers

    def setup_cache(self, batch_size: int, max_length: int, device: torch.device | str, dtype: torch.dtype) -> None:
        """Allocate `kv_cache` for `forward_step`; what `forward` returned goes into its `fill_caches`."""
        self.kv_cache = _StepCache(self.config, batch_size, max_length, dtype, device)

    def forward_step(self, inputs_embeds: Tensor, position_id: Tensor | int) -> Tensor:
        """Run the next position, `kv_cache.step()`, of every row: [B, H] -> [B, H]. Raises ValueError without a cache."""
        if self.kv_cache is None:
            raise ValueError("forward_step needs a cache: call setup_cache first")
        rows, position = len(inputs_embeds), int(position_id)
        positions = torch.full((rows,), position, device=inputs_embeds.device)
        self.kv_cache.prepare_step([position] * rows, positions)
        hidden = super().forward(inputs_embeds.unsqueeze(1), CAUSAL, positions.unsqueeze(1), cache=self.kv_cache)
        return hidden[:, 0]


class _StepCache(KVCache):
    """A cache whose rows all have the same length."""

    current_length = 0

    def fill_caches(self, kv_caches: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Start with keys and values [B, K, T, hd] of every layer."""
        self.current_length = kv_caches[0][0].shape[2]
        for layer, (k, v) in enumerate(kv_caches):
            self.k[layer, :, :, : self.current_length] = k
            self.v[layer, :, :, : self.current_length] = v

    def step(self) -> int:
        """Return the next position and count it. Raises ValueError if the cache is full."""
        if self.current_length >= self.k.shape[3]:
            raise ValueError(f"the cache of {self.k.shape[3]} positions is full")
        self.current_length += 1
        return self.current_length - 1


class _KeptCache(KVCache):
    """Keeps the keys and values of one pass as they are."""

    def __init__(self) -> None:
        self.stepping = self.extending = False
        self.layers: list[tuple[Tensor, Tensor]] = []

    def fill(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store the keys and values [B, K, T, hd] of a layer."""
        self.layers.append((k, v))


class VoxCPMLocEnc(LocEnc):
    """LocEnc for frames of `input_dim`."""

    def __init__(self, config: LMConfig, input_dim: int = 64) -> None:
        super().__init__(_tower(config), input_dim)


class VoxCPMLocDiTV2(LocDiT):
    """LocDiT for frames of `in_channels`."""

    def __init__(self, config: LMConfig, in_channels: int = 64) -> None:
        super().__init__(_tower(config), in_channels)


class UnifiedCFM(FlowMatching):
    """The flow around a given estimator."""

    def __init__(self, in_channels: int, cfm_params: CFMConfig, estimator: LocDiT, mean_mode: bool = False) -> None:
        nn.Module.__init__(self)
        self.estimator, self.config, self.mean_mode, self.exact = estimator, cfm_params, mean_mode, False
