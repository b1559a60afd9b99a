"""The shares of a phase: what is asked for, what the data can bear, and their means over a ramp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import Phase, TrainError
from trainer.data.quotas import Quotas
from trainer.sample_kinds import BY_LAYOUT, DECOUPLED, SampleKind

NONE = {
    "basic": 0.0,
    "design": 0.0,
    "reference": 0.0,
    "controllable": 0.0,
    "continuation": 0.0,
    "reference_continuation": 0.0,
}
"""Weights of no layout, to be filled."""


def quotas(able: Mapping[SampleKind, int], layouts: Mapping[str, float], segments: int = 100, **phase: Any) -> Quotas:
    return Quotas(Phase(steps=1, layouts={**NONE, **layouts}, **phase), "one", able, segments)


def test_a_phase_that_gets_what_it_asks_for_has_no_notes() -> None:
    able = {BY_LAYOUT["basic"]: 100, BY_LAYOUT["design"]: 100}
    shares = quotas(able, {"basic": 3.0, "design": 1.0})
    assert shares.notes() == [], "the layouts of weight 0 get nothing and ask for nothing"
    assert shares.asked(1) == shares.expected(1) == {"basic": 0.75, "design": 0.25}


def test_a_layout_that_cannot_be_served_is_told_and_so_is_one_that_few_can_serve() -> None:
    able = {BY_LAYOUT["basic"]: 100, BY_LAYOUT["reference"]: 2}
    shares = quotas(able, {"basic": 1.0, "design": 1.0, "reference": 1.0}, max_repeats=4)
    design, reference = shares.notes()
    assert design.startswith("phase one: design is asked for, and no segment can serve it") and "33.3%" in design
    assert (
        "reference is asked for at 33.3% and gets 8.0%: 2 segments can serve it" in reference
        and "more than 4 times" in reference
    )
    assert shares.expected(1) == {"basic": pytest.approx(0.92), "reference": pytest.approx(0.08)}


def test_the_error_names_the_layouts_that_are_asked_for() -> None:
    with pytest.raises(TrainError, match=r"no segment can serve a layout with a weight above 0 \(design\);"):
        quotas({}, {"design": 1.0})


@settings(max_examples=60)
@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.integers(0, 40), st.integers(1, 60), st.integers(1, 12))
def test_the_mean_over_a_ramp_is_that_of_its_choices(weights: list[float], ramp: int, count: int, few: int) -> None:
    able = {BY_LAYOUT["basic"]: 100, BY_LAYOUT["design"]: few}
    first = NONE | {"basic": weights[0], "design": weights[1]}
    shares = quotas(able, {"basic": weights[2], "design": weights[3]}, layouts_from=first)
    shares.ramp = ramp
    drawn = np.concatenate([np.broadcast_to(shares.at(start, 1), (1, len(shares.kinds))) for start in range(count)])
    means = dict(zip([kind.layout for kind in shares.kinds], drawn.mean(axis=0), strict=True))
    assert shares.expected(count) == pytest.approx(means, abs=1e-12)
    assert shares.expected(0) == shares.expected(1), "what a phase that draws nothing would draw first"
    if few == 12:  # twelve in a hundred, eight times each: room for everything
        pairs = zip(
            (weights[0] / (weights[0] + weights[1]), weights[1] / (weights[0] + weights[1])),
            (weights[2] / (weights[2] + weights[3]), weights[3] / (weights[2] + weights[3])),
            strict=True,
        )
        done = [min(1.0, start / ramp) if ramp else 1.0 for start in range(count)]
        asked = [np.mean([a + d * (b - a) for d in done]) for a, b in pairs]
        assert list(shares.asked(count).values()) == pytest.approx(asked, abs=1e-12)


@pytest.mark.parametrize(
    ("recorded", "decoupled", "split", "expected"),
    [
        (50, 50, 0.25, 0.25),
        (50, 0, 0.25, 0.0),
        (50, 0, 1.0, 0.0),
        (0, 50, 0.25, 1.0),
        (0, 50, 0.0, 1.0),
        (50, 1, 0.5, 0.08),
    ],
)
def test_of_recorded_and_decoupled_samples_one_alone_serves_the_layout(
    recorded: int, decoupled: int, split: float, expected: float
) -> None:
    able = {BY_LAYOUT["controllable"]: recorded, DECOUPLED: decoupled}
    shares = quotas({kind: count for kind, count in able.items() if count}, {"controllable": 1.0}, decoupled=split)
    assert shares.expected(1) == {"controllable": pytest.approx(1.0)}
    assert shares.decoupled == pytest.approx(expected)
    told = [line for line in shares.notes() if "decoupled is asked for" in line]
    assert bool(told) == (split > 0 and decoupled == 0)


def test_a_note_compares_with_the_most_that_is_asked_for_on_the_way() -> None:
    able = {BY_LAYOUT["basic"]: 100, BY_LAYOUT["reference"]: 2}
    first = NONE | {"basic": 1.0, "reference": 1.0}
    shares = quotas(able, {"basic": 1.0}, layouts_from=first, max_repeats=4)
    (line,) = shares.notes()
    assert "reference is asked for at 50.0% and gets 8.0%" in line
