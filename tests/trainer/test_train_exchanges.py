"""What ranks tell each other in a step: two exchanges of numbers, and the same sums as ever."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import torch.distributed as dist
from train_runs import Runs

from trainer.run import train
from trainer.runtime.ranks import PeerError, Ranks
from trainer.step import StepSums

T = TypeVar("T")


@dataclass(frozen=True)
class OneOf(Ranks):
    """A rank that is a thread: what all say lies on a shared table."""

    table: list[Any] = field(default_factory=list)
    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def gathered(self, value: Any) -> list[Any]:
        self.table[self.rank] = value
        self.barrier.wait(60)
        found = list(self.table)
        self.barrier.wait(60)
        return found

    def by_rank(self, values: Any) -> list[list[float]]:
        return self.gathered([float(value) for value in values])


def on_ranks(world: int, work: Callable[[Ranks], T]) -> list[T | Exception]:
    """What each of the ranks returns or raises."""
    table, barrier = [None] * world, threading.Barrier(world)

    def safely(rank: int) -> T | Exception:
        try:
            return work(OneOf(rank, world, table=table, barrier=barrier))
        except (OSError, PeerError) as error:
            return error
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world) as threads:
        return list(threads.map(safely, range(world)))


def fail() -> int:
    raise OSError("no such clip")


def test_counts_are_summed_and_a_failure_ends_all() -> None:
    assert on_ranks(3, lambda ranks: ranks.count_unless(False, lambda: ranks.rank + 1, lambda made: made * 10)) == [
        (1, 60), (2, 60), (3, 60),
    ]  # fmt: skip
    found = on_ranks(3, lambda ranks: ranks.count_unless(False, fail if ranks.rank else int, int))
    assert [str(error) for error in found] == ["rank 1 has failed", "no such clip", "rank 1 has failed"]
    assert [type(error) for error in found] == [PeerError, OSError, PeerError]


def test_a_rank_that_is_asked_to_stop_does_not_work_and_the_run_saves_whatever_fails() -> None:
    worked: list[int] = []

    def work(ranks: Ranks) -> int:
        worked.append(ranks.rank)
        return fail()

    found = on_ranks(2, lambda ranks: ranks.count_unless(ranks.rank == 1, lambda: work(ranks), int))
    assert found == [None, None] and worked == [0]


def test_reports_are_added_up_in_the_order_of_the_ranks() -> None:
    """Sums of float64 depend on the order: three numbers for which it shows. Groups that only some ranks have."""
    values = (0.1, 0.2, 0.3)
    assert (0.1 + 0.2) + 0.3 != (0.3 + 0.2) + 0.1
    groups = ["language_de", "language_en", "layout_basic", "layout_plan"]
    own = [
        StepSums(value, -value, 10 + rank, 20, 5, {"layout_basic": value}, {"layout_basic": 3}, {f"clip{rank}": "why"})
        for rank, value in enumerate(values)
    ]
    own[0].unreadable.clear()
    own[2].totals["language_en"], own[2].counts["language_en"] = 2.5, 1
    total = (0.1 + 0.2) + 0.3
    totals, counts = {"layout_basic": total, "language_en": 2.5}, {"layout_basic": 9, "language_en": 1}
    whole = StepSums(total, -total, 33, 60, 15, totals, counts, {"clip1": "why", "clip2": "why"})
    assert on_ranks(3, lambda ranks: own[ranks.rank].of_all(ranks, groups)) == [whole] * 3


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the exchanges of a first rank of two; the second one says zeros."""
    names: list[str] = []

    def counted(name: str, answer: Callable[..., None]) -> None:
        def call(*arguments: Any, **_: Any) -> None:
            names.append(name)
            answer(*arguments)

        monkeypatch.setattr(dist, name, call)

    def gather(found: list[torch.Tensor], mine: torch.Tensor) -> None:
        found[0].copy_(mine)
        found[1].zero_()

    def gather_objects(found: list[Any], mine: Any) -> None:
        found[:] = [mine, type(mine)()]

    counted("all_gather", gather)
    counted("all_gather_object", gather_objects)
    counted("all_reduce", lambda values: None)
    for name in ("broadcast", "broadcast_object_list", "barrier", "reduce", "all_gather_into_tensor"):
        counted(name, lambda *_: pytest.fail("not expected in a step"))
    monkeypatch.setattr("trainer.loop.planned_ranks", lambda _: Ranks(0, 2))
    monkeypatch.setattr("trainer.loop.joined", lambda *_: nullcontext())
    return names


def test_a_step_takes_two_exchanges(runs: Runs, tmp_path: Path, exchanges: list[str]) -> None:
    at: list[int] = []
    config = runs.config(tmp_path / "out", {"steps": 4}, save_every=100)
    train(config, lambda progress: at.append(len(exchanges)))
    assert [exchanges[start:stop] for start, stop in pairwise(at)] == [["all_gather"] * 2] * 3
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert sum("loss/diffusion" in row for row in rows) == 4
    assert all(any(name.startswith("loss/layout_") for name in row) for row in rows if "loss/diffusion" in row)
