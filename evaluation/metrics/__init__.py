"""Metrics by name. A metric is one file; its line is here. `module:Class`, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from catalogs.nearest import nearest
from evaluation.errors import EvaluationError
from evaluation.metrics.base import Metric

METRICS: dict[str, str] = {
    "control": "evaluation.metrics.control:Control",
    "diversity": "evaluation.metrics.diversity:Diversity",
    "drift": "evaluation.metrics.drift:Drift",
    "judge_instruct": "evaluation.metrics.judge_instruct:JudgeInstruct",
}
"""Name and `module:Class`, in the order in which they are scored: a metric comes after those that it uses."""


def load_metrics(names: Iterable[str] | None = None) -> list[Metric]:
    """Return metrics (default: all) in scoring order, with those that they use. Raises EvaluationError for an unknown name."""
    wanted = set(METRICS if names is None else names)
    for name in sorted(wanted - METRICS.keys()):
        near = nearest(name, METRICS)
        raise EvaluationError(
            f"no metric {name!r}; {f'did you mean {near}? ' if near else ''}See: voxmill evaluate metrics"
        )
    made: dict[str, Metric] = {}
    open_names = list(wanted)
    while open_names:
        name = open_names.pop()
        if name not in made:
            module, _, attribute = METRICS[name].partition(":")
            made[name] = getattr(importlib.import_module(module), attribute)()
            open_names += made[name].uses
    return [made[name] for name in METRICS if name in made]
