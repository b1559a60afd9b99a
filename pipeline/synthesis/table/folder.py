"""The output folder: what it was made from, its parts, and the table that they become.

OUT/speak.json                the table, the model and the options that the folder is bound to
OUT/audio/<aa>/<id>.flac      a file per row that was spoken
OUT/table/part-0000000.parquet   a unit's rows, committed when its audio is on the disk; only while a run is not complete
OUT/table.parquet             all rows, in the order of the table; a run is complete when it exists
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from catalogs.corpus.commit import CorpusError, write_in_corpus
from catalogs.corpus.locks import own_scratch
from catalogs.files import fsync_path, write_durably
from pipeline.synthesis.table.columns import result_schema
from pipeline.synthesis.table.rows import Job, Line, Unit

ABOUT_FILE = "speak.json"
TABLE_FILE = "table.parquet"
PARTS = "table"
_ROWS = 16_384
"""Rows of a row group of the whole table."""
VERSION = 1
"""Increased when the same table and options would give other files."""


@dataclass
class Counts:
    """Rows of a result, counted."""

    rows: int = 0
    spoken: int = 0
    seconds: float = 0.0
    unended: int = 0
    """Rows that were spoken and that a limit cut: the model did not end them in any attempt."""
    retried: int = 0
    """Rows that took more than one attempt."""
    failed: dict[str, int] = field(default_factory=dict)
    """Rows without audio, by the code of their error."""

    def add(self, table: pa.Table, names: dict[str, str]) -> None:
        """Count the rows of a part."""
        columns = {what: table.column(names[what]).to_pylist() for what in ("seconds", "ending", "attempts", "error")}
        self.rows += table.num_rows
        spoken = [ending for ending in columns["ending"] if ending is not None]
        self.spoken += len(spoken)
        self.seconds += sum(seconds or 0.0 for seconds in columns["seconds"])
        self.unended += sum(ending != "stop" for ending in spoken)
        self.retried += sum((attempts or 0) > 1 for attempts in columns["attempts"])
        found = Counter(self.failed)
        found.update(error.partition(":")[0] for error in columns["error"] if error is not None)
        self.failed = dict(found.most_common())


def about_job(job: Job, digest: str, options: dict[str, object]) -> dict[str, Any]:
    """Return what a folder is bound to. Clips are named by their paths; their content is not read."""
    return {
        "version": VERSION,
        "table": {"name": job.table.path.name, "sha256": job.table.digest, "rows": job.survey.rows},
        "voices": [[voice.name, voice.reference, voice.prompt, voice.prompt_text] for voice in job.voices],
        "descriptions": job.descriptions,
        "model": digest,
        "options": options,
    }


def bind_folder(root: Path, about: dict[str, Any]) -> None:
    """Bind a folder to a table, a model and options, or check that it is. Raises CorpusError with what differs."""
    check_folder(root, about)
    if not (root / ABOUT_FILE).is_file():
        write_in_corpus(root, root / ABOUT_FILE, json.dumps(about, indent=1, ensure_ascii=False).encode())


def check_folder(root: Path, about: dict[str, Any]) -> None:
    """Raise CorpusError if a folder is bound to something else, or if other files are in it."""
    path = root / ABOUT_FILE
    if not path.is_file():
        if any(not entry.name.startswith(".") and entry.name not in ("tmp", "logs") for entry in root.iterdir()):
            raise CorpusError(f"{root} is not empty and was not made by speak --table: choose another folder")
        return
    try:
        found = _differences(json.loads(path.read_text(encoding="utf-8")), about)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CorpusError(f"{path} is damaged: choose another folder") from None
    if found:
        raise CorpusError(
            f"{root} was made with {', '.join(found)}: give the same table, model and options, or another --out"
        )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    if before["version"] != now["version"]:
        found.append("another version of voxmill")
    if before["table"]["sha256"] != now["table"]["sha256"]:
        found.append(f"another table ({before['table']['name']}, {before['table']['rows']} rows)")
    found += [f"other {what}" for what in ("voices", "descriptions") if before[what] != now[what]]
    if before["model"] != now["model"]:
        found.append(f"another model ({before['model']}, now {now['model']})")
    # An option at its default may be left out, of either.
    for key in before["options"] | now["options"]:
        was, value = before["options"].get(key), now["options"].get(key)
        if was != value:
            found.append(f"{key} {was} (now {value})")
    return found


def part_path(root: Path, number: int) -> Path:
    """Return the path of a unit's part."""
    return root / PARTS / f"part-{number:07d}.parquet"


def committed_parts(root: Path) -> set[int]:
    """Return the numbers of the units that are committed."""
    return {int(path.stem.removeprefix("part-")) for path in (root / PARTS).glob("part-*.parquet")}


def write_part(root: Path, job: Job, unit: Unit, record: dict[str, Any], digest: str) -> pa.Table:
    """Commit a unit: its columns of the table and what became of each line. `record`: see `RowsOutput.write`."""
    import pyarrow.parquet as pq

    table = _result(job, unit, record, digest)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_in_corpus(root, part_path(root, unit.number), bytes(sink.getvalue().to_pybytes()))
    return table


def _result(job: Job, unit: Unit, record: dict[str, Any], digest: str) -> pa.Table:
    rows = [_row(line, record["spoken"].get(line.name), record["errors"].get(line.name), digest) for line in unit.lines]
    names = job.result_names
    schema = result_schema(job.table.schema, names)
    added = [pa.array([row[what] for row in rows], schema.field(name).type) for what, name in names.items()]
    return pa.Table.from_arrays([*unit.carried.columns, *added], schema=schema)


def _row(line: Line, spoken: dict[str, Any] | None, error: str | None, digest: str) -> dict[str, Any]:
    """Return the results of a line."""
    # A row that is wrong was not asked for: what is stored under its name is another row's.
    made = spoken if line.error is None and spoken is not None else {}
    fault = None if made else line.error or f"not_spoken: {error or 'unknown'}"
    return {
        "row": line.row,
        "id": line.id,
        "voice": line.voice,
        "description": line.description,
        **{what: made.get(what) for what in ("audio", "seconds", "sample_rate", "ending", "attempts", "seed")},
        "status": "failed" if fault else "ok",
        "error": fault,
        "model": digest,
    }


def read_parts(root: Path, job: Job) -> Iterator[pa.Table]:
    """Yield the parts in the order of the table. Raises CorpusError if one is missing or damaged."""
    import pyarrow.parquet as pq

    for number in range(job.units):
        path = part_path(root, number)
        try:
            yield pq.read_table(path, partitioning=None)
        except (OSError, pa.ArrowException):
            raise CorpusError(f"{path} is missing or damaged: remove it and run the same command again") from None


def merge_parts(root: Path, job: Job) -> None:
    """Write the whole table from all parts, then remove them. After a kill in between, it does the rest."""
    import pyarrow.parquet as pq

    if not (root / TABLE_FILE).is_file():
        schema = result_schema(job.table.schema, job.result_names)

        def write(sink: IO[bytes]) -> None:
            with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
                held: list[pa.Table] = []
                for part in read_parts(root, job):
                    held.append(part)
                    if sum(table.num_rows for table in held) >= _ROWS:
                        writer.write_table(pa.concat_tables(held).combine_chunks(), row_group_size=_ROWS)
                        held = []
                if held:
                    writer.write_table(pa.concat_tables(held).combine_chunks(), row_group_size=_ROWS)

        # Below tmp/, which the next run sweeps after a kill.
        with own_scratch(root / "tmp") as scratch:
            write_durably(scratch / TABLE_FILE, write)
            os.replace(scratch / TABLE_FILE, root / TABLE_FILE)  # noqa: PTH105
            fsync_path(root)
    shutil.rmtree(root / PARTS, ignore_errors=True)


def count_result(root: Path, job: Job) -> Counts:
    """Count the rows of a complete run."""
    import pyarrow.parquet as pq

    counts = Counts()
    names = job.result_names
    wanted = {what: names[what] for what in ("seconds", "ending", "attempts", "error")}
    with pq.ParquetFile(root / TABLE_FILE) as file:
        for batch in file.iter_batches(_ROWS, columns=list(wanted.values())):
            counts.add(pa.Table.from_batches([batch]), wanted)
    return counts
