"""What a phase may be trained on: an array view of the candidate table. A candidate becomes an object only when it is used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from catalogs.candidates.captions import ADDED, CAPTIONS, COLUMNS
from catalogs.candidates.held_out import held_out_draw
from catalogs.candidates.table import (
    ACCEPTED,
    BRIEF,
    CAPTION_FLAGS,
    DESCRIBED,
    FULL,
    HAS_ADDED,
    MADE,
    Table,
    has_text,
    make_table,
)
from trainer.sample_kinds import CONTINUED_SECONDS, SAMPLE_KINDS, Offer, SampleKind

_ABOUT_ONE = 1 << 20
"""Number of rows whose references are processed together."""


@dataclass(frozen=True)
class Candidate:
    """A segment that may be trained on, and what it offers for samples."""

    segment_id: str
    language: str
    text: str
    seconds: float
    description: str | None
    """The description in a sentence or two."""
    references: tuple[tuple[str, float], ...]
    """(segment id, seconds) of clips that may be its reference."""
    brief: str | None = None
    """The description in a few words, if there is one."""
    described_id: str | None = None
    """For a content-decoupled sample, the segment whose description it was synthesized with. None: a recording."""
    captions: tuple[tuple[str, str], ...] = ()
    """(column in the candidate table, text) of its other captions."""

    def caption(self, number: int) -> str | None:
        """Return a caption by its index in CAPTIONS, None if it has none."""
        name = COLUMNS[number]
        return {"full": self.description, "brief": self.brief, **dict(self.captions)}.get(name)

    def caption_for(self, kind: SampleKind) -> str | None:
        """Return the caption for a sample that draws none: the register of the kind if it has only one, else the full one; English
        first."""
        only = kind.registers[0] if len(kind.registers) == 1 else None
        order = sorted(range(len(CAPTIONS)), key=lambda number: (CAPTIONS[number][0] != only, number))
        return next(filter(None, map(self.caption, order)), None)

    def layouts(self) -> tuple[str, ...]:
        """Return the layouts that it can serve."""
        described = self.description is not None or bool(self.captions)
        offers = _offers(self.described_id is not None, described, bool(self.references), self.seconds)
        return tuple(kind.layout for kind in SAMPLE_KINDS if int(offers) & kind.needs == kind.needs)


@dataclass(frozen=True)
class Pairs:
    """The reference rows of each row of a table: row i has `rows[at[i] : at[i + 1]]`."""

    at: np.ndarray
    """int64 [rows + 1]"""
    rows: np.ndarray
    """int32"""

    def without(self, unheard: np.ndarray) -> Pairs:
        """Return the pairs whose reference is not in a mask (bool [rows])."""
        kept = ~unheard[self.rows]
        before = np.zeros(len(kept) + 1, dtype=np.int64)
        np.cumsum(kept, out=before[1:])
        return Pairs(before[self.at], self.rows[kept])

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return int32: the references of some rows, in order."""
        first, counts = self.at[rows], self.counts(rows)
        places = np.arange(int(counts.sum())) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        return self.rows[places]

    def counts(self, rows: np.ndarray) -> np.ndarray:
        """Return int64 [N]: the number of references of each row."""
        return np.asarray(self.at[rows + 1] - self.at[rows])


class Candidates(Sequence[Candidate]):
    """Rows of a candidate table that a phase may train on, in order of id unless stated otherwise."""

    def __init__(self, table: Table, rows: np.ndarray, pairs: Pairs | None = None) -> None:
        self.table, self.rows = table, rows
        self.pairs = pairs or Pairs(table.pairs_at, table.pairs)

    @staticmethod
    def of(found: Sequence[Candidate], groups: Mapping[str, str] | None = None) -> Candidates:
        """Return a sequence of candidates as rows of a table in memory; a view is returned unchanged."""
        return found if isinstance(found, Candidates) else shared({"": found}, groups)[""]

    @cached_property
    def flags(self) -> np.ndarray:
        """uint16 [N]"""
        return np.asarray(self.table.flags[self.rows])

    @property
    def made(self) -> np.ndarray:
        """bool [N]: True if the candidate is content-decoupled."""
        return (self.flags & ACCEPTED) != 0

    @property
    def has_added(self) -> bool:
        """True if one of them has a caption that descriptions of earlier versions lack."""
        return bool((self.flags & HAS_ADDED).any())

    @property
    def languages(self) -> list[str]:
        """Names of the languages that occur, sorted."""
        return [self.table.languages[code] for code in np.flatnonzero(self.language_counts)]

    @property
    def language_counts(self) -> np.ndarray:
        """int64 [languages of the table]"""
        return np.bincount(self.table.language[self.rows], minlength=len(self.table.languages))

    @property
    def seconds(self) -> np.ndarray:
        """float64 [N]"""
        return np.asarray(self.table.seconds[self.rows])

    def kinds(self) -> np.ndarray:
        """Return uint16 [N]: the kinds of samples that each can serve, as bits in the order of SAMPLE_KINDS."""
        offers = _offers(self.made, (self.flags & DESCRIBED) != 0, self.pairs.counts(self.rows) > 0, self.seconds)
        found = np.zeros(len(self), dtype=np.uint16)
        for bit, kind in enumerate(SAMPLE_KINDS):
            found |= ((offers & kind.needs) == kind.needs).astype(np.uint16) << np.uint16(bit)
        return found

    def where(self, mask: np.ndarray) -> Candidates:
        """Return the candidates in a mask (bool [N])."""
        return Candidates(self.table, self.rows[mask], self.pairs)

    def at(self, row: int) -> Candidate:
        """Return the candidate in a row of the table."""
        table = self.table
        flags = int(table.flags[row])
        references = self.pairs.rows[int(self.pairs.at[row]) : int(self.pairs.at[row + 1])].tolist()
        return Candidate(
            table.ids[row],
            table.languages[int(table.language[row])],
            table.texts[row],
            float(table.seconds[row]),
            table.full[row] if flags & FULL else None,
            tuple((table.ids[other], float(table.seconds[other])) for other in references),
            table.brief[row] if flags & BRIEF else None,
            table.described[row] if flags & ACCEPTED else None,
            tuple(
                (name, getattr(table, name)[row])
                for name, flag in zip(COLUMNS, CAPTION_FLAGS, strict=True)
                if name in ADDED and flags & flag
            ),
        )

    def digest(self) -> bytes:
        """Hash what determines the order of the data: ids, texts, lengths, descriptions, and the ids of the references."""
        found = hashlib.sha256()
        for start in range(0, len(self.rows), _ABOUT_ONE):
            rows = self.rows[start : start + _ABOUT_ONE]
            found.update(self.table.digest[rows].tobytes())
            found.update(self.pairs.counts(rows).tobytes())
            found.update(self.table.id_hash[self.pairs.of(rows)].tobytes())
        return found.digest()

    def places(self) -> np.ndarray:
        """Return the codes of the shards that contain the rows and their references, each once."""
        wanted = np.zeros(len(self.table.shards), dtype=bool)
        for start in range(0, len(self.rows), _ABOUT_ONE):
            rows = self.rows[start : start + _ABOUT_ONE]
            wanted[self.table.shard[rows]] = True
            wanted[self.table.shard[self.pairs.of(rows)]] = True
        return np.flatnonzero(wanted)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Candidates: ...
    def __getitem__(self, index: int | slice) -> Candidate | Candidates:
        if isinstance(index, slice):
            return Candidates(self.table, self.rows[index], self.pairs)
        return self.at(int(self.rows[index]))

    def __iter__(self) -> Iterator[Candidate]:
        return map(self.at, self.rows.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def _offers(made: Any, described: Any, referenced: Any, seconds: Any) -> np.ndarray:
    """Return what candidates offer (`Offer`). Arguments are bool [N], and seconds [N]; or one value each."""
    recorded = (
        Offer.RECORDING
        + np.multiply(described, int(Offer.DESCRIPTION))
        + np.multiply(referenced, int(Offer.REFERENCE))
        + np.multiply(np.greater_equal(seconds, CONTINUED_SECONDS), int(Offer.TWO_PARTS))
    )
    return np.where(made, int(Offer.DECOUPLED), recorded)


def shared(
    candidates: Mapping[str, Sequence[Candidate]], groups: Mapping[str, str] | None = None
) -> dict[str, Candidates]:
    """Return the candidates of several phases as views of one table. If they are not such views already, a table is made in memory.

    groups: the group's name of each segment that is linked to others, for a table made in memory.
    """
    views = {name: found for name, found in candidates.items() if isinstance(found, Candidates)}
    if len(views) == len(candidates) and len({id(found.table) for found in views.values()}) <= 1:
        return views
    everything = {c.segment_id: c for found in candidates.values() for c in found}
    rows: dict[str, dict[str, Any]] = {}
    for candidate in everything.values():
        for reference, seconds in candidate.references:
            rows.setdefault(reference, {"segment_id": reference, "seconds": seconds})
    for candidate in everything.values():
        made = candidate.described_id is not None
        rows[candidate.segment_id] = {
            "segment_id": candidate.segment_id,
            "language": candidate.language,
            "text": candidate.text,
            "seconds": candidate.seconds,
            "full": candidate.description,
            "brief": candidate.brief,
            **dict(candidate.captions),
            "described": candidate.described_id,
            "flags": MADE | ACCEPTED if made else 0,
        }
    pairs = {c.segment_id: [reference for reference, _ in c.references] for c in everything.values()}
    table = make_table(rows, pairs, groups or {}, held_out_draw)
    return {
        name: Candidates(table, np.array(sorted(table.find(c.segment_id) for c in found), dtype=np.int32))
        for name, found in candidates.items()
    }


def usable(table: Table) -> np.ndarray:
    """Return bool [rows]: True for recordings with text and accepted content-decoupled samples, which may be trained on."""
    return has_text(table.flags) & (((table.flags & MADE) == 0) | ((table.flags & ACCEPTED) != 0))


@dataclass(frozen=True)
class Choice:
    """One sample to make: the segment, its layout, and the seed of its random draws."""

    index: int
    candidate: Candidate
    layout: str
    reference: str | None
    seed: int
    description: str | None = None
    """The description of the voice, if the layout has one; None: `Candidate.caption_for` the layout."""
    caption: int = -1
    """Index of the description in CAPTIONS; -1 if none was drawn."""


def spoken_text(text: str, description: str | None) -> str:
    """Return the model's input text: the text, with the description in parentheses before it if there is one."""
    return text if description is None else f"({description}){text}"
