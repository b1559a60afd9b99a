"""Every module of the backbone against the reference's numbers (tolerance 1e-4)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from tensor_closeness import assert_close
from torch import Tensor
from voxcpm_fixtures import GoldenSet

from voxcpm.model.attention import CAUSAL, PassContext
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.decode_state import KVCache
from voxcpm.model.layers import rotary, signed
from voxcpm.model.locdit import sinusoid
from voxcpm.model.tower import Block, Tower

TOLERANCE = 1e-4
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def modules(golden_set: GoldenSet) -> Mapping[str, Tensor]:
    return golden_set["modules"]


@pytest.fixture
def model(golden_backbone: VoxCPM2) -> VoxCPM2:
    return golden_backbone


def test_locenc_and_its_projection(model: VoxCPM2, modules: Mapping[str, Tensor]) -> None:
    given = modules["locenc_in"]
    out = model.feat_encoder(given)
    assert_close(out, modules["locenc_out"], TOLERANCE)
    assert_close(model.enc_to_lm_proj(out), modules["enc_to_lm_out"], TOLERANCE)
    assert_close(model.embed_patches(given.flatten(0, 1)), modules["enc_to_lm_out"].flatten(0, 1), TOLERANCE)


def test_fsq_levels_and_output(model: VoxCPM2, modules: Mapping[str, Tensor]) -> None:
    scale = model.config.scalar_quantization_scale
    latent = model.fsq_layer.quantise(modules["fsq_in"])
    assert_close(latent, modules["fsq_latent"], 1e-6)
    assert_close(latent * scale, (latent * scale).round(), 1e-5)
    assert_close(model.fsq_layer(modules["fsq_in"]), modules["fsq_out"], TOLERANCE)


def test_fsq_passes_gradients_straight_through(model: VoxCPM2, modules: Mapping[str, Tensor]) -> None:
    with torch.enable_grad():
        given = modules["fsq_in"].clone().requires_grad_(True)
        (model.fsq_layer(given) * modules["fsq_grad_weight"]).sum().backward()
    assert given.grad is not None
    assert_close(given.grad, modules["fsq_grad_in"], TOLERANCE)


@pytest.mark.parametrize("name", ["base_lm", "residual_lm"])
def test_language_model_prefill_cache_and_steps(model: VoxCPM2, modules: Mapping[str, Tensor], name: str) -> None:
    tower = model.get_submodule(name)
    assert isinstance(tower, Tower)
    given, steps = modules[f"{name}_prefill_in"], modules[f"{name}_step_in"]
    length = given.shape[1]
    cache = KVCache(tower.config, 1, length + len(steps), torch.float32, "cpu")
    cache.prepare_fill([0], [length])
    assert_close(tower(given, CAUSAL, cache=cache), modules[f"{name}_prefill_out"], TOLERANCE)
    for layer in range(tower.config.layers):
        assert_close(cache.k[layer, :, :, :length], modules[f"{name}_prefill_k{layer}"], TOLERANCE)
        assert_close(cache.v[layer, :, :, :length], modules[f"{name}_prefill_v{layer}"], TOLERANCE)
    for i, step in enumerate(steps):
        position = torch.tensor([length + i])
        cache.prepare_step([length + i], position)
        out = tower(step[None], CAUSAL, position[None], cache=cache)
        assert_close(out[0], modules[f"{name}_step_out"][i], TOLERANCE)


@pytest.mark.parametrize("name", ["base_lm", "residual_lm"])
def test_language_model_batch_and_first_block(model: VoxCPM2, modules: Mapping[str, Tensor], name: str) -> None:
    tower = model.get_submodule(name)
    assert isinstance(tower, Tower)
    given = modules[f"{name}_batch2_in"]
    assert_close(tower(given, CAUSAL), modules[f"{name}_batch2_out"], TOLERANCE)
    tables = rotary(tower.config, given.shape[1], given.device)
    context = PassContext(CAUSAL, tables and (tables[0], signed(tables[1])))
    block = tower.layers[0]
    assert isinstance(block, Block)
    normed = block.input_layernorm(given)
    assert_close(normed, modules[f"{name}_layer0_norm_out"], TOLERANCE)
    assert_close(block.self_attn(normed, context), modules[f"{name}_layer0_attn_out"], TOLERANCE)
    assert_close(block(given, context), modules[f"{name}_layer0_out"], TOLERANCE)


def test_longrope_tables(model: VoxCPM2, modules: Mapping[str, Tensor]) -> None:
    config = model.config.tslm
    first = modules["rope_cos_first12"].shape[0]
    tables = rotary(config, first, torch.device("cpu"))
    assert tables is not None
    cos, sin = tables
    assert_close(cos, modules["rope_cos_first12"], TOLERANCE)
    assert_close(sin, modules["rope_sin_first12"], TOLERANCE)
    last = torch.tensor([model.config.lm_config.max_position_embeddings - 1])
    tables = rotary(config, last, torch.device("cpu"))
    assert tables is not None
    cos, sin = tables
    assert_close(cos, modules["rope_cos_last"], TOLERANCE)
    assert_close(sin, modules["rope_sin_last"], TOLERANCE)
    with pytest.raises(IndexError):
        rotary(config, last + 1, torch.device("cpu"))


@pytest.mark.parametrize("step", ["dt0", "dt"])
def test_locdit_velocity(model: VoxCPM2, modules: Mapping[str, Tensor], step: str) -> None:
    t = modules["locdit_t"]
    dt = modules["locdit_dt"] if step == "dt" else torch.zeros_like(t)
    out = model.feat_decoder.estimator(modules["locdit_x"], modules["locdit_mu"], t, modules["locdit_cond"], dt)
    assert_close(out, modules[f"locdit_out_{step}"], TOLERANCE)


def test_time_embeddings(model: VoxCPM2, modules: Mapping[str, Tensor]) -> None:
    estimator = model.feat_decoder.estimator
    embedded = sinusoid(modules["locdit_t"], estimator.width)
    assert_close(embedded, modules["time_sinusoid"], TOLERANCE)
    assert_close(estimator.time_mlp(embedded), modules["time_mlp_out"], TOLERANCE)
    assert_close(
        estimator.delta_time_mlp(sinusoid(modules["locdit_dt"], estimator.width)),
        modules["delta_time_mlp_out"],
        TOLERANCE,
    )


def test_projections_and_stop_head(model: VoxCPM2, modules: Mapping[str, Tensor]) -> None:
    lm, heard = modules["fusion_in_lm"], modules["fusion_in_feat"]
    assert_close(model.fusion_concat_proj(torch.cat((lm, heard), -1)), modules["fusion_out"], TOLERANCE)
    assert_close(model.lm_to_dit_proj(lm), modules["lm_to_dit_out"], TOLERANCE)
    assert_close(model.res_to_dit_proj(heard), modules["res_to_dit_out"], TOLERANCE)
    assert_close(model.stop_logits(lm), modules["stop_logits"], TOLERANCE)
    both = torch.cat((modules["lm_to_dit_out"], model.res_to_dit_proj(heard)), -1)
    assert_close(model.condition(lm, heard), both, TOLERANCE)
