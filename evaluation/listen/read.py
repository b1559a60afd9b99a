"""The answers of a listening test, unblinded: opinions with intervals, comparisons, strengths, and who was left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.files import one_line
from evaluation.errors import EvaluationError
from evaluation.listen.answers import Answer, Fault, Sheet, read_key, read_sheets
from evaluation.listen.differences import Difference, differences
from evaluation.listen.screening import Exclusion, screen
from evaluation.statistics.bradley_terry import Comparison, Strengths, Winner, strengths
from evaluation.statistics.mos import Opinion, Rating, beyond_agreement, opinions
from evaluation.statistics.resampling import DRAWS, SEED

Pair = tuple[str, str]


@dataclass(frozen=True)
class Scored:
    """One unblinded rating: a row of a table. `systems`: one, or the two of a comparison in the order that was heard."""

    listener: str
    item: str
    systems: tuple[str, ...]
    scale: str
    score: float
    role: str
    trial: str
    seconds: float | None


@dataclass(frozen=True)
class Versus:
    """Two systems, from the side of the first. `opinion`: mean score of the first over the second; positive: it is better. Its
    interval `crossed` counts those who all agree by `beyond_agreement`."""

    wins: int
    ties: int
    losses: int
    opinion: Opinion


@dataclass(frozen=True)
class Repeats:
    """Trials that were asked twice. `correlation`: Pearson's over all listeners; None with fewer than three or without variance.

    `difference`: mean absolute difference, in points.
    """

    pairs: int
    correlation: float | None
    difference: float | None


@dataclass
class Ratings:
    """What a test has found. `opinions` and `differences`: by scale and system or pair of systems (for `mushra`, anchors too).
    `versus`: by pair of systems."""

    test: str
    kind: str
    files: int
    sheets: int
    counted: int
    incomplete: int
    rows: list[Scored]
    repeats: Repeats
    opinions: dict[str, dict[str, Opinion]] = field(default_factory=dict)
    differences: dict[str, dict[Pair, Difference]] = field(default_factory=dict)
    versus: dict[Pair, Versus] = field(default_factory=dict)
    strengths: Strengths | None = None
    no_strengths: str = ""
    """Why there are none."""
    exclusions: list[Exclusion] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    """Items that were not in the test, by reason."""

    @property
    def bad_files(self) -> int:
        """Files of which nothing could be used."""
        return sum(fault.whole for fault in self.faults)


def read_answers(
    test: Path, files: Iterable[Path], *, keep: Collection[str] = (), draws: int = DRAWS, seed: int = SEED
) -> Ratings:
    """Read the answers to a test. `test`: its folder or key. `files`: JSON files or folders of them. `keep`: rules of
    `screening.RULES` that exclude nobody.

    A bad file is named in `faults` and the others are read. Raises EvaluationError without a key, or if no file is usable.
    """
    key = read_key(test)
    sheets, faults = read_sheets(files, key)
    whole = sum(fault.whole for fault in faults)
    if not sheets:
        first = f"; {faults[0]}" if faults else ""
        raise EvaluationError(
            f"no usable file of answers ({whole} cannot be used{first}); collect the exported JSON files"
        )
    counted, exclusions = screen(sheets, key, keep)
    rows = [row for sheet in counted for row in _rows(sheet, key)]
    ratings = Ratings(
        test=key["test"],
        kind=key["kind"],
        files=len(sheets) + whole,
        sheets=len(sheets),
        counted=len(counted),
        incomplete=sum(sheet.missing > 0 for sheet in counted),
        rows=rows,
        repeats=_repeats(counted, key),
        exclusions=exclusions,
        faults=faults,
        left_out=dict(key.get("left_out", {})),
    )
    main = [row for row in rows if row.role == "main"]
    if key["kind"] in ("acr", "mushra"):
        for scale in dict.fromkeys(row.scale for row in main):
            scores = [Rating(row.listener, row.item, row.systems[0], row.score) for row in main if row.scale == scale]
            ratings.opinions[scale] = opinions(scores, draws=draws, seed=seed)
            ratings.differences[scale] = differences(scores, draws=draws, seed=seed)
    elif main:
        ratings.versus = _versus(main, draws, seed)
        ratings.strengths, ratings.no_strengths = _strengths(main, draws, seed)
    return ratings


def _rows(sheet: Sheet, key: Mapping[str, Any]) -> list[Scored]:
    return [
        Scored(sheet.name, answer.key["item"], systems, scale, score, answer.key["role"], answer.trial, answer.seconds)
        for answer in sheet.answers.values()
        if answer.key["role"] in ("main", "repeat")
        for systems, scale, score in _unblinded(answer, key)
    ]


def _unblinded(answer: Answer, key: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str, float]]:
    if answer.key["layout"] != "sliders":
        return [(tuple(answer.key["systems"]), scale, score) for scale, score in answer.scores.items()]
    found: list[tuple[tuple[str, ...], str, float]] = []
    for clip, score in answer.scores.items():
        row = key["clips"][clip]
        found.append(((row["system"] if row["use"] == "system" else row["use"],), "quality", score))
    return found


def _versus(rows: Sequence[Scored], draws: int, seed: int) -> dict[Pair, Versus]:
    """Return each pair of systems, in the order of their names. A score is that of the second clip over the first."""
    scores: dict[Pair, list[Rating]] = {}
    for row in rows:
        first, second = row.systems
        pair = (min(first, second), max(first, second))
        over = row.score if second == pair[0] else -row.score
        scores.setdefault(pair, []).append(Rating(row.listener, row.item, pair[0], over))
    return {
        pair: Versus(
            sum(one.score > 0 for one in found),
            sum(one.score == 0 for one in found),
            sum(one.score < 0 for one in found),
            _preference(found, opinions(found, draws=draws, seed=seed)[pair[0]]),
        )
        for pair, found in sorted(scores.items())
    }


def _preference(ratings: Sequence[Rating], opinion: Opinion) -> Opinion:
    if opinion.listeners < 2 or opinion.items < 2:
        return opinion
    axes = [_means((one.listener, one.score) for one in ratings), _means((one.item, one.score) for one in ratings)]
    return replace(opinion, crossed=beyond_agreement(opinion.crossed, opinion.mean, axes))


def _means(scores: Iterable[tuple[str, float]]) -> np.ndarray:
    """Return float64 [n]: the mean score of each listener or item."""
    found: dict[str, list[float]] = {}
    for name, score in scores:
        found.setdefault(name, []).append(score)
    return np.array([np.mean(one) for one in found.values()])


def _strengths(rows: Sequence[Scored], draws: int, seed: int) -> tuple[Strengths | None, str]:
    """Return the strengths of all systems, or None and why: too few pairs were answered to connect them."""
    winner: dict[int, Winner] = {-1: "first", 0: "tie", 1: "second"}
    compared = [
        Comparison(row.listener, row.systems[0], row.systems[1], winner[int(np.sign(row.score))]) for row in rows
    ]
    try:
        return strengths(compared, draws=draws, seed=seed), ""
    except EvaluationError as error:
        return None, one_line(error)


def _repeats(sheets: Sequence[Sheet], key: Mapping[str, Any]) -> Repeats:
    first, again = [], []
    for sheet in sheets:
        for answer in sheet.answers.values():
            before = sheet.answers.get(answer.key.get("first", ""))
            if answer.key["role"] != "repeat" or before is None:
                continue
            for name, score in answer.scores.items():
                first.append(before.scores[name])
                again.append(score)
    if not first:
        return Repeats(0, None, None)
    measurable = len(first) >= 3 and np.std(first) > 0 and np.std(again) > 0
    correlation = float(np.corrcoef(first, again)[0, 1]) if measurable else None
    return Repeats(len(first), correlation, float(np.mean(np.abs(np.subtract(first, again)))))
