"""Which segments are trained on, how often, and in which layout: a function of the seed and the position alone."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trainer.config import LAYOUTS, Phase, TrainError, ValidationSettings
from trainer.corpora import Corpora

_LARGEST_HELD = 20
"""Segments of the largest group of duplicates that may be held out."""

CONTINUED_SECONDS = 2.0
"""Shorter clips are not cut in two: there is hardly a word on either side."""


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
        long_enough = self.seconds >= CONTINUED_SECONDS
        able = {
            "basic": True,
            "design": self.description is not None,
            "reference": bool(self.references),
            "controllable": self.description is not None and bool(self.references),
            "continuation": long_enough,
            "reference_continuation": long_enough and bool(self.references),
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
    """What was really trained on: samples by layout and by language, seconds of target audio."""

    layouts: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, choice: Choice) -> None:
        """Add one sample."""
        self.layouts[choice.layout] = self.layouts.get(choice.layout, 0) + 1
        language = choice.candidate.language
        self.languages[language] = self.languages.get(language, 0) + 1
        self.seconds += choice.candidate.seconds

    def shares(self) -> str:
        """One line: the layouts in percent of the samples."""
        total = max(1, sum(self.layouts.values()))
        return ", ".join(f"{name} {self.layouts[name] / total:.0%}" for name in LAYOUTS if name in self.layouts)


class Mixture:
    """An endless stream of choices for one phase; choice i depends on (seed, phase, i) and nothing else.

    An epoch goes through the segments once, in an order of its own, with those of a language repeated (or thinned out)
    by the temperature: its share is in proportion to its segments' number to the power of `language_temperature`.
    """

    def __init__(self, candidates: list[Candidate], phase: Phase, name: str, seed: int) -> None:
        weights = phase.layouts.model_dump()
        usable = [c for c in candidates if any(weights[layout] > 0 for layout in c.layouts())]
        if not usable:
            wanted = [layout for layout in LAYOUTS if weights[layout] > 0]
            raise TrainError(
                f"phase {name}: no segment can serve a layout with a weight above 0 ({', '.join(wanted) or 'none has one'});"
                " references come from `voxmill prepare`, descriptions from `voxmill describe`"
            )
        self._weights = weights
        self._key = (seed, hash_number(name))
        self._by_language: dict[str, list[Candidate]] = {}
        for candidate in sorted(usable, key=lambda c: c.segment_id):
            self._by_language.setdefault(candidate.language, []).append(candidate)
        sizes = np.array([len(members) for members in self._by_language.values()], dtype=float)
        shares = sizes**phase.language_temperature
        self._wanted = np.maximum(1, np.rint(shares / shares.sum() * sizes.sum())).astype(int)
        self._order: tuple[int, list[Candidate]] = (-1, [])

    @property
    def epoch_samples(self) -> int:
        """Choices of one epoch."""
        return int(self._wanted.sum())

    def choice(self, index: int) -> Choice:
        """Choice number `index`, from 0; quick where indices rise, as an epoch's order is kept until the next one."""
        epoch, place = divmod(index, self.epoch_samples)
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch(epoch))
        return self._choose(index, self._order[1][place])

    def __iter__(self) -> Iterator[Choice]:
        index = 0
        while True:
            yield self.choice(index)
            index += 1

    def _epoch(self, epoch: int) -> list[Candidate]:
        dice = np.random.default_rng([*self._key, 1, epoch])
        chosen: list[Candidate] = []
        for members, count in zip(self._by_language.values(), self._wanted, strict=True):
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


def hash_number(*parts: object) -> int:
    """56 bits that follow from the parts; never negative, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def find_candidates(
    corpora: Corpora, where: str, max_seconds: float, name: str, languages: Sequence[str] | None = None
) -> list[Candidate]:
    """The kept segments of a phase with text, in order of id, with their descriptions and kept references; of these languages
    only, where they are given.

    Raises TrainError where there are none, in one of the languages that are asked for or in all.
    """
    rows = corpora.kept()
    chosen = corpora.chosen(where, name) & rows.keys()
    descriptions = corpora.descriptions()
    references: dict[str, list[tuple[str, float]]] = {}
    for segment_id, reference_id in corpora.references():
        if reference_id in rows and reference_id != segment_id:
            references.setdefault(segment_id, []).append((reference_id, rows[reference_id]["duration_s"]))
    found = [
        Candidate(
            segment_id,
            row["language"] or "",
            row["text"],
            row["duration_s"],
            descriptions.get(segment_id),
            tuple(references.get(segment_id, ())),
        )
        for segment_id in sorted(chosen)
        if (row := rows[segment_id])["duration_s"] <= max_seconds and (row["text"] or "").strip()
    ]
    if not found:
        raise TrainError(
            f"phase {name}: {corpora.title} has no kept segment with text of up to {max_seconds:g} s where {where};"
            f' see what was rejected, and why: voxmill query {corpora.parts[0].path} "select * from funnel"'
        )
    if languages is not None:
        there = {candidate.language for candidate in found}
        missing = [language for language in languages if language not in there]
        if missing:
            raise TrainError(
                f"phase {name}: languages: no kept segment in {', '.join(missing)}; there are some in"
                f" {', '.join(sorted(filter(None, there))) or 'no known language'}: correct phases.{name}.languages, or prepare"
                " recordings in it"
            )
        found = [candidate for candidate in found if candidate.language in languages]
    return found


def hold_out(
    candidates: dict[str, list[Candidate]], settings: ValidationSettings, groups: Mapping[str, str] | None = None
) -> tuple[dict[str, list[Candidate]], list[Candidate]]:
    """(to train on by phase, held out in every phase). A held-out clip is no reference in training either: it is never heard.

    Whether a segment is held out follows from its id alone, or where it is linked to others (`groups`: copies, excerpts, the
    same words of the same voice) from its group's name: they are held out together, and none of them is heard. A group of more
    than twenty is trained on: it is a jingle, and one draw must not decide over hours. Where the share finds none, the one
    nearest to it is taken. Raises TrainError for a phase of which nothing is left.
    """
    everything = {c.segment_id: c for found in candidates.values() for c in found}
    if settings.every is None or not everything:
        return candidates, []
    groups = groups or {}
    sizes = Counter(groups.values())
    draws = {name: hash_number("held out", name) / 2**56 for name in (groups.get(s, s) for s in everything)}
    draws = {name: 1.0 if sizes[name] > _LARGEST_HELD else draw for name, draw in draws.items()}
    taken = {name for name, draw in draws.items() if draw < settings.share} or {min(draws, key=draws.__getitem__)}
    held = {segment for segment in everything if groups.get(segment, segment) in taken}
    training = {}
    for name, found in candidates.items():
        training[name] = [
            replace(c, references=tuple(r for r in c.references if groups.get(r[0], r[0]) not in taken))
            for c in found
            if c.segment_id not in held
        ]
        if not training[name]:
            raise TrainError(
                f"phase {name}: all of its segments are held out for validation: lower validation.share, or switch it off"
                " with --set validation.every=null"
            )
    order = sorted(held, key=lambda segment: (draws[groups.get(segment, segment)], segment))
    return training, [everything[segment] for segment in order]


def describe_candidates(candidates: list[Candidate]) -> str:
    """One line: how many segments, hours and languages there are to train on, and what they can serve."""
    hours = sum(candidate.seconds for candidate in candidates) / 3600
    languages = sorted({candidate.language or "unknown" for candidate in candidates})
    described = sum(candidate.description is not None for candidate in candidates)
    referenced = sum(bool(candidate.references) for candidate in candidates)
    return (
        f"{len(candidates)} segments, {hours:.3f} h, languages {' '.join(languages)}; {described} with a description,"
        f" {referenced} with references"
    )


def data_key(seed: int, phases: dict[str, Phase], candidates: dict[str, list[Candidate]]) -> str:
    """What the order of the data follows from: seed, phases (but not how long they are or how many rows a step takes) and
    what segments offer."""
    settings = {
        name: phase.model_dump(exclude={"lr", "warmup", "schedule", "decay", "steps", "rows", "accumulate"})
        for name, phase in phases.items()
    }
    digest = hashlib.sha256(json.dumps([seed, settings], sort_keys=True).encode())
    for found in candidates.values():
        for candidate in found:
            digest.update(repr(candidate).encode())
    return digest.hexdigest()[:16]
