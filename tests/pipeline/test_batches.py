"""Stages that work in batches: a batch that does not fit in the memory is halved, one bad item costs only itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.engine_stages import BatchConfig, Batches, out_of_memory, session, statuses
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.api import Outcome
from pipeline.engine.worker import StageSpec, Worker
from pipeline.records import Recording, Segment, Session
from pipeline.runtime.batches import length_buckets

TROUBLE = "fakes.engine_stages:Trouble"
SECOND = "fakes.engine_stages:Second"


def batches(segments: list[float], **config: Any) -> tuple[Session, Outcome, list[list[float]]]:
    """A session of one recording with segments of these lengths, after the stage that works in batches."""
    stage = StageSpec("fakes.engine_stages:Batches", BatchConfig(**config))
    worker = Worker((stage,), "marks")
    worker.load()
    one = session("s", "a.wav", folder=Path("/"))
    source = one.recordings[0].source.source_id
    one.segments = [Segment(source, i, 0.0, seconds, segment_id=str(i)) for i, seconds in enumerate(segments)]
    one, outcome = worker.run(one, marked=False)
    return one, outcome, worker.stages[0].seen  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", ["torch", "python", "text"])
def test_out_of_memory_halves_the_batch_until_it_fits(error: str) -> None:
    lengths = [float(1 + i % 7) for i in range(40)]
    one, outcome, seen = batches(lengths, batch_size=16, fits=3, error=error)
    assert all(segment.text == "written" for segment in one.segments) and not one.quarantine
    assert [x for batch in seen for x in batch] == sorted(lengths, reverse=True), "each once, the longest first"
    assert max(map(len, seen)) == 2 and outcome.halved == {"batches": 2}, "16, 8 and 4 do not fit, 2 does"


def test_what_does_not_fit_alone_is_quarantined_alone() -> None:
    one, outcome, _ = batches([1.0, 2.0, 30.0, 3.0], batch_size=4, seconds_fit=20.0)
    assert [segment.text for segment in one.segments] == ["written", "written", None, "written"]
    assert one.segments[2].failures == ["failed_batches"]
    (row,) = one.quarantine
    assert "out of memory" in row.error and outcome.halved == {"batches": 1}


def test_one_bad_item_of_a_batch_costs_only_itself() -> None:
    stage = Batches(BatchConfig(batch_size=4))
    stage.load()
    one = session("s", "a.wav", folder=Path("/"))
    one.segments = [Segment(one.recordings[0].source.source_id, i, 0.0, 1.0) for i in range(4)]
    one.segments[2].text = "bad"
    stage(one)
    assert [bool(segment.failures) for segment in one.segments] == [False, False, True, False]
    assert "bad on purpose" in one.quarantine[0].error and not stage.halved


@given(st.lists(st.floats(0.1, 60.0), max_size=60), st.integers(1, 17))
def test_length_buckets_lose_and_mix_nothing(lengths: list[float], size: int) -> None:
    buckets = length_buckets(lengths, size, lambda x: x)
    assert sorted(x for bucket in buckets for x in bucket) == sorted(lengths)
    assert all(0 < len(bucket) <= size for bucket in buckets)
    assert all(min(a) >= max(b) for a, b in itertools.pairwise(buckets))


@pytest.mark.parametrize("kind", ["torch", "python", "ctranslate2"])
def test_what_comes_of_batches_is_in_order_however_often_they_are_halved(kind: str) -> None:
    stage = Batches(BatchConfig())
    sizes: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 3:
            raise out_of_memory(kind)
        return [10 * item for item in items]

    assert stage.in_batches(range(12), work, 8) == [10 * i for i in range(12)]
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2] and stage.halved == [4, 2]

    def hopeless(items: Sequence[int]) -> list[int]:
        raise out_of_memory(kind)

    def broken(items: Sequence[int]) -> list[int]:
        raise ValueError("not the memory")

    with pytest.raises(type(out_of_memory(kind))):
        stage.in_batches([1, 2], hopeless, 2)
    with pytest.raises(ValueError, match="not the memory"):
        stage.in_batches([1, 2], broken, 2)


def test_a_recording_that_fails_late_leaves_no_segments() -> None:
    stage = Batches(BatchConfig())
    one = session("s", "a.wav", "b.wav", folder=Path("/"))
    one.segments = [Segment(r.source.source_id, i, 0.0, 1.0, segment_id=str(i)) for i, r in enumerate(one.recordings)]

    def work(recording: Recording) -> None:
        if recording.source.relative_path == "a.wav":
            raise MemoryError

    stage.for_each(one, one.usable(), work)
    assert statuses(one) == {"a.wav": "quarantined", "b.wav": "ok"}
    assert [segment.segment_id for segment in one.segments] == ["1"]
