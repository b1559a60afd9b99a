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
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate, statuses
from evaluation.runs.score import score
from evaluation.systems.base import System

TRIAL = 3
"""Items of a trial. The first one warms the system up and is not part of the figures."""


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

    Items are taken from the whole list, because a list may be sorted by length. A metric that asks a paid service is not run: its
    `dollars(items, seconds, seeds)` is asked instead. Nothing is written outside a temporary folder.
    """
    takes = len(items) * (len(seeds) if system.seeded else 1)
    trial = [items[index * (len(items) - 1) // max(TRIAL - 1, 1)] for index in range(min(TRIAL, len(items)))]
    with tempfile.TemporaryDirectory(prefix="voxmill-trial-") as folder:
        settings = {"name": "trial", "system": system.describe()}
        seconds = []
        root = Path(folder) / "run"
        for item in trial:
            run = create_run(root, settings, [item], [seeds[0]])
            started = time.perf_counter()
            generate(run, system)
            seconds.append(time.perf_counter() - started)
        spoken = list(run.generated.rows())
        per_take = _mean(seconds[1:] or seconds)
        audio_s = _mean([row["seconds"] or 0.0 for row in spoken])
        found = Forecast(len(items), takes, per_take * takes / 3600, audio_s * takes / 3600, statuses=statuses(run))
        free = [metric for metric in metrics if not hasattr(metric, "dollars")]
        by_name = {metric.name: metric for metric in free}
        for metric in free:
            # Loading is paid once, so that it is not part of the time per take.
            done = score(run, _with_used(metric, by_name))
            if why := done.not_measured.get(metric.name):
                found.not_measured[metric.name] = why
        for metric in metrics:
            if dollars := getattr(metric, "dollars", None):
                found.dollars[metric.name] = float(dollars(items, audio_s, takes // max(len(items), 1)))
        for metric in free:
            if metric.name not in found.not_measured:
                found.score_h[metric.name] = _seconds_per_take(metric, run.root, by_name) * takes / 3600
    return found


def _mean(figures: Sequence[float]) -> float:
    return sum(figures) / max(len(figures), 1)


def _with_used(metric: Metric, by_name: dict[str, Metric]) -> list[Metric]:
    """Return the metrics that a metric uses, directly or not, and the metric itself at the end."""
    found: list[Metric] = []
    for name in metric.uses:
        found += [used for used in _with_used(by_name[name], by_name) if used not in found] if name in by_name else []
    return [*found, metric]


def _seconds_per_take(metric: Metric, root: Path, by_name: dict[str, Metric]) -> float:
    """Return the seconds that a loaded metric needs for one take of a trial run, whose rows of it are made once more."""
    from shutil import rmtree

    from evaluation.metrics.base import fingerprint
    from evaluation.runs.folder import open_run

    run = open_run(root)
    rmtree(root / "rows" / f"{metric.name}@{fingerprint(metric, by_name)}", ignore_errors=True)
    loaded = cast(Metric, _Loaded(metric))
    started = time.perf_counter()
    done = score(run, [*_with_used(metric, by_name)[:-1], loaded])
    return (time.perf_counter() - started) / max(done.rows.get(metric.name, 0), 1)


class _Loaded:
    """A metric whose `load` does nothing, because it has been called."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def __getattr__(self, name: str) -> object:
        return getattr(self._metric, name)

    def load(self) -> None:
        """Do nothing."""
