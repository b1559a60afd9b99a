"""Which recordings and segments a request to forget means."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalogs.corpus.commit import read_records
from catalogs.corpus.damage import reading
from catalogs.corpus.tombstones import MADE_OF, Tombstone
from catalogs.files import file_sha256
from catalogs.nearest import nearest
from catalogs.query.views import connect, result_rows

Row = Mapping[str, Any]
Catalog = Any
"""An open connection to the catalog, of `catalogs.query.views.connect`."""


class ForgetError(ValueError):
    """A request to forget cannot be met; the message is one line that says what to give instead."""


@dataclass(frozen=True)
class Request:
    """What is to be forgotten: one of these. `speaker` is a cluster within a session, and needs it."""

    recording: str | None = None
    session: str | None = None
    speaker: str | None = None
    speaker_id: str | None = None
    like: Path | None = None
    cosine: float | None = None

    def scope(self) -> dict[str, str]:
        """Return the kind of the request and a hash of what was given, for the tombstone. Raises ForgetError."""
        given = {name: value for name, value in vars(self).items() if value is not None and name != "cosine"}
        if self.speaker is not None and self.session is None:
            raise ForgetError(
                "--speaker names a voice within a session: give --session, too; across sessions, --speaker-id"
            )
        kinds = set(given) - ({"session"} if self.speaker is not None else set())
        if len(kinds) != 1:
            raise ForgetError("give one of --recording, --session, --session with --speaker, --speaker-id and --like")
        if self.cosine is not None and (self.like is None or not -1 <= self.cosine <= 1):
            raise ForgetError("--cosine is a number from -1 to 1, and goes with --like")
        words = "\0".join(str(given[name]) for name in sorted(given))
        return {"by": kinds.pop().replace("_", "-"), "sha256": hashlib.sha256(words.encode()).hexdigest()}


@dataclass(frozen=True)
class Chosen:
    """What a request means in one corpus. Rows have the columns of `recordings` and `segments`."""

    whole: Sequence[Row] = ()
    """Recordings that are forgotten as a whole."""
    partial: Sequence[Row] = ()
    segments: Sequence[Row] = ()
    copies: Sequence[Row] = ()
    """Segments outside of the request with the same audio."""
    linked: Sequence[Row] = ()
    """Segments outside of it that share a part or the text."""
    sources: frozenset[str] = frozenset()
    """Ids of the recordings that are forgotten as a whole, also those of older attempts."""
    units: frozenset[str] = frozenset()
    foreign: frozenset[str] = field(default_factory=frozenset)
    """For a corpus of synthetic speech: segments of another corpus that it was made of."""
    by_voice: bool = False
    """The segments were chosen by their voice (`--speaker`, `--like`), not by their recordings."""
    cosines: Mapping[str, float] = field(default_factory=dict)
    """Of `--like`: how near the voice of a segment is to that of the clip, by id."""

    @property
    def ids(self) -> set[str]:
        """The ids of the segments."""
        return {row["segment_id"] for row in self.segments}

    @property
    def contents(self) -> set[str]:
        """The content hashes of the recordings."""
        return {row["content_sha256"] for row in (*self.whole, *self.partial) if row["content_sha256"]}


def choose(root: Path, request: Request, with_copies: bool = False, alike: Mapping[str, float] | None = None) -> Chosen:
    """Return what a request means. alike: cosines of the segments that sound like the clip of `--like`, by id.

    The same content under another name is forgotten with it. Raises ForgetError if nothing is meant.
    """
    with connect(root) as catalog:
        if request.recording is not None:
            sources = _recordings(catalog, request.recording)
            ids = set[str]()
        elif request.session is not None and request.speaker is None:
            sources, ids = _session(catalog, request.session), set[str]()
        elif request.speaker_id is not None:
            sources, ids = _owned(catalog, request.speaker_id), set[str]()
        else:
            sources, ids = set[str](), set(alike or ())
            if request.speaker is not None:
                assert request.session is not None
                ids = _voice(catalog, request.session, request.speaker)
        chosen = complete(root, catalog, sources, ids, with_copies)
        return replace(chosen, by_voice=bool(ids), cosines=alike or {})


def made_of(root: Path, foreign: Iterable[str]) -> Chosen | None:
    """Return the synthetic clips of a corpus that were made of segments of another one; None if there are none."""
    names = sorted(foreign)
    with connect(root) as catalog:
        rows = _made(catalog, names)
        if not rows:
            return None
        there = {row["segment_id"] for row in rows if row["segment_id"]}
        found = complete(root, catalog, set(), there, False) if there else Chosen()
        used = {str(row[name]) for row in rows for name in MADE_OF if row[name] in set(names)}
        return Chosen(found.whole, found.partial, found.segments, (), (), found.sources, found.units, frozenset(used))


def complete(root: Path, catalog: Catalog, sources: set[str], ids: set[str], with_copies: bool) -> Chosen:
    """Return the recordings and segments with all that follows from them: copies of the files, and clips that were made of them."""
    sources = sources | _same_content(catalog, sources)
    ids = ids | _at_same_place(catalog, ids)
    while True:
        rows = _segments(catalog, sources, ids)
        names = [row["segment_id"] for row in rows]
        copies, linked = _linked(catalog, names)
        more = {row["segment_id"] for row in _made(catalog, names)} - set(names)
        more |= {row["segment_id"] for row in copies} if with_copies else set()
        more &= {row["segment_id"] for row in _segments(catalog, set(), more)}
        if not more:
            break
        ids = ids | more
    of = {row["source_id"] for row in rows}
    left = {
        row["source_id"]
        for row in result_rows(
            catalog,
            "SELECT DISTINCT source_id FROM segments WHERE list_contains(?, source_id) AND shard IS NOT NULL "
            "AND NOT list_contains(?, segment_id)",
            sorted(of - sources),
            names,
        )
    }
    whole = sources | (of - left)
    if not whole and not rows:
        raise ForgetError("nothing in the corpus is like that: lower --cosine, or name a recording or a session")
    # A recording of which nothing audible would be left is forgotten as a whole.
    rows = _segments(catalog, whole, set(names))
    recordings = result_rows(
        catalog, "SELECT * FROM recordings WHERE list_contains(?, source_id) ORDER BY source_id", sorted(whole | of)
    )
    chosen = [row for row in recordings if row["source_id"] in whole]
    partial = [row for row in recordings if row["source_id"] not in whole]
    contents = {row["content_sha256"] for row in chosen if row["content_sha256"]}
    ids = {row["segment_id"] for row in rows}
    everywhere, units = _in_all_units(root, whole, {row["source_id"] for row in partial}, contents, ids)
    return Chosen(chosen, partial, rows, copies, linked, everywhere, units)


def with_new_units(root: Path, found: Tombstone) -> Tombstone:
    """Return a tombstone with the units that hold any of it now, and with the segments of its recordings in those that it lacks."""
    # The contents of a tombstone are also those of recordings of which some segments stay.
    contents = set() if found.partial_ids else set(found.content_sha256)
    ids = set(found.segment_ids)
    sources, units = _in_all_units(root, set(found.source_ids), set(found.partial_ids), contents, ids)
    if not (new := units - set(found.units)) and sources <= set(found.source_ids):
        return found
    for record in read_records(root, superseded=True):
        for path in (root / file["path"] for file in record["files"] if file["kind"] == "index"):
            if record["unit_id"] in new:
                pairs = zip(*_columns(path, "source_id", "segment_id"), strict=True)
                ids |= {segment for source, segment in pairs if source in sources}
    return replace(
        found,
        source_ids=tuple(sorted({*found.source_ids, *sources})),
        segment_ids=tuple(sorted(ids)),
        units=tuple(sorted({*found.units, *units})),
    )


def _recordings(catalog: Catalog, name: str) -> set[str]:
    path = Path(name).expanduser()
    content = file_sha256(path) if path.is_file() else ""
    rows = result_rows(
        catalog,
        "SELECT source_id FROM recordings WHERE source_id = ? OR path IN (?, ?) OR content_sha256 = ?",
        name,
        name,
        str(path.absolute()),
        content or name,
    )
    if rows:
        return {row["source_id"] for row in rows}
    known = [row["path"] for row in result_rows(catalog, "SELECT DISTINCT path FROM recordings")]
    ends = [one for one in known if one.endswith(f"/{name.lstrip('./')}")]
    near = ends[0] if len(ends) == 1 else nearest(name, known)
    raise ForgetError(
        f"no recording {name} in the corpus"
        + (f"; did you mean {near}?" if near else "; list them with: select source_id, path from recordings")
    )


def _session(catalog: Catalog, name: str) -> set[str]:
    rows = result_rows(
        catalog,
        "SELECT source_id FROM recordings WHERE list_contains(CAST(? AS VARCHAR[]), session_id)",
        _parts(catalog, name),
    )
    return {row["source_id"] for row in rows}


def _parts(catalog: Catalog, name: str) -> list[str]:
    """Return the names of a session and of its later parts, `name#2` and so on. Raises ForgetError if there are none.

    `prepare` appends a `#` to the name of a part that is the name of another session: beside `name#2#`, `name#2` is not a part.
    """
    known = {str(row["session_id"]) for row in result_rows(catalog, "SELECT DISTINCT session_id FROM recordings")}
    found = []
    for one in sorted(known):
        part = re.fullmatch(r"#(\d+)#*", one.removeprefix(name)) if one.startswith(name) else None
        if one == name or (part and int(part[1]) > 1 and f"{one}#" not in known):
            found.append(one)
    if not found:
        raise _unknown("session", name, sorted(known))
    return found


def _owned(catalog: Catalog, name: str) -> set[str]:
    rows = result_rows(catalog, "SELECT source_id FROM recordings WHERE owner_speaker = ?", name)
    if not rows:
        sql = "SELECT DISTINCT owner_speaker FROM recordings WHERE owner_speaker IS NOT NULL"
        raise _unknown("speaker-id", name, [row["owner_speaker"] for row in result_rows(catalog, sql)])
    return {row["source_id"] for row in rows}


def _voice(catalog: Catalog, session: str, name: str) -> set[str]:
    parts, full = _parts(catalog, session), f"{session}:{name}"
    there = "list_contains(CAST($1 AS VARCHAR[]), session_id)"
    sql = f"SELECT segment_id FROM segments WHERE {there} AND speaker IN ($2, $3)"
    rows = result_rows(catalog, sql, parts, name, full)
    if not rows:
        sql = f"SELECT DISTINCT speaker FROM segments WHERE {there} AND speaker IS NOT NULL"
        raise _unknown("speaker", name, [row["speaker"] for row in result_rows(catalog, sql, parts)])
    return {row["segment_id"] for row in rows}


def _unknown(what: str, name: str, known: Sequence[str]) -> ForgetError:
    near = nearest(name, known)
    some = ", ".join(sorted(known)[:5]) + (", ..." if len(known) > 5 else "")
    advice = f"did you mean {near}?" if near else f"there are: {some}" if known else "the corpus has none"
    return ForgetError(f"no {what} {name} in the corpus; {advice}")


def _segments(catalog: Catalog, sources: set[str], ids: set[str]) -> list[dict[str, Any]]:
    return result_rows(
        catalog,
        "SELECT segment_id, source_id, session_id, start_s, end_s, duration_s, kept, shard, row, audio_sha256, duplicate_of, "
        "duplicate_kind, duplicate_group FROM segments WHERE list_contains(CAST(? AS VARCHAR[]), source_id) "
        "OR list_contains(CAST(? AS VARCHAR[]), segment_id) ORDER BY segment_id",
        sorted(sources),
        sorted(ids),
    )


def _same_content(catalog: Catalog, sources: set[str]) -> set[str]:
    """Return the recordings with the content of some: channels of the same file, and copies of it."""
    rows = result_rows(
        catalog,
        "SELECT source_id FROM recordings WHERE content_sha256 IN "
        "(SELECT content_sha256 FROM recordings WHERE list_contains(CAST(? AS VARCHAR[]), source_id))",
        sorted(sources),
    )
    return {row["source_id"] for row in rows}


def _at_same_place(catalog: Catalog, ids: set[str]) -> set[str]:
    """Return the segments of other recordings of the same content that overlap with these."""
    rows = result_rows(
        catalog,
        "WITH mine AS (SELECT segments.*, content_sha256 FROM segments JOIN recordings USING (source_id) "
        "WHERE list_contains(CAST(? AS VARCHAR[]), segment_id)) "
        "SELECT DISTINCT other.segment_id FROM segments AS other JOIN recordings AS of ON of.source_id = other.source_id "
        "JOIN mine ON of.content_sha256 = mine.content_sha256 AND other.source_id <> mine.source_id "
        "AND other.start_s < mine.end_s AND other.end_s > mine.start_s",
        sorted(ids),
    )
    return {row["segment_id"] for row in rows}


def _made(catalog: Catalog, ids: Sequence[str]) -> list[dict[str, Any]]:
    tests = " OR ".join(f"list_contains(CAST($1 AS VARCHAR[]), {name})" for name in MADE_OF)
    return result_rows(catalog, f"SELECT segment_id, {', '.join(MADE_OF)} FROM decoupled WHERE {tests}", list(ids))


def _linked(catalog: Catalog, ids: Sequence[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (segments with the same audio as some, others of their groups of duplicates)."""
    rows = result_rows(
        catalog,
        "SELECT segment_id, source_id, session_id, path, duration_s, duplicate_of, duplicate_kind FROM segments "
        "WHERE duplicate_group IN (SELECT duplicate_group FROM segments WHERE duplicate_group IS NOT NULL "
        "AND list_contains(CAST(? AS VARCHAR[]), segment_id)) ORDER BY segment_id",
        list(ids),
    )
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        is_copy = row["duplicate_kind"] in ("exact", "reencode")
        groups[row["duplicate_of"] if is_copy else row["segment_id"]].append(row)
    mine = set(ids)
    copies: list[dict[str, Any]] = []
    linked: list[dict[str, Any]] = []
    for members in groups.values():
        outside = [row for row in members if row["segment_id"] not in mine]
        (copies if len(outside) < len(members) else linked).extend(outside)
    return copies, linked


def _in_all_units(
    root: Path, whole: set[str], partial: set[str], contents: set[str], ids: set[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return (recordings that are forgotten as a whole, units with any of it), over units of all settings and attempts."""
    sources, units = set(whole), set()
    for record in read_records(root, superseded=True):
        own: set[str] = set()
        is_named = False
        for file in record["files"]:
            path = root / file["path"]
            if file["kind"] == "recordings":
                pairs = zip(*_columns(path, "source_id", "content_sha256"), strict=True)
                own |= {source for source, content in pairs if content in contents}
            elif file["kind"] == "references":
                is_named = is_named or any(not ids.isdisjoint(c) for c in _columns(path, "segment_id", "reference_id"))
        sources |= own
        if own or is_named or not (whole | partial).isdisjoint(record["source_ids"]):
            units.add(record["unit_id"])
    return frozenset(sources), frozenset(units)


def _columns(path: Path, *names: str) -> list[list[str]]:
    with reading(path), pq.ParquetFile(path) as file:
        table: pa.Table = file.read(columns=list(names))
    return [table.column(name).to_pylist() for name in names]
