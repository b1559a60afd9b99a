"""The linears of training on a CPU: torch's own values and gradients, the same names, no trace in a checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from train_runs import Runs

from trainer.config import TrainConfig
from trainer.step import Stepper
from voxcpm.kernels import trainable_linear
from voxcpm.kernels.trainable_linear import TrainableLinear, use_cpu_linears
from voxcpm.sequence.training_batch import TrainingNoise
from voxcpm.sequence.training_rows import lay_out_sample, pack_rows
from voxcpm.weights.checkpoint import load_backbone


def served() -> bool:
    return use_cpu_linears(nn.Sequential(nn.Linear(2, 2))) == 1


needs_onednn = pytest.mark.skipif(not served(), reason="torch has no oneDNN linear for this processor")


@needs_onednn
@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(1,), (7,), (2, 5), (3, 1, 4), (2, 11)]),
    inner=st.integers(1, 70),
    outer=st.integers(1, 70),
    bias=st.booleans(),
    frozen=st.booleans(),
    transposed=st.booleans(),
)
def test_values_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], inner: int, outer: int, bias: bool, frozen: bool, transposed: bool
) -> None:
    torch.manual_seed(inner * 71 + outer)
    plain = nn.Linear(inner, outer, bias=bias)
    plain.weight.requires_grad_(not frozen)
    other = nn.Linear(inner, outer, bias=bias)
    other.load_state_dict(plain.state_dict())
    other.weight.requires_grad_(not frozen)
    assert use_cpu_linears(other) == 1 and isinstance(other, TrainableLinear)
    x = torch.randn(*shape, inner)
    if transposed:  # as attention's output is: not contiguous
        x = torch.randn(inner, *shape).movedim(0, -1)
    inputs = [x.clone().requires_grad_() if not transposed else x.detach().requires_grad_() for _ in range(2)]
    weights = torch.randn(*shape, outer)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainable_linear, "LEAST_PRODUCTS", 1)
        outputs = [module(value) for module, value in zip((plain, other), inputs, strict=True)]
    assert type(outputs[1].grad_fn).__name__ == "_ProductBackward"
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-5, atol=1e-5)
    for own, theirs in zip(other.parameters(), plain.parameters(), strict=True):
        assert (own.grad is None) == (theirs.grad is None)
        if own.grad is not None and theirs.grad is not None:
            assert own.grad.shape == own.shape
            torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-5, atol=1e-5)


@needs_onednn
def test_a_model_keeps_its_names_losses_and_gradients(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable_linear, "LEAST_PRODUCTS", 1)
    model = load_backbone(golden / "checkpoint", dtype="float32").train().requires_grad_(True)
    names = list(model.state_dict())
    dice = torch.Generator().manual_seed(3)
    shape = (model.config.patch_size, model.config.feat_dim)
    rows = [[lay_out_sample(range(5, 25), torch.randn(n, *shape, generator=dice)) for n in (6, 9)]]
    batch = pack_rows(rows)
    noise = TrainingNoise.draw((1, batch.text_tokens.shape[1]), shape, dice)

    def run() -> tuple[float, dict[str, torch.Tensor]]:
        model.zero_grad()
        losses = model.training_losses(batch, noise)
        (losses.diffusion + losses.stop).backward()
        return losses.diffusion.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    before, wanted = run()
    assert use_cpu_linears(model) > 20
    after, got = run()
    assert list(model.state_dict()) == names
    assert after == pytest.approx(before, rel=1e-5)
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (got[name] - gradient).abs().max() <= 1e-4 * max(1.0, float(gradient.abs().max())), name
    with torch.autocast("cpu", torch.bfloat16):
        assert model.training_losses(batch, noise).diffusion.item() == pytest.approx(before, rel=2e-2)


@needs_onednn
def test_small_products_are_left_to_torch() -> None:
    """oneDNN would compile a kernel for each number of rows."""
    linear = nn.Linear(512, 512)
    use_cpu_linears(linear)
    kinds = [type(linear(torch.ones(rows, 512)).grad_fn).__name__ for rows in (63, 64)]
    assert kinds == ["AddmmBackward0", "_ProductBackward"]


def test_adapters_and_other_linears_are_left_alone() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(Own(3, 3), nn.Linear(3, 3, dtype=torch.bfloat16), nn.Embedding(3, 3))
    assert use_cpu_linears(model) == 0
    assert type(model[0]) is Own and type(model[1]) is nn.Linear


@needs_onednn
@pytest.mark.parametrize(("changes", "used"), [({}, True), ({"dtype": "bfloat16"}, False), ({"compile": True}, False)])
def test_steps_on_a_cpu_in_float32_take_them(
    golden: Path, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], used: bool
) -> None:
    monkeypatch.setattr("trainer.step.is_quicker_here", lambda: True)
    config: TrainConfig = runs.config(tmp_path, **changes)
    model = load_backbone(golden / "checkpoint", dtype="float32")
    Stepper(config, SimpleNamespace(model=model, config=model.config), None, torch.device("cpu"))  # type: ignore[arg-type]
    assert any(isinstance(module, TrainableLinear) for module in model.modules()) == used


def test_none_on_a_processor_whose_blas_is_quicker(
    golden: Path, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.step.is_quicker_here", lambda: False)
    model = load_backbone(golden / "checkpoint", dtype="float32")
    Stepper(runs.config(tmp_path), SimpleNamespace(model=model, config=model.config), None, torch.device("cpu"))  # type: ignore[arg-type]
    assert not any(isinstance(module, TrainableLinear) for module in model.modules())
