"""Read and write the lineage beside a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from catalogs.files import file_sha256, one_line, write_atomically, write_durably
from catalogs.lineage.record import (
    COLUMNS,
    SCHEMA,
    Ancestor,
    DrawnCorpus,
    DrawnRecording,
    HeldOut,
    LicenseShare,
    Lineage,
    LineageError,
    Stretch,
)

LINEAGE = "lineage.json"
TABLE = "lineage.parquet"

_NUMBERS = re.compile(r"\[\n([\d,\s]+)\n\s*\]")
_ADDED: dict[str, Any] = {}
"""Columns that were added after the first version, with the values of older rows."""


def read_lineage(model_dir: str | Path) -> Lineage | None:
    """Return the lineage of a checkpoint or an adapter; None if its folder has none. Its rows are read by `read_table` and
    `find_recordings`.

    Raises LineageError if lineage.json is damaged or newer than this version.
    """
    folder = Path(model_dir)
    path = folder / LINEAGE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, one_line(error)) from None
    if not isinstance(values, dict) or not isinstance(values.get("schema"), int):
        raise _damaged(path, "it does not describe a lineage")
    if values["schema"] > SCHEMA:
        raise LineageError(f"{path} has format {values['schema']}, newer than {SCHEMA}: update voxmill")
    try:
        return _lineage(values, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {one_line(error)}") from None


def write_lineage(folder: Path, lineage: Lineage, table: pa.Table) -> Lineage:
    """Write both files into the folder of a checkpoint, forced to the disk; the table first. Return what was written, with the size
    and the digest of the table. The folder must not be visible as a checkpoint yet."""
    import pyarrow.parquet as pq

    sha256, _ = write_durably(
        folder / TABLE, lambda sink: pq.write_table(table.cast(COLUMNS), sink, compression="zstd")
    )
    written = dataclasses.replace(lineage, table_rows=table.num_rows, table_sha256=sha256, folder=folder)
    text = json.dumps(as_json(written), indent=1, ensure_ascii=False)
    # Lists of numbers on one line. In JSON, no string holds a line break.
    text = _NUMBERS.sub(lambda found: "[" + " ".join(found[1].split()) + "]", text)
    write_atomically(folder / LINEAGE, f"{text}\n".encode())
    return written


def as_json(lineage: Lineage) -> dict[str, Any]:
    """Return the content of lineage.json."""
    values = dataclasses.asdict(dataclasses.replace(lineage, folder=None))
    del values["folder"]
    return {"schema": values.pop("schema"), **values}


def read_table(lineage: Lineage) -> pa.Table:
    """Return all rows of a lineage's table. Raises LineageError if it is missing, or not the one that lineage.json describes."""
    import pyarrow.parquet as pq

    if lineage.folder is None:
        raise LineageError("this lineage was not read from a folder, so it has no table")
    path = lineage.folder / TABLE
    try:
        if file_sha256(path) != lineage.table_sha256:
            raise _damaged(path, f"it is not the table that {LINEAGE} describes")
        found = pq.read_table(path, partitioning=None)
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, one_line(error)) from None
    for name, value in _ADDED.items():
        if name not in found.column_names:
            found = found.append_column(name, pa.array([value] * len(found), COLUMNS.field(name).type))
    if missing := set(COLUMNS.names) - set(found.column_names):
        raise _damaged(path, f"it has no column {min(missing)}")
    return found.select(COLUMNS.names).cast(COLUMNS)


def find_recordings(lineage: Lineage, **wanted: Any) -> list[DrawnRecording]:
    """Return the rows whose columns have the given values, e.g. `content_sha256={...}, generation=0`: a value, or several of which
    one must match. Raises LineageError as `read_table` does, KeyError for an unknown column."""
    import pyarrow.compute as pc

    found = read_table(lineage)
    for name, values in wanted.items():
        several = list(values) if isinstance(values, set | frozenset | list | tuple) else [values]
        found = found.filter(pc.is_in(found.column(name), pa.array(several, COLUMNS.field(name).type)))
    return [DrawnRecording(**row) for row in found.to_pylist()]


def _damaged(path: Path, what: str) -> LineageError:
    return LineageError(f"{path} cannot be used ({what}): copy the checkpoint's folder again from where it was made")


def _lineage(values: Mapping[str, Any], folder: Path) -> Lineage:
    known = {one.name for one in dataclasses.fields(Lineage)} - {"folder"}
    plain = {name: value for name, value in values.items() if name in known}
    plain |= {name: tuple(values[name]) for name in ("tombstones", "gaps", "notes")}
    return Lineage(
        **plain
        | {
            "ancestors": tuple(_each(Ancestor, values["ancestors"])),
            "corpora": tuple(_each(DrawnCorpus, values["corpora"])),
            "positions": tuple(
                dataclasses.replace(one, waiting=tuple(one.waiting)) for one in _each(Stretch, values["positions"])
            ),
            "licenses": {name: next(_each(LicenseShare, [share])) for name, share in dict(values["licenses"]).items()},
            "held_out": next(_each(HeldOut, [values["held_out"]])),
            "folder": folder,
        }
    )


def _each(kind: Any, rows: list[Mapping[str, Any]]) -> Iterator[Any]:
    """Yield objects of a dataclass; keys of later versions are ignored."""
    known = {one.name for one in dataclasses.fields(kind)}
    for row in rows:
        yield kind(**{name: value for name, value in row.items() if name in known})
