"""Check of a corpus: every file exists and is unchanged, every id occurs once, every second is accounted for.

Units are checked one by one on all cores. Of their ids only 64-bit values are kept, beyond a million on the disk; the records are
read again for each purpose instead of held.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from catalogs.corpus.attempts import newest_records, older_sources
from catalogs.corpus.commit import corpus_info, read_info
from catalogs.corpus.damage import finding, repair_command
from catalogs.corpus.ids import IdSet, id_values
from catalogs.corpus.latents import latent_problems
from catalogs.corpus.locks import dead_scratch, only_run, run_at_work
from catalogs.corpus.marks import mark_faults, mark_files
from catalogs.corpus.schema import SCHEMAS
from catalogs.corpus.unit_checks import Problem, check_audio, check_seconds, read_file
from catalogs.corpus.unnamed import Findings, Records, sort_unnamed
from catalogs.files import file_sha256

__all__ = ["Findings", "Problem", "fsck"]

_READ = {
    "index": ("segment_id", "source_id", "duration_s", "shard", "row"),
    "recordings": ("source_id", "path", "duration_s", "silence_s", "status"),
}
"""The columns that are read of a unit's tables. The bytes of the others are covered by the hash of the file."""
_EMPTY = {kind: SCHEMAS[kind].empty_table().select(names) for kind, names in _READ.items()}
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def fsck(
    root: str | Path, hashes: bool = True, repair: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Check a corpus. An empty list, or one with notices only, means that it is whole.

    `hashes=False` skips re-reading every byte: of the tables it reads only what is compared, of annotations only the ids.
    `repair` fixes what it can (`catalogs.corpus.repair`), and deletes only duplicates of committed files; it raises
    CorpusBusyError while a run is at work. `progress` is called with (units done, units in all).
    """
    root = Path(root)
    if repair:
        from catalogs.corpus.repair import mend, rebuild_info

        lost = read_info(root) is None
        with only_run(root):
            rebuilt = [rebuild_info(root)] if lost else []
            return rebuilt + mend(root, examine(root, hashes, progress))
    corpus_info(root)
    found = examine(root, hashes, progress)
    what = f"; run: {repair_command(root)}"
    units = [problem for problems in found.damaged.values() for problem in problems]
    faults = [*found.records.broken.values(), *units, *found.companions]
    return [
        *found.problems,
        *(Problem(p.severity, p.path, p.what + what) for p in faults),
        *_unnamed_notices(root, found),
    ]


def examine(root: Path, hashes: bool, progress: Callable[[int, int], None] | None = None) -> Findings:
    """Check every file of a corpus; change nothing."""
    found = Findings(Records(root))
    attempts = _attempts(found.records, corpus_info(root).get("fingerprint"))
    segments, sources, replaced = IdSet(), IdSet(), IdSet()

    def check(record: dict[str, Any]) -> _Checked:
        return _check_unit(root, record, hashes, attempts.older.get(record["unit_id"], set()))

    for done, unit in enumerate(_in_parallel(check, found.records)):
        segments.add(unit.segments)
        sources.add(unit.sources)
        replaced.add(unit.replaced)
        found.problems += unit.problems
        if unit.faults:
            found.damaged[unit.name] = unit.faults
        if progress:
            progress(done + 1, len(found.records) - len(found.records.broken))
    found.problems += _repeated(root, found.records, attempts, segments.repeated(), sources.repeated())
    found.add(_annotation_problems(root, hashes))

    def unknown(ids: Sequence[str]) -> int:
        values = id_values(ids)
        return int((~(segments.known(values) | replaced.known(values))).sum())

    found.add(Problem(*p) for p in latent_problems(root, found.records.get, attempts.is_replaced, unknown, hashes))
    found.unnamed = sort_unnamed(root, found.records, corpus_info(root).get("fingerprint"))
    return found


def _in_parallel(work: Callable[[_In], _Out], items: Iterable[_In]) -> Iterator[_Out]:
    """Yield the results in order; a few items at a time are worked on."""
    cores = os.cpu_count() or 1
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 4 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass
class _Attempts:
    """What records say of sources that more than one of them lists."""

    bound: str | None
    """Fingerprint of the corpus."""
    older: dict[str, set[str]] = field(default_factory=dict)
    """For each unit, its sources that were processed again in a newer unit of the same settings."""
    whole: set[str] = field(default_factory=set)
    """Units that were processed again as a whole."""

    def is_replaced(self, record: dict[str, Any]) -> bool:
        """Return True if readers do not use a unit."""
        return self.bound not in (None, record["fingerprint"]) or record["unit_id"] in self.whole


def _attempts(records: Records, bound: str | None) -> _Attempts:
    listed = IdSet()
    for record in records:
        listed.add(_of_settings(record["source_ids"], record["fingerprint"]))
    repeated, found = listed.repeated(), _Attempts(bound)
    if not repeated:
        return found
    by_settings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        if not repeated.isdisjoint(_of_settings(record["source_ids"], record["fingerprint"]).tolist()):
            by_settings[record["fingerprint"]].append(record | {"files": []})
    for group in by_settings.values():
        found.older |= older_sources(group, by_clock=False)
    current = [record for group in by_settings.values() for record in group if bound in (None, record["fingerprint"])]
    found.whole = {r["unit_id"] for r in current} - {r["unit_id"] for r in newest_records(current)}
    return found


def _of_settings(sources: Sequence[str], fingerprint: str) -> np.ndarray:
    """Return the values of sources in units of some settings: those of other settings are superseded, not duplicates."""
    return id_values(sources) ^ id_values([fingerprint])


def _repeated(
    root: Path, records: Records, attempts: _Attempts, segments: set[int], sources: set[int]
) -> Iterator[Problem]:
    """Yield the segments and sources that occur more than once. segments, sources: the values that do."""
    if not segments and not sources:
        return
    names: Counter[str] = Counter()
    committed: Counter[tuple[str, str]] = Counter()
    for record in records:
        older = attempts.older.get(record["unit_id"], set())
        tables = {file["kind"]: _check_file(root, file, False)[0] for file in record["files"] if file["kind"] in _READ}
        own, _, of = _ids(record, tables.get("index"), tables.get("recordings"), older)
        names.update(name for name, value in zip(own, id_values(own).tolist(), strict=True) if value in segments)
        values = _of_settings(of, record["fingerprint"]).tolist()
        committed.update((s, record["fingerprint"]) for s, value in zip(of, values, strict=True) if value in sources)
    for name, count in names.items():
        if count > 1:
            yield Problem("error", f"segment {name}", f"occurs {count} times")
    for (name, _), count in committed.items():
        if count > 1:
            what = f"was committed in {count} units: its segments occur more than once"
            yield Problem("error", f"source {name}", what)


def _ids(
    record: dict[str, Any], index: pa.Table | None, recordings: pa.Table | None, older: set[str]
) -> tuple[list[str], list[str], list[str]]:
    """Return (ids of the segments, of those of older attempts, ids of the sources) that the tables of a unit hold."""
    segments, replaced, sources = [], [], []
    if index is not None:
        segments = index.column("segment_id").to_pylist()
        if older:
            pairs = list(zip(segments, index.column("source_id").to_pylist(), strict=True))
            segments = [segment for segment, source in pairs if source not in older]
            replaced = [segment for segment, source in pairs if source in older]
    if recordings is not None:
        sources = [source for source in recordings.column("source_id").to_pylist() if source not in older]
    return segments, replaced, sources


def _unnamed_notices(root: Path, found: Findings) -> list[Problem]:
    """Return notices about files that no record names. While a run is at work, these may be its unfinished files."""
    if run_at_work(root):
        return [Problem("notice", ".", "a run is at work: what it has not committed yet was not looked at")]
    unnamed, command = found.unnamed, repair_command(root)
    notices = [
        Problem(
            "notice",
            f"unit {record['unit_id']}",
            f"its commit record is missing, its files are whole; {command} rebuilds it",
        )
        for record in unnamed.lost
    ]
    left = [*unnamed.doubles, *(path for entry in dead_scratch(root / "tmp") for path in _inside(entry))]
    what = f"left by a run that was killed; {command} removes it"
    notices += [Problem("notice", str(path.relative_to(root)), what) for path in left]
    return notices + unnamed.notices


def _inside(entry: Path) -> Iterator[Path]:
    yield from (path for path in sorted([entry, *entry.rglob("*")]) if path.is_file())


def _annotation_problems(root: Path, hashes: bool) -> Iterator[Problem]:
    import pyarrow.parquet as pq

    def check(path: Path) -> Problem | None:
        try:
            with pq.ParquetFile(path) as file:
                # No hash covers these files: with `hashes`, all of their values are read.
                columns = None if hashes else [name for name in file.schema_arrow.names if name == "segment_id"]
                for _ in file.iter_batches(columns=columns, use_threads=False):
                    pass
        except (pa.ArrowException, OSError) as error:
            return Problem("error", path.relative_to(root).as_posix(), f"cannot be read ({finding(error)})")
        return None

    for problem in _in_parallel(check, sorted((root / "annotations").rglob("*.parquet"))):
        if problem is not None:
            yield problem
    for path in mark_files(root):
        bad, is_cut = mark_faults(path)
        name = path.relative_to(root).as_posix()
        if bad:
            lines = ", ".join(map(str, bad[:5])) + (" ..." if len(bad) > 5 else "")
            yield Problem("error", name, f"has lines that are not marks, which readers skip: {lines}")
        if is_cut:
            yield Problem("notice", name, "ends with half a mark, which was never acknowledged: readers skip it")


@dataclass
class _Checked:
    """What the check of one unit found, and the values of its ids."""

    name: str
    faults: list[Problem]
    problems: list[Problem]
    segments: np.ndarray
    replaced: np.ndarray
    sources: np.ndarray


def _check_unit(root: Path, record: dict[str, Any], hashes: bool, older: set[str]) -> _Checked:
    faults, tables = [], {}
    for file in record["files"]:
        table, fault = _check_file(root, file, hashes)
        if fault is not None:
            faults.append(Problem("error", file["path"], fault))
        elif table is not None:
            tables[file["kind"]] = table
    segments, replaced, sources = _ids(record, tables.get("index"), tables.get("recordings"), older)
    values = id_values(segments), id_values(replaced), _of_settings(sources, record["fingerprint"])
    checked = _Checked(record["unit_id"], faults, [], *values)
    if faults:
        # A damaged table also makes the comparisons between tables fail, so these are skipped.
        return checked
    index, recordings = (tables.get(kind, _EMPTY[kind]) for kind in ("index", "recordings"))
    if index.num_rows != record["segments"]:
        what = f"has {index.num_rows} segments in its index"
        checked.problems.append(Problem("error", f"unit {record['unit_id']}", what))
    checked.problems += check_audio(record, index, tables.get("segments")) + check_seconds(index, recordings)
    return checked


def _check_file(root: Path, file: dict[str, Any], hashes: bool) -> tuple[pa.Table | None, str | None]:
    """Return (table, fault) of a file that a record names; one of them is None."""
    path = root / file["path"]
    if not path.is_file():
        return None, "is missing"
    if path.stat().st_size != file["bytes"]:
        return None, f"has {path.stat().st_size} bytes, not {file['bytes']}"
    if hashes and file_sha256(path) != file["sha256"]:
        return None, "has changed since it was committed (sha256 differs)"
    try:
        table = read_file(path, file["kind"], _READ.get(file["kind"]))
    except (pa.ArrowException, OSError) as error:
        return None, f"cannot be read ({finding(error)})"
    if table.num_rows != file["rows"]:
        return None, f"has {table.num_rows} rows, not {file['rows']}"
    return table, None
