"""The table of `voxmill evaluate metrics`."""

from __future__ import annotations

import importlib.util
from typing import Any

from evaluation.metrics import METRICS, PROFILES, load_metrics
from evaluation.metrics.base import Metric

_ARROWS = {"higher": "up", "lower": "down", "none": ""}


def overview() -> list[dict[str, Any]]:
    """Return a row per metric: figures with units and directions, needs, profiles, and why it cannot be measured here."""
    return [_row(metric) for metric in load_metrics(METRICS)]


def _row(metric: Metric) -> dict[str, Any]:
    figures = [
        f"{value.title} ({', '.join(filter(None, (value.unit, _ARROWS[value.better])))})" for value in metric.values
    ]
    return {
        "name": metric.name,
        "version": metric.version,
        "figures": "; ".join(figures).replace(" ()", ""),
        "needs": " ".join(sorted(metric.needs)),
        "uses": " ".join(metric.uses),
        "profiles": " ".join(name for name, names in PROFILES.items() if metric.name in names),
        "here": _missing(metric) or "yes",
    }


def _missing(metric: Metric) -> str:
    from catalogs.weights import registry

    weights = [name for name in metric.weights if not registry.available(name)]
    if weights:
        return f"voxmill models pull {' '.join(weights)}"
    packages = [name for name in metric.packages if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(packages)}" if packages else ""
