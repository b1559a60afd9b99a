"""The model's parts with the official constructors and calls, for converters (ONNX, TensorRT, MLX) that build them one by one.

State dicts have the keys of the checkpoint. Nothing of ours uses them: see voxcpm.official.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    """A tower that also returns its keys and values."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__(_tower(config))

    def forward(  # type: ignore[override]
        self, inputs_embeds: Tensor, is_causal: bool = True
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """[B, T, H] -> ([B, T, H], keys and values of every layer, each [B, K, T, hd])."""
        kept = _KeptCache()
        hidden = super().forward(inputs_embeds, CAUSAL if is_causal else FULL, cache=kept)
        return hidden, kept.layers


class _KeptCache(KVCache):
    """Keeps the keys and values of one pass as they are."""

    def __init__(self) -> None:
        self.stepping = False
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
