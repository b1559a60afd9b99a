"""Checks of the numbers that `voxmill speak` is given, before anything is loaded."""

from __future__ import annotations

import math

DTYPES = ("float32", "bfloat16", "float16", "int8")


def check_numbers(
    cfg: float,
    steps: int,
    temperature: float,
    sway: float,
    min_seconds: float | None,
    max_seconds: float | None,
    retry: int,
    dtype: str | None,
) -> None:
    """Raise ValueError for a number out of range, by the name of its option."""
    from voxcpm.inference.options import check_solver

    check_solver(cfg, steps)
    if not 0.0 <= temperature <= 2.0:
        raise ValueError(f"--temperature {temperature:g} is outside 0..2")
    # Outside of these bounds the time grid does not fall from 1 to 0.
    if not -1.0 <= sway <= 1.75:
        raise ValueError(f"--sway {sway:g} is outside -1..1.75")
    for name, value in (("--min-seconds", min_seconds), ("--max-seconds", max_seconds)):
        if value is not None and not 0.0 < value < math.inf:
            raise ValueError(f"{name} {value:g} must be above 0")
    if min_seconds is not None and max_seconds is not None and min_seconds > max_seconds:
        raise ValueError(f"--min-seconds {min_seconds:g} is above --max-seconds {max_seconds:g}")
    if retry < 1:
        raise ValueError(f"--retry {retry} must be at least 1 (1: a single attempt)")
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"--dtype {dtype} is not one of {', '.join(DTYPES)}")
