"""The summary of a run: each value by list, language and group, with its interval. It is derived, and rebuilt at will."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from catalogs.files import write_atomically
from evaluation.items import Item
from evaluation.metrics.base import Metric, Value
from evaluation.results.figures import EXCESS, FAILED, Figures, read_figures
from evaluation.results.groups import by_group, by_list, family, ids, speakers
from evaluation.results.units import HEADLINE, cell_unit, error_rate, is_headline, paper_unit
from evaluation.runs.folder import Run
from evaluation.statistics.bootstrap import Estimate, mean_estimates, ratio_estimates, share_estimates
from evaluation.statistics.components import item_and_seed
from evaluation.statistics.resampling import DRAWS

FILE = "summary.json"
FORMAT = 1
GROUP_DRAWS = 2_000
"""Bootstrap draws of a group's intervals."""
BAD = 0.5
"""Error rate above which an item counts as failed in content."""


@dataclass(frozen=True)
class Cell:
    """One value of one run in one list and language, or in one level of a group of it. Figures are in the unit of the table.

    `items`: that were asked and that the metric can score. `failed`: takes by the reason why they failed. `not_measured`: takes
    that did not fail and have no figure. `left_out`: failed takes that are not part of the mean. `estimate`: the mean over items,
    `corpus`: sum over sum. `bad`: share of items with an error rate above 0.5; `exact`: of items without an error.
    `variance`: shares of item, seed and rest. `headline`: False for the error rate by which the language is not known.
    """

    list: str
    language: str
    group: str
    level: str
    name: str
    title: str
    unit: str
    better: str
    digits: int
    headline: bool
    items: int
    takes: int
    failed: dict[str, int]
    not_measured: int
    left_out: int
    estimate: Estimate | None
    corpus: Estimate | None = None
    median: float | None = None
    bad: Estimate | None = None
    exact: Estimate | None = None
    variance: dict[str, float] | None = None


@dataclass(frozen=True)
class Macro:
    """The mean over the languages of a family of lists. `wer`, `cer`: how many languages have which error rate in it."""

    family: str
    name: str
    title: str
    unit: str
    digits: int
    languages: int
    wer: int
    cer: int
    estimate: Estimate


@dataclass(frozen=True)
class Summary:
    """What tables and pages show of a run. `unmade`: items without a take. `not_measured`: metrics, and why."""

    run: str
    items: int
    unmade: int
    takes: int
    failed: dict[str, int]
    cells: list[Cell]
    macros: list[Macro]
    not_measured: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"format": FORMAT, **asdict(self)}

    def cell(self, list_name: str, language: str, name: str) -> Cell | None:
        """Return the cell of a value for all items of a list and language."""
        wanted = (list_name, language, "", name)
        return next((one for one in self.cells if (one.list, one.language, one.group, one.name) == wanted), None)


def summary(
    run: Run,
    metrics: Sequence[Metric] | None = None,
    excess: Iterable[tuple[str, str]] = EXCESS,
    *,
    write: bool = True,
) -> Summary:
    """Return the summary of a run, and write it to summary.json in its folder. `metrics`: default all that are known."""
    found = summarize(read_figures(run, metrics, excess))
    if write:
        write_summary(run, found)
    return found


def write_summary(run: Run, found: Summary) -> None:
    """Write summary.json, whole or not at all."""
    text = json.dumps(found.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(run.root / FILE, text.encode())


def summarize(figures: Figures, *, groups: bool = True) -> Summary:
    """Return the summary of figures that have been read. `groups`: with the cells of groups, which take most of the time."""
    cells: list[Cell] = []
    for (list_name, language), items in by_list(figures.items).items():
        cells += _cells(figures, items, (list_name, language, "", ""), DRAWS)
        for group, levels in by_group(items).items() if groups else ():
            for level, members in levels.items():
                cells += _cells(figures, members, (list_name, language, group, level), GROUP_DRAWS)
    failed = Counter(status for status in figures.statuses.values() if status != "ok")
    return Summary(
        figures.run.name,
        len(figures.items),
        len(figures.unmade),
        len(figures.statuses),
        dict(failed),
        cells,
        _macros(figures, cells),
        dict(figures.not_measured),
    )


def _cells(figures: Figures, items: Sequence[Item], place: tuple[str, str, str, str], draws: int) -> list[Cell]:
    """Return the cells of all values for some items; what can be resampled together is."""
    keys, voices = ids(items), speakers(items)
    names = [name for name, series in figures.series.items() if not series.applies.isdisjoint(keys)]
    means = np.stack([figures.matrix(name, keys) for name in names], axis=1)
    rates = [name for name in names if _is_rate(figures.series[name].value)]
    ratios = [name for name in names if figures.series[name].parts]
    estimates = dict(zip(names, mean_estimates(means, voices, draws=draws), strict=True))
    estimates[FAILED] = share_estimates(means[:, [names.index(FAILED)]], voices, draws=draws)[0]
    corpus: dict[str, Estimate | None] = {}
    if ratios:
        parts = np.stack([figures.parts(name, keys) for name in ratios], axis=2)
        corpus = dict(zip(ratios, ratio_estimates(parts[:, 0], parts[:, 1], voices, draws=draws), strict=True))
    shares: dict[str, tuple[Estimate | None, Estimate | None]] = {}
    if rates:
        chosen = means[:, [names.index(name) for name in rates]]
        flags = np.concatenate([chosen > BAD, chosen == 0], axis=1).astype(np.float64)
        flags[np.isnan(np.concatenate([chosen, chosen], axis=1))] = np.nan
        found = [one.scaled(100) if one else None for one in share_estimates(flags, voices, draws=draws)]
        shares = {name: (found[at], found[at + len(rates)]) for at, name in enumerate(rates)}
    cells = []
    for at, name in enumerate(names):
        value = figures.series[name].value
        measured = means[~np.isnan(means[:, at]), at] * value.scale
        bad, exact = shares.get(name, (None, None))
        cells.append(
            Cell(
                *place,
                name=name,
                title=value.title,
                unit=cell_unit(value, place[1]),
                better=value.better,
                digits=value.digits,
                headline=is_headline(value, place[1]),
                **_counts(figures, name, keys),
                estimate=_scaled(estimates[name], value),
                corpus=_scaled(corpus.get(name), value),
                median=float(np.median(measured)) if len(measured) else None,
                bad=bad,
                exact=exact,
                variance=_variance(figures, name, keys) if not place[2] else None,
            )
        )
    return cells


def _counts(figures: Figures, name: str, keys: Sequence[str]) -> dict[str, Any]:
    series = figures.series[name]
    takes = [(item, seed) for item in keys if item in series.applies for seed in figures.seeds[item]]
    failed = [key for key in takes if figures.statuses[key] != "ok"]
    return {
        "items": sum(item in series.applies for item in keys),
        "takes": len(takes),
        "failed": dict(Counter(figures.statuses[key] for key in failed)),
        "not_measured": sum(key not in series.figures for key in takes) - sum(k not in series.figures for k in failed),
        "left_out": sum(key not in series.figures for key in failed),
    }


def _variance(figures: Figures, name: str, keys: Sequence[str]) -> dict[str, float] | None:
    found = item_and_seed(figures.by_seed(name, keys))
    return None if found is None else dict(zip(("item", "seed", "rest"), found.shares, strict=True))


def _macros(figures: Figures, cells: Sequence[Cell]) -> list[Macro]:
    """Return means over languages. Of error rates, only the one by which each language is known is averaged."""
    found = []
    whole = [cell for cell in cells if not cell.group and cell.estimate]
    families = dict.fromkeys(family(cell.list, cell.language) for cell in whole)
    for name in families:
        members = [cell for cell in whole if family(cell.list, cell.language) == name]
        languages = {cell.language for cell in members}
        for value_name in dict.fromkeys(cell.name for cell in members):
            value = figures.series[value_name].value
            of_value = [cell for cell in members if cell.name == value_name]
            if len(languages) < 2 or len(of_value) != len(languages) or error_rate(value):
                continue
            rates = Counter(paper_unit(cell.language) for cell in of_value) if value.column == HEADLINE else Counter()
            mean = _mean_of([cell.estimate for cell in of_value if cell.estimate])
            found.append(
                Macro(
                    name,
                    value_name,
                    value.title,
                    value.unit,
                    value.digits,
                    len(of_value),
                    rates["WER"],
                    rates["CER"],
                    mean,
                )
            )
    return found


def _mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of independent estimates; its interval is that of a normal distribution."""
    count = len(estimates)
    value = sum(one.value for one in estimates) / count
    items, clusters = sum(one.items for one in estimates), sum(one.clusters for one in estimates)
    scope = "these voices" if any(one.scope for one in estimates) else ""
    errors = [one.error for one in estimates if one.error is not None and one.low is not None]
    if len(errors) < count:
        return Estimate(value, None, None, None, items, clusters, scope, "a language has no interval")
    error = math.sqrt(sum(one**2 for one in errors)) / count
    return Estimate(value, value - 1.96 * error, value + 1.96 * error, error, items, clusters, scope)


def _is_rate(value: Value) -> bool:
    """Return True for an error rate of a system; not for that of recordings, and not for a difference."""
    return value.better == "lower" and value.ratio is not None and error_rate(value) is not None


def _scaled(estimate: Estimate | None, value: Value) -> Estimate | None:
    return estimate.scaled(value.scale) if estimate else None
