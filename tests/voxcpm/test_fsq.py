"""The quantizer's grid, and its gradient as if nothing were rounded."""

from __future__ import annotations

import pytest
import torch

from voxcpm.model.fsq import FSQ


def quantiser(scale: int) -> FSQ:
    torch.manual_seed(0)
    return FSQ(12, 12, 5, scale)


@pytest.mark.parametrize("scale", [1, 4, 9])
def test_values_lie_on_the_grid_nearest_to_the_hidden_state(scale: int) -> None:
    fsq, h = quantiser(scale), torch.randn(40, 12) * 3
    z = torch.tanh(fsq.in_proj(h))
    for q in (fsq.quantise(h), fsq.quantise(h.requires_grad_()).detach()):
        assert torch.allclose(q * scale, torch.round(q * scale), atol=1e-5)
        assert (q - z).abs().max() <= 0.5 / scale + 1e-5 and q.abs().max() <= 1 + 1e-6
        assert torch.allclose(fsq(h), fsq.out_proj(q), atol=1e-5)
    assert len(torch.unique(torch.round(fsq.quantise(torch.randn(4000, 12) * 30) * scale))) == 2 * scale + 1


def test_the_gradient_is_that_of_tanh() -> None:
    fsq, h = quantiser(9), torch.randn(8, 12)
    one, two = h.clone().requires_grad_(), h.clone().requires_grad_()
    weights = torch.randn(8, 5)
    (fsq.quantise(one) * weights).sum().backward()
    (torch.tanh(fsq.in_proj(two)) * weights).sum().backward()
    assert one.grad is not None and two.grad is not None
    assert torch.allclose(one.grad, two.grad, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(fsq.quantise(h), torch.round(torch.tanh(fsq.in_proj(h)) * 9) / 9)
