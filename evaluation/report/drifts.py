"""Figures over the time of long takes, as charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.metrics.base import Metric
from evaluation.report.charts import lines_svg
from evaluation.runs.folder import Run
from evaluation.runs.score import rows_of

MOST = 4
"""Takes of a run that are drawn: the longest."""


def drift_charts(run: Run, metrics: Mapping[str, Metric]) -> list[dict[str, str]]:
    """Return charts of the metric `drift`: loudness, pitch and voice over time, for the longest takes of a run."""
    metric = metrics.get("drift")
    if metric is None:
        return []
    rows = [row for row in rows_of(run, metric, metrics).values() if row.get("times")]
    rows.sort(key=lambda row: (-row["times"][-1], row["item_id"], row["seed"]))
    charts = []
    for column, title, unit in (
        ("level_db", "Level", "LUFS"),
        ("pitch_st", "Pitch", "st"),
        ("voice_series", "Likeness to the start", "cosine"),
    ):
        series = [(_name(run, row), _points(row, column)) for row in rows[:MOST]]
        if any(points for _, points in series):
            charts.append({"run": run.name, "title": title, "svg": lines_svg(f"{title} over time", series, unit)})
    return charts


def _name(run: Run, row: Mapping[str, Any]) -> str:
    item = run.by_id[row["item_id"]]
    return f"{item.name or item.id}, seed {row['seed']}"


def _points(row: Mapping[str, Any], column: str) -> list[tuple[float, float]]:
    figures = row[column]
    return [(time, figure) for time, figure in zip(row["times"], figures, strict=False) if figure is not None]
