"""Errors of DuckDB that a damaged file of the corpus or a full disk caused."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from catalogs.compaction.generation import present_generation
from catalogs.compaction.units import KINDS
from catalogs.corpus.commit import CorpusError, read_records
from catalogs.corpus.damage import DamagedFileError, finding
from catalogs.corpus.repair import drop_compaction
from catalogs.files import file_sha256


class DamagedCompactionError(CorpusError):
    """Compacted files were damaged. They are removed and made again when they are needed."""


@contextmanager
def asking(root: str | Path) -> Iterator[None]:
    """Turn DuckDB's errors about damaged files or a full disk into CorpusError or OSError; other errors pass."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        refuse_damage(root, error)
        raise


def refuse_damage(root: str | Path, error: Exception) -> None:
    """Raise DamagedFileError if a file of the corpus caused an error of DuckDB, OSError if a full disk did.

    Damaged compacted files are removed: then the error is DamagedCompactionError. DuckDB names the file only in some of its
    messages, so the files are compared with their records.
    """
    import duckdb

    root = Path(root)
    wrong_query = duckdb.ParserException | duckdb.BinderException | duckdb.CatalogException | duckdb.ConversionException
    # A view that cannot be bound is an error in the query too, unless the message names a file.
    if isinstance(error, wrong_query) and ".parquet" not in str(error):
        return
    if "No space left" in str(error):
        raise OSError(errno.ENOSPC, "no space left on the disk", str(root)) from None
    generation = present_generation(root)
    if generation is not None and not generation.is_whole():
        drop_compaction(root)
        raise DamagedCompactionError(
            f"files of {root}/compact were damaged and are removed: run the same command again"
        )
    for path, record in _expected(root):
        if not path.is_file():
            raise DamagedFileError(path, "is missing") from None
        if record is not None and path.stat().st_size != record["bytes"]:
            raise DamagedFileError(path, f"has {path.stat().st_size} bytes of {record['bytes']}") from None
        if record is not None and file_sha256(path) != record["sha256"]:
            raise DamagedFileError(path, "has changed since it was committed") from None
        if record is None and path.relative_to(root).as_posix() in str(error):
            raise DamagedFileError(path, f"is damaged ({finding(error)})") from None


def _expected(root: Path) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Yield every file behind the views, with its entry in a record if a record names it."""
    for record in read_records(root):
        for file in record["files"]:
            if file["kind"] in KINDS:
                yield root / file["path"], file
    for folder in (root / "quarantine" / "now", root / "annotations"):
        for path in folder.rglob("*.parquet"):
            yield path, None
