"""Two or more runs on the items that they have in common: paired differences with verdicts, and the worst regressions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.metrics.base import Metric
from evaluation.results.common import Pairs, pairs
from evaluation.results.comparison import Comparison, Missing, Regression, Row
from evaluation.results.figures import Figures, read_figures
from evaluation.results.groups import by_group, by_list, names_of
from evaluation.results.summary import GROUP_DRAWS
from evaluation.results.units import HEADLINE, cell_unit, error_rate, is_headline
from evaluation.runs.folder import Run
from evaluation.statistics.resampling import DRAWS

WORST = 10
"""Regressions of a value that are listed."""


def compare(
    runs: Sequence[Run], metrics: Sequence[Metric] | None = None, *, groups: bool = True, worst: int = WORST
) -> Comparison:
    """Compare runs with the first one, on the items in common. `metrics`: default all. `groups`: by speaker, length and so on, too.

    Raises EvaluationError with fewer than two runs, or if a run has no item in common with the baseline.
    """
    if len(runs) < 2:
        raise EvaluationError("a comparison needs two runs or more; give another run folder")
    figures = [read_figures(run, metrics) for run in runs]
    names = run_names(runs)
    missing, rows, regressions = [], [], []
    for other, name in zip(figures[1:], names[1:], strict=True):
        both = pairs(figures[0], other)
        if not both.items:
            raise EvaluationError(f"{names[0]} and {name} have no item in common; run both on the same list")
        missing.append(_missing(both, name))
        rows += _rows(both, name, groups)
        regressions += _regressions(both, name, worst)
    return Comparison(names[0], names[1:], missing, rows, regressions)


def run_names(runs: Sequence[Run]) -> list[str]:
    """Return names of runs that differ: the folder is added to a name that occurs twice."""
    names = [run.name for run in runs]
    return [f"{name} ({run.root})" if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)]


def _missing(both: Pairs, name: str) -> Missing:
    first, second = both.first.series.keys(), both.second.series.keys()
    return Missing(
        name,
        len(both.items),
        names_of(both.only_first, (item.id for item in both.only_first)),
        names_of(both.only_second, (item.id for item in both.only_second)),
        sorted(first - second),
        sorted(second - first),
    )


def _rows(both: Pairs, run: str, groups: bool) -> list[Row]:
    common = [name for name in both.first.series if name in both.second.series]
    places = by_list(both.items)
    found = []
    if len(places) > 1:
        # Over languages, the rate by which each is known; the sum of words and characters would be neither.
        known = [name for name in common if _is_derived(name) or not error_rate(both.first.series[name].value)]
        found += _rows_of(both, run, known, both.items, ("all", "", "", ""), DRAWS)
    names = [name for name in common if not _is_derived(name)]
    for place, items in places.items():
        found += _rows_of(both, run, names, items, (*place, "", ""), DRAWS)
        for group, levels in by_group(items).items() if groups else ():
            for level, members in levels.items():
                found += _rows_of(both, run, names, members, (*place, group, level), GROUP_DRAWS)
    return found


def _rows_of(
    both: Pairs,
    run: str,
    names: Sequence[str],
    items: Sequence[Item],
    place: tuple[str, str, str, str],
    draws: int,
) -> list[Row]:
    first, second = both.matrices(names, items)
    present = ~np.isnan(first + second)
    found = []
    for at, (name, one) in enumerate(zip(names, both.differences(names, items, draws), strict=True)):
        if one is None:
            continue
        value, estimate, here = both.first.series[name].value, one.estimate, present[:, at]
        applies = sum(item.id in both.first.series[name].applies for item in items)
        found.append(
            Row(
                run,
                *place,
                name=name,
                title=value.title,
                unit=cell_unit(value, place[1]),
                digits=value.digits,
                headline=is_headline(value, place[1]),
                items=estimate.items,
                left_out=applies - estimate.items,
                before=float(first[here, at].mean()),
                after=float(second[here, at].mean()),
                difference=estimate.value,
                low=estimate.low,
                high=estimate.high,
                scope=estimate.scope,
                reason=estimate.reason,
                p=one.p if one.p_holm is None else one.p_holm,
                verdict=one.verdict,
                detectable=one.detectable,
            )
        )
    return found


def _regressions(both: Pairs, run: str, worst: int) -> list[Regression]:
    """Return the items that became worse by most, of each value that has a direction."""
    found = []
    for name, series in both.first.series.items():
        if name not in both.second.series or series.value.better == "none" or _is_derived(name):
            continue
        sign = 1 if series.value.better == "lower" else -1
        first, second = both.matrices([name], both.items)
        loss = sign * (second - first)[:, 0]
        order = sorted((at for at in range(len(loss)) if loss[at] > 0), key=lambda at: -loss[at])
        found += [_regression(both, run, name, both.items[at], sign) for at in order[:worst]]
    return found


def _is_derived(name: str) -> bool:
    """Return True for the error rate that is WER or CER: within a language, it is one of those that have their own row."""
    return name.endswith(f".{HEADLINE}")


def _regression(both: Pairs, run: str, name: str, item: Item, sign: int) -> Regression:
    value = both.first.series[name].value
    seeds = both.first.seeds[item.id], both.second.seeds[item.id]
    same = [(seed, seed) for seed in seeds[0] if seed in seeds[1]]
    options = same or [(a, b) for a in seeds[0] for b in seeds[1]]
    before, after = both.first.series[name].figures, both.second.series[name].figures
    known = [(a, b) for a, b in options if (item.id, a) in before and (item.id, b) in after] or [
        # With means over different seeds: the worst of one beside the best of the other.
        (a, b)
        for a in seeds[0]
        for b in seeds[1]
        if (item.id, a) in before and (item.id, b) in after
    ]
    a, b = max(known, key=lambda pair: sign * (after[item.id, pair[1]] - before[item.id, pair[0]]))
    return Regression(
        run,
        name,
        value.title,
        cell_unit(value, item.language),
        item.id,
        item.name,
        item.list_name,
        item.language,
        item.text,
        a,
        b,
        before[item.id, a] * value.scale,
        after[item.id, b] * value.scale,
        _path(both.first, item.id, a),
        _path(both.second, item.id, b),
        both.first.statuses[item.id, a],
        both.second.statuses[item.id, b],
    )


def _path(figures: Figures, item: str, seed: int) -> str | None:
    """Return the absolute path of a take's audio, if there is any."""
    path = Path(figures.run.root) / figures.run.audio_name(item, seed)
    return str(path.absolute()) if path.is_file() else None
