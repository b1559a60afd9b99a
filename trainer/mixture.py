"""Which segments are trained on, how often, and in which layout: a function of the seed and the position alone."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainer.config import LAYOUTS, Phase, TrainError, ValidationSettings
from trainer.corpora import Corpora
from trainer.pool import Pool
from trainer.shares import KINDS, Kind, Shares, limited

_LARGEST_HELD = 20
"""Segments of the largest group of duplicates that may be held out."""

CONTINUED_SECONDS = 2.0
"""Shorter clips are not cut in two: there is hardly a word on either side."""

PATCH_SECONDS = 0.16
"""Of the published model; only estimates rest on it."""

ORDER_VERSION = 2
"""Raised when choices follow from the same settings by other rules. 1: the segment first, then a layout that it can serve;
keys had no version then."""

_MEASURED = 10_000
"""Segments of a layout whose lengths the estimate of a ramp's samples rests on."""
_BLOCK = 4096
"""Choices whose layouts are drawn at once."""


@dataclass(frozen=True)
class Candidate:
    """A segment that may be trained on, and what it has to offer."""

    segment_id: str
    language: str
    text: str
    seconds: float
    description: str | None
    """In a sentence or two."""
    references: tuple[tuple[str, float], ...]
    """(segment id, seconds) of clips that may serve as its reference."""
    brief: str | None = None
    """The description in a few words, where there is one."""
    described_id: str | None = None
    """Of a content-decoupled sample: the segment whose description it was spoken by. None: a recording."""

    def layouts(self) -> tuple[str, ...]:
        """The layouts it can serve."""
        if self.described_id is not None:
            return ("controllable",)
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
    description: str | None = None
    """The words for its voice, where the layout has such; None: the candidate's description."""


class Mixture:
    """An endless stream of choices for one phase; choice i depends on (seed, phase, candidates, i) and nothing else.

    Choice i draws its layout by weight among those that any segment can serve, then takes the next segment of that layout's own
    shuffled order (`Pool`). So a layout is as common as was asked for even where few segments can serve it; these are then heard
    more often: up to `max_repeats` times in a uniform pass over all segments, beyond which the layout's share is limited, and
    `notes` says so. The rule holds for a language within a layout too.

    Languages, within each layout: in proportion to their hours of audio to the power of `language_temperature`, times
    `language_weights`.
    """

    def __init__(self, candidates: list[Candidate], phase: Phase, name: str, seed: int) -> None:
        """TrainError where no segment can serve what is asked for."""
        self._phase, self._name, self._key = phase, name, (seed, hash_number(name))
        used = {
            layout
            for weights in (phase.layouts, phase.layouts_from)
            if weights is not None
            for layout, weight in weights.model_dump().items()
            if weight > 0
        }
        self._language_weights = phase.language_weights or {}
        self._candidates = [
            c
            for c in sorted(candidates, key=lambda c: c.segment_id)
            if self._language_weights.get(c.language, 1.0) > 0
            and not used.isdisjoint(c.layouts())
            and (phase.decoupled > 0 or c.described_id is None)
        ]
        self._seconds = np.array([c.seconds for c in self._candidates])
        members = self._members(used)
        able = {kind: sum(map(len, found.values())) for kind, found in members.items()}
        self.shares = Shares(phase, name, able, len(self._candidates))
        self._pools = [self._pool(number, members[kind]) for number, kind in enumerate(self.shares.kinds)]
        if phase.layouts_from is not None:
            self.shares.ramp = self._ramp()
        self._before = [np.zeros(len(self._pools), dtype=np.int64)]
        self._block = -1, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    @property
    def epoch_samples(self) -> int:
        """Choices of one epoch: as many as there are segments to choose from, whatever their layouts are."""
        return len(self._candidates)

    def rounds(self, layouts: Mapping[str, int]) -> dict[str, float]:
        """How often each segment that can serve a layout was taken in it, for samples by layout."""
        return {layout: count / max(1, self.shares.able(layout)) for layout, count in layouts.items()}

    def notes(self) -> list[str]:
        """Lines on what is asked for and cannot be had, and on the ramp."""
        there = {candidate.language for candidate in self._candidates}
        absent = sorted(language for language in self._language_weights if language not in there)
        missing = f"phase {self._name}: language_weights: there is nothing to train on in {', '.join(absent)}"
        return self.shares.notes() + ([missing] if absent else [])

    def choice(self, index: int) -> Choice:
        """Choice number `index`, from 0; quick where indices rise; the first takes a second for every ten million before it."""
        block, place = divmod(index, _BLOCK)
        if self._block[0] != block:
            self._block = (block, *self._draw(block))
        number = int(self._block[1][place])
        candidate = self._candidates[self._pools[number].draw(int(self._block[2][place]))]
        layout = self.shares.kinds[number][0]
        dice = np.random.default_rng([*self._key, 2, index])
        reference = description = None
        if layout in ("reference", "controllable", "reference_continuation"):
            reference = candidate.references[int(dice.integers(len(candidate.references)))][0]
        if layout in ("design", "controllable"):
            short = dice.random() < self._phase.brief
            description = candidate.brief if short and candidate.brief else candidate.description
        return Choice(index, candidate, layout, reference, int(dice.integers(2**62)), description)

    def __iter__(self) -> Iterator[Choice]:
        index = 0
        while True:
            yield self.choice(index)
            index += 1

    def _members(self, used: set[str]) -> dict[Kind, dict[str, np.ndarray]]:
        """int64: numbers of the segments of each kind, by language."""
        found: dict[Kind, dict[str, list[int]]] = {kind: {} for kind in KINDS}
        for number, candidate in enumerate(self._candidates):
            for layout in candidate.layouts():
                if layout in used:
                    of_kind = found[layout, candidate.described_id is not None]
                    of_kind.setdefault(candidate.language, []).append(number)
        return {
            kind: {language: np.array(numbers) for language, numbers in sorted(by_language.items())}
            for kind, by_language in found.items()
        }

    def _pool(self, number: int, members: dict[str, np.ndarray]) -> Pool:
        """The order of one kind's segments, with its languages' shares."""
        counts = np.array([len(found) for found in members.values()], dtype=float)
        seconds = np.array([self._seconds[found].sum() for found in members.values()])
        weights = np.array([self._language_weights.get(language, 1.0) for language in members])
        # Shares of the audio are hours ** temperature; in samples, by the language's mean length.
        asked = weights * counts * (seconds / seconds.sum()) ** (self._phase.language_temperature - 1)
        share = max(float(self.shares.first[number]), float(self.shares.last[number]), 1e-9)
        room = self._phase.max_repeats * counts / (len(self._candidates) * share)
        key = (*self._key, 1, KINDS.index(self.shares.kinds[number]))
        return Pool(key, list(members.values()), limited(asked, room))

    def _draw(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 [_BLOCK] each: the number of each choice's kind, and its own number among the choices of that kind."""
        while len(self._before) <= block:
            kinds = self._draw_kinds(len(self._before) - 1)
            self._before.append(self._before[-1] + np.bincount(kinds, minlength=len(self._pools)))
        kinds = self._draw_kinds(block)
        places = np.zeros(_BLOCK, dtype=np.int64)
        for kind, before in enumerate(self._before[block]):
            mine = kinds == kind
            places[mine] = before + np.arange(int(mine.sum()))
        return kinds, places

    def _draw_kinds(self, block: int) -> np.ndarray:
        dice = np.random.default_rng([*self._key, 3, block]).random(_BLOCK)
        edges = np.cumsum(self.shares.at(block * _BLOCK, _BLOCK), axis=1)
        # Divided by the last one, so that a kind without a share has no room at the end through rounding.
        return np.asarray((dice[:, None] >= (edges / edges[:, -1:])[:, :-1]).sum(axis=1))

    def _ramp(self) -> int:
        """Choices over which the weights change: a share of those the phase's positions have room for, roughly."""
        phase = self._phase
        lengths = []
        for (layout, _), pool in zip(self.shares.kinds, self._pools, strict=True):
            numbers = np.concatenate(pool.members)
            some = numbers[:: 1 + len(numbers) // _MEASURED].tolist()
            lengths.append(sum(rough_positions(self._candidates[i], layout) for i in some) / len(some))
        positions = phase.steps * phase.rows * phase.accumulate * phase.max_positions
        return max(1, round(phase.ramp * positions / float(np.dot(self.shares.last, lengths))))


def rough_positions(candidate: Candidate, layout: str) -> float:
    """Positions of a sample before its text is tokenised: three bytes a token, patches of the published model."""
    found = 4 + len(candidate.text.encode()) / 3 + candidate.seconds / PATCH_SECONDS
    if layout in ("design", "controllable"):
        found += len((candidate.description or "").encode()) / 3
    if layout in ("reference", "controllable", "reference_continuation"):
        found += sum(seconds for _, seconds in candidate.references) / len(candidate.references) / PATCH_SECONDS
    return found


def hash_number(*parts: object) -> int:
    """56 bits that follow from the parts; never negative, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def find_candidates(
    corpora: Corpora, where: str, max_seconds: float, name: str, languages: Sequence[str] | None = None
) -> list[Candidate]:
    """The kept segments of a phase with text, in order of id, with their descriptions and kept references, and after them the
    accepted content-decoupled samples; of these languages only, where they are given. What is content-decoupled is spoken by a
    model: it serves as such alone, and not as a reference.

    Raises TrainError where there are none, in one of the languages that are asked for or in all.
    """
    rows = corpora.kept()
    chosen = {
        segment_id
        for segment_id in corpora.chosen(where, name) & rows.keys()
        if rows[segment_id]["duration_s"] <= max_seconds
    }
    made = corpora.decoupled()
    full, brief = corpora.descriptions(), corpora.descriptions("brief")
    references: dict[str, list[tuple[str, float]]] = {}
    for segment_id, reference_id in corpora.references():
        if reference_id in rows and reference_id != segment_id and reference_id not in made:
            references.setdefault(segment_id, []).append((reference_id, rows[reference_id]["duration_s"]))
    found = [
        Candidate(
            segment_id,
            row["language"] or "",
            row["text"],
            row["duration_s"],
            full.get(segment_id),
            tuple(references.get(segment_id, ())),
            brief.get(segment_id),
        )
        for segment_id in sorted(chosen - made.keys())
        if ((row := rows[segment_id])["text"] or "").strip()
    ]
    if not found:
        raise TrainError(
            f"phase {name}: {corpora.title} has no kept segment with text of up to {max_seconds:g} s where {where};"
            f' see what was rejected, and why: voxmill query {shlex.quote(str(corpora.parts[0].path))} "select * from funnel"'
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
    found += [
        Candidate(
            segment_id,
            row["language"] or "",
            sample.text,
            row["duration_s"],
            full[sample.described_id],
            ((sample.timbre_id, rows[sample.timbre_id]["duration_s"]),),
            brief.get(sample.described_id),
            sample.described_id,
        )
        for segment_id in sorted(chosen & made.keys())
        if (row := rows[segment_id], sample := made[segment_id])[1].accepted
        and sample.text.strip()
        and sample.described_id in full
        and sample.timbre_id in rows
    ]
    return [candidate for candidate in found if languages is None or candidate.language in languages]


def hold_out(
    candidates: dict[str, list[Candidate]], settings: ValidationSettings, groups: Mapping[str, str] | None = None
) -> tuple[dict[str, list[Candidate]], list[Candidate]]:
    """(to train on by phase, held out in every phase). A held-out clip is no reference in training either: it is never heard.
    Content-decoupled samples are never held out, and left out where their description or timbre is of a clip that is.

    Whether a segment is held out follows from its id alone, or where it is linked to others (`groups`: copies, excerpts, the
    same words of the same voice) from its group's name: they are held out together, and none of them is heard. A group of more
    than twenty is trained on: it is a jingle, and one draw must not decide over hours. Where the share finds none, the one
    nearest to it is taken. Raises TrainError for a phase of which nothing is left.
    """
    everything = {c.segment_id: c for found in candidates.values() for c in found if c.described_id is None}
    if settings.every is None or not everything:
        return candidates, []
    groups = groups or {}
    sizes = Counter(groups.values())
    draws = {name: hash_number("held out", name) / 2**56 for name in (groups.get(s, s) for s in everything)}
    draws = {name: 1.0 if sizes[name] > _LARGEST_HELD else draw for name, draw in draws.items()}
    taken = {name for name, draw in draws.items() if draw < settings.share} or {min(draws, key=draws.__getitem__)}
    held = {segment for segment in everything if groups.get(segment, segment) in taken}

    def is_held(segment: str | None) -> bool:
        return segment is not None and groups.get(segment, segment) in taken

    training = {}
    for name, found in candidates.items():
        left = (
            replace(c, references=tuple(r for r in c.references if not is_held(r[0])))
            for c in found
            if not is_held(c.segment_id) and not is_held(c.described_id)
        )
        training[name] = [c for c in left if c.described_id is None or c.references]
        if all(c.described_id is not None for c in training[name]):
            raise TrainError(
                f"phase {name}: all of its segments are held out for validation: lower validation.share, or switch it off"
                " with --set validation.every=null"
            )
    order = sorted(held, key=lambda segment: (draws[groups.get(segment, segment)], segment))
    return training, [everything[segment] for segment in order]


def describe_candidates(candidates: list[Candidate]) -> str:
    """One line: how many segments, hours and languages there are to train on, and what they can serve."""
    recorded = [candidate for candidate in candidates if candidate.described_id is None]
    hours = sum(candidate.seconds for candidate in recorded) / 3600
    languages = sorted({candidate.language or "unknown" for candidate in recorded})
    described = sum(candidate.description is not None for candidate in recorded)
    referenced = sum(bool(candidate.references) for candidate in recorded)
    made = len(candidates) - len(recorded)
    return (
        f"{len(recorded)} segments, {hours:.3f} h, languages {' '.join(languages)}; {described} with a description,"
        f" {referenced} with references" + (f"; {made} content-decoupled samples" if made else "")
    )


def data_key(seed: int, phases: dict[str, Phase], candidates: dict[str, list[Candidate]]) -> str:
    """What the order of the data follows from: seed, phases (but not how long they are or how many rows a step takes, unless
    their weights change with it) and what segments offer. It begins with the version of the rules."""
    settings = {}
    for name, phase in phases.items():
        free = {"lr", "warmup", "schedule", "decay"}
        if phase.layouts_from is None:
            free |= {"steps", "rows", "accumulate"}
        settings[name] = phase.model_dump(exclude=free)
    digest = hashlib.sha256(json.dumps([seed, settings], sort_keys=True).encode())
    for name, found in candidates.items():
        for candidate in found:
            # Samples that a phase does not use may come while it runs.
            if candidate.described_id is None or phases[name].decoupled:
                digest.update(repr(candidate).encode())
    return f"{ORDER_VERSION}:{digest.hexdigest()[:16]}"
