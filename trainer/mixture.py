"""Which segments are trained on, how often, and in which layout: a function of the seed and the position alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from catalogs.corpus import Corpus
from catalogs.views import query
from trainer.config import LAYOUTS, Phase, TrainError

RATE = 16_000


@dataclass(frozen=True)
class Candidate:
    """A segment that may be trained on, and what it has to offer."""

    segment_id: str
    language: str
    text: str
    seconds: float
    description: str | None
    references: tuple[tuple[str, float], ...]
    """(segment id, seconds) of clips that may serve as its reference."""

    def layouts(self) -> tuple[str, ...]:
        """The layouts it can serve."""
        able = {
            "basic": True,
            "design": self.description is not None,
            "reference": bool(self.references),
            "controllable": self.description is not None and bool(self.references),
            "continuation": self.seconds >= 2.0,
            "reference_continuation": self.seconds >= 2.0 and bool(self.references),
        }
        return tuple(name for name in LAYOUTS if able[name])


@dataclass(frozen=True)
class Choice:
    """One sample to be made: which segment in which layout, and the number its own random draws come from."""

    index: int
    candidate: Candidate
    layout: str
    reference: str | None
    seed: int


@dataclass
class Realised:
    """What was really trained on, counted as it was packed."""

    layouts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def count(self, choice: Choice) -> None:
        """Add one sample."""
        self.layouts[choice.layout] += 1
        self.languages[choice.candidate.language] += 1
        self.seconds += choice.candidate.seconds


class Mixture:
    """An endless, seekable stream of choices for one phase: choice i depends on (seed, phase, i) and nothing else.

    An epoch goes through the segments once, in an order of its own, with those of a language repeated (or thinned out)
    by the temperature: its share is in proportion to its segments' number to the power of `language_temperature`.
    """

    def __init__(self, candidates: list[Candidate], phase: Phase, name: str, seed: int) -> None:
        weights = phase.layouts.model_dump()
        usable = [c for c in candidates if any(weights[layout] > 0 for layout in c.layouts())]
        if not usable:
            raise TrainError(
                f"phase {name}: no segment can serve a layout with a weight above 0; references and descriptions come"
                " from `voxmill prepare` and `voxmill describe`"
            )
        self._candidates = sorted(usable, key=lambda c: c.segment_id)
        self._weights = weights
        self._temperature = phase.language_temperature
        self._key = (seed, sum(name.encode()))

    def __iter__(self) -> Iterator[Choice]:
        index = epoch = 0
        while True:
            for candidate in self._epoch(epoch):
                yield self._choose(index, candidate)
                index += 1
            epoch += 1

    def _epoch(self, epoch: int) -> list[Candidate]:
        dice = np.random.default_rng([*self._key, 1, epoch])
        by_language: dict[str, list[Candidate]] = {}
        for candidate in self._candidates:
            by_language.setdefault(candidate.language, []).append(candidate)
        sizes = np.array([len(members) for members in by_language.values()], dtype=float)
        shares = sizes**self._temperature
        wanted = np.maximum(1, np.rint(shares / shares.sum() * sizes.sum())).astype(int)
        chosen: list[Candidate] = []
        for members, count in zip(by_language.values(), wanted, strict=True):
            whole, rest = divmod(int(count), len(members))
            chosen += members * whole
            chosen += [members[i] for i in dice.permutation(len(members))[:rest]]
        return [chosen[i] for i in dice.permutation(len(chosen))]

    def _choose(self, index: int, candidate: Candidate) -> Choice:
        dice = np.random.default_rng([*self._key, 2, index])
        able = candidate.layouts()
        weights = np.array([self._weights[layout] for layout in able])
        layout = able[int(dice.choice(len(able), p=weights / weights.sum()))]
        reference = None
        if layout in ("reference", "controllable", "reference_continuation"):
            reference = candidate.references[int(dice.integers(len(candidate.references)))][0]
        return Choice(index, candidate, layout, reference, int(dice.integers(2**62)))


def find_candidates(corpus: Corpus, phase: Phase, name: str) -> list[Candidate]:
    """The kept segments of a phase with text, descriptions and kept references; TrainError where there are none."""
    sql = (
        "select segment_id from segments where kept and row is not null"
        f" and duration_s <= {phase.max_seconds} and ({phase.where})"
    )
    chosen = {row[0] for row in query(corpus.path, sql)[1]}
    rows: dict[str, dict[str, Any]] = {row["segment_id"]: row for row in corpus.kept().to_pylist()}
    descriptions = {
        row["segment_id"]: row["full"]
        for row in corpus.annotations("descriptions").to_pylist()
        if row["status"] == "ok" and row["verdict"] != "dropped"
    }
    references: dict[str, list[tuple[str, float]]] = {}
    for pair in corpus.table("references").to_pylist():
        if pair["reference_id"] in rows:
            seconds = rows[pair["reference_id"]]["duration_s"]
            references.setdefault(pair["segment_id"], []).append((pair["reference_id"], seconds))
    found = [
        Candidate(
            segment_id,
            rows[segment_id]["language"] or "",
            rows[segment_id]["text"],
            rows[segment_id]["duration_s"],
            descriptions.get(segment_id),
            tuple(references.get(segment_id, ())),
        )
        for segment_id in sorted(chosen & rows.keys())
        if (rows[segment_id]["text"] or "").strip()
    ]
    if not found:
        raise TrainError(
            f"phase {name}: the corpus {corpus.path} has no kept segment with text up to {phase.max_seconds:g} s where"
            f' {phase.where}; see: voxmill query {corpus.path} "select * from funnel"'
        )
    return found
