"""Figures of a run: of each value, what every take scored, what a failed take counts as, and what was not measured."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from evaluation.items import Item
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Take, Value
from evaluation.results.units import HEADLINE, error_rate, paper_unit
from evaluation.runs.folder import Run
from evaluation.runs.rows import Key
from evaluation.runs.score import all_takes, lacks, metrics_of, rows_of, table_of

_T = TypeVar("_T")

NOT_SCORED = "not scored"
NOTHING_TO_SCORE = "no item has what it needs"
"""Why a metric has no figures: the items lack references, recordings or instructions."""

FAILED = "takes.failed"
"""Name of the share of failed takes, which every run has."""
FAILED_VALUE = Value("failed", "failed takes", "%", "lower", failed=1.0, scale=100.0, digits=1, smallest=2.0)

_SOME_PATH = Path("failed")

EXCESS: tuple[tuple[str, str], ...] = (("words_clean.wer", "floor.floor_wer"), ("words_clean.cer", "floor.floor_cer"))
"""A value, and what the recognizer makes of a person's recording of the same text: their difference is the system's part."""


@dataclass(frozen=True)
class Series:
    """The figures of one value, unscaled.

    `name`: `metric.column`. `figures`: by take; takes that failed have `Value.failed`, or none. `parts`: numerator and denominator
    of a take. `applies`: items that the metric can score; the others lack a reference, a recording or an instruction. `unheard`:
    languages that the recognizer does not know, whose rows the metric reads.
    """

    name: str
    value: Value
    figures: Mapping[Key, float]
    parts: Mapping[Key, tuple[float, float]] = field(default_factory=dict)
    applies: frozenset[str] = frozenset()
    unheard: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Figures:
    """What is known of a run. `items`: those with a take. `unmade`: items without one, because the run is not complete."""

    run: Run
    items: list[Item]
    unmade: list[Item]
    statuses: Mapping[Key, str]
    series: Mapping[str, Series]
    not_measured: Mapping[str, str]
    seeds: Mapping[str, tuple[int, ...]]
    """Seeds of each item."""
    unmade_takes: int = 0
    """Takes that the run does not have yet."""

    def matrix(self, name: str, ids: Sequence[str], seeds: Mapping[str, Sequence[int]] | None = None) -> np.ndarray:
        """Return float64 [N]: the mean over seeds of a value of items, unscaled; NaN: no figure."""
        series = self.series.get(name)
        if series is None:
            return np.full(len(ids), np.nan)
        return np.array([_mean(self._of(series.figures, item, seeds)) for item in ids], dtype=np.float64)

    def parts(self, name: str, ids: Sequence[str]) -> np.ndarray:
        """Return float64 [N, 2]: numerator and denominator of items, summed over seeds; 0 without figures."""
        series = self.series[name]
        found = np.zeros((len(ids), 2))
        for row, item in enumerate(ids):
            for pair in self._of(series.parts, item, None):
                found[row] += pair
        return found

    def by_seed(self, name: str, ids: Sequence[str]) -> np.ndarray:
        """Return float64 [N, S]: figures of items by seed, unscaled; NaN: none."""
        seeds = sorted({seed for item in ids for seed in self.seeds.get(item, ())})
        figures = self.series[name].figures
        return np.array([[figures.get((item, seed), np.nan) for seed in seeds] for item in ids]).reshape(len(ids), -1)

    def _of(self, table: Mapping[Key, _T], item: str, seeds: Mapping[str, Sequence[int]] | None) -> list[_T]:
        wanted = self.seeds.get(item, ()) if seeds is None else seeds.get(item, ())
        return [table[item, seed] for seed in wanted if (item, seed) in table]


def read_figures(
    run: Run, metrics: Sequence[Metric] | None = None, excess: Iterable[tuple[str, str]] = EXCESS
) -> Figures:
    """Read the figures of a run. `metrics`: default all that are known; those without rows are named in `not_measured`."""
    chosen = metrics_of(run, METRICS) if metrics is None else list(metrics)
    by_name = {metric.name: metric for metric in chosen}
    for name in {used for metric in chosen for used in metric.uses} - by_name.keys():
        by_name = (
            {**{metric.name: metric for metric in metrics_of(run, [name])}, **by_name} if name in METRICS else by_name
        )
    takes = list(all_takes(run))
    series: dict[str, Series] = {FAILED: _failed(takes)}
    not_measured: dict[str, str] = {}
    for metric in chosen:
        found = _read(run, metric, by_name, takes)
        if isinstance(found, str):
            not_measured[metric.name] = found
        else:
            series |= {one.name: one for one in found}
    series |= _headlines(series, {take.item.id: take.item.language for take in takes})
    series |= _excesses(series, excess)
    seeds: dict[str, tuple[int, ...]] = {}
    seen = {_key(take) for take in takes}
    for take in takes:
        seeds[take.item.id] = (*seeds.get(take.item.id, ()), take.seed)
    return Figures(
        run,
        [item for item in run.items if item.id in seeds],
        [item for item in run.items if item.id not in seeds],
        {_key(take): take.status for take in takes},
        series,
        not_measured,
        seeds,
        sum(key not in seen for key in run.wanted),
    )


def _read(run: Run, metric: Metric, by_name: Mapping[str, Metric], takes: Sequence[Take]) -> list[Series] | str:
    """Return the series of a metric, or why there are none."""
    rows = rows_of(run, metric, by_name, takes) if all(used in by_name for used in metric.uses) else {}
    able = [take for take in takes if _applies(metric, take)]
    # Takes that failed need no row; if there are others, and no row at all, the metric has not been run.
    if not rows and (not able or any(take.status == "ok" for take in able)):
        if takes and not able:
            return f"{NOTHING_TO_SCORE} ({', '.join(sorted(metric.needs - {'audio'}))})"
        if any(table_of(run, metric, by_name).folder.glob("part-*.parquet")):
            return f"its takes were made again; {_command(run, metric)}"
        if any((run.root / "rows").glob(f"{metric.name}@*")):
            return f"scored with other settings or by another version; {_command(run, metric)}"
        return f"{NOT_SCORED}; {_command(run, metric)}"
    applies = frozenset(take.item.id for take in able)
    unheard = _unheard(run, metric, by_name, able, rows)
    found = []
    for value in metric.values:
        figures: dict[Key, float] = {}
        parts: dict[Key, tuple[float, float]] = {}
        for take in able:
            row = rows.get(_key(take), {})
            figure = row.get(value.column)
            # NaN or infinity is not a measurement; it would make a mean of it.
            if figure is not None and math.isfinite(figure):
                figures[_key(take)] = float(figure)
                if value.ratio and None not in (pair := [row.get(column) for column in value.ratio]):
                    parts[_key(take)] = (float(pair[0] or 0), float(pair[1] or 0))
        if value.failed is not None:
            figures |= _failed_figures(value.failed, figures, able)
        if value.ratio and value.failed is not None:
            parts |= _failed_parts(value.failed, parts, [take for take in able if _key(take) in figures])
        found.append(Series(f"{metric.name}.{value.column}", value, figures, parts, applies, unheard))
    return found


def _unheard(
    run: Run,
    metric: Metric,
    by_name: Mapping[str, Metric],
    takes: Sequence[Take],
    rows: Mapping[Key, Mapping[str, Any]],
) -> frozenset[str]:
    """Return the languages in which nothing is measured, because the recognizer whose rows a metric reads heard nothing at all."""
    columns = [value.column for value in metric.values]
    spoken = [take for take in takes if take.status == "ok"]
    known = {
        take.item.language
        for take in spoken
        if any((rows.get(_key(take)) or {}).get(one) is not None for one in columns)
    }
    bare = [take for take in spoken if take.item.language not in known]
    heard: dict[str, bool] = {}
    for used in metric.uses if bare else ():
        if used in by_name and "hypothesis" in by_name[used].schema.names:
            given = table_of(run, by_name[used], by_name).by_key()
            for take in bare:
                if (row := given.get(_key(take))) is not None:
                    heard[take.item.language] = heard.get(take.item.language, False) or row["hypothesis"] is not None
    return frozenset(language for language, found in heard.items() if not found)


def _command(run: Run, metric: Metric) -> str:
    return f"run: voxmill evaluate score {shlex.quote(str(run.root))} --metrics {metric.name}"


def _applies(metric: Metric, take: Take) -> bool:
    """Return True if the item has what the metric needs; whether the take failed does not matter."""
    return not lacks(metric, replace(take, path=take.path or _SOME_PATH))


def _failed_figures(failed: float, figures: Mapping[Key, float], takes: Sequence[Take]) -> dict[Key, float]:
    """Return the figures of failed takes. A language of which no take could be measured, such as one that the recognizer does not
    know, has none."""
    measured = {take.item.language for take in takes if _key(take) in figures}
    spoken = {take.item.language for take in takes if take.status == "ok"}
    return {
        _key(take): failed
        for take in takes
        if take.status != "ok" and (take.item.language in measured or take.item.language not in spoken)
    }


def _failed_parts(
    failed: float, parts: Mapping[Key, tuple[float, float]], takes: Sequence[Take]
) -> dict[Key, tuple[float, float]]:
    """Return numerators and denominators of failed takes: as many words as a measured take of the language has on average."""
    sizes: dict[str, list[float]] = {}
    for take in takes:
        if pair := parts.get(_key(take)):
            sizes.setdefault(take.item.language, []).append(pair[1])
            sizes.setdefault("", []).append(pair[1])
    found = {}
    for take in takes:
        if take.status != "ok" and _key(take) not in parts:
            known = sizes.get(take.item.language) or sizes.get("")
            size = _mean(known) if known else 1.0
            found[_key(take)] = (failed * size, size)
    return found


def _failed(takes: Sequence[Take]) -> Series:
    figures = {_key(take): float(take.status != "ok") for take in takes}
    return Series(FAILED, FAILED_VALUE, figures, {}, frozenset(take.item.id for take in takes))


def _headlines(series: Mapping[str, Series], languages: Mapping[str, str]) -> dict[str, Series]:
    """Return `METRIC.error` of each metric that has both error rates: the one by which the item's language is known."""
    rates: dict[str, dict[str, Series]] = {}
    for one in series.values():
        if (rate := error_rate(one.value)) and one.value.better == "lower":
            rates.setdefault(one.name.partition(".")[0], {}).setdefault(rate, one)
    found = {}
    for metric, both in rates.items():
        if len(both) == 2:
            words = both["WER"]
            pick = {item: both[paper_unit(language)] for item, language in languages.items()}
            title = words.value.title.replace("WER", "WER or CER")
            found[f"{metric}.{HEADLINE}"] = Series(
                f"{metric}.{HEADLINE}",
                replace(words.value, column=HEADLINE, title=title, ratio=None),
                {key: one.figures[key] for one in both.values() for key in one.figures if pick[key[0]] is one},
                {},
                frozenset(item for item, one in pick.items() if item in one.applies),
                words.unheard,
            )
    return found


def _excesses(series: Mapping[str, Series], pairs: Iterable[tuple[str, str]]) -> dict[str, Series]:
    """Return the difference of each pair of values, where both have figures."""
    found = {}
    for name, floor in pairs:
        if name in series and floor in series:
            over, under = series[name], series[floor]
            value = replace(
                over.value,
                column=f"{over.value.column}_excess",
                title=f"{over.value.title}, above the recordings",
                ratio=None,
                failed=None,
            )
            figures = {key: over.figures[key] - under.figures[key] for key in over.figures if key in under.figures}
            found[f"{name}_excess"] = Series(
                f"{name}_excess", value, figures, {}, over.applies & under.applies, over.unheard | under.unheard
            )
    return found


def _mean(figures: Sequence[float]) -> float:
    return sum(figures) / len(figures) if figures else float("nan")


def _key(take: Take) -> Key:
    return take.item.id, take.seed
