"""Screening: listeners whose answers do not count, and why. A rule can be switched off; what it found is reported all the same."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.listen.answers import Answer, Sheet

RULES = ("duplicate", "headphones", "attention", "gold", "variance", "reference")
"""`duplicate`: a second file of one listener number. `headphones`: fewer than five of six tones right. `attention`: beeps
miscounted. `gold`: the clipped clip was not worse. `variance`: below 0.1. `reference`: the hidden reference got less than 90
in more than 15 % of the items (ITU-R BS.1534)."""

LEAST_VARIANCE = 0.1
_RATINGS = 4
"""Ratings from which a variance is judged."""
_TONES = 5 / 6
_HIDDEN_SCORE = 90.0
_HIDDEN_SHARE = 0.15


@dataclass(frozen=True)
class Exclusion:
    """A listener who broke a rule. `kept`: the rule is switched off, and the answers count."""

    listener: str
    rule: str
    detail: str
    kept: bool


def screen(
    sheets: Sequence[Sheet], key: Mapping[str, Any], keep: Collection[str] = ()
) -> tuple[list[Sheet], list[Exclusion]]:
    """Return the sheets that count, and each rule that a listener broke. `keep`: rules that exclude nobody.

    Of several sheets of one listener number, the one with most answers counts, then the one begun first. Raises
    EvaluationError for an unknown rule.
    """
    unknown = sorted(set(keep) - set(RULES))
    if unknown:
        raise EvaluationError(f"no rule {', '.join(unknown)}; there are: {', '.join(RULES)}")
    found: list[Exclusion] = []
    counted: list[Sheet] = []
    seen: dict[int, Sheet] = {}
    people: set[tuple[int, str]] = set()
    for sheet in sorted(sheets, key=lambda sheet: (-len(sheet.answers), sheet.started, str(sheet.file))):
        broken: dict[str, str] = {}
        # One person's two files hold the same answers: they never count twice.
        again = (sheet.listener, sheet.who) in people
        first = seen.setdefault(sheet.listener, sheet)
        if first is not sheet:
            broken["duplicate"] = f"{sheet.file.name} has the number of {first.file.name}"
        people.add((sheet.listener, sheet.who))
        if not again:
            broken |= _broken(list(sheet.answers.values()), key)
        found += [Exclusion(sheet.name, rule, text, rule in keep and not again) for rule, text in broken.items()]
        if not again and not set(broken) - set(keep):
            counted.append(sheet)
    return counted, sorted(found, key=lambda one: (RULES.index(one.rule), one.listener))


def _broken(answers: Sequence[Answer], key: Mapping[str, Any]) -> dict[str, str]:
    """Return the rules that a listener broke, with details. A check that was not reached breaks no rule."""
    broken = {}
    right: dict[str, list[bool]] = {"headphone": [], "attention": [], "gold": []}
    for answer in answers:
        if answer.key["role"] in right:
            right[answer.key["role"]].append(next(iter(answer.scores.values())) == answer.key["right"])
    tones = right["headphone"]
    if tones and sum(tones) < math.ceil(_TONES * len(tones)):
        broken["headphones"] = f"{sum(tones)} of {len(tones)} right"
    for role in ("attention", "gold"):
        if not all(right[role]):
            broken[role] = f"{sum(right[role])} of {len(right[role])} right"
    main = [answer for answer in answers if answer.key["role"] == "main"]
    if (variance := _variance(main, key["kind"])) is not None and variance < LEAST_VARIANCE:
        broken["variance"] = f"variance {variance:.3f}"
    if key["kind"] == "mushra" and main:
        low = sum(_hidden(answer, key) < _HIDDEN_SCORE for answer in main)
        if low > _HIDDEN_SHARE * len(main):
            broken["reference"] = f"below {_HIDDEN_SCORE:g} in {low} of {len(main)}"
    return broken


def _variance(main: Sequence[Answer], kind: str) -> float | None:
    """Return the largest variance over scales. None: too few ratings, or a listener who hears no difference in pairs."""
    by_scale: dict[str, list[float]] = {}
    for answer in main:
        for name, score in answer.scores.items():
            by_scale.setdefault("quality" if kind == "mushra" else name, []).append(score)
    variances = [float(np.var(scores, ddof=1)) for scores in by_scale.values() if len(scores) >= _RATINGS]
    # In pairs, "no difference" throughout is an honest answer; one side throughout is not.
    honest = kind in ("cmos", "ab", "abx") and all(not any(scores) for scores in by_scale.values())
    return max(variances) if variances and not honest else None


def _hidden(answer: Answer, key: Mapping[str, Any]) -> float:
    clip = next(
        clip
        for clip in answer.key["clips"]
        if key["clips"][clip]["use"] == "system" and key["clips"][clip]["system"] == key["reference"]
    )
    return answer.scores[clip]
