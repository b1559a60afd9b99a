"""History of a corpus: which sources are committed, at which attempt, and why sources failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from catalogs.corpus.attempts import cause_of_row
from catalogs.corpus.commit import read_records, write_in_corpus
from catalogs.corpus.damage import reading
from catalogs.corpus.ids import other_channel_id, short_hash
from catalogs.corpus.row_files import parquet_bytes
from catalogs.corpus.schema import QUARANTINE
from catalogs.corpus.shards import to_table

Again = Callable[[Mapping[str, Any]], bool]
"""Return True for a quarantine row whose source is to be tried again."""


class Attempt(NamedTuple):
    """The newest attempt at a source. All sources of a record share one object: a corpus has millions of sources."""

    generation: int
    at: str
    """When its record was written."""


@dataclass
class History:
    """The sources of a corpus under its present settings. Failures of a file's second channel count as the file's."""

    committed: dict[str, Attempt] = field(default_factory=dict)
    """By source: the newest record that lists it."""
    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Quarantine rows of the newest attempt, by source."""

    def done(self, again: Again, since: str = "") -> Done:
        """Return the committed sources that are not to be tried again, without those committed before `since`."""
        retried = {source for source, rows in self.failures.items() if any(again(row) for row in rows)}
        return Done(self.committed, retried, since)

    def generation(self, source: str) -> int | None:
        """Return the generation of the newest record that lists a source; None if there is none."""
        attempt = self.committed.get(source)
        return None if attempt is None else attempt.generation

    def runs(self, source: str, cause: str) -> int:
        """Return how many runs in a row have ended with this cause for a source."""
        rows = [row for row in self.failures.get(source, ()) if cause_of_row(row) == cause]
        return max((row.get("runs") or 1 for row in rows), default=0)


@dataclass(frozen=True)
class Done(Collection[str]):
    """Sources that a run leaves out. It is a view: it holds only the exceptions."""

    committed: Mapping[str, Attempt]
    retried: Collection[str] = ()
    since: str = ""

    def __contains__(self, source: object) -> bool:
        attempt = self.committed.get(source)  # type: ignore[call-overload]
        return attempt is not None and source not in self.retried and attempt.at >= self.since

    def __iter__(self) -> Iterator[str]:
        return (source for source in self.committed if source in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def read_history(root: str | Path, records: Iterable[Mapping[str, Any]] | None = None) -> History:
    """Read the records and the quarantine files that they name. Raises CorpusError for a record that cannot be read.

    records: those of `read_records`, if the caller has a faster way to them; they may have the rows as `quarantine`.
    """
    history = History()
    for record in read_records(root) if records is None else records:
        older = frozenset(record.get("superseded", ()))
        attempt = Attempt(record.get("generation") or 0, record["at"])
        sources = record["source_ids"]
        if older:
            sources = [source for source in sources if source not in older]
        history.committed.update(dict.fromkeys(sources, attempt))
        rows = record["quarantine"] if "quarantine" in record else _quarantine(Path(root), record)
        file_of = {other_channel_id(source): source for source in sources} if rows else {}
        for row in rows:
            if row["source_id"] not in older:
                source = file_of.get(row["source_id"], row["source_id"])
                history.failures.setdefault(source, []).append(row)
    return history


def read_hashes(root: str | Path) -> Iterator[tuple[str, int, int, str]]:
    """Yield (path or location, bytes, time of last change in ns, sha256) of each file that runs into a corpus have read.

    A later row of a file wins. The line at which a run was killed is left out: that file is read again.
    """
    root = Path(root)
    if (root / "hashes.json").is_file():  # of an older voxmill: one list
        yield from ((path, size, changed, sha256) for path, size, changed, sha256 in _json_list(root / "hashes.json"))
    for file in sorted(root.glob("hashes*.jsonl")):
        with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                try:
                    path, size, changed, sha256 = json.loads(line)
                    bytes.fromhex(sha256)
                except (ValueError, TypeError):
                    continue
                yield path, size, changed, sha256


def _json_list(path: Path) -> list[list[Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return []


def _quarantine(root: Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = []
    for file in record["files"]:
        if file["kind"] == "quarantine":
            with reading(root / file["path"]):
                found += pq.ParquetFile(root / file["path"]).read().to_pylist()
    return found


def quarantine_now(root: str | Path, row: Mapping[str, Any], arguments: Sequence[str] = ()) -> Path:
    """Write one quarantine row at once, outside of any unit, so that it survives if the driver is killed later.

    A row with the same path, source, stage and error replaces the earlier one. `arguments`: the sources that the run was given.
    A later run compares them to know whether it searched the same place.
    """
    name = short_hash("quarantine", *(str(row.get(key)) for key in ("path", "source_id", "stage", "error")))
    table = to_table([row], QUARANTINE)
    if arguments:
        table = table.replace_schema_metadata({b"voxmill": json.dumps({"arguments": list(arguments)}).encode()})
    final = Path(root) / "quarantine" / "now" / f"{name}.parquet"
    write_in_corpus(Path(root), final, parquet_bytes(table))
    return final


def refused_files(root: str | Path) -> Iterator[tuple[Path, dict[str, Any], set[str]]]:
    """Yield (file, row, the sources that the run was given) of each quarantine row written outside of any unit."""
    import pyarrow.parquet as pq

    for path in sorted((Path(root) / "quarantine" / "now").glob("*.parquet")):
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError):
            continue
        about = (table.schema.metadata or {}).get(b"voxmill", b"{}")
        for row in table.to_pylist():
            yield path, row, set(json.loads(about).get("arguments", ()))


def replaced_sources(root: str | Path) -> list[str]:
    """Return the ids of failed sources whose path now holds another file: their quarantine rows are out of date."""
    try:
        found = json.loads(_replaced_path(root).read_text(encoding="utf-8"))
        return sorted(str(source) for source in found["source_ids"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def note_replaced(root: str | Path, history: History, found: Iterable[tuple[str, str]]) -> None:
    """Store which failed sources were replaced, from the (path, source id) pairs that a run has found."""
    if not history.failures:
        return
    at_path = dict(found)
    before = set(replaced_sources(root))
    after = set(before)
    for source, rows in history.failures.items():
        ids = {source, other_channel_id(source)}
        now = {at_path[row["path"]] for row in rows if row["path"] in at_path}
        if now:
            after = after - ids if source in now else after | ids
    if after != before:
        _write_replaced(root, after)


def _write_replaced(root: str | Path, sources: Collection[str]) -> None:
    text = json.dumps({"source_ids": sorted(sources)}, indent=1)
    write_in_corpus(Path(root), _replaced_path(root), text.encode())


def _replaced_path(root: str | Path) -> Path:
    return Path(root) / "quarantine" / "replaced.json"
