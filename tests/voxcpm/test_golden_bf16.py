"""bfloat16 weights: the exact mode against the reference's bfloat16 (grid and sinusoid exactly, the rest within 0.05)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import torch
from tensor_closeness import assert_close, worst
from voxcpm_fixtures import GoldenSet

from voxcpm.model.attention import CAUSAL
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.flow import Solver, time_grid, time_steps
from voxcpm.model.locdit import sinusoid
from voxcpm.weights.checkpoint import load_backbone

pytestmark = pytest.mark.usefixtures("no_gradients")
LOOSE = 0.05


@pytest.fixture(scope="module")
def model(golden_set: GoldenSet) -> VoxCPM2:
    backbone = load_backbone(golden_set.checkpoint, "bfloat16")
    backbone.set_exact(True)
    return backbone


@pytest.fixture
def reference(golden_set: GoldenSet) -> Mapping[str, torch.Tensor]:
    return golden_set["bf16_reference"]


def assert_loose(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Within 0.05 of the tensor's largest value (a bfloat16 has steps of 0.016 between 2 and 4)."""
    assert_close(got, wanted, LOOSE * max(1.0, float(wanted.abs().max())))


def test_grid_times_and_sinusoid_are_exact(model: VoxCPM2, reference: Mapping[str, torch.Tensor]) -> None:
    width = model.feat_decoder.estimator.width
    for name in [n for n in reference if n.startswith("t_span_n")]:
        steps = int(name.removeprefix("t_span_n"))
        assert torch.equal(time_grid(steps, 1.0, torch.bfloat16), reference[name])
        seen = reference[f"t_seen_n{steps}"]
        times, _ = time_steps(steps, 1.0, torch.bfloat16)
        assert torch.equal(torch.tensor(times, dtype=torch.bfloat16)[-len(seen) :], seen)
        assert torch.equal(sinusoid(seen, width), reference[f"time_sinusoid_n{steps}"])


def test_modules(model: VoxCPM2, reference: Mapping[str, torch.Tensor], golden_set: GoldenSet) -> None:
    given = {name: golden_set["modules"][name].to(torch.bfloat16) for name in golden_set["modules"]}
    assert_loose(model.feat_encoder(given["locenc_in"]), reference["locenc_out"])
    for name in ("base_lm", "residual_lm"):
        assert_loose(model.get_submodule(name)(given[f"{name}_prefill_in"], CAUSAL), reference[f"{name}_prefill_out"])
    t = given["locdit_t"]
    out = model.feat_decoder.estimator(
        given["locdit_x"], given["locdit_mu"], t, given["locdit_cond"], torch.zeros_like(t)
    )
    assert_loose(out, reference["locdit_out_dt0"])


def test_solutions_and_the_better_default(
    model: VoxCPM2, reference: Mapping[str, torch.Tensor], golden_set: GoldenSet
) -> None:
    cfm = golden_set["cfm"]
    mu, cond, noise = (cfm[n].to(torch.bfloat16) for n in ("mu", "cond", "noise"))
    cond, noise = cond.transpose(1, 2), noise.transpose(1, 2)
    ours, theirs = [], []
    for name in [n for n in reference if n.startswith("cfm_out_")]:
        steps, cfg = re.match(r"cfm_out_n(\d+)_cfg([\d.]+)$", name).groups()  # type: ignore[union-attr]

        def solve(steps: str = steps, cfg: str = cfg) -> torch.Tensor:
            return model.feat_decoder.solve(mu, cond, noise, float(cfg), Solver(int(steps))).transpose(1, 2)

        assert_loose(solve(), reference[name])
        full = cfm[f"out_n{steps}_cfg{cfg}_zero1_sway1"]
        model.set_exact(False)
        try:
            ours.append(worst(solve(), full))
        finally:
            model.set_exact(True)
        theirs.append(worst(reference[name], full))
    # With float32 times a bfloat16 model is nearer to the float32 one than with the reference's habits.
    assert sum(ours) < 0.8 * sum(theirs), (ours, theirs)
