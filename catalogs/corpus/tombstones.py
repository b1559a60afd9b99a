"""Tombstones: what a corpus has forgotten, or is about to. `voxmill forget` writes them, and every reader obeys them.

    tombstones/<id>.json            one request to forget: hashes and ids only, no name, path or text
    tombstones/<id>.prints.arrow    audio prints of what was forgotten, to recognize re-encoded copies (not with --no-print)

A tombstone hides its recordings and segments from readers as soon as its file exists (`planned`, `hidden`). When they are erased,
it only keeps them from coming back (`erased`). A corpus without the folder pays one failed look at it per reading.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.locks import CorpusError, own_scratch
from catalogs.files import write_atomically

FOLDER = "tombstones"
PLANNED, HIDDEN, ERASED = "planned", "hidden", "erased"
"""planned: voxmill's readers obey it. hidden: no copy for queries holds it either. erased: no file of the corpus holds it."""
MADE_OF = ("described_id", "timbre_id", "text_id")
"""Columns of `decoupled` that name a segment whose voice or words a made clip has: it is forgotten with them."""
_VERSION = 1
_LISTS = ("content_sha256", "source_ids", "partial_ids", "segment_ids", "audio_sha256", "units", "derived")
_PRINTS = pa.schema([("segment_id", pa.string()), ("audio_print", pa.binary())])


@dataclass(frozen=True)
class Tombstone:
    """One request to forget. Ids and hashes are sorted."""

    id: str
    """16 hex digits (8 in older ones), from what is forgotten: the same request has the same id."""
    at: str
    """UTC, ISO 8601."""
    scope: Mapping[str, str]
    """`by`: recording, session, speaker, speaker-id, like or derived. `sha256`: hash of what was given."""
    state: str = PLANNED
    reason: str | None = None
    requested_by: str | None = None
    """sha256 of who asked for it."""
    content_sha256: tuple[str, ...] = ()
    """Contents of the recordings, also of those that are forgotten in part: `prepare` refuses them."""
    source_ids: tuple[str, ...] = ()
    """Recordings that are forgotten as a whole."""
    partial_ids: tuple[str, ...] = ()
    """Recordings of which some segments are forgotten."""
    segment_ids: tuple[str, ...] = ()
    audio_sha256: tuple[str, ...] = ()
    """Hashes of the segments' samples: they recognize a lossless copy."""
    units: tuple[str, ...] = ()
    """Units that held any of it."""
    derived: tuple[str, ...] = ()
    """Folders of the corpora of synthetic speech that have a tombstone for the same request."""
    seconds: float = 0.0
    prints: int = 0
    """Audio prints that are kept."""

    def in_state(self, state: str) -> Tombstone:
        """Return it in another state."""
        return replace(self, state=state)


@dataclass(frozen=True)
class Hidden:
    """What readers leave out: recordings as a whole, and segments."""

    sources: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.sources or self.segments)

    @cached_property
    def ids(self) -> pa.Array:
        """The segments as an Arrow array."""
        return pa.array(sorted(self.segments), pa.string())


NOTHING = Hidden()


def tombstones_folder(root: str | Path) -> Path:
    """Return the folder of the tombstones of a corpus."""
    return Path(root) / FOLDER


def read_tombstones(root: str | Path) -> list[Tombstone]:
    """Return all tombstones, by id. Raises CorpusError for one that cannot be read: what it hides would be shown."""
    return [_read(*entry) for entry in _entries(root)]


def hidden(root: str | Path) -> Hidden:
    """Return what readers of a corpus leave out at present."""
    entries = _entries(root)
    return _hidden(tuple(entries)) if entries else NOTHING


def standing(root: str | Path) -> list[Tombstone]:
    """Return the tombstones whose content is not erased yet."""
    return [found for found in read_tombstones(root) if found.state != ERASED]


def edition(root: str | Path) -> str:
    """Return a text that changes whenever tombstones change what files of committed units hold; empty without tombstones.

    While content is erased, records are replaced under their names. So their sizes and times count.
    """
    parts = []
    for found in read_tombstones(root):
        parts.append(f"{found.id} {found.state if found.state == ERASED else HIDDEN}")
        for unit in found.units if found.state != ERASED else ():
            try:
                about = (Path(root) / "units" / unit[:2] / f"{unit}.json").stat()
                parts.append(f"{unit} {about.st_size} {about.st_mtime_ns}")
            except FileNotFoundError:
                parts.append(unit)
    return "\n".join(parts)


def write_tombstone(root: str | Path, tombstone: Tombstone, prints: Sequence[tuple[str, bytes]] = ()) -> Path:
    """Write a tombstone atomically; from then on it counts. prints: (segment id, audio print), written first."""
    folder = tombstones_folder(root)
    with own_scratch(Path(root) / "tmp") as scratch:
        if prints:
            write_atomically(folder / f"{tombstone.id}.prints.arrow", _prints_bytes(prints), scratch)
        text = json.dumps({"version": _VERSION} | asdict(tombstone), indent=1)
        write_atomically(folder / f"{tombstone.id}.json", text.encode(), scratch)
    return folder / f"{tombstone.id}.json"


def forgotten_contents(root: str | Path) -> dict[str, str]:
    """Return the content hashes that are not taken into a corpus again, with the id of their tombstone."""
    return {content: found.id for found in read_tombstones(root) for content in found.content_sha256}


def forgotten_prints(root: str | Path) -> tuple[frozenset[str], list[bytes]]:
    """Return (hashes of samples, audio prints) of what a corpus has forgotten. Raises CorpusError for a damaged file."""
    found = read_tombstones(root)
    hashes = frozenset(sha256 for one in found for sha256 in one.audio_sha256)
    prints: list[bytes] = []
    for one in found:
        if one.prints:
            prints += _read_prints(tombstones_folder(root) / f"{one.id}.prints.arrow")
    return hashes, prints


def without_hidden(table: pa.Table, gone: Hidden, columns: Iterable[str] = ("segment_id", "reference_id")) -> pa.Table:
    """Return the rows of which no column names a hidden segment."""
    import pyarrow.compute as pc

    for name in columns:
        if gone.segments and name in table.schema.names:
            table = table.filter(pc.invert(pc.is_in(table.column(name), gone.ids)))
    return table


def _entries(root: str | Path) -> list[tuple[str, int, int]]:
    """Return (path, size, time in ns) of each tombstone, sorted."""
    try:
        with os.scandir(f"{root}/{FOLDER}") as found:
            names = [entry for entry in found if entry.name.endswith(".json") and not entry.name.startswith(".")]
            return sorted((entry.path, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in names)
    except (FileNotFoundError, NotADirectoryError):
        return []


@lru_cache(maxsize=256)
def _read(path: str, size: int, changed_ns: int) -> Tombstone:
    del size, changed_ns  # They are part of the key: a tombstone that was written again is read again.
    fault = "is damaged"
    try:
        told: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        if told.pop("version") != _VERSION:
            fault = "is of another version of voxmill"
            raise ValueError(fault)
        told |= {name: tuple(told[name]) for name in _LISTS}
        if not all(isinstance(value, str) for name in _LISTS for value in told[name]):
            raise ValueError(fault)
        found = Tombstone(**told)
        if found.state not in (PLANNED, HIDDEN, ERASED) or found.id != Path(path).stem or not found.id.isalnum():
            raise ValueError(fault)
        if not all(unit.isalnum() for unit in found.units):
            raise ValueError(fault)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CorpusError(
            f"the tombstone {path} {fault}, so what is to be forgotten is not known: bring it back from a backup, or remove it "
            "and run voxmill forget again"
        ) from None
    return found


@lru_cache(maxsize=64)
def _hidden(entries: tuple[tuple[str, int, int], ...]) -> Hidden:
    found = [one for one in (_read(*entry) for entry in entries) if one.state != ERASED]
    sources = frozenset(source for one in found for source in one.source_ids)
    return Hidden(sources, frozenset(segment for one in found for segment in one.segment_ids))


def _prints_bytes(prints: Sequence[tuple[str, bytes]]) -> bytes:
    table = pa.table([[name for name, _ in prints], [data for _, data in prints]], schema=_PRINTS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _PRINTS) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _read_prints(path: Path) -> list[bytes]:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return [bytes(value) for value in table.column("audio_print").to_pylist() if value is not None]
    except (OSError, pa.ArrowException, KeyError):
        raise CorpusError(
            f'the audio prints {path} are damaged or missing: bring them back from a backup, or set "prints" to 0 in the '
            "tombstone beside them, after which re-encoded copies are not recognized"
        ) from None
