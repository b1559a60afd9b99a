"""Rules that a run must keep against a baseline: non-inferiority on paired differences.

A rule fails only if the interval of the difference lies beyond the margin, and passes only if it lies within. Anything else, also a
metric that is not measured, is an outcome of another kind and never a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.languages import canonical_language
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Value
from evaluation.repeat import repeat, same_system
from evaluation.results.common import Pairs, pairs
from evaluation.results.comparison import markdown_table
from evaluation.results.figures import EXCESS, FAILED, FAILED_VALUE, NOTHING_TO_SCORE, Figures, read_figures
from evaluation.results.groups import ids, speakers
from evaluation.results.rules import Rule, read_rules, resolve
from evaluation.results.units import HEADLINE, cell_unit, error_rate
from evaluation.runs.folder import Run
from evaluation.runs.score import metrics_of
from evaluation.statistics.bootstrap import Estimate, mean_estimates, share_estimates
from evaluation.statistics.paired import detectable, items_needed

RULES = Path(__file__).parent / "gate.toml"
"""Default rules."""
SAME_TAKES = 0.95
"""Share of the takes that must be those of the baseline, if both runs are of the same weights."""
LEAST = 20
"""Items from which a difference that is the same on all items decides, although it has no interval."""

Kind = Literal["pass", "fail", "not enough items", "not measured", "not applicable", "items missing"]
_GOOD = {"pass", "not applicable"}
"""A rule on what neither list has, such as the voice of items without references, decides nothing."""
_EXIT_FAIL = 1
_EXIT_OPEN = 3


@dataclass(frozen=True)
class Outcome:
    """What came of one rule, in the unit of the table.

    `test`: `difference` to the baseline, `at_most` or `at_least`. `estimate`: the loss against the baseline (positive is worse), or
    the figure itself. `limit`: the margin or the bound. `needed`: items that would decide with a power of 80 %, if the run is as
    good as the baseline. `left_out`: items in common that lack a figure, because a take failed.
    """

    kind: Kind
    value: str
    title: str
    unit: str
    list: str
    language: str
    test: str
    limit: float
    items: int
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    needed: int | None = None
    left_out: int = 0
    reason: str = ""


@dataclass(frozen=True)
class GateResult:
    """The outcomes of all rules."""

    run: str
    baseline: str
    outcomes: list[Outcome]

    @property
    def exit_code(self) -> int:
        """0 if every rule passed, 1 if one failed, otherwise 3: it cannot be told."""
        kinds = {one.kind for one in self.outcomes}
        return _EXIT_FAIL if "fail" in kinds else 0 if "pass" in kinds and kinds <= _GOOD else _EXIT_OPEN

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "exit_code": self.exit_code}

    def text(self) -> str:
        """Return a table of the outcomes and one line for the whole."""
        rows = [["outcome", "value", "items", "loss or figure [95 %]", "limit", "note"]]
        rows += [_row(one) for one in self.outcomes]
        word = {0: "passed", _EXIT_FAIL: "failed", _EXIT_OPEN: "cannot be told"}[self.exit_code]
        return f"{markdown_table(rows)}\n\n{self.run} against {self.baseline}: {word}\n"


def gate(
    run: Run,
    baseline: Run,
    rules: Path | Sequence[Rule] | None = None,
    metrics: Sequence[Metric] | None = None,
) -> GateResult:
    """Hold a run against a baseline by rules (default: gate.toml of this package). Failed takes are always compared.

    Raises EvaluationError for rules that cannot be read, a value that does not exist, or one without a direction or a margin.
    """
    chosen = metrics_of(run, METRICS) if metrics is None else list(metrics)
    known = _known(chosen)
    listed = read_rules(rules or RULES) if rules is None or isinstance(rules, Path) else list(rules)
    listed = [
        replace(rule, value=resolve(rule.value, known), language=canonical_language(rule.language)) for rule in listed
    ]
    if not any(rule.value == FAILED for rule in listed):
        listed = [Rule(FAILED), *listed]
    first, second = read_figures(baseline, chosen), read_figures(run, chosen)
    values = {**known, **{name: one.value for name, one in {**second.series, **first.series}.items()}}
    both = pairs(first, second)
    outcomes = [
        outcome for rule in listed for one in _each(rule, first) for outcome in _outcomes(one, values[one.value], both)
    ]
    return GateResult(run.name, baseline.name, [*outcomes, *_same_takes(run, baseline)])


def _same_takes(run: Run, baseline: Run) -> list[Outcome]:
    """Return the outcome of the comparison of takes by seed; nothing if the runs are of different weights."""
    if not same_system(run, baseline):
        return []
    found = repeat(run, baseline)
    takes = found.pairs + found.failed
    kind: Kind = "pass" if found.share >= SAME_TAKES and not found.stuck else "fail"
    if takes < LEAST and (kind == "pass" or not takes):
        kind = "not enough items"
    between = "seeds" if len(run.settings["seeds"]) > 1 else "texts"
    reason = f"distance {found.distance:.2f} dB; between {between} {found.seeds:.1f} dB"
    if found.stuck:
        reason += f"; {found.stuck} items do not change with the seed"
    title = "takes as before with the same seed"
    limit, share = 100 * SAME_TAKES, 100 * found.share
    return [Outcome(kind, "takes.same", title, "%", "", "", "at_least", limit, takes, share, reason=reason)]


def _known(metrics: Sequence[Metric]) -> dict[str, Value]:
    """Return every value that may be measured, derived ones too."""
    found = {FAILED: FAILED_VALUE}
    for metric in metrics:
        rates = {}
        for value in metric.values:
            found[f"{metric.name}.{value.column}"] = value
            if (rate := error_rate(value)) and value.better == "lower":
                rates[rate] = value
        if len(rates) == 2:
            found[f"{metric.name}.{HEADLINE}"] = rates["WER"]
    return found | {f"{name}_excess": found[name] for name, _ in EXCESS if name in found}


def _each(rule: Rule, baseline: Figures) -> Iterator[Rule]:
    """Yield the rule, or one for each language or list of the baseline."""
    if not rule.each:
        yield rule
        return
    levels = {item.language if rule.each == "language" else item.list_name for item in _chosen(rule, baseline.items)}
    if not levels:  # Its outcome says that no item was found.
        yield rule
    for level in sorted(levels):
        yield replace(rule, language=level) if rule.each == "language" else replace(rule, list=level)


def _chosen(rule: Rule, items: Sequence[Item]) -> list[Item]:
    return [item for item in items if rule.list in ("", item.list_name) and rule.language in ("", item.language)]


def _outcomes(rule: Rule, value: Value, both: Pairs) -> list[Outcome]:
    """Return the outcome of each test of a rule."""
    if value.better == "none":
        raise EvaluationError(f"value {rule.value} has no better direction; a rule needs one that has")
    bounds = [("at_most", rule.at_most), ("at_least", rule.at_least)]
    tests: list[tuple[str, float]] = [(name, bound) for name, bound in bounds if bound is not None]
    if rule.margin is not None or not tests:
        margin = value.smallest if rule.margin is None else rule.margin
        if margin is None:
            raise EvaluationError(f"rule for {rule.value} has no margin, and the metric has none; add margin = NUMBER")
        tests = [("difference", margin), *tests]
    return [_outcome(rule, value, both, test, limit) for test, limit in tests]


def _outcome(rule: Rule, value: Value, both: Pairs, test: str, limit: float) -> Outcome:
    items = _chosen(rule, both.items)
    unit = cell_unit(value, rule.language) or value.unit
    blank = Outcome("pass", rule.value, value.title, unit, rule.list, rule.language, test, limit, len(items))
    sides = [both.second] if test != "difference" else [both.first, both.second]
    reasons = [figures.not_measured.get(rule.value.partition(".")[0], "") for figures in sides]
    if all(why.startswith(NOTHING_TO_SCORE) for why in reasons):
        return replace(blank, kind="not applicable", items=0, reason=reasons[0])
    for figures in sides:
        if rule.value not in figures.series:
            why = figures.not_measured.get(rule.value.partition(".")[0], "no figures")
            return replace(blank, kind="not measured", items=0, reason=f"{figures.run.name}: {why}")
    if absent := _absent(rule, both, test):
        return replace(blank, kind="items missing", reason=absent)
    if not items:
        return replace(blank, kind="items missing", reason="no item of this list and language")
    if test == "difference":
        found = _paired(rule, value, both, items, blank)
        unheard = sorted({item.language for item in items} & _unheard(rule.value, both))
        note = f"the recognizer does not know {', '.join(unheard)}" if unheard else ""
        return replace(found, reason="; ".join(filter(None, (found.reason, note))))
    return _absolute(rule, value, both.second, items, blank)


def _absent(rule: Rule, both: Pairs, test: str) -> str:
    """Return which items of the baseline, or figures of takes that did not fail, the run lacks; empty if none."""
    only_first = [] if test != "difference" else _chosen(rule, both.only_first)
    unmade = [*only_first, *_chosen(rule, [item for item in both.second.unmade if item.id not in ids(only_first)])]
    if unmade:
        first = unmade[0].name or unmade[0].id
        return f"{len(unmade)} items are not in {both.second.run.name}, first {first}"
    for figures in (both.second, both.first) if test == "difference" else (both.second,):
        if figures.unmade_takes:
            return f"{figures.unmade_takes} takes of {figures.run.name} are not spoken yet"
    if test == "difference" and (seeds := _seeds_missing(_chosen(rule, both.items), both)):
        return f"{both.second.run.name} lacks seeds {', '.join(map(str, seeds))} of {both.first.run.name}"
    unscored = [
        item
        for item in _chosen(rule, both.items)
        if test == "difference"
        and _lacks_figure(both.first, rule.value, item.id)
        and _has_figure(both.second, rule.value, item.id)
    ]
    if unscored:
        return f"{len(unscored)} items have no figure in {both.first.run.name}; score that run too"
    silent = [
        item
        for item in _chosen(rule, both.items)
        if test == "difference"
        and item.language not in _unheard(rule.value, both)
        and _lacks_figure(both.first, rule.value, item.id)
        and _lacks_figure(both.second, rule.value, item.id)
    ]
    if silent:
        # The rule would be kept by the other items alone, whatever became of these.
        return (
            f"{len(silent)} items have a figure in neither run, first {silent[0].name or silent[0].id}; "
            "remove them or limit the rule by list or language"
        )
    lacking = [
        item
        for item in _chosen(rule, both.items)
        if _lacks_figure(both.second, rule.value, item.id)
        and (test != "difference" or _has_figure(both.first, rule.value, item.id))
    ]
    if lacking:
        return (
            f"{len(lacking)} items have no figure in {both.second.run.name}, first {lacking[0].name or lacking[0].id}"
        )
    return ""


def _seeds_missing(items: Sequence[Item], both: Pairs) -> list[int]:
    """Return the seeds of items in the baseline that the run lacks; none if a system knows no seeds."""
    if not all(figures.run.settings.get("seeded", True) for figures in (both.first, both.second)):
        return []
    first, second = both.first.seeds, both.second.seeds
    return sorted({seed for item in items for seed in first[item.id] if seed not in second[item.id]})


def _unheard(value: str, both: Pairs) -> frozenset[str]:
    """Return the languages that the recognizer of a value did not know in both runs."""
    return both.first.series[value].unheard & both.second.series[value].unheard


def _has_figure(figures: Figures, value: str, item: str) -> bool:
    return any((item, seed) in figures.series[value].figures for seed in figures.seeds[item])


def _lacks_figure(figures: Figures, value: str, item: str) -> bool:
    """Return True if a take of an item did not fail, and nothing of the item was measured."""
    spoken = any(figures.statuses[item, seed] == "ok" for seed in figures.seeds[item])
    return spoken and item in figures.series[value].applies and not _has_figure(figures, value, item)


def _paired(rule: Rule, value: Value, both: Pairs, items: Sequence[Item], blank: Outcome) -> Outcome:
    first, second = both.matrices([rule.value], items)
    sign = 1 if value.better == "lower" else -1
    (found,) = mean_estimates(sign * (second - first), speakers(items))
    if found is None:
        return replace(blank, kind="items missing", items=0, reason="no item has a figure in both runs")
    applies = sum(item.id in both.first.series[rule.value].applies for item in items)
    blank = replace(blank, left_out=applies - found.items)
    return _judged(blank, found, upper=True, room=blank.limit)


def _absolute(rule: Rule, value: Value, figures: Figures, items: Sequence[Item], blank: Outcome) -> Outcome:
    column = figures.matrix(rule.value, ids(items))[:, None]
    estimates = share_estimates if rule.value == FAILED else mean_estimates
    (found,) = estimates(column, speakers(items))
    if found is None:
        return replace(blank, kind="items missing", items=0, reason="no item has a figure")
    found = found.scaled(value.scale)
    blank = replace(blank, left_out=sum(item.id in figures.series[rule.value].applies for item in items) - found.items)
    return _judged(blank, found, upper=blank.test == "at_most", room=abs(blank.limit - found.value))


def _judged(blank: Outcome, found: Estimate, upper: bool, room: float) -> Outcome:
    """Return the outcome of an interval against a limit. `room`: the difference that more items must be able to find."""
    limit = blank.limit
    filled = replace(
        blank,
        items=found.items,
        estimate=found.value,
        low=found.low,
        high=found.high,
        reason=found.scope or found.reason,
    )
    low, high = found.low, found.high
    if low is None or high is None:
        if found.items < LEAST:
            return replace(filled, kind="not enough items", needed=LEAST)
        low = high = found.value
    within, beyond = (high <= limit, low > limit) if upper else (low >= limit, high < limit)
    if within or beyond:
        return replace(filled, kind="pass" if within else "fail")
    needed = items_needed(detectable(found.error), found.items, room) if found.error and room else None
    return replace(filled, kind="not enough items", needed=needed)


def _row(one: Outcome) -> list[str]:
    place = ", ".join(part for part in (one.list, one.language) if part)
    figure = "–" if one.estimate is None else f"{one.estimate:.3g}"
    if one.low is not None and one.high is not None:
        figure += f" [{one.low:.3g}, {one.high:.3g}]"
    notes = [one.reason, f"{one.left_out} items left out" if one.left_out else ""]
    notes.append(f"about {one.needed} items would tell" if one.needed else "")
    name = f"{one.title}{f' ({place})' if place else ''}"
    limit = f"{'loss of' if one.test == 'difference' else one.test.replace('_', ' ')} {one.limit:g} {one.unit}"
    return [
        one.kind,
        name,
        str(one.items),
        f"{figure} {one.unit}".rstrip(),
        limit.rstrip(),
        "; ".join(filter(None, notes)),
    ]
