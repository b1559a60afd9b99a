"""Reading a corpus: the rows of committed units, and the audio of any segment at random."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from catalogs.commit import corpus_info, read_records
from catalogs.duplicates import lay_over, read_duplicates
from catalogs.schema import DECOUPLED, DESCRIPTIONS, INDEX, RECORDINGS, REFERENCES
from catalogs.shards import Shard

if TYPE_CHECKING:
    from catalogs.thresholds import Thresholds

_OPEN_SHARDS = 256
_SCHEMAS = {"index": INDEX, "recordings": RECORDINGS, "references": REFERENCES}
_ANNOTATIONS = {"descriptions": DESCRIPTIONS, "decoupled": DECOUPLED}


def annotation_files(root: str | Path, kind: str) -> list[Path]:
    """Files under annotations/ that hold `descriptions` or `decoupled` rows, of whichever pass, known by their columns."""
    import pyarrow.parquet as pq

    wanted = set(_ANNOTATIONS[kind].names)
    base = Path(root) / "annotations"
    return [
        path
        for path in sorted(base.rglob("*.parquet"))
        if not any(part.startswith((".", "tmp")) for part in path.relative_to(base).parts)
        and wanted <= set(pq.read_schema(path).names)
    ]


class Corpus:
    """A corpus as it was when it was opened: `refresh` sees units committed since. Safe to pickle to data workers."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info = corpus_info(self.path)
        self.records: list[dict[str, Any]] = list(read_records(self.path))
        self._shards: OrderedDict[str, Shard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "info": self.info, "records": self.records, "_shards": OrderedDict()}

    def refresh(self) -> None:
        """Read the records again."""
        self.records = list(read_records(self.path))
        for name in ("index", "_places"):
            self.__dict__.pop(name, None)

    def files(self, kind: str) -> list[Path]:
        """Committed files of a kind: segments, index, recordings, references or quarantine."""
        return [self.path / file["path"] for record in self.records for file in record["files"] if file["kind"] == kind]

    @cached_property
    def index(self) -> pa.Table:
        """The INDEX rows of all segments, kept and rejected, in order of unit."""
        return self.table("index")

    def table(self, kind: str) -> pa.Table:
        """All committed rows of `index`, `recordings` or `references`."""
        import pyarrow.parquet as pq

        schema = _SCHEMAS[kind]
        parts = [pq.ParquetFile(path).read().cast(schema) for path in self.files(kind)]
        found = pa.concat_tables(parts) if parts else schema.empty_table()
        return lay_over(found, read_duplicates(self.path)) if kind == "index" else found

    def annotations(self, kind: str) -> pa.Table:
        """All rows of `descriptions` or `decoupled` that later passes have made so far, keyed by segment_id."""
        import pyarrow.parquet as pq

        schema = _ANNOTATIONS[kind]
        files = annotation_files(self.path, kind)
        parts = [pq.ParquetFile(path).read(columns=schema.names).select(schema.names).cast(schema) for path in files]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def kept(self, thresholds: Thresholds | None = None) -> pa.Table:
        """The INDEX rows of the segments that pass `thresholds` (default: the corpus' own); no model is called."""
        from catalogs.thresholds import apply_thresholds, load_thresholds

        table = apply_thresholds(self.index, thresholds or load_thresholds(self.path))
        return table.filter(table.column("kept"))

    def __len__(self) -> int:
        return sum(record["segments"] for record in self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The INDEX rows one by one as dicts."""
        for batch in self.index.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    @cached_property
    def _places(self) -> dict[str, tuple[str | None, int | None]]:
        table = self.index
        keys = table.column("segment_id").to_pylist()
        places = zip(table.column("shard").to_pylist(), table.column("row").to_pylist(), strict=True)
        return dict(zip(keys, places, strict=True))

    def place(self, segment_id: str) -> tuple[str, int]:
        """(shard, row) of a segment's audio; KeyError when there is no such segment or it has no audio."""
        shard, row = self._places[segment_id]
        if shard is None or row is None:
            raise KeyError(f"segment {segment_id} has no audio: it failed a hard rule")
        return shard, row

    def shard(self, name: str) -> Shard:
        """The opened shard with this name (the `shard` column: a path within the corpus)."""
        if name in self._shards:
            self._shards.move_to_end(name)
        else:
            self._shards[name] = Shard(self.path / name)
            if len(self._shards) > _OPEN_SHARDS:
                self._shards.popitem(last=False)
        return self._shards[name]

    def segment(self, segment_id: str) -> dict[str, Any]:
        """One segment with its words and embedding, without audio."""
        shard, row = self.place(segment_id)
        return self.shard(shard).row(row) | {"shard": shard, "row": row}

    def audio_buffer(self, segment_id: str) -> pa.Buffer:
        """The FLAC bytes of one segment, as a view of the shard."""
        shard, row = self.place(segment_id)
        return self.shard(shard).audio_buffer(row)

    def read_audio(self, segment_id: str, level: bool = False) -> tuple[np.ndarray, int]:
        """float32 [S] in -1..1 and the native sample rate (Hz) of one segment, as it was recorded.

        With `level`, at the loudness that its recorded `gain_db` brings it to (unchanged where it has none); dividing by the
        same gain gives the recording back.
        """
        shard, row = self.place(segment_id)
        samples, rate = self.shard(shard).read_audio(row)
        gain = self.shard(shard).column(row, "gain_db") if level else None
        return (samples if gain is None else samples * np.float32(10 ** (gain / 20))), rate
