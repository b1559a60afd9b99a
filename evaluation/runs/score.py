"""Scoring: metrics read the takes of a run and add their rows.

A metric's rows are kept under its fingerprint. Scoring again computes only what is missing: new takes, takes that were made again
(`evaluation.runs.tokens`), or a metric that changed.
A metric that reads the rows of another (`uses`) does not compute them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from catalogs.files import one_line
from catalogs.weights.verify import WeightsMissing
from evaluation.errors import EvaluationError, NotMeasuredError
from evaluation.items import Item
from evaluation.metrics import load_metrics
from evaluation.metrics.base import Metric, Take, fingerprint
from evaluation.runs.folder import Run
from evaluation.runs.rows import MADE_OF, Key, Table
from evaluation.runs.tokens import key_of, together, tokens

_LOG = logging.getLogger(__name__)
BATCH = 16
"""Takes per call and part file, if they are independent."""

Count = Callable[[int, int | None], None]


@dataclass
class Scored:
    """What scoring did."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows that were written by metric, also of takes that had an older one."""
    not_measured: dict[str, str] = field(default_factory=dict)
    """Metrics that could not be loaded, and why."""


def score(run: Run, metrics: Sequence[Metric], count: Count | None = None) -> Scored:
    """Score every take that a metric has no row for. Metrics come after those that they use."""
    by_name = {metric.name: metric for metric in metrics}
    done = Scored()
    with run.locked():
        takes = list(all_takes(run))
        for metric in metrics:
            missing = [name for name in metric.uses if name not in by_name or name in done.not_measured]
            if missing:
                done.not_measured[metric.name] = f"needs {', '.join(missing)}"
                continue
            try:
                done.rows[metric.name] = _score(run, metric, by_name, takes, count)
            except (WeightsMissing, ModuleNotFoundError, NotMeasuredError) as error:
                done.not_measured[metric.name] = one_line(error)
                _LOG.warning("%s is not measured: %s", metric.name, one_line(error))
    return done


def metrics_of(run: Run, names: Iterable[str] | None = None) -> list[Metric]:
    """Return metrics with the options of a run. `names`: see `load_metrics`."""
    return load_metrics(names, run.settings.get("metrics"))


def all_takes(run: Run) -> Iterator[Take]:
    """Yield the takes of a run, by item and seed."""
    for (item_id, seed), row in sorted(run.generated.by_key().items()):
        item = run.by_id.get(item_id)
        if item is not None:
            path = run.root / row["audio"] if row["status"] == "ok" else None
            yield Take(item, seed, row["status"], path, row["seconds"] or 0.0, row, items=run.items)


def table_of(run: Run, metric: Metric, by_name: Mapping[str, Metric]) -> Table:
    """Return the table of a metric in a run."""
    return run.scores(metric.name, fingerprint(metric, by_name), metric.schema)


def rows_of(
    run: Run, metric: Metric, by_name: Mapping[str, Metric], takes: Sequence[Take] | None = None
) -> dict[Key, dict[str, Any]]:
    """Return the rows of a metric that are of the takes as they are now. `takes`: those of the run, if they are known.

    A row without a token, of an older version, counts unless a take that it is about was written after it.
    """
    takes = list(all_takes(run)) if takes is None else takes
    table = table_of(run, metric, by_name)
    rows = table.by_key()
    able = [take for take in takes if not lacks(metric, take)]
    marks = tokens(metric, by_name, able) if rows else {}
    unmarked = {key for key, row in rows.items() if row.get(MADE_OF) is None}
    late = _older_than_takes(run, metric, table, takes) if unmarked else set()
    return {
        key: row
        for key, row in rows.items()
        if (key not in late if key in unmarked else row[MADE_OF] == marks.get(key))
    }


def _older_than_takes(run: Run, metric: Metric, table: Table, takes: Sequence[Take]) -> set[Key]:
    """Return the keys whose row was written before its take, or before another take that is scored with it."""
    made, scored = run.generated.written(), table.written()
    newest = {key_of(take): made[key_of(take)] for take in takes}
    groups, _ = together(metric, [take for take in takes if not lacks(metric, take)])
    for group in groups:
        newest |= dict.fromkeys(map(key_of, group), max(newest[key_of(take)] for take in group))
    return {key for key, stamp in scored.items() if stamp < newest.get(key, 0)}


def lacks(metric: Metric, take: Take) -> bool:
    """Return True if a take or its item lacks what a metric needs."""
    item: Item = take.item
    present = {
        "audio": take.path is not None,
        "reference": item.reference is not None,
        "human": item.human is not None,
        "instruction": bool(item.instruction),
    }
    return not all(present[need] for need in metric.needs)


def _score(run: Run, metric: Metric, by_name: Mapping[str, Metric], takes: Sequence[Take], count: Count | None) -> int:
    table = table_of(run, metric, by_name)
    have = rows_of(run, metric, by_name, takes)
    used = {name: rows_of(run, by_name[name], by_name, takes) for name in metric.uses}
    able = [take for take in takes if not lacks(metric, take)]
    marks = tokens(metric, by_name, able)
    ready = [take for take in able if all(key_of(take) in rows for rows in used.values())]
    groups = [group for group in _groups(metric, ready) if any(key_of(take) not in have for take in group)]
    if not groups:
        return 0
    metric.load()
    written = done = 0
    for group in groups:
        # Rows of a group are written again: they may depend on the takes that came since.
        chosen = [take for take in group if metric.group(take) is not None or key_of(take) not in have]
        # A copy: the audio that a take holds is released with it.
        chosen = [Take(t.item, t.seed, t.status, t.path, t.seconds, t.row, items=t.items) for t in chosen]
        for take in chosen:
            take.given = {name: rows[key_of(take)] for name, rows in used.items()}
        answers = _answers(metric, chosen)
        table.add(
            [
                {"item_id": take.item.id, "seed": take.seed, MADE_OF: marks[key_of(take)], **(answer or {})}
                for take, answer in answers
            ]
        )
        written += len(answers)
        if count:
            done += len(group)
            count(done, sum(map(len, groups)))
    return written


def _answers(metric: Metric, takes: Sequence[Take]) -> list[tuple[Take, dict[str, Any] | None]]:
    """Score takes; return those that could be read, with their figures (None: not measurable).

    One that cannot be read is named and gets no row, so that it is scored when its audio is there again. It does not keep
    independent takes from being scored.
    """
    try:
        return list(zip(takes, metric.score(takes), strict=True))
    except EvaluationError as error:
        if len(takes) > 1 and metric.group(takes[0]) is None:
            return [answer for take in takes for answer in _answers(metric, [take])]
        _LOG.warning("%s: %s is not measured: %s", metric.name, takes[0].item.name or takes[0].item.id, one_line(error))
        return []


def _groups(metric: Metric, takes: Sequence[Take]) -> list[list[Take]]:
    """Return takes with the same key together, and the others in batches."""
    groups, free = together(metric, takes)
    return [*groups, *(free[start : start + BATCH] for start in range(0, len(free), BATCH))]


def values_of(rows: Mapping[Key, dict[str, Any]], column: str) -> dict[str, list[float]]:
    """Return the figures of a column by item, seeds in order; without rows that are not measurable."""
    found: dict[str, list[float]] = {}
    for item_id, group in groupby(sorted(rows), key=lambda key: key[0]):
        figures = [rows[key][column] for key in group if rows[key].get(column) is not None]
        if figures:
            found[item_id] = [float(figure) for figure in figures]
    return found
