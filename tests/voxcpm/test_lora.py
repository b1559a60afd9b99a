"""LoRA adapters: which linears, the scale, saving, loading, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensor_closeness import assert_close
from tiny_voxcpm import tiny_model

from voxcpm.errors import CheckpointError
from voxcpm.weights.lora import (
    LoRAConfig,
    LoRALinear,
    adapters,
    apply_lora,
    load_lora,
    lora_state_dict,
    merge_lora,
    remove_lora,
    save_lora,
)

ALL = LoRAConfig(enable_lm=True, enable_dit=True, enable_proj=True, r=3, alpha=6)


def randomised(seed: int = 0):  # type: ignore[no-untyped-def]
    model = tiny_model()
    apply_lora(model, ALL)
    g = torch.Generator().manual_seed(seed)
    for tensor in lora_state_dict(model).values():
        tensor.normal_(0, 0.1, generator=g)
    return model


def test_which_linears_and_what_trains() -> None:
    model = tiny_model()
    names = apply_lora(model, ALL, train=True)
    assert not [n for n in names if n.startswith("feat_encoder")]
    assert {n.split(".")[0] for n in names} == {
        "base_lm", "residual_lm", "feat_decoder", "enc_to_lm_proj", "lm_to_dit_proj", "res_to_dit_proj", "fusion_concat_proj"
    }  # fmt: skip
    assert {n.rsplit(".", 1)[-1] for n in names if n.startswith("base_lm")} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{n}.{part}" for n in names for part in ("lora_A", "lora_B")}
    with pytest.raises(ValueError, match="reaches no layer"):
        apply_lora(model, LoRAConfig())


def test_a_fresh_adapter_changes_nothing_and_shares_weights() -> None:
    model = tiny_model()
    x = torch.randn(2, 3, 32)
    before, weight = model.fusion_concat_proj(torch.cat((x, x), -1)), model.fusion_concat_proj.weight
    apply_lora(model, ALL)
    assert model.fusion_concat_proj.weight is weight
    assert torch.equal(model.fusion_concat_proj(torch.cat((x, x), -1)), before)
    remove_lora(model)
    assert type(model.fusion_concat_proj) is torch.nn.Linear and not adapters(model)


def test_scale_merge_and_dropout_on_the_output() -> None:
    model = randomised()
    linear = model.lm_to_dit_proj
    assert isinstance(linear, LoRALinear) and linear.scale == 2.0
    x = torch.randn(4, 32)
    with torch.no_grad():
        y = linear(x)
        base = torch.nn.functional.linear(x, linear.weight, linear.bias)
        assert_close(y, base + (x @ linear.lora_A.T @ linear.lora_B.T) * 2.0, 1e-5)
        linear.dropout = 0.5
        linear.train()
        # What is dropped is elements of B A x, so an output is either the base's or has the added part doubled.
        added = linear(x) - base
        whole = (y - base) * 2
        assert bool((torch.isclose(added, whole, atol=1e-5) | (added.abs() < 1e-6)).all()) and bool(
            (added.abs() < 1e-6).any()
        )
        linear.dropout = 0.0
        merge_lora(model)
        assert_close(model.lm_to_dit_proj(x), y, 1e-5)


def test_save_and_load(tmp_path: Path) -> None:
    model = randomised(3)
    save_lora(tmp_path, model, ALL, "base")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lora_config.json", "lora_weights.safetensors"]
    other = tiny_model()
    # The folder's own rank and scale count, whatever the caller believes.
    loaded, skipped = load_lora(other, tmp_path, LoRAConfig(enable_lm=True, r=8, alpha=1))
    assert not skipped and set(loaded) == set(lora_state_dict(model))
    for name, tensor in lora_state_dict(model).items():
        assert torch.equal(lora_state_dict(other)[name], tensor)
    tensors = load_file(tmp_path / "lora_weights.safetensors")
    save_file({**tensors, "elsewhere.lora_A": torch.zeros(1)}, tmp_path / "lora_weights.safetensors")
    assert load_lora(other, tmp_path)[1] == ["elsewhere.lora_A"]
    settings = json.loads((tmp_path / "lora_config.json").read_text())
    settings["lora_config"]["r"] = 5
    (tmp_path / "lora_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="rank 5"):
        load_lora(other, tmp_path)
    (tmp_path / "lora_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no lora_config\.json"):
        load_lora(tiny_model(), tmp_path)
    with pytest.raises(FileNotFoundError):
        load_lora(other, tmp_path / "nowhere")
