"""The plan of a request to forget: what would be hidden and erased, and what is out of reach."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalogs.corpus.damage import reading
from catalogs.corpus.latents import latent_files
from catalogs.corpus.reader import Corpus
from catalogs.corpus.tombstones import Tombstone
from catalogs.exchange.exports import known_exports
from catalogs.query.views import connect, result_rows
from voxmill.forgetting.checkpoints import Checked
from voxmill.forgetting.scope import Chosen

LIMITS = (
    "Forgetting removes data and names checkpoints. It does not make trained weights forget: resume from an unaffected checkpoint, "
    "or train again. Nor does it stop zero-shot cloning of that voice: a model clones a voice that it never heard from a clip."
)


@dataclass(frozen=True)
class CorpusPlan:
    """What is forgotten in one corpus. Counts are of rows; `hours` of segments."""

    corpus: str
    tombstone: str
    """The id that it has, or will have."""
    recordings: int
    partial: int
    """Recordings of which only some segments are forgotten."""
    segments: int
    kept: int
    hours: float
    units: int
    """Commits that are written again."""
    references: int
    """Pairs of other segments that lose their reference."""
    descriptions: int
    checks: int
    decoupled: int
    """Rows about synthetic clips that have its voice or its words."""
    latents: int
    marks: int
    sessions: tuple[str, ...] = ()
    """The sessions of the recordings."""
    heard: tuple[dict[str, Any], ...] = ()
    """Segments that were chosen by a voice: `segment_id`, `path`, `start_s`, `end_s`, `kept` and, of `--like`, the
    `cosine`, None for those that follow from others. The least near ones come first: they are the doubtful ones."""
    copies: tuple[dict[str, Any], ...] = ()
    """Segments with the same audio that are not forgotten: `segment_id`, `path`, `duplicate_kind`."""
    linked: tuple[dict[str, Any], ...] = ()
    """Segments of the same groups that share a part or a text; they stay."""
    exports: tuple[dict[str, Any], ...] = ()
    """Known exports, which are out of reach: `path`, `format`, `at`, `clips`."""


@dataclass(frozen=True)
class Plan:
    """What `forget` would do, or did. `state`: planned, hidden or erased."""

    corpora: tuple[CorpusPlan, ...]
    """The corpus, then those of synthetic speech that was made of it."""
    checkpoints: tuple[Checked, ...] = ()
    unaffected: dict[str, str | None] = field(default_factory=dict)
    """By run: the newest checkpoint that was not trained on it."""
    state: str = "planned"
    problems: tuple[str, ...] = ()
    """What fsck found afterwards."""
    limits: str = LIMITS


def tombstone_of(chosen: Chosen, scope: dict[str, str], reason: str | None, requested_by: str | None) -> Tombstone:
    """Return the tombstone for what was chosen. It is named after that, so that the same request has the same name."""
    segments = chosen.ids | chosen.foreign
    names = sorted(segments) + sorted(chosen.sources)
    return Tombstone(
        id=hashlib.sha256("\n".join(names).encode()).hexdigest()[:16],
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        scope=scope,
        reason=reason,
        requested_by=None if requested_by is None else hashlib.sha256(requested_by.encode()).hexdigest(),
        content_sha256=tuple(sorted(chosen.contents)),
        source_ids=tuple(sorted(chosen.sources)),
        partial_ids=tuple(sorted(row["source_id"] for row in chosen.partial)),
        segment_ids=tuple(sorted(segments)),
        audio_sha256=tuple(sorted({row["audio_sha256"] for row in chosen.segments if row["audio_sha256"]})),
        units=tuple(sorted(chosen.units)),
        seconds=round(sum(row["duration_s"] or 0.0 for row in chosen.segments), 3),
    )


def prints_of(root: Path, chosen: Chosen) -> list[tuple[str, bytes]]:
    """Return (segment id, audio print) of the chosen segments that have one."""
    corpus, found = Corpus(root), []
    for row in chosen.segments:
        if row["shard"] is not None:
            with reading(root / row["shard"]):
                words = corpus.shard(row["shard"]).column(row["row"], "audio_print")
            found += [(row["segment_id"], bytes(words))] if words else []
    return found


def corpus_plan(root: Path, chosen: Chosen, tombstone: str) -> CorpusPlan:
    """Return the plan for one corpus."""
    ids = sorted(chosen.ids | chosen.foreign)
    with connect(root) as catalog:

        def count(view: str, *columns: str) -> int:
            test = " OR ".join(f"list_contains(CAST($1 AS VARCHAR[]), {name})" for name in columns)
            ((found,),) = catalog.execute(f"SELECT count(*) FROM {view} WHERE {test}", [ids]).fetchall()
            return int(found)

        of_others = (
            "SELECT segment_id FROM reference_pairs WHERE list_contains(CAST(? AS VARCHAR[]), reference_id) "
            "AND NOT list_contains(CAST(? AS VARCHAR[]), segment_id)"
        )
        return CorpusPlan(
            corpus=str(root),
            tombstone=tombstone,
            recordings=len(chosen.whole),
            partial=len(chosen.partial),
            segments=len(chosen.segments),
            kept=sum(bool(row["kept"]) for row in chosen.segments),
            hours=sum(row["duration_s"] or 0.0 for row in chosen.segments) / 3600,
            units=len(chosen.units),
            references=len(result_rows(catalog, of_others, ids, ids)),
            descriptions=count("descriptions", "segment_id"),
            checks=count("checks", "segment_id"),
            decoupled=count("decoupled", "segment_id", "described_id", "timbre_id", "text_id"),
            latents=_latents(root, ids),
            marks=count("marks", "segment_id"),
            heard=_heard(chosen),
            sessions=tuple(sorted({row["session_id"] for row in (*chosen.whole, *chosen.partial)})),
            copies=_short(chosen.copies),
            linked=_short(chosen.linked),
            exports=tuple(known_exports(root)),
        )


def _heard(chosen: Chosen) -> tuple[dict[str, Any], ...]:
    """Return the segments that were chosen by their voice, the least near first."""
    if not chosen.by_voice:
        return ()
    paths = {row["source_id"]: row["path"] for row in (*chosen.whole, *chosen.partial)}
    rows = [
        {name: row[name] for name in ("segment_id", "start_s", "end_s", "kept")}
        | {"path": paths[row["source_id"]], "cosine": chosen.cosines.get(row["segment_id"])}
        for row in chosen.segments
    ]
    return tuple(sorted(rows, key=lambda row: (row["cosine"] is None, row["cosine"] or 0.0, row["segment_id"])))


def _short(rows: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    return tuple({name: row[name] for name in ("segment_id", "path", "duplicate_kind")} for row in rows)


def _latents(root: Path, ids: Iterable[str]) -> int:
    wanted, found = pa.array(ids, pa.string()), 0
    for path in latent_files(root):
        with reading(path):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            found += int(pc.sum(pc.is_in(table.column("segment_id"), wanted)).as_py() or 0)
    return found
