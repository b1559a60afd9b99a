"""Comparing tensors with a clear message."""

from __future__ import annotations

from torch import Tensor


def worst(got: Tensor, wanted: Tensor) -> float:
    """Largest absolute difference; shapes must agree."""
    assert got.shape == wanted.shape, f"shape {list(got.shape)}, golden {list(wanted.shape)}"
    return float((got.detach().float() - wanted.detach().float()).abs().max())


def assert_close(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Within an absolute tolerance everywhere."""
    difference = worst(got, wanted)
    assert difference <= tolerance, f"off by {difference:.3g}, allowed {tolerance:g}"
