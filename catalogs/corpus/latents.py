"""Latents beside a corpus: a codec encodes the segments once, into Arrow files that a trainer reads through a memory map.

    latents/<digest of the codec's encoder>/<aa>/<unit>.<sha8>.arrow     one row per segment, keyed by segment_id

A file is written atomically, under a name that contains its content's hash, and holds segments of one unit. A unit may have
several files (after a killed run, or after changed thresholds kept more segments). The segments' files are never rewritten. Each
file names the shard whose audio was encoded. A segment that is processed again may have the same id but other audio; then its
latents are made again.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from catalogs.corpus.commit import CorpusError, read_records, write_in_corpus
from catalogs.corpus.damage import reading
from catalogs.corpus.ids import id_values
from catalogs.corpus.reader import read_rows, replaced_segments
from catalogs.corpus.schema import INDEX
from catalogs.corpus.shards import BATCH_ROWS
from catalogs.files import file_sha256

_OPEN_FILES = 256
#: `latents`: bfloat16 bits, little endian, row-major `[patches, patch_size, feat_dim]`; `patches` counts the padded last patch.
LATENTS = pa.schema([("segment_id", pa.string()), ("patches", pa.int32()), ("latents", pa.binary())])


@dataclass(frozen=True)
class LatentForm:
    """The format of latents: they fit a model only if all fields are the same."""

    codec: str
    """Digest of the codec's encoder."""
    patch_size: int
    """Latent frames per patch."""
    feat_dim: int
    """Channels per frame."""

    @property
    def patch_bytes(self) -> int:
        """Bytes per patch in bfloat16."""
        return 2 * self.patch_size * self.feat_dim


def write_latents(
    root: str | Path, form: LatentForm, shard: str, rows: Sequence[tuple[str, np.ndarray]]
) -> tuple[Path, int]:
    """Write latents (`[A, P, D] uint16`: bfloat16 bits) of segments of one shard, atomically; return (the file, its bytes).

    Raises ValueError for values of another form, and OSError with nothing visible.
    """
    for segment, values in rows:
        if values.dtype != np.uint16 or values.shape[1:] != (form.patch_size, form.feat_dim):
            raise ValueError(f"latents of segment {segment} are {values.dtype} {list(values.shape)}")
    unit = Path(shard).name.split(".")[0]
    about: dict[str, Any] = {
        "codec": form.codec,
        "patch_size": form.patch_size,
        "feat_dim": form.feat_dim,
        "dtype": "bfloat16",
    }
    about["shard"] = shard
    schema = LATENTS.with_metadata({b"voxmill": json.dumps(about).encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            columns = [
                [name for name, _ in part],
                [len(v) for _, v in part],
                [v.astype("<u2").tobytes() for _, v in part],
            ]
            arrays = [pa.array(values, field.type) for values, field in zip(columns, LATENTS, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    data = sink.getvalue().to_pybytes()
    root = Path(root)
    name = f"{unit}.{hashlib.sha256(data).hexdigest()[:8]}.arrow"
    final = root / "latents" / form.codec / unit[:2] / name
    write_in_corpus(root, final, data)
    return final, len(data)


def latent_files(root: str | Path, codec: str | None = None) -> list[Path]:
    """Return the latent files of one codec, or of all codecs, in order."""
    return sorted((Path(root) / "latents").glob(f"{codec or '*'}/*/[!.]*.arrow"))


def stored_codecs(root: str | Path) -> list[str]:
    """Return the digests of the codecs whose latents a corpus has."""
    return sorted({path.parent.parent.name for path in latent_files(root)})


class StoredLatents:
    """The latents of one form in a corpus that match the present segments: 16 bytes of memory per segment. Safe to pickle. Files
    made later are not included.
    """

    def __init__(self, root: str | Path, form: LatentForm) -> None:
        """Raises ValueError, in one line, for a file of another form under this codec's name or one that cannot be read."""
        self.root, self.form = Path(root), form
        found = [np.zeros((3, 0), dtype=np.uint64)]
        records = {record["unit_id"]: record for record in read_records(root)}
        # Latents of units that were processed again as a whole are not opened.
        self._files = [path for path in latent_files(root, form.codec) if _unit(path) in records]
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        for number, path in enumerate(self._files):
            table, record = _open(path), records[_unit(path)]
            if _form(table) != form:
                raise ValueError(
                    f"{path} holds latents of patch size {_form(table).patch_size}, {_form(table).feat_dim} channels; wanted"
                    f" are {form.patch_size}, {form.feat_dim}: remove {path.parents[1]} and run voxmill encode again"
                )
            if not _is_of(table, record):
                continue
            replaced = replaced_segments(self.root, record)
            ids = table.column("segment_id").to_pylist()
            rows = np.flatnonzero([segment not in replaced for segment in ids]).astype(np.uint64)
            found.append(np.stack([id_values(ids)[rows], np.full(len(rows), number, dtype=np.uint64), rows]))
        places = np.concatenate(found, axis=1)
        # Of several files, the first counts.
        self._ids, first = np.unique(places[0], return_index=True)
        self._rows = places[1:, first].astype(np.uint32)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tables": OrderedDict()}

    def __contains__(self, segment_id: str) -> bool:
        return self._place(segment_id) is not None

    def __len__(self) -> int:
        return len(self._ids)

    def _place(self, segment_id: str) -> tuple[int, int] | None:
        """Return (number of the file, row) of a segment's latents; None if there are none."""
        (value,) = id_values([segment_id])
        place = int(np.searchsorted(self._ids, value))
        if place == len(self._ids) or self._ids[place] != value:
            return None
        return int(self._rows[0, place]), int(self._rows[1, place])

    def get(self, segment_id: str) -> np.ndarray | None:
        """Return the bfloat16 bits of a segment's latents, `[A, P, D] uint16`, as a view of the map; None if there are none."""
        place = self._place(segment_id)
        if place is None:
            return None
        number, row = place
        if number not in self._tables:
            self._tables[number] = _open(self._files[number])
            if len(self._tables) > _OPEN_FILES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(number)
        with reading(self._files[number]):
            value = self._tables[number].column("latents")[row].as_buffer()
            return np.frombuffer(value, dtype="<u2").reshape(-1, self.form.patch_size, self.form.feat_dim)


def latent_problems(
    root: Path,
    record_of: Callable[[str], dict[str, Any] | None],
    is_replaced: Callable[[dict[str, Any]], bool],
    unknown: Callable[[Sequence[str]], int],
    hashes: bool = True,
) -> Iterator[tuple[str, str, str]]:
    """Yield (severity, path, fault) for the files under latents/ that have one.

    record_of: returns the record of a unit. is_replaced: whether readers do not use a unit. unknown: returns how many of the
    segments are in no committed unit; it is asked for those that are not in the unit of their file.
    """
    for path in sorted((root / "latents").rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file():
            continue
        if len(path.relative_to(root).parts) != 4 or path.suffix != ".arrow" or path.name.startswith("."):
            yield "notice", name, "is not a file of latents; it may be removed"
            continue
        again = "remove it and run voxmill encode again: nothing else is lost"
        if hashes and file_sha256(path)[:8] != path.name.split(".")[-2]:
            yield "error", name, f"has changed since it was written; {again}"
            continue
        try:
            table = _open(path)
            form = _form(table)
        except ValueError as error:
            yield "error", name, f"cannot be read ({error}); {again}"
            continue
        if form.codec != path.parent.parent.name:
            yield "error", name, f"holds latents of codec {form.codec}; {again}"
        if not _are_whole(table, form):
            yield "error", name, f"has latents of another length than it says; {again}"
        record = record_of(_unit(path))
        if record is not None and (is_replaced(record) or not _is_of(table, record)):
            yield "notice", name, "is of segments that were processed again: nothing reads it; it may be removed"
            continue
        own = _segments_of(root, record)
        strange = [segment for segment in table.column("segment_id").to_pylist() if segment not in own]
        if strange and (count := unknown(strange)):
            yield "notice", name, f"{count} of its segments are in no unit of this corpus; it may be removed"


def _are_whole(table: pa.Table, form: LatentForm) -> bool:
    """Return True if the latents of every segment are as long as its patches say."""
    import pyarrow.compute as pc

    lengths = pc.multiply(table.column("patches").cast(pa.int64()), form.patch_bytes)
    return bool(
        pc.all(pc.equal(pc.binary_length(table.column("latents")).cast(pa.int64()), lengths)).as_py() in (True, None)
    )


def _segments_of(root: Path, record: Mapping[str, Any] | None) -> set[str]:
    """Return the ids in the index of a unit; none if it cannot be read."""
    files = [file["path"] for file in (record or {"files": ()})["files"] if file["kind"] == "index"]
    with suppress(CorpusError):
        tables = [read_rows(root / name, pa.schema([INDEX.field("segment_id")])) for name in files]
        return {segment for table in tables for segment in table.column(0).to_pylist()}
    return set()


def _unit(path: Path) -> str:
    return path.name.split(".")[0]


def _is_of(table: pa.Table, record: Mapping[str, Any]) -> bool:
    """Return True if latents were made from a shard that a unit's record lists. Older files do not name their shard."""
    shard = json.loads(table.schema.metadata[b"voxmill"]).get("shard")
    return shard is None or any(file["path"] == shard for file in record["files"])


def _open(path: Path) -> pa.Table:
    with reading(path):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        if table.schema.names != LATENTS.names or b"voxmill" not in (table.schema.metadata or {}):
            raise ValueError("it does not have the columns of latents")
    return table


def _form(table: pa.Table) -> LatentForm:
    about = json.loads(table.schema.metadata[b"voxmill"])
    if about["dtype"] != "bfloat16":
        raise ValueError(f"latents of {about['dtype']}")
    return LatentForm(about["codec"], about["patch_size"], about["feat_dim"])
