"""Names and shapes of every tensor: the golden checkpoint's, and the published 2B model's counts."""

from __future__ import annotations

import json

import torch
from voxcpm_fixtures import GoldenSet

from voxcpm.model.backbone import VoxCPM2
from voxcpm.presets import published_config
from voxcpm.weights.checkpoint import build_codec


def test_every_key_and_shape(golden_set: GoldenSet, golden_backbone: VoxCPM2) -> None:
    wanted = json.loads((golden_set.folder / "state_dict_shapes.json").read_text(encoding="utf-8"))
    ours = {name: list(tensor.shape) for name, tensor in golden_backbone.state_dict().items()}
    codec = build_codec(golden_backbone.config)
    ours |= {f"audio_vae.{name}": list(tensor.shape) for name, tensor in codec.state_dict().items()}
    assert ours == wanted


def test_the_published_model_on_the_meta_device() -> None:
    model = VoxCPM2.from_config(published_config(), device="meta")
    tensors = model.state_dict()
    assert len(tensors) == 577
    assert sum(t.numel() for t in tensors.values()) == 2_290_004_544
    assert all(t.device.type == "meta" for t in tensors.values())

    def size(part: str) -> float:
        return sum(t.numel() for name, t in tensors.items() if name.startswith(part)) / 1e6

    parts = {"base_lm.": 1471.7, "residual_lm.": 377.5, "feat_encoder.": 207.7, "feat_decoder.": 212.0}
    for part, millions in parts.items():
        assert abs(size(part) - millions) < 0.06, part
    with torch.device("meta"):
        codec = build_codec(model.config)
    assert len(codec.state_dict()) == 312
    assert abs(sum(t.numel() for t in codec.state_dict().values()) / 1e6 - 94.2) < 0.06
