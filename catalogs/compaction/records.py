"""Commit records without opening them: as the compacted files hold them, for a run that has to know what is done.

To open and parse 228,000 records takes a minute. Which units there are is still read from the folder.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.compaction.generation import Generation, present_generation, read_columns
from catalogs.compaction.listing import unit_names
from catalogs.corpus.attempts import current_records, newest, older_sources
from catalogs.corpus.commit import corpus_info, read_record, record_path
from catalogs.corpus.history import History, read_history
from catalogs.corpus.schema import QUARANTINE, fill
from catalogs.corpus.tombstones import edition, hidden

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
    generation, forgotten = present_generation(root), hidden(root).sources
    if generation is not None and (
        (generation.fingerprint, generation.edition) != (current, edition(root)) or not generation.is_there()
    ):
        generation = None
    if generation is None:
        yield from newest(
            lambda: _counted((read_record(root, record_path(root, unit)) for unit in units), current), forgotten
        )
        return
    there, wanted = _unit_ids(generation), set(units)
    gone = there - wanted
    fresh = [_short(read_record(root, record_path(root, unit))) for unit in units if unit not in there]

    def read() -> Iterator[dict[str, Any]]:
        yield from _counted((r for r in _compacted(generation) if r["unit_id"] not in gone), current)
        yield from _counted(fresh, current)

    if generation.gone or forgotten:
        yield from newest(read, forgotten)
        return
    # No source of the compacted units is listed twice, so only those of the fresh ones can be.
    sources = {source for record in fresh for source in record["source_ids"]}
    listed = [r for r in _compacted(generation, sources) if r["unit_id"] not in gone] if sources else []
    yield from current_records(read(), older_sources(list(_counted([*listed, *fresh], current))))


def _counted(records: Iterable[dict[str, Any]], fingerprint: str | None) -> Iterator[dict[str, Any]]:
    return (record for record in records if fingerprint in (None, record["fingerprint"]))


def _short(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without the files that a history does not need: those would be most of its memory."""
    return record | {"files": [file for file in record["files"] if file["kind"] == "quarantine"]}


def _unit_ids(generation: Generation) -> set[str]:
    files = [generation.folder / path for path in generation.files("units")]
    return {unit for file in files for unit in read_columns(file, ["unit_id"]).column(0).to_pylist()}


def _compacted(generation: Generation, sources: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the compacted records. sources: only those that list one of these, without their `quarantine`."""
    import pyarrow.parquet as pq

    refused = _refused(generation) if sources is None else {}
    for path in generation.files("units"):
        with pq.ParquetFile(generation.folder / path) as file:
            for batch in file.iter_batches(_ROWS, columns=list(_COLUMNS)):
                for record in _records(batch if sources is None else _that_list(batch, sources)):
                    yield record | {"quarantine": refused.get(record["unit_id"], [])}


def _refused(generation: Generation) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in generation.files("quarantine"):
        table = read_columns(generation.folder / path)
        for unit, row in zip(table.column("unit").to_pylist(), fill(table, QUARANTINE).to_pylist(), strict=True):
            found.setdefault(unit, []).append(row)
    return found


def _that_list(batch: pa.RecordBatch, sources: Collection[str]) -> pa.RecordBatch:
    import pyarrow.compute as pc

    lists = batch.column("source_ids")
    is_wanted = pc.is_in(pc.list_flatten(lists), pa.array(list(sources), pa.string()))
    return batch.take(pc.unique(pc.filter(pc.list_parent_indices(lists), is_wanted)))


def _records(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    import pyarrow.compute as pc

    # As in the records: 2026-11-29T12:00:00.123+00:00.
    times = pc.strftime(batch.column("at").cast(pa.timestamp("ms", "UTC")), "%Y-%m-%dT%H:%M:%S+00:00").to_pylist()
    named = (batch.column(name).to_pylist() for name in _COLUMNS if name != "at")
    for at, unit, settings, number, sources in zip(times, *named, strict=True):
        yield {"unit_id": unit, "fingerprint": settings, "generation": number, "at": at, "source_ids": sources}
