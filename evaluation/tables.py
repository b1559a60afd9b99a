"""Markdown tables of one run or several: systems in rows, values in columns, and published figures below.

A figure is bold only if a paired test proves that its system is better than the best of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from catalogs.files import write_atomically
from evaluation.items import Item
from evaluation.metrics.base import Metric
from evaluation.results.anchors import Anchor, anchors_of
from evaluation.results.common import pairs
from evaluation.results.comparison import markdown_table
from evaluation.results.figures import FAILED, NOT_SCORED, NOTHING_TO_SCORE, Figures, read_figures
from evaluation.results.groups import by_list, family
from evaluation.results.summary import Cell, Macro, Summary, summarize, write_summary
from evaluation.results.units import HEADLINE
from evaluation.runs.folder import Run
from evaluation.statistics.bootstrap import Estimate
from evaluation.statistics.paired import NOT_TOLD_APART, Difference, judged

FILE = "tables.md"
WIDE = 6
"""Values in a table; more of them are put in further tables."""
NOT_MEASURED = "–"
NO_INTERVAL = "[–]"

Place = tuple[str, str]
"""List and language."""


@dataclass(frozen=True)
class _Loaded:
    figures: Figures
    summary: Summary

    @property
    def name(self) -> str:
        return self.summary.run


def markdown(runs: Sequence[Run], metrics: Sequence[Metric] | None = None, values: Sequence[str] | None = None) -> str:
    """Return the tables of runs as Markdown. `values`: names `metric.column` to show (default: all that are measured)."""
    loaded = []
    for run in runs:
        figures = read_figures(run, metrics)
        loaded.append(_Loaded(figures, summarize(figures, groups=False)))
    return markdown_of(distinct_names(loaded), values, asked=metrics is not None)


def write_tables(run: Run, values: Callable[[Summary], Sequence[str]]) -> tuple[Summary, str]:
    """Write summary.json and tables.md to the folder of a run. Return the summary, and the tables of the chosen values.

    The rows are read once and each interval is computed once.
    """
    figures = read_figures(run)
    found = summarize(figures)
    write_summary(run, found)
    loaded = [_Loaded(figures, found)]
    write_atomically(run.root / FILE, markdown_of(loaded).encode())
    return found, markdown_of(loaded, values(found))


def distinct_names(loaded: Sequence[_Loaded]) -> list[_Loaded]:
    """Return runs under names that differ: the folder is added to a name that occurs twice."""
    names = [one.name for one in loaded]
    return [
        replace(one, summary=replace(one.summary, run=f"{one.name} ({one.figures.run.root})"))
        if names.count(one.name) > 1
        else one
        for one in loaded
    ]


def markdown_of(loaded: Sequence[_Loaded], values: Sequence[str] | None = None, asked: bool = False) -> str:
    """Return the tables of runs that have been read. asked: the metrics were named, so that those without figures are, too."""
    places: dict[str, list[Place]] = {}
    for one in loaded:
        for place in by_list(one.figures.items):
            known = places.setdefault(family(*place), [])
            known += [place] if place not in known else []
    parts = [_section(loaded, name, members, values) for name, members in places.items()]
    return "\n\n".join([*parts, *_no_intervals(loaded, values), *_not_measured(loaded, asked)]) + "\n"


def _no_intervals(loaded: Sequence[_Loaded], values: Sequence[str] | None) -> list[str]:
    """Return one line on why estimates have no interval."""
    reasons = {
        cell.estimate.reason
        for one in loaded
        for cell in one.summary.cells
        if cell.estimate and cell.estimate.reason and not cell.group and (values is None or cell.name in values)
    }
    return [f"{NO_INTERVAL}: no interval can be estimated ({'; '.join(sorted(reasons))})"] if reasons else []


def cell_text(cell: Cell | None, bold: bool = False) -> str:
    """Return `estimate [low, high] unit` and what is missing, or a dash if nothing is measured."""
    if cell is None or cell.estimate is None:
        return NOT_MEASURED
    text = f"{estimate_text(cell.estimate, cell.digits)} {cell.unit}".rstrip()
    text = f"**{text}**" if bold else text
    missing = [f"{cell.left_out} failed left out"] if cell.left_out else []
    missing += [f"{cell.not_measured} not measured"] if cell.not_measured else []
    return f"{text} ({', '.join(missing)})" if missing else text


def estimate_text(estimate: Estimate, digits: int) -> str:
    """Return `estimate [low, high]`, with the scope of the interval, or `estimate [–]` if it has no interval."""
    value = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return f"{value} {NO_INTERVAL}"
    scope = f"; {estimate.scope}" if estimate.scope else ""
    return f"{value} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}{scope}]"


def _section(loaded: Sequence[_Loaded], name: str, places: Sequence[Place], values: Sequence[str] | None) -> str:
    """Return the tables of a family of lists."""
    names = [one for one in _names(loaded, places) if (one in values if values is not None else one != FAILED)]
    bold = {place: _bold(loaded, place, names) for place in places}
    parts = [f"## {name or 'items'}"]
    for start in range(0, len(names), WIDE):
        shown = names[start : start + WIDE]
        titles = [_title(loaded, one) for one in shown]
        rows = [["list", "language", "system", "n", "failed", *titles]]
        for place in places:
            for one in loaded:
                cells = [one.summary.cell(*place, value) for value in shown]
                failed = one.summary.cell(*place, FAILED)
                if failed is None:
                    continue
                texts = [
                    cell_text(cell, one.name in bold[place].get(value, ()))
                    for value, cell in zip(shown, cells, strict=True)
                ]
                rows.append([place[0], place[1], one.name, str(failed.items), _failed(failed), *texts])
        parts.append(markdown_table(rows))
    parts += _macro_lines(loaded, name, values)
    parts += _published(anchors_of(dict.fromkeys(place[0] for place in places)))
    return "\n\n".join(parts)


def _names(loaded: Sequence[_Loaded], places: Sequence[Place]) -> list[str]:
    """Return values with a cell; the derived error rate is left out, because both that it is made of are there."""
    return list(
        dict.fromkeys(
            cell.name
            for one in loaded
            for cell in one.summary.cells
            if (cell.list, cell.language) in places
            and not cell.group
            and cell.estimate
            and not cell.name.endswith(f".{HEADLINE}")
        )
    )


def _title(loaded: Sequence[_Loaded], name: str) -> str:
    return next(cell.title for one in loaded for cell in one.summary.cells if cell.name == name)


def _failed(cell: Cell) -> str:
    """Return the failed takes by reason."""
    total = sum(cell.failed.values())
    if not total:
        return f"0 of {cell.takes}"
    reasons = ", ".join(f"{count} {status}" for status, count in sorted(cell.failed.items()))
    return f"{total} of {cell.takes} ({reasons})"


def _bold(loaded: Sequence[_Loaded], place: Place, names: Sequence[str]) -> dict[str, set[str]]:
    """Return, by value, the system that is proven better than the best of the others; the tests of a place are one table."""
    if len(loaded) < 2:
        return {}
    found: list[tuple[str, str, Difference | None]] = []
    for name in names:
        having = [(one, cell) for one in loaded if (cell := one.summary.cell(*place, name)) and cell.estimate]
        if len(having) < 2 or having[0][1].better == "none":
            continue
        sign = -1 if having[0][1].better == "higher" else 1
        having.sort(key=lambda pair: sign * pair[1].estimate.value if pair[1].estimate else 0.0)
        best, other = having[0][0], having[1][0]
        both = pairs(other.figures, best.figures)
        (difference,) = both.differences([name], _in(both.items, place))
        found.append((name, best.name, difference))
    corrected = judged([difference for *_, difference in found])
    return {
        name: {best}
        for (name, best, _), one in zip(found, corrected, strict=True)
        if one and one.verdict not in (NOT_TOLD_APART, "worse")
    }


def _in(items: Sequence[Item], place: Place) -> list[Item]:
    return [item for item in items if (item.list_name, item.language) == place]


def _macro_lines(loaded: Sequence[_Loaded], name: str, values: Sequence[str] | None) -> list[str]:
    rows = [["mean over languages", "system", "languages", "estimate"]]
    for one in loaded:
        for macro in one.summary.macros:
            if macro.family == name and macro.name != FAILED and (values is None or _is_shown(macro, values)):
                rows.append([macro.title, one.name, _languages(macro), _macro_text(macro)])
    return [markdown_table(rows)] if len(rows) > 1 else []


def _is_shown(macro: Macro, values: Sequence[str]) -> bool:
    metric = macro.name.partition(".")[0]
    derived = macro.name.endswith(f".{HEADLINE}") and any(one.partition(".")[0] == metric for one in values)
    return macro.name in values or derived


def _macro_text(macro: Macro) -> str:
    return f"{estimate_text(macro.estimate, macro.digits)} {macro.unit}".rstrip()


def _languages(macro: Macro) -> str:
    """Return how many languages are in a mean, and how many of them by which error rate."""
    return f"{macro.languages} ({macro.wer} WER, {macro.cer} CER)" if macro.wer or macro.cer else str(macro.languages)


def _published(found: Sequence[Anchor]) -> list[str]:
    """Return the table of published figures, with their sources."""
    if not found:
        return []
    sources = list(dict.fromkeys((one.source, one.judges) for one in found))
    rows = [["published", "list", "figures", "source"]]
    grouped: dict[tuple[str, str, str], list[Anchor]] = {}
    for one in found:
        grouped.setdefault((one.list, one.system, one.source), []).append(one)
    for (list_name, system, source), members in grouped.items():
        number = next(at for at, known in enumerate(sources, 1) if known[0] == source)
        figures = ", ".join(f"{anchor_text(one)} {one.unit} {one.measure}" for one in members)
        rows.append([system, list_name, figures, f"[{number}]"])
    notes = [f"[{number}] {source}. Judges: {judges}." for number, (source, judges) in enumerate(sources, 1)]
    head = (
        "Published figures, without intervals. They are comparable only with values of the same judges and text rules."
    )
    return [head, markdown_table(rows), "\n".join(notes)]


def anchor_text(anchor: Anchor) -> str:
    """Return a published figure with its digits: two for an error rate and one for a likeness, or more if it has more."""
    text = f"{anchor.figure:.{1 if anchor.measure == 'SIM' else 2}f}"
    text = text if float(text) == anchor.figure else str(anchor.figure)
    return text if anchor.spread is None else f"{text} ± {anchor.spread}"


def _not_measured(loaded: Sequence[_Loaded], asked: bool) -> list[str]:
    """Return what the runs lack; not metrics that nobody asked for."""
    lines = [
        f"* {one.name}: {metric}: {why}"
        for one in loaded
        for metric, why in sorted(one.figures.not_measured.items())
        if asked or not why.startswith((NOT_SCORED, NOTHING_TO_SCORE))
    ]
    lines += [
        f"* {one.name}: {one.figures.unmade_takes} takes have not been spoken; run the command again that made the run"
        for one in loaded
        if one.figures.unmade_takes
    ]
    return ["## Not measured\n\n" + "\n".join(lines)] if lines else []
