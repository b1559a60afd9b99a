"""The flow-matching solver against the reference's (tolerance 5e-4), for every setting in the file."""

from __future__ import annotations

import re

import pytest
import torch
from tensor_closeness import assert_close
from voxcpm_fixtures import GoldenSet

from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.flow import Solver, guidance_scale, time_grid

pytestmark = pytest.mark.usefixtures("no_gradients")
CASE = re.compile(
    r"out_n(?P<steps>\d+)_cfg(?P<cfg>[\d.]+)_zero(?P<zero>[01])_sway(?P<sway>(neg)?[\d.]+)"
    r"(_temp(?P<temperature>[\d.]+))?(?P<mean>_meanmode)?$"
)


def number(text: str) -> float:
    return -float(text[3:]) if text.startswith("neg") else float(text)


def test_every_solution(golden_set: GoldenSet, golden_backbone: VoxCPM2) -> None:
    cfm, flow = golden_set["cfm"], golden_backbone.feat_decoder
    settings = golden_set.meta["cfm_cases"]
    mu, cond, noise = cfm["mu"], cfm["cond"].transpose(1, 2), cfm["noise"].transpose(1, 2)
    names = [name for name in cfm if name.startswith("out_")]
    assert settings.keys() <= set(names) and names
    configured = flow.mean_mode
    for name in names:
        case = CASE.match(name)
        assert case, f"a setting this test does not know: {name}"
        solver = Solver(int(case["steps"]), number(case["sway"]), case["zero"] == "1", float(case["temperature"] or 1))
        if name in settings:
            told = settings[name]
            assert (solver.steps, float(case["cfg"]), solver.cfg_zero_star, solver.sway) == (
                told["n_timesteps"],
                told["cfg_value"],
                told["use_cfg_zero_star"],
                told["sway_sampling_coef"],
            )
        try:
            flow.mean_mode = configured or case["mean"] is not None
            out = flow.solve(mu, cond, noise, float(case["cfg"]), solver)
            each = flow.solve(mu, cond, noise, torch.tensor([float(case["cfg"])] * len(mu)), solver)
        finally:
            flow.mean_mode = configured
        assert_close(out.transpose(1, 2), cfm[name], 5e-4)
        assert_close(each, out, 0.0)


def test_rows_with_their_own_guidance(golden_set: GoldenSet, golden_backbone: VoxCPM2) -> None:
    """A batch that mixes weights, 1 among them, gives every row what it gets alone."""
    cfm, flow = golden_set["cfm"], golden_backbone.feat_decoder
    mu, cond, noise = (cfm[n].repeat(2, *[1] * (cfm[n].dim() - 1)) for n in ("mu", "cond", "noise"))
    cond, noise = cond.transpose(1, 2), noise.transpose(1, 2)
    weights = torch.tensor([1.0, 2.0, 3.5, 1.0])[: len(mu)]
    together = flow.solve(mu, cond, noise, weights, Solver())
    for i, weight in enumerate(weights.tolist()):
        alone = flow.solve(mu[i : i + 1], cond[i : i + 1], noise[i : i + 1], weight, Solver())
        assert_close(together[i : i + 1], alone, 1e-5)


def test_time_grids(golden_set: GoldenSet) -> None:
    cfm = golden_set["cfm"]
    for name in [n for n in cfm if n.startswith("t_span_")]:
        steps, sway = re.match(r"t_span_n(\d+)_sway((?:neg)?[\d.]+)$", name).groups()  # type: ignore[union-attr]
        assert_close(time_grid(int(steps), number(sway)), cfm[name], 1e-6)


def test_guidance_scale(golden_set: GoldenSet) -> None:
    cfm = golden_set["cfm"]
    assert_close(guidance_scale(cfm["st_star_pos"], cfm["st_star_neg"]), cfm["st_star"], 1e-5)
