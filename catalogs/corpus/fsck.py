"""Check of a corpus: every file exists and is unchanged, every id occurs once, every second is accounted for."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.corpus.attempts import newest_records, older_sources
from catalogs.corpus.commit import corpus_info, read_info
from catalogs.corpus.damage import finding, repair_command
from catalogs.corpus.findings import Findings
from catalogs.corpus.latents import latent_problems
from catalogs.corpus.locks import dead_scratch, only_run, run_at_work
from catalogs.corpus.schema import INDEX, RECORDINGS
from catalogs.corpus.unit_checks import Problem, check_audio, check_seconds, read_file
from catalogs.corpus.unnamed import sort_unnamed
from catalogs.files import file_sha256

__all__ = ["Findings", "Problem", "fsck"]


def fsck(
    root: str | Path, hashes: bool = True, repair: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Check a corpus. An empty list, or one with notices only, means that it is whole.

    `hashes=False` skips re-reading every byte. `repair` fixes what it can (`catalogs.corpus.repair`), and deletes only duplicates
    of committed files; it raises CorpusBusyError while a run is at work. `progress` is called with (units done, units in all).
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
    faults = [*found.broken_records.values(), *units, *found.companions]
    return [
        *found.problems,
        *(Problem(p.severity, p.path, p.what + what) for p in faults),
        *_unnamed_notices(root, found),
    ]


def examine(root: Path, hashes: bool, progress: Callable[[int, int], None] | None = None) -> Findings:
    """Check every file of a corpus; change nothing."""
    found = Findings()
    for path in sorted((root / "units").glob("*/*.json")):
        try:
            found.records.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            name = path.relative_to(root).as_posix()
            found.broken_records[path] = Problem("error", name, "this commit record is damaged")
    segments: Counter[str] = Counter()
    sources: Counter[tuple[str, str]] = Counter()
    older = _older_sources(found.records)
    for done, record in enumerate(found.records):
        _check_unit(root, record, hashes, segments, sources, older.get(record["unit_id"], set()), found)
        if progress:
            progress(done + 1, len(found.records))
    found.problems += [
        Problem("error", f"segment {name}", f"occurs {count} times") for name, count in segments.items() if count > 1
    ]
    found.problems += [
        Problem("error", f"source {name}", f"was committed in {count} units: its segments occur more than once")
        for (name, _), count in sources.items()
        if count > 1
    ]
    for problem in (
        *_annotation_problems(root),
        *(Problem(*p) for p in latent_problems(root, segments.keys(), _readable(root, found.records), hashes)),
    ):
        (found.companions if problem.severity == "error" else found.problems).append(problem)
    found.unnamed = sort_unnamed(root, found.records, corpus_info(root).get("fingerprint"))
    return found


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


def _annotation_problems(root: Path) -> Iterator[Problem]:
    import pyarrow.parquet as pq

    for path in sorted((root / "annotations").rglob("*.parquet")):
        try:
            pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError) as error:
            yield Problem("error", path.relative_to(root).as_posix(), f"cannot be read ({finding(error)})")


def _older_sources(records: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return, for each unit, its sources that were processed again in a newer unit of the same settings."""
    by_settings: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_settings[record["fingerprint"]].append(record)
    return {
        unit: sources
        for group in by_settings.values()
        for unit, sources in older_sources(group, by_clock=False).items()
    }


def _readable(root: Path, records: list[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Return the record of each unit as readers use it; None for a unit that was processed again as a whole."""
    bound = corpus_info(root).get("fingerprint")
    current = newest_records([record for record in records if bound in (None, record["fingerprint"])])
    return {record["unit_id"]: None for record in records} | {record["unit_id"]: record for record in current}


def _check_unit(
    root: Path,
    record: dict[str, Any],
    hashes: bool,
    segments: Counter[str],
    sources: Counter[tuple[str, str]],
    older: set[str],
    found: Findings,
) -> None:
    faults, tables = [], {}
    for file in record["files"]:
        table, fault = _check_file(root, file, hashes)
        if fault is not None:
            faults.append(Problem("error", file["path"], fault))
        elif table is not None:
            tables[file["kind"]] = table
    index = tables.get("index", INDEX.empty_table())
    for segment, source in zip(*(index.column(name).to_pylist() for name in ("segment_id", "source_id")), strict=True):
        segments[segment] += source not in older
    recordings = tables.get("recordings", RECORDINGS.empty_table())
    # Units of older settings may hold the same recordings: they are superseded, not duplicates.
    committed = (source for source in recordings.column("source_id").to_pylist() if source not in older)
    sources.update((source, record["fingerprint"]) for source in committed)
    if faults:
        # A damaged table also makes the comparisons between tables fail, so these are skipped.
        found.damaged[record["unit_id"]] = faults
        return
    if index.num_rows != record["segments"]:
        what = f"has {index.num_rows} segments in its index"
        found.problems.append(Problem("error", f"unit {record['unit_id']}", what))
    found.problems += check_audio(record, index, tables.get("segments")) + check_seconds(index, recordings)


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
        table = read_file(path, file["kind"])
    except (pa.ArrowException, OSError) as error:
        return None, f"cannot be read ({finding(error)})"
    if table.num_rows != file["rows"]:
        return None, f"has {table.num_rows} rows, not {file['rows']}"
    return table, None
