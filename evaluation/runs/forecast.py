"""What a run will cost, from a short trial: the system speaks a few items, the metrics score them, and the times are scaled up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from evaluation.items import Item
from evaluation.metrics.base import Metric
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate, statuses
from evaluation.runs.score import score
from evaluation.systems.base import System

TRIAL = 3
"""Items of a trial. The first one warms up and is not part of the figures."""


@dataclass
class Forecast:
    """Takes and hours of a run. `dollars`: of metrics that ask a paid service, by metric."""

    items: int
    takes: int
    generate_h: float
    audio_h: float
    score_h: dict[str, float] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    dollars: dict[str, float] = field(default_factory=dict)

    @property
    def hours(self) -> float:
        """Hours of generation and scoring, one after the other."""
        return self.generate_h + sum(self.score_h.values())


def forecast(system: System, metrics: Sequence[Metric], items: Sequence[Item], seeds: Sequence[int]) -> Forecast:
    """Speak and score a few items, and return what the whole run needs at that speed.

    Items are taken from the whole list, because a list may be sorted by length. The first one warms up the system and loads the
    metrics; the others are measured, with two seeds if the run has more than one. A metric that asks a paid service is not run:
    its `dollars(items, seconds, seeds)` is asked instead. Nothing is written outside a temporary folder.
    """
    seeds = list(seeds) if system.seeded else list(seeds)[:1]
    takes = len(items) * len(seeds)
    first, *others = [items[index * (len(items) - 1) // max(TRIAL - 1, 1)] for index in range(min(TRIAL, len(items)))]
    free = [metric for metric in metrics if not hasattr(metric, "dollars")]
    with tempfile.TemporaryDirectory(prefix="voxmill-trial-") as folder:
        settings = {"name": "trial", "system": system.describe()}
        warm = create_run(Path(folder) / "warm", settings, [first], seeds[:2])
        generate(warm, system)
        done = score(warm, free)
        run = create_run(Path(folder) / "run", settings, others or [first], seeds[:2])
        started = time.perf_counter()
        generate(run, system)
        spoken = list(run.generated.rows())
        per_take = (time.perf_counter() - started) / len(spoken)
        audio_s = sum(row["seconds"] or 0.0 for row in spoken) / len(spoken)
        found = Forecast(len(items), takes, per_take * takes / 3600, audio_s * takes / 3600, statuses=statuses(run))
        found.not_measured = done.not_measured
        by_name = {metric.name: metric for metric in free}
        for metric in free:
            if metric.name not in found.not_measured:
                seconds = _seconds(metric, run, by_name)
                # A recording of a person is measured once per item, whatever the number of seeds.
                parts, whole = (len(run.items), len(items)) if "human" in metric.needs else (len(spoken), takes)
                found.score_h[metric.name] = seconds / parts * whole / 3600
    for metric in metrics:
        if dollars := getattr(metric, "dollars", None):
            found.dollars[metric.name] = float(dollars(items, audio_s, len(seeds)))
    return found


def _seconds(metric: Metric, run: Run, by_name: dict[str, Metric]) -> float:
    """Return the seconds that a loaded metric needs for a run, after those that it uses."""
    used = _with_used(metric, by_name)[:-1]
    score(run, [_loaded(one) for one in used])
    started = time.perf_counter()
    score(run, [_loaded(one) for one in [*used, metric]])
    return time.perf_counter() - started


def _loaded(metric: Metric) -> Metric:
    return cast(Metric, _Loaded(metric))


def _with_used(metric: Metric, by_name: dict[str, Metric]) -> list[Metric]:
    """Return the metrics that a metric uses, directly or not, and the metric itself at the end."""
    found: list[Metric] = []
    for name in metric.uses:
        found += [used for used in _with_used(by_name[name], by_name) if used not in found] if name in by_name else []
    return [*found, metric]


class _Loaded:
    """A metric whose `load` does nothing, because it has been called."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def __getattr__(self, name: str) -> object:
        return getattr(self._metric, name)

    def load(self) -> None:
        """Do nothing."""
