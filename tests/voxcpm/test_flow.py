"""Flow matching in parts: times, guidance of single rows, noise on the condition, and the precision of the solver."""

from __future__ import annotations

from math import cos, pi

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_voxcpm import tiny_model

from voxcpm.model.flow import FlowMatching, Solver, guidance_scale, time_grid, time_steps
from voxcpm.sequence.training_batch import TrainingNoise

P, D, H = 2, 6, 48


def flow_of(**settings: object) -> FlowMatching:
    return tiny_model(dit_config__cfm_config=settings).feat_decoder


def draws(count: int, seed: int = 0, log_norm: bool = False) -> TrainingNoise:
    return TrainingNoise.draw((count,), (P, D), torch.Generator().manual_seed(seed), log_norm=log_norm)


def patches(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, P, D, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_noise_is_added_to_the_chosen_conditions(progress: float) -> None:
    """The error with noise on the condition is that of a condition which has the noise already."""
    low, high, scale = 0.2, 0.8, 0.5
    noisy = flow_of(training_cfg_rate=0.0, noise_cond_prob_range=[low, high], noise_cond_scale=scale)
    plain = flow_of(training_cfg_rate=0.0)
    data, previous, mu = patches(40, 1), patches(40, 2), patches(40, 3).flatten(1).repeat(1, 4)[:, :H]
    noise = draws(40)
    assert noise.cond_noise_uniform is not None and noise.cond_noise_normal is not None
    rate = low + progress * (high - low)
    chosen = noise.cond_noise_uniform > 1 - rate
    assert 0 < chosen.sum() < 40, "both branches are taken"
    heard = torch.where(chosen.view(-1, 1, 1), previous + scale * noise.cond_noise_normal, previous)
    got, times = noisy.training_error(data, mu, previous, noise, progress)
    wanted, _ = plain.training_error(data, mu, heard, noise, progress)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got[chosen], plain.training_error(data, mu, previous, noise, 0.0)[0][chosen], atol=1e-3)
    assert times.shape == (40,) and got.shape == (40, P)


def test_noise_that_is_asked_for_must_be_given() -> None:
    flow = flow_of(noise_cond_prob_range=[0.0, 0.5], noise_cond_scale=0.1)
    full = draws(2)
    for left_out in ("cond_noise_uniform", "cond_noise_normal"):
        values = {name: getattr(full, name) for name in TrainingNoise.__dataclass_fields__} | {left_out: None}
        arguments = (patches(2, 0), torch.zeros(2, H), patches(2, 1), TrainingNoise(**values))
        with pytest.raises(ValueError, match="needs cond_noise_uniform and cond_noise_normal"):
            flow.training_error(*arguments, 1.0)
        flow.training_error(*arguments, 0.0)  # a rate of 0 reads none
        flow_of(noise_cond_prob_range=[0.5, 0.5], noise_cond_scale=0.0).training_error(*arguments, 1.0)


def test_mean_mode_asks_for_its_numbers() -> None:
    model = tiny_model(dit_config__dit_mean_mode=True)
    full = draws(2)
    for left_out in ("r_draw", "rt_mask_uniform"):
        values = {name: getattr(full, name) for name in TrainingNoise.__dataclass_fields__} | {left_out: None}
        with pytest.raises(ValueError, match="needs r_draw and rt_mask_uniform"):
            model.feat_decoder.training_error(
                patches(2, 0), torch.zeros(2, H), patches(2, 1), TrainingNoise(**values), 0
            )


def test_flow_times_follow_the_scheduler() -> None:
    arguments = (patches(9, 0), torch.zeros(9, H), patches(9, 1), draws(9))
    _, uniform = flow_of(t_scheduler="uniform").training_error(*arguments, 0.0)
    _, normal = flow_of(t_scheduler="log-norm").training_error(*arguments, 0.0)
    assert torch.equal(uniform, arguments[3].t_draw)
    torch.testing.assert_close(normal, 1 / (1 + torch.exp(0.4 - arguments[3].t_draw)))


@given(st.integers(1, 60), st.sampled_from([0.0, 1.0, -0.5]))
def test_times_run_from_one_to_zero(steps: int, sway: float) -> None:
    grid = time_grid(steps, sway, torch.float64)
    us = [1 - step / steps for step in range(steps + 1)]
    assert grid.tolist() == pytest.approx([u + sway * (cos(pi / 2 * u) - 1 + u) for u in us], abs=1e-12)
    seen, lengths = time_steps(steps, sway, torch.float32)
    assert len(seen) == len(lengths) == steps and sum(lengths) == pytest.approx(1.0, abs=1e-5)
    assert seen == pytest.approx(grid[:-1].tolist(), abs=1e-5)
    assert lengths == pytest.approx((grid[:-1] - grid[1:]).tolist(), abs=1e-5)


@pytest.mark.parametrize(("steps", "zero"), [(1, 1), (10, 1), (48, 1), (49, 2), (74, 3)])
def test_first_steps_without_velocity(steps: int, zero: int) -> None:
    assert Solver(steps).zero_steps == zero and Solver(steps, cfg_zero_star=False).zero_steps == 0
    assert Solver() == Solver(10, 1.0, True, 1.0)


@torch.no_grad()
def test_one_step_that_is_zero_returns_the_noise() -> None:
    flow, noise = flow_of(), patches(3, 1)
    out = flow.solve(torch.randn(3, H), patches(3, 0), noise, 2.0, Solver(1, temperature=0.7))
    assert torch.equal(out, noise * 0.7)


@torch.no_grad()
def test_guidance_scale_is_a_projection() -> None:
    g = torch.Generator().manual_seed(0)
    one, two = torch.randn(4, 12, generator=g), torch.randn(4, 12, generator=g)
    torch.testing.assert_close(guidance_scale(3 * two, two), torch.full((4, 1), 3.0))
    rest = one - guidance_scale(one, two) * two
    torch.testing.assert_close((rest * two).sum(dim=1), torch.zeros(4), atol=1e-5, rtol=0)
    assert torch.equal(guidance_scale(one, torch.zeros(4, 12)), torch.zeros(4, 1))
    tiny = torch.full((4, 1), 1e-5)
    torch.testing.assert_close(guidance_scale(tiny, tiny), torch.full((4, 1), 1e-10 / (1e-10 + 1e-8)))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from([1.0, 1.5, 3.0]), min_size=1, max_size=4), st.booleans())
@torch.no_grad()
def test_each_row_has_its_own_guidance(weights: list[float], zero_star: bool) -> None:
    flow, count = flow_of(), len(weights)
    mu = torch.randn(count, H, generator=torch.Generator().manual_seed(5))
    previous, noise, solver = patches(count, 6), patches(count, 7), Solver(3, cfg_zero_star=zero_star)
    together = flow.solve(mu, previous, noise, torch.tensor(weights), solver)
    for row, weight in enumerate(weights):
        one = slice(row, row + 1)
        torch.testing.assert_close(
            together[one], flow.solve(mu[one], previous[one], noise[one], weight, solver), atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_the_solver_computes_in_float32_unless_it_is_to_be_exact() -> None:
    model = tiny_model().to(torch.bfloat16)
    mu, previous, noise = torch.randn(2, H).bfloat16(), patches(2, 0).bfloat16(), patches(2, 1)
    rounded = patches(2, 1).bfloat16().float()
    assert model.feat_decoder.solve(mu, previous, noise, 2.0, Solver(4)).dtype == torch.float32
    assert torch.equal(model.feat_decoder.solve(mu, previous, noise, 1.0, Solver(1)), noise), "not rounded"
    model.set_exact()
    exact = model.feat_decoder.solve(mu, previous, noise, 2.0, Solver(4))
    assert exact.dtype == torch.bfloat16
    assert torch.equal(model.feat_decoder.solve(mu, previous, noise, 1.0, Solver(1)).float(), rounded)
    model.set_exact(False)
    assert model.feat_decoder.solve(mu, previous, noise, 2.0, Solver(4)).dtype == torch.float32
