"""What `voxmill evaluate run` and `score` do: a system speaks lists, metrics score the takes, the tables are made."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.items import Item
from evaluation.metrics import Options, load_metrics
from evaluation.metrics.base import Metric
from evaluation.runs.folder import Run, create_run, host, set_metric_options
from evaluation.runs.forecast import Forecast, forecast
from evaluation.runs.generate import generate, statuses
from evaluation.runs.score import Scored, score
from evaluation.systems import open_system
from evaluation.systems.base import System

Count = Callable[[int, int | None], None]


@dataclass
class Outcome:
    """A run and what was done to it by one call."""

    run: Run
    statuses: dict[str, int] = field(default_factory=dict)
    """Takes by status."""
    scored: Scored = field(default_factory=Scored)


def evaluate(
    system: str,
    items: Sequence[Item],
    out: Path,
    options: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    metrics: Sequence[str] | None = None,
    name: str | None = None,
    count: Count | None = None,
    metric_options: Options | None = None,
) -> Outcome:
    """Let a system speak items, and score what it said, in the run folder `out`. Called again, it continues.

    `system`: see `evaluation.systems.open_system`. `metrics`: names (default: the profile `small`; empty: none). `metric_options`:
    options by metric, which the run remembers. Raises EvaluationError if the system, the folder or a name cannot be used.
    """
    load_metrics(metrics, metric_options)
    with closing(open_system(system, options)) as opened:
        run = create_run(out, run_settings(opened, name), items, seeds)
        found = generate(run, opened, count)
    return rescore(run, metrics, count, metric_options, found)


def rescore(
    run: Run,
    metrics: Sequence[str] | None = None,
    count: Count | None = None,
    metric_options: Options | None = None,
    found: dict[str, int] | None = None,
) -> Outcome:
    """Score the takes of a run that exists. Arguments as in `evaluate`; `found`: takes by status, if they are known."""
    chosen = load_metrics(metrics, {**run.settings.get("metrics", {}), **(metric_options or {})})
    run = set_metric_options(run, metric_options or {})
    return Outcome(run, statuses(run) if found is None else found, score(run, chosen, count))


def foresee(
    system: str,
    items: Sequence[Item],
    options: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    metrics: Sequence[str] | None = None,
    metric_options: Options | None = None,
) -> Forecast:
    """Return what `evaluate` with the same arguments would cost."""
    chosen: list[Metric] = load_metrics(metrics, metric_options)
    with closing(open_system(system, options)) as opened:
        return forecast(opened, chosen, items, seeds)


def run_settings(system: System, name: str | None = None) -> dict[str, Any]:
    """Return the content of run.json for a system on this machine."""
    return {
        "name": name or system.name,
        "system": system.describe(),
        "seeded": system.seeded,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": {"machine": platform.machine(), **host()},
    }
