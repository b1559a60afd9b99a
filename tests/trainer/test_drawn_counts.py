"""Draws counted by recording: any order of calls gives what counting one by one gives, and a replay gives the draws themselves."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import Phase
from trainer.data.candidates import Candidate, Candidates
from trainer.data.drawn import NEVER, DrawnCounts
from trainer.data.mixture import BLOCK, Mixture
from trainer.data.replay import replay
from trainer.data.rows import Planner, RowStream
from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.text_tokenizer import TextTokenizer

PHASE = Phase.model_validate(
    {
        "steps": 9,
        "rows": 2,
        "accumulate": 2,
        "max_positions": 90,
        "decoupled": 0.5,
        "layouts": {"basic": 1.0, "controllable": 1.0, "reference": 1.0},
    }
)


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    """Recordings with and without a reference, and synthetic clips; in a table in memory each segment is a recording."""
    found = [
        Candidate(
            f"r{n:02}",
            "en",
            "some words " * (1 + n % 3),
            1.0 + n % 4,
            "calm" if n % 2 else None,
            (("r00", 1.0),) if n % 3 else (),
        )
        for n in range(12)
    ]
    found += [
        Candidate(f"s{n}", "en", "other words", 2.0, "calm", ((f"r{n:02}", 1.0),), None, f"r{n + 1:02}")
        for n in range(3)
    ]
    # Its description and its timbre are from one recording; the last one follows a recording that is not there.
    found += [Candidate("s3", "en", "x", 2.0, "calm", (("r05", 1.0),), None, "r05")]
    found += [Candidate("s4", "en", "x", 2.0, "calm", (("r05", 1.0),), None, "gone")]
    candidates = Candidates.of(found)
    table = candidates.table
    number = {table.ids[row]: row for row in range(len(table.recording))}
    for made, text in TEXTS.items():
        table.text_recording[number[made]] = number[text]
    return Mixture(candidates, PHASE, "one", 7)


TEXTS = {"s0": "r07", "s1": "r02", "s3": "r05"}
"""The segments whose text synthetic clips speak: another one, that of the description, the only source."""


def one_by_one(mixture: Mixture, numbers: list[int], steps: list[int]) -> dict[str, Any]:
    """The counts by segment id, from the choices as the trainer makes them."""
    counts: dict[str, Any] = {name: Counter[str]() for name in ("draws", "as_reference", "through_decoupled")}
    first: dict[str, tuple[int, int]] = {}
    unnamed = 0
    for number, step in zip(numbers, steps, strict=True):
        choice = mixture.choice(number)
        used = {choice.candidate.segment_id}
        counts["draws"][choice.candidate.segment_id] += 1
        if choice.reference is not None:
            used.add(choice.reference)
            counts["as_reference"][choice.reference] += 1
        if choice.candidate.described_id is not None:
            assert choice.reference is not None
            sources = {choice.candidate.described_id, choice.reference}
            sources |= {TEXTS[name] for name in used & TEXTS.keys()}
            unnamed += "gone" in sources
            counts["through_decoupled"].update(sources - {"gone"})
            used |= sources - {"gone"}
        for name in used:
            first[name] = min(first.get(name, (step, number)), (step, number))
    return counts | {"first": first, "unnamed": unnamed}


@given(
    numbers=st.lists(st.integers(0, 3 * BLOCK), unique=True, min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=3),
    rate=st.integers(1, 9),
)
@settings(max_examples=40)
def test_counts_are_those_of_the_choices(mixture: Mixture, numbers: list[int], cuts: list[int], rate: int) -> None:
    steps = [1 + at // rate for at in range(len(numbers))]
    table = mixture.candidates.table
    counts = DrawnCounts(table)
    edges = [0, *sorted(min(cut, len(numbers)) for cut in cuts), len(numbers)]
    for start, stop in pairwise(edges):
        counts.add(
            "one", mixture, np.array(numbers[start:stop], dtype=np.int64), np.array(steps[start:stop], dtype=np.int64)
        )
    wanted = one_by_one(mixture, numbers, steps)
    for name in ("draws", "as_reference", "through_decoupled"):
        found = {table.ids[row]: int(n) for row, n in enumerate(getattr(counts, name)) if n}
        assert found == dict(wanted[name]), name
    first = {
        table.ids[row]: (int(step), int(counts.first_position[row]))
        for row, step in enumerate(counts.first_step)
        if step != NEVER
    }
    # A cut may fall into a step: the order of its samples is then that of the calls.
    assert {name: step for name, (step, _) in first.items()} == {
        name: step for name, (step, _) in wanted["first"].items()
    }
    if not cuts:
        assert first == wanted["first"]
    assert counts.unnamed == wanted["unnamed"]
    assert {table.ids[row] for row in np.flatnonzero(counts.counted()).tolist()} == wanted["first"].keys()
    assert all(table.ids[row].startswith("s") for row in np.flatnonzero(counts.synthetic).tolist())


def test_a_replay_from_any_position_is_what_was_drawn(mixture: Mixture, golden: Path) -> None:
    planner = Planner(TextTokenizer.load(golden / "checkpoint"), VoxCPM2Config.load(golden / "checkpoint"))
    rows = RowStream(mixture, planner, PHASE, {})
    drawn: list[tuple[int, int]] = []
    states = [rows.state()]
    for step in range(1, 10):
        drawn += [(number, step) for row in islice(rows, 4) for number in row.numbers]
        states.append(rows.state())
    for done in (0, 1, 5, 8):
        ((numbers, steps, state),) = replay(mixture, planner, PHASE, range(done + 1, 10), states[done])
        assert list(zip(numbers.tolist(), steps.tolist(), strict=True)) == [one for one in drawn if one[1] > done]
        assert state == states[-1]
    assert list(replay(mixture, planner, PHASE, range(5, 5))) == []
