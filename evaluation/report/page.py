"""The page about runs: one self-contained HTML file with tables, intervals, the worst takes and published figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import catalogs.report
from catalogs.durations import duration_text
from catalogs.files import write_atomically
from evaluation.compare import compare, run_names
from evaluation.errors import EvaluationError
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric
from evaluation.report.charts import Bar, intervals_svg
from evaluation.report.drifts import drift_charts
from evaluation.report.questions import answers
from evaluation.report.takes import Budget, Shown, shown
from evaluation.report.worst import worst
from evaluation.results.anchors import anchors_of
from evaluation.results.confusions import confusions
from evaluation.results.figures import FAILED, Figures, Series, read_figures
from evaluation.results.summary import Cell, Summary, summarize
from evaluation.runs.folder import Run
from evaluation.runs.rows import Key
from evaluation.runs.score import metrics_of, rows_of
from evaluation.tables import anchor_text, cell_text

AUDIO_BYTES = 3_000_000
WORST = 6
"""Items of each figure to listen to."""
LISTENED = ("words_clean.wer", "voice_ge2e.cosine", "distillmos.distillmos")
CHARTED = ("words_clean.wer", "words_clean.cer", "voice_ge2e.cosine", "distillmos.distillmos", "speed.rtf")
"""Figures with a chart and a table by group, if they were measured."""


def write_report(runs: Sequence[Run], out: Path | None = None, audio_bytes: int = AUDIO_BYTES) -> Path:
    """Write the page of runs (default: report.html in the first run's folder) and return its path.

    `audio_bytes` limits the audio in the page. Raises EvaluationError if jinja2 is missing or a run has no take.
    """
    for run in runs:
        if not run.generated.folder.is_dir():
            raise EvaluationError(f"{run.root} has no takes yet; run the command again that made it")
    target = out or runs[0].root / "report.html"
    if target.is_dir():
        target = target / "report.html"
    write_atomically(target, str(_template().render(_gather(runs, Budget(audio_bytes)))).encode())
    return target


@cache
def _template() -> Any:
    try:
        import jinja2
    except ImportError:
        raise EvaluationError("the report needs jinja2; run: pip install 'voxmill[report]'") from None
    folders = [Path(__file__).parent, Path(catalogs.report.__file__).parent]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration_text, "cell": cell_text, "anchor": anchor_text}
    return environment.get_template("evaluation.html")


def _gather(runs: Sequence[Run], budget: Budget) -> dict[str, Any]:
    metrics = {metric.name: metric for metric in metrics_of(runs[0], METRICS)}
    figures = [read_figures(run, list(metrics.values())) for run in runs]
    labels = run_names(runs)
    summaries = [replace(summarize(one), run=label) for one, label in zip(figures, labels, strict=True)]
    names = _names(summaries)
    lists = dict.fromkeys(cell.list for one in summaries for cell in one.cells)
    return {
        "built": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "runs": list(zip(runs, summaries, strict=True)),
        "names": names,
        "titles": {cell.name: cell.title for one in summaries for cell in one.cells},
        "rows": _rows(summaries, names),
        "reasons": sorted(
            {cell.estimate.reason for cell in _whole(summaries) if cell.estimate and cell.estimate.reason}
        ),
        "charts": _charts(summaries),
        "anchors": anchors_of(lists),
        "comparison": compare(runs) if len(runs) > 1 else None,
        "groups": _groups(summaries),
        "worst": _worst(runs, labels, figures, metrics, budget),
        "drifts": [chart for run in runs for chart in drift_charts(run, metrics)],
        "voices": [table for run, label in zip(runs, labels, strict=True) for table in confusions(run, label, metrics)],
        "questions": [
            (label, answers(run, metrics, _measured(one)))
            for label, run, one in zip(labels, runs, figures, strict=True)
        ],
    }


def _measured(figures: Figures) -> set[str]:
    used = {name.partition(".")[0] for name in figures.series}
    return used | ({"transcript"} if any(name.startswith("words_") for name in used) else set())


def _names(summaries: Sequence[Summary]) -> list[str]:
    """Return the values that have a figure in a run; the share of failed takes has a column already."""
    return [name for name in dict.fromkeys(cell.name for cell in _whole(summaries)) if name != FAILED]


def _whole(summaries: Sequence[Summary]) -> list[Cell]:
    """Return the cells with an estimate that are not of a group."""
    return [cell for one in summaries for cell in one.cells if not cell.group and cell.estimate]


def _rows(summaries: Sequence[Summary], names: Sequence[str]) -> list[dict[str, Any]]:
    places = dict.fromkeys((cell.list, cell.language) for one in summaries for cell in one.cells)
    return [
        {
            "list": place[0],
            "language": place[1],
            "system": one.run,
            "failed": failed,
            "cells": [one.cell(*place, name) for name in names],
        }
        for place in places
        for one in summaries
        if (failed := one.cell(*place, FAILED))
    ]


def _charts(summaries: Sequence[Summary]) -> list[tuple[str, str]]:
    """Return (title, SVG) for each charted value: an interval per run, list and language."""
    found = []
    for name in CHARTED:
        cells = [(one.run, cell) for one in summaries for cell in one.cells if cell.name == name and not cell.group]
        bars = [_bar(run, cell, len(summaries) > 1) for run, cell in cells if cell.estimate and cell.headline]
        if bars:
            value = cells[0][1]
            arrow = {"lower": ", lower is better", "higher": ", higher is better", "none": ""}[value.better]
            title = f"{value.title} ({value.unit.split()[0] if value.unit else ''}{arrow})".replace("(, ", "(")
            found.append((title, intervals_svg(title, bars)))
    return found


def _bar(run: str, cell: Cell, several: bool) -> Bar:
    assert cell.estimate is not None
    place = " ".join(filter(None, (cell.list, "" if cell.list.endswith(f"-{cell.language}") else cell.language)))
    label = f"{place} · {run}" if several else place
    return Bar(label, cell.estimate.value, cell.estimate.low, cell.estimate.high)


def _groups(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return tables by group: a row per level, a column per charted value."""
    tables: dict[tuple[str, str, str, str], dict[str, list[Cell]]] = {}
    for one in summaries:
        for cell in one.cells:
            if cell.group and cell.name in CHARTED and cell.headline and cell.estimate:
                levels = tables.setdefault((cell.list, cell.language, one.run, cell.group), {})
                levels.setdefault(cell.level, []).append(cell)
    return [
        {"list": key[0], "language": key[1], "run": key[2], "group": key[3], "levels": levels}
        for key, levels in tables.items()
        if len(levels) > 1
    ]


def _worst(
    runs: Sequence[Run],
    labels: Sequence[str],
    figures: Sequence[Figures],
    metrics: dict[str, Metric],
    budget: Budget,
) -> list[dict[str, Any]]:
    """Return the worst takes of the last run by each figure, or its failed ones, beside the takes of the other runs."""
    words = [_words(run, metrics) for run in runs]
    generated = [run.generated.by_key() for run in runs]
    last = figures[-1]
    sections = []
    for name in [name for name in LISTENED if name in last.series] or [FAILED]:
        items = []
        for one in worst(last, last.series[name], WORST):
            takes = [
                shown(run, label, one.key, _figure(of.series.get(name), one.key), said.get(one.key), rows, budget)
                for run, label, of, said, rows in zip(runs, labels, figures, words, generated, strict=True)
            ]
            items.append(
                {"item": runs[-1].by_id[one.key[0]], "takes": [take for take in takes if isinstance(take, Shown)]}
            )
        if items:
            sections.append({"title": last.series[name].value.title, "run": labels[-1], "items": items})
    return sections


def _words(run: Run, metrics: dict[str, Metric]) -> dict[Key, dict[str, Any]]:
    return rows_of(run, metrics["words_clean"], metrics) if "words_clean" in metrics else {}


def _figure(series: Series | None, key: Key) -> str:
    if series is None or key not in series.figures:
        return ""
    value = series.value
    return f"{value.title} {series.figures[key] * value.scale:.{value.digits}f} {value.unit}".strip()
