"""Reading a corpus: the rows of committed units, and random access to the audio of segments."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catalogs.corpus.commit import (
    HELD_RECORDS,
    CorpusError,
    committed_units,
    corpus_info,
    is_inside,
    read_records,
)
from catalogs.corpus.damage import reading
from catalogs.corpus.duplicates import read_duplicates, with_duplicates
from catalogs.corpus.marks import DROP, KEEP, Marks
from catalogs.corpus.schema import INDEX, SCHEMAS, fill, required
from catalogs.corpus.shards import Shard
from catalogs.corpus.tombstones import MADE_OF, Hidden, hidden, without_hidden

if TYPE_CHECKING:
    from catalogs.corpus.thresholds import Thresholds

_OPEN_SHARDS = 256
_PART_ROWS = 16_384
"""Number of rows at which `kept_parts` stops merging small units: 7 MB of index."""


def annotation_files(root: str | Path, *kinds: str) -> dict[str, list[Path]]:
    """Return the files under annotations/ by kind: `descriptions`, `checks` or `decoupled`, recognized by their columns.

    Of two rows of a segment, that of the later file counts: the offline `acoustic` comes first, other passes by name, numbers in
    it by value (gemini@10 is after gemini@2).
    Files of units that were processed again as a whole are left out: the new unit may have segments of the same ids. If a unit was
    processed again in part, the caller must leave out the rows of `replaced_segments`.
    """
    base = Path(root) / "annotations"
    columns = _FileColumns()
    found: dict[str, list[Path]] = {kind: [] for kind in kinds}
    replaced = committed_units(root) - {record["unit_id"] for record in read_records(root)}
    for path in sorted(base.rglob("*.parquet"), key=lambda path: _precedence(base, path)):
        if path.stem not in replaced and not any(
            part.startswith((".", "tmp")) for part in path.relative_to(base).parts
        ):
            names = columns.of(path)
            for kind in kinds:
                if required(kind) <= names:
                    found[kind].append(path)
    return found


class _FileColumns:
    """The columns of annotation files by name only: other tools write types that a cast converts, e.g. large strings.

    Of a pass that has a file per unit (<pass>/<aa>/<unit>.parquet) one file is opened: one program writes them all.
    """

    def __init__(self) -> None:
        self._known: dict[Path, set[str]] = {}

    def of(self, path: Path) -> set[str]:
        import pyarrow.parquet as pq

        folder = path.parent
        is_unit = len(folder.name) == 2 and path.name.startswith(folder.name)
        if is_unit and folder.parent in self._known:
            return self._known[folder.parent]
        with reading(path):
            names = set(pq.read_schema(path).names)
        if is_unit:
            self._known[folder.parent] = names
        return names


def _precedence(base: Path, path: Path) -> tuple[bool, list[tuple[str, int]], str]:
    return *pass_precedence(path.relative_to(base).parts[0]), str(path)


def pass_precedence(name: str) -> tuple[bool, list[tuple[str, int]]]:
    """Return a sort key of passes (folders of annotations/): what the later one says of a segment counts."""
    pieces = [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", name)]
    return name != "acoustic", pieces


def replaced_segments(root: str | Path, record: Mapping[str, Any]) -> set[str]:
    """Return the ids of a unit's segments whose sources were processed again in another unit, and of all segments of the corpus
    that are to be forgotten. Their annotations do not count."""
    older = set(record.get("superseded", ()))
    schema = pa.schema([INDEX.field("segment_id"), INDEX.field("source_id")])
    files = [Path(root) / file["path"] for file in record["files"] if older and file["kind"] == "index"]
    tables = [read_rows(path, schema) for path in files]
    pairs = (row.values() for table in tables for row in table.to_pylist())
    return {segment for segment, source in pairs if source in older} | hidden(root).segments


def replaced_in_units(root: str | Path) -> dict[str, set[str]]:
    """Return the `replaced_segments` of each unit that has any, by unit id."""
    return {r["unit_id"]: replaced_segments(root, r) for r in read_records(root) if "superseded" in r}


def without(table: pa.Table, column: str, values: Iterable[str]) -> pa.Table:
    """Return the rows whose `column` holds none of the values."""
    import pyarrow.compute as pc

    return table.filter(pc.invert(pc.is_in(table.column(column), pa.array(list(values), pa.string()))))


def read_rows(path: Path, schema: pa.Schema) -> pa.Table:
    """Read the columns of `schema` from one Parquet file of a corpus. Raises DamagedFileError if it cannot be read."""
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        return fill(file.read(columns=schema.names), schema)


def _gathered(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the tables in order; small tables are concatenated until they have at least `rows` rows."""
    waiting: list[pa.Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        if held >= rows:
            yield pa.concat_tables(waiting)
            waiting, held = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


class Corpus:
    """A corpus as it was when it was opened. Safe to pickle to data workers.

    A corpus of more than `HELD_RECORDS` units is not held in memory: its records are read again for each method, which may then
    see units that were committed later. Methods that read a damaged file raise DamagedFileError: one line with the command that
    repairs it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = corpus_info(self.path)
        held = len(committed_units(self.path)) <= HELD_RECORDS
        self._hidden: Hidden = hidden(self.path)
        self._held: list[dict[str, Any]] | None = list(read_records(self.path)) if held else None
        self._shards: OrderedDict[str, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        state = {"path": self.path, "info": self.info, "_held": self._held, "_hidden": self._hidden}
        return state | {"_shards": OrderedDict()}

    @property
    def records(self) -> Iterable[dict[str, Any]]:
        """The commit records that count, in order of unit id."""
        return read_records(self.path) if self._held is None else self._held

    def files(self, kind: str) -> list[Path]:
        """Return the committed files of a kind: segments, index, recordings, references or quarantine.

        A file may hold rows of sources that were processed again or are forgotten; `table` leaves these out.
        """
        return [self.path / file["path"] for record in self.records for file in record["files"] if file["kind"] == kind]

    @cached_property
    def marks(self) -> Marks:
        """What people said of segments: their verdicts and corrections are in all rows of `index`, `kept` and `segment`."""
        return Marks.of(self.path)

    @cached_property
    def index(self) -> pa.Table:
        """The INDEX rows of all segments, kept and rejected, in order of unit."""
        return self.table("index")

    def table(self, kind: str) -> pa.Table:
        """Return all committed rows of `index`, `recordings` or `references`, from the newest attempt at each source."""
        found = self._committed(kind)
        return self.marks.over(found) if kind == "index" else found

    def _committed(self, kind: str) -> pa.Table:
        parts = list(self.parts(kind))
        found = pa.concat_tables(parts) if parts else SCHEMAS[kind].empty_table()
        if kind == "references" and self.partly_superseded:
            found = self._between_present(found)
        return with_duplicates(found, read_duplicates(self.path)) if kind == "index" else found

    def parts(self, kind: str, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of `index`, `recordings` or `references` unit by unit, read lazily, in order of unit.

        columns: the columns to read, in the order of the format (default: all). The columns of duplicates are null: duplicates
        are known for the corpus as a whole only. Pairs may name segments whose sources were processed again. What people said
        of segments is not in the rows.
        """
        full = SCHEMAS[kind]
        # Rows of sources that were processed again are recognized by their source.
        # Hidden segments by their ids.
        by_id = {"source_id"} | ({"segment_id", "reference_id"} if self._hidden.segments else set())
        schema = full if columns is None else pa.schema([f for f in full if f.name in columns or f.name in by_id])
        for record in self.records:
            for file in record["files"]:
                if file["kind"] == kind:
                    table = self._read(file, record.get("superseded"), schema)
                    yield table if columns is None else table.select([n for n in schema.names if n in columns])

    @property
    def partly_superseded(self) -> bool:
        """Whether some unit holds sources that were processed again in another unit."""
        return any(record.get("superseded") for record in self.records)

    def _read(self, file: dict[str, Any], superseded: list[str] | None, schema: pa.Schema) -> pa.Table:
        table = read_rows(self.path / file["path"], schema)
        if superseded and "source_id" in table.schema.names:
            table = without(table, "source_id", superseded)
        return without_hidden(table, self._hidden)

    def _between_present(self, references: pa.Table) -> pa.Table:
        """Return the pairs whose two segments are both present, each once. Two attempts at a source may hold the same pair."""
        present = set(self.table("index").column("segment_id").to_pylist())
        ids = zip(*(references.column(name).to_pylist() for name in ("segment_id", "reference_id")), strict=True)
        rows = {pair: row for row, pair in enumerate(ids) if present.issuperset(pair)}
        return references.take(pa.array(sorted(rows.values()), pa.int64()))

    def annotations(self, kind: str) -> pa.Table:
        """Return all rows of `descriptions`, `checks` or `decoupled` that later passes have made so far, keyed by segment_id.

        Rows of replaced segments (another attempt, --redo) stay on the disk and are left out.
        """
        import pyarrow.compute as pc

        schema, gone = SCHEMAS[kind], replaced_in_units(self.path)
        parts = [
            without(read_rows(path, schema), "segment_id", gone.get(path.stem, ()))
            for path in annotation_files(self.path, kind)[kind]
        ]
        if not parts:
            return schema.empty_table()
        found = without_hidden(pa.concat_tables(parts), self._hidden, MADE_OF)
        return found.filter(pc.is_in(found.column("segment_id"), self.index.column("segment_id").combine_chunks()))

    def kept(self, thresholds: Thresholds | None = None) -> pa.Table:
        """Return the INDEX rows of the segments that pass `thresholds` (default: those of the corpus). No model is called.

        The verdict of a person overrides thresholds.
        """
        from catalogs.corpus.thresholds import apply_thresholds, load_thresholds

        table = apply_thresholds(self._committed("index"), thresholds or load_thresholds(self.path))
        table = self.marks.over(table)
        return table.filter(table.column("kept"))

    def kept_parts(self, columns: Sequence[str] = INDEX.names) -> Iterator[pa.Table]:
        """Yield columns of the rows of `kept` in tables of whole units, in order of unit, read lazily.

        The columns of duplicates are null: duplicates are known for the corpus as a whole only.
        """
        from catalogs.corpus.thresholds import JUDGED, kept_rows, load_thresholds

        thresholds, verdicts = load_thresholds(self.path), (self.marks.ids(KEEP), self.marks.ids(DROP))
        needed, wanted = JUDGED | {"segment_id", "shard"} | set(columns), list(dict.fromkeys(("segment_id", *columns)))
        for part in _gathered(self.parts("index", needed), _PART_ROWS):
            yield self.marks.over(kept_rows(part, thresholds, wanted, *verdicts)).select(list(columns))

    def __len__(self) -> int:
        if self.partly_superseded or self._hidden:
            return sum(part.num_rows for part in self.parts("index", ("segment_id",)))
        return sum(record["segments"] for record in self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the INDEX rows one by one as dicts."""
        for batch in self.index.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    @cached_property
    def _places(self) -> dict[str, tuple[str | None, int | None]]:
        found: dict[str, tuple[str | None, int | None]] = {}
        for table in self.parts("index", ("segment_id", "shard", "row")):
            keys, shards, rows = (table.column(name).to_pylist() for name in ("segment_id", "shard", "row"))
            found.update(zip(keys, zip(shards, rows, strict=True), strict=True))
        return found

    def place(self, segment_id: str) -> tuple[str, int]:
        """Return (shard, row) of a segment's audio. Raises KeyError if the segment is unknown or has no audio."""
        shard, row = self._places[segment_id]
        if shard is None or row is None:
            raise KeyError(f"segment {segment_id} has no audio: it failed a hard rule")
        return shard, row

    def shard_of(self, segment_id: str) -> str | None:
        """Return the shard of a segment's audio; None if the segment is unknown or has no audio."""
        return self._places.get(segment_id, (None, None))[0]

    def shard(self, name: str) -> Shard:
        """Return the opened shard with this name (the `shard` column: a path within the corpus)."""
        if not is_inside(name):
            raise CorpusError(f"{self.path}: a row names the shard {name}, which is not in this corpus; do not use it")
        if name in self._shards:
            self._shards.move_to_end(name)
        else:
            self._shards[name] = Shard(self.path / name)
            if len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
        return self._shards[name]

    def segment(self, segment_id: str) -> dict[str, Any]:
        """Return one segment with its words and embedding, without audio."""
        shard, row = self.place(segment_id)
        with reading(self.path / shard):
            return self.marks.over_row(self.shard(shard).row(row) | {"shard": shard, "row": row})

    def audio_buffer(self, segment_id: str) -> pa.Buffer:
        """Return the FLAC bytes of one segment, as a view of the shard."""
        shard, row = self.place(segment_id)
        with reading(self.path / shard):
            return self.shard(shard).audio_buffer(row)

    def read_audio(self, segment_id: str, level: bool = False) -> tuple[np.ndarray, int]:
        """Return the samples of one segment as recorded, `[S] float32` in -1..1, and its native sample rate (Hz).

        With `level`, the samples are scaled by the recorded `gain_db` (unchanged if it is null). Dividing by the same gain
        restores the recording.
        """
        shard, row = self.place(segment_id)
        with reading(self.path / shard):
            samples, rate = self.shard(shard).read_audio(row)
            gain = self.shard(shard).column(row, "gain_db") if level else None
        return (samples if gain is None else samples * np.float32(10 ** (gain / 20))), rate
