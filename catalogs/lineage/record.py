"""The content of lineage.json and lineage.parquet.

    lineage.json      one object: the fields of `Lineage`, and the size and digest of the table
    lineage.parquet   one row per recording that was drawn, or that has held-out segments: the fields of `DrawnRecording`

A sample is drawn if it is in a batch of a step. Steps that the loss guard did not take count too, and so do clips that could not be
read, since nothing else is certain without the weights. Steps are numbered from 1: the checkpoint of step N was made by draws with
a `first_step` of at most N. Positions count the samples of a phase from 0, in the order that seed and data determine.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa

SCHEMA = 1
"""Increased when a field changes its meaning. Fields and columns are only added otherwise."""

Role = Literal["start", "base", "adapter", "codec"]
"""start: the run began with these weights. base: adapters were trained over them. adapter: it was merged into them. codec: only
its codec was taken."""


class LineageError(ValueError):
    """A lineage cannot be used; the message is one line that says what to do."""


@dataclass(frozen=True)
class DrawnCorpus:
    """A corpus that was trained on. name: unique in the lineage; rows of the table name it."""

    name: str
    digest: str
    """`catalogs.lineage.digest.corpus_digest` when the run was begun or resumed last."""
    fingerprint: str | None
    """Fingerprint of the settings that made it."""
    folder: str
    """Last part of the path that it was read from; the path itself may tell who the user is."""


@dataclass(frozen=True)
class Stretch:
    """A part of the order of one phase: the positions `first` .. `end` - 1, taken by the steps `first_step` .. `last_step`."""

    phase: str
    first: int
    end: int
    first_step: int
    last_step: int
    data_key: str
    """Identity of all that determines the order, with its version (`trainer.data.holdout.ORDER_VERSION`)."""
    waiting: tuple[int, ...] = ()
    """Positions before `end` that were not drawn: their rows were not full yet. Samples that are longer than a row are not drawn
    either, and are not listed."""


@dataclass(frozen=True)
class Ancestor:
    """A checkpoint that this one was made from. generation: 1 is a parent, 2 a parent of a parent."""

    generation: int
    role: Role
    name: str
    """Hub id or name of the folder."""
    digest: str | None
    """`catalogs.weights.checkpoint_files.checkpoint_digest`; null if it was not found any more."""
    known: bool
    """True if it had a lineage. Its rows are then in the table of this one, with its generation."""


@dataclass(frozen=True)
class LicenseShare:
    """What was drawn under one license, by this run and all known ancestors."""

    recordings: int
    hours: float
    """Length of these recordings, each once."""
    drawn_hours: float
    """Target audio in batches, repetitions included."""


@dataclass(frozen=True)
class HeldOut:
    """What the run kept for validation: never trained on, not even as a reference."""

    segments: int
    recordings: int
    """Recordings with such segments. Other segments of them may have been drawn."""
    hours: float


@dataclass(frozen=True)
class DrawnRecording:
    """A row of the table: how one run used one recording."""

    corpus: str
    source_id: str
    content_sha256: str | None
    session_id: str | None
    license: str | None
    consent: str | None
    synthetic: bool
    """True if a model spoke it (`voxmill decouple`)."""
    seconds: float | None
    """Length of the recording."""
    draws: int
    """Samples whose target is a segment of it."""
    drawn_s: float
    """Seconds of these targets."""
    as_reference: int
    """Samples with a reference clip from it."""
    through_decoupled: int
    """Samples of synthetic speech whose description or timbre is from it."""
    held_out: int
    """Number of its segments that are held out."""
    first_phase: str | None
    first_position: int | None
    """Position, in that phase, of the first sample that uses it in any way; null if none does."""
    first_step: int | None
    """Step of that sample; 0 if the codec was trained on it before the first step, null if nothing uses it."""
    in_codec: int = 0
    """Number of its clips that the codec was trained on; each crop was of a random clip."""
    generation: int = 0
    """0: the run that made the checkpoint. 1: the run of its parent, and so on."""

    @property
    def used(self) -> bool:
        """Return True if a batch, of the model or its codec, contained anything from it."""
        return bool(self.draws or self.as_reference or self.through_decoupled or self.in_codec)


@dataclass(frozen=True)
class Lineage:
    """What a checkpoint was made of."""

    digest: str | None
    """`catalogs.weights.checkpoint_files.checkpoint_digest` of the files beside it; null beside a resume state."""
    kind: Literal["model", "adapter", "codec"]
    step: int
    ancestors: tuple[Ancestor, ...]
    """Empty: the weights were random when the run began."""
    corpora: tuple[DrawnCorpus, ...]
    data_key: str
    order_version: int
    seed: int
    positions: tuple[Stretch, ...]
    """In the order of training."""
    licenses: dict[str, LicenseShare]
    """By SPDX identifier; `NOASSERTION` if none is stated."""
    held_out: HeldOut
    tombstones: tuple[str, ...]
    """Ids of the tombstones of the corpora that were obeyed."""
    gaps: tuple[str, ...]
    """Sentences on draws that are not in the table."""
    notes: tuple[str, ...]
    """Sentences on what else the data was used for: the tokenizer, the codec."""
    unnamed_draws: int
    """Samples of synthetic speech whose description is from a recording of no corpus of the run."""
    voxmill: str
    commit: str | None
    """Git commit of voxmill's source, if it ran from a checkout."""
    table_rows: int
    table_sha256: str
    schema: int = SCHEMA
    folder: Path | None = field(default=None, compare=False)
    """Folder that it was read from; not in the file."""

    @property
    def parents(self) -> tuple[Ancestor, ...]:
        """The checkpoints that it was made from directly."""
        return tuple(one for one in self.ancestors if one.generation == 1)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Sentences on what is not known. Empty: the table names every recording that was used."""
        return (
            *(
                f"unknown parent: {one.name} ({one.role}) has no lineage, so what it was trained on is not known"
                for one in self.ancestors
                if not one.known
            ),
            *self.own_gaps,
        )

    @property
    def own_gaps(self) -> tuple[str, ...]:
        """Sentences on what is not known of its training itself. That an ancestor is unknown is not among them."""
        return (*self.gaps, *self._unnamed())

    def _unnamed(self) -> tuple[str, ...]:
        if not self.unnamed_draws:
            return ()
        return (
            f"{self.unnamed_draws} samples of synthetic speech follow descriptions of recordings that are in none of the corpora",
        )


_TYPES = {
    "str": pa.string(),
    "str | None": pa.string(),
    "bool": pa.bool_(),
    "float": pa.float64(),
    "float | None": pa.float64(),
    "int": pa.int64(),
    "int | None": pa.int64(),
}

COLUMNS = pa.schema([(one.name, _TYPES[str(one.type)]) for one in dataclasses.fields(DrawnRecording)])
"""Schema of lineage.parquet."""
