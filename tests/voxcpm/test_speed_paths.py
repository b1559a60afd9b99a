"""The CPU's inference forms of the backbone: packed linears change no golden number, int8 linears little."""

from __future__ import annotations

import copy
import platform

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensor_closeness import assert_close
from test_golden_generation import TOLERANCE, stored_layout
from tiny_voxcpm import tiny_model
from torch import nn
from voxcpm_fixtures import GoldenSet

from voxcpm.engine.batch import generate_patches
from voxcpm.engine.lanes import lanes_for
from voxcpm.engine.loop import GenerationLoop
from voxcpm.engine.request import GenerationRequest, admit
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.kernels.int8_linear import is_quantised, quantise_towers
from voxcpm.kernels.packed_linear import (
    PackedLinear,
    _onednn_serves,
    pack_linears,
    round_rows,
    rounded_rows,
    unpack_linears,
)
from voxcpm.model.attention import CAUSAL
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.decode_state import KVCache
from voxcpm.model.flow import Solver
from voxcpm.model.tower import Tower
from voxcpm.weights.checkpoint import load_backbone
from voxcpm.weights.lora import LoRAConfig, LoRALinear, apply_lora, merge_lora, remove_lora

needs_kernel = pytest.mark.skipif(not _onednn_serves(torch.zeros(1, 1)), reason="no oneDNN linears on this processor")
needs_int8 = pytest.mark.skipif(
    not {"x86", "fbgemm"} & set(torch.backends.quantized.supported_engines), reason="no int8 linears on this processor"
)
#: Relative distance of a six-patch run in int8 from float32. Measured on the golden checkpoint's six layouts: 0.034 to 0.061,
#: single patches up to 0.12. No requirement, a guard against a kernel that breaks (saturating sums, a wrong scale).
INT8_DISTANCE = 0.1


@pytest.fixture(scope="module")
def packed(golden_set: GoldenSet) -> VoxCPM2:
    model = pack_linears(load_backbone(golden_set.checkpoint, "float32"))
    assert isinstance(model, VoxCPM2)
    return model


def first_q_proj(model: VoxCPM2) -> nn.Module:
    return model.base_lm.get_submodule("layers.0.self_attn.q_proj")


def six_patches(model: VoxCPM2, golden_set: GoldenSet, mode: str) -> torch.Tensor:
    noise = golden_set["generation"][f"{mode}.noise"]
    n = len(noise)
    request = GenerationRequest(stored_layout(golden_set, mode), min_len=n, max_len=n, noise=lambda i: noise[i, 0].T)
    return generate_patches(model, [request])[0].patches


@needs_kernel
def test_every_linear_is_packed_and_the_state_dict_is_the_same(packed: VoxCPM2, golden_backbone: VoxCPM2) -> None:
    assert not [name for name, module in packed.named_modules() if isinstance(module, nn.Linear)]
    own, plain = packed.state_dict(), golden_backbone.state_dict()
    assert list(own) == list(plain)
    for name, value in plain.items():
        assert torch.equal(own[name], value), name


@pytest.mark.parametrize("mode", ["basic", "ref_continuation"])
def test_packed_generation(packed: VoxCPM2, golden_set: GoldenSet, mode: str) -> None:
    assert_close(six_patches(packed, golden_set, mode), golden_set["generation"][f"{mode}.patches"], TOLERANCE)


@pytest.mark.usefixtures("no_gradients")
def test_packed_flow(packed: VoxCPM2, golden_backbone: VoxCPM2, golden_set: GoldenSet) -> None:
    cfm = golden_set["cfm"]
    given = cfm["mu"], cfm["cond"].transpose(1, 2), cfm["noise"].transpose(1, 2)
    for cfg in (1.0, 2.0):
        own, plain = (model.feat_decoder.solve(*given, cfg, Solver()) for model in (packed, golden_backbone))
        assert_close(own, plain, 5e-4)


@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize("name", ["base_lm", "residual_lm"])
def test_packed_steps(packed: VoxCPM2, golden_set: GoldenSet, name: str) -> None:
    modules, tower = golden_set["modules"], packed.get_submodule(name)
    assert isinstance(tower, Tower)
    given, steps = modules[f"{name}_prefill_in"], modules[f"{name}_step_in"]
    length = given.shape[1]
    cache = KVCache(tower.config, 1, length + len(steps), torch.float32, "cpu")
    cache.prepare_fill([0], [length])
    assert_close(tower(given, CAUSAL, cache=cache), modules[f"{name}_prefill_out"], 1e-4)
    for i, step in enumerate(steps):
        position = torch.tensor([length + i])
        cache.prepare_step([length + i], position)
        assert_close(tower(step[None], CAUSAL, position[None], cache=cache)[0], modules[f"{name}_step_out"][i], 1e-4)


@needs_kernel
def test_packing_is_undone_and_survives_copies(no_gradients: None) -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = copy.deepcopy(pack_linears(model))
    assert isinstance(twin.stop_proj, PackedLinear)
    twin.load_state_dict({name: value + 1 for name, value in before.items()})
    assert torch.equal(twin.state_dict()["stop_proj.weight"], before["stop_proj.weight"] + 1)
    assert model.to(torch.bfloat16).dtype == torch.bfloat16
    unpack_linears(twin)
    assert all(torch.equal(twin.state_dict()[name], value + 1) for name, value in before.items())
    assert not any(isinstance(module, PackedLinear) for module in twin.modules())


@given(st.integers(1, 100_000))
def test_rounded_rows_cost_little(rows: int) -> None:
    rounded = round_rows(rows)
    assert rows <= rounded <= rows * 5 / 4
    assert round_rows(rounded) == rounded
    assert rows > 8 or rounded == rows


def test_rounded_rows_are_few() -> None:
    assert len({round_rows(rows) for rows in range(1, 2049)}) == 8 + 8 * 4


@needs_kernel
@pytest.mark.usefixtures("no_gradients")
@pytest.mark.parametrize("shape", [(33, 24), (1, 35, 24), (2, 19, 24), (0, 24), (3, 0, 24)])
def test_rounded_rows_change_no_product(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(24, 40)
    x = torch.randn(shape)
    with rounded_rows():
        torch.testing.assert_close(PackedLinear(plain.weight, plain.bias)(x), plain(x), atol=1e-5, rtol=0)


@needs_kernel
def test_a_prefill_rounds_and_a_step_does_not(golden_set: GoldenSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each length of a text leaves its own kernels in the memory of a server."""
    model = pack_linears(load_backbone(golden_set.checkpoint, "float32"))
    assert isinstance(model, VoxCPM2)
    rows: list[int] = []
    product = PackedLinear._product

    def counted(self: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        rows.append(x.numel() // self.in_features)
        return product(self, x)

    monkeypatch.setattr(PackedLinear, "_product", counted)
    layout = stored_layout(golden_set, "ref_continuation")
    row = admit(model.config, 0, GenerationRequest(layout, min_len=2, max_len=2))
    loop = GenerationLoop(model, lanes_for(model, [row], 1))
    loop.join([row])
    assert layout.length > 16
    assert rows
    assert all(round_rows(count) == count for count in rows)
    rows.clear()
    loop.step()
    per_pass = 2 * (3 + 2 * model.config.patch_size)
    assert per_pass in rows, "LocDiT's two rows of guidance are computed as they are"


@needs_kernel
def test_packed_linears_refuse_gradients() -> None:
    model = pack_linears(tiny_model())
    assert isinstance(model, VoxCPM2)
    with pytest.raises(RuntimeError, match="unpack_linears"):
        model.stop_proj(torch.ones(1, 32, requires_grad=True))


@needs_kernel
def test_adapters_on_packed_linears() -> None:
    model = pack_linears(tiny_model())
    assert isinstance(model, VoxCPM2)
    config = LoRAConfig(enable_lm=True, enable_dit=True, r=2)
    packed_before = first_q_proj(model)
    apply_lora(model, config)
    assert not any(key.endswith("_base") for key in model.state_dict())
    remove_lora(model)
    assert first_q_proj(model) is packed_before
    apply_lora(model, config)
    adapted = first_q_proj(model)
    assert isinstance(adapted, LoRALinear)
    with torch.no_grad():
        adapted.lora_B.normal_()
    x = torch.randn(3, 32)
    with torch.no_grad():
        wanted = adapted(x)
        merge_lora(model)
        merged = first_q_proj(model)
        assert isinstance(merged, PackedLinear)
        assert_close(merged(x), wanted, 1e-4)
    apply_lora(model, config, train=True)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


@needs_int8
def test_int8_stays_near_float32(golden_set: GoldenSet) -> None:
    model = quantise_towers(load_backbone(golden_set.checkpoint, "float32"))
    assert isinstance(model, VoxCPM2)
    assert is_quantised(model)
    stored = golden_set["generation"]["reference.patches"]
    off = six_patches(model, golden_set, "reference") - stored
    distance = float(off.norm() / stored.norm())
    assert 0 < distance < INT8_DISTANCE, distance
    with pytest.raises(RuntimeError, match="not saved"):
        model.state_dict()
    with pytest.raises(ValueError, match="int8"):
        apply_lora(model, LoRAConfig(enable_lm=True))
    with pytest.raises(RuntimeError, match="stays on the CPU"):
        model.to(torch.bfloat16)


@pytest.mark.parametrize(("supported", "dtype", "warned"), [(False, "bfloat16", True), (True, "bfloat16", False),
                                                            (False, "float32", False)])  # fmt: skip
def test_a_processor_without_bfloat16_is_said(
    golden_set: GoldenSet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    supported: bool, dtype: str, warned: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported, raising=False)
    VoxCPM2Model.from_local(golden_set.checkpoint, device="cpu", dtype=dtype, optimize=False)
    assert ("float32 is two to three times as fast" in caplog.text) == warned
