"""Commit records without opening them: as the compacted files hold them, for a run that has to know what is done.

To open and parse 228,000 records takes a minute. Which units there are is still read from the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.compaction.generation import Generation, present_generation
from catalogs.compaction.listing import unit_names
from catalogs.corpus.attempts import newest
from catalogs.corpus.commit import corpus_info, read_record, record_path
from catalogs.corpus.history import History, read_history
from catalogs.corpus.schema import QUARANTINE, fill

_COLUMNS = ("unit_id", "fingerprint", "generation", "at", "source_ids")
_ROWS = 16_384


def history_of(root: str | Path) -> History:
    """Return the history of a corpus: see `read_history`."""
    return read_history(root, short_records(Path(root)))


def short_records(root: Path) -> Iterator[dict[str, Any]]:
    """Yield what `read_records` yields, with the keys `unit_id`, `fingerprint`, `generation`, `at`, `source_ids`, `superseded` and
    `quarantine` (the rows instead of the files). Units that are not in the compacted files come from their records.

    Raises CorpusError for a record that cannot be read.
    """
    current = corpus_info(root).get("fingerprint")
    units = unit_names(root)
    generation = present_generation(root)
    if generation is not None and (generation.fingerprint != current or not generation.is_there()):
        generation = None

    def read() -> Iterator[dict[str, Any]]:
        left = set(units)
        for record in _compacted(generation) if generation is not None else ():
            if record["unit_id"] in left:
                left.remove(record["unit_id"])
                yield record
        for unit in sorted(left):
            yield read_record(root, record_path(root, unit))

    yield from newest(lambda: (record for record in read() if current is None or record["fingerprint"] == current))


def _compacted(generation: Generation) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    refused: dict[str, list[dict[str, Any]]] = {}
    for path in generation.files("quarantine"):
        table = pq.read_table(generation.folder / path)
        rows = zip(table.column("unit").to_pylist(), fill(table, QUARANTINE).to_pylist(), strict=True)
        for unit, row in rows:
            refused.setdefault(unit, []).append(row)
    for path in generation.files("units"):
        with pq.ParquetFile(generation.folder / path) as file:
            for batch in file.iter_batches(_ROWS, columns=list(_COLUMNS)):
                for record in _records(batch):
                    yield record | {"quarantine": refused.get(record["unit_id"], [])}


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    times = (at.isoformat(timespec="milliseconds") for at in batch.column("at").to_pylist())
    named = (batch.column(name).to_pylist() for name in _COLUMNS if name != "at")
    for at, unit, settings, number, sources in zip(times, *named, strict=True):
        yield {"unit_id": unit, "fingerprint": settings, "generation": number, "at": at, "source_ids": sources}
