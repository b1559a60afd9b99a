"""The operations that are measured. Each runs in a process of its own: what it prepares in one, what is timed in another."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scale_parts.kinds import Kind
from scale_parts.passes import ANNOTATOR

Parts = dict[str, float]
"""Seconds of parts of an operation, or counts, by name."""
_AGAIN_S = 20.0
"""A query that takes less than this is asked three times, and its fastest time counts."""
COSINE = 0.7
"""Least cosine of two clips of one voice."""


@dataclass(frozen=True)
class Operation:
    """What is timed, and what must be so before.

    run: returns parts. prepare: called as (corpus, the corpus as it was made, its kind) in another process.
    own_rows: it means something only if each unit has rows of its own (`Kind.drawn` is 0).
    """

    words: str
    run: Callable[[Path], Parts]
    prepare: Callable[[Path, Path, Kind], None] | None = None
    own_rows: bool = False


@contextmanager
def _timed(parts: Parts, name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    parts[name] = time.perf_counter() - started


def _has_catalog(work: Path, made: Path, kind: Kind) -> None:
    """Bring the catalog up to date."""
    from catalogs.query.views import connect

    connect(work).close()


def _no_catalog(work: Path, made: Path, kind: Kind) -> None:
    """Remove the catalog and what was compacted."""
    (work / "catalog.duckdb").unlink(missing_ok=True)
    shutil.rmtree(work / "compact", ignore_errors=True)


def _new_unit(work: Path, made: Path, kind: Kind) -> None:
    """Bring the catalog up to date, then commit one more unit."""
    from scale_parts.corpus import add_units

    _has_catalog(work, made, kind)
    noted = work.parent / f"{work.name}.added"
    number = int(noted.read_text()) if noted.is_file() else kind.units
    add_units(work, kind, number, 1)
    noted.write_text(str(number + 1))


def _no_pass(work: Path, made: Path, kind: Kind) -> None:
    """Remove the descriptions of the offline annotator."""
    shutil.rmtree(work / "annotations" / "acoustic", ignore_errors=True)


def _fresh_pass(work: Path, made: Path, kind: Kind) -> None:
    """Put back the descriptions of the made-up service as they were made."""
    shutil.rmtree(work / "annotations" / ANNOTATOR, ignore_errors=True)
    subprocess.run(["cp", "-al", made / "annotations" / ANNOTATOR, work / "annotations"], check=True)


def _no_duplicates(work: Path, made: Path, kind: Kind) -> None:
    """Remove the result of the search for duplicates."""
    shutil.rmtree(work / "annotations" / "duplicates", ignore_errors=True)


def _connect(root: Path) -> Parts:
    from catalogs.query.views import connect

    parts: Parts = {}
    with _timed(parts, "import duckdb"):  # Every client has to.
        import duckdb  # noqa: F401
    with _timed(parts, "connect"):
        connection = connect(root)
    with _timed(parts, "select 1"):
        connection.execute("SELECT 1").fetchall()
    with _timed(parts, "kept (first)"):
        connection.execute("SELECT count(*) FROM segments WHERE kept").fetchall()
    return parts


def _asked(root: Path, queries: dict[str, str]) -> Parts:
    from catalogs.query.views import connect

    parts: Parts = {}
    with connect(root) as connection:
        for name, sql in queries.items():
            for _ in range(3):
                started = time.perf_counter()
                connection.execute(sql).fetchall()
                seconds = time.perf_counter() - started
                parts[name] = min(seconds, parts.get(name, seconds))
                if seconds > _AGAIN_S:
                    break
            print(f"# {name}: {parts[name]:.3f} s", file=sys.stderr, flush=True)
    return parts


def _counts(root: Path) -> Parts:
    from catalogs.query.views import VIEWS

    return _asked(root, {view: f"SELECT count(*) FROM {view}" for view in VIEWS})


def _kept(root: Path) -> Parts:
    return _asked(root, {"kept": "SELECT count(*) FROM segments WHERE kept"})


def _macros(root: Path) -> Parts:
    from catalogs.query.view_columns import MACRO_WORDS

    return _asked(root, {name: f"SELECT * FROM {name}()" for name in MACRO_WORDS})


def _catalog(root: Path) -> Parts:
    from catalogs.query.views import build_catalog

    build_catalog(root)
    return {}


def _report(audio_bytes: int) -> Callable[[Path], Parts]:
    def run(root: Path) -> Parts:
        from catalogs.report.report import build_report

        page = build_report(root, root.parent / f"{root.name}.html", audio_bytes)
        return {"page_mb": page.stat().st_size / 1e6}

    return run


def _open(root: Path) -> Parts:
    from catalogs.corpus.reader import Corpus

    parts: Parts = {}
    with _timed(parts, "open"):
        corpus = Corpus(root)
    with _timed(parts, "len"):
        parts["segments"] = len(corpus)
    return parts


def _index(root: Path) -> Parts:
    from catalogs.corpus.reader import Corpus

    return {"rows": Corpus(root).index.num_rows}


def _kept_parts(root: Path) -> Parts:
    from catalogs.corpus.reader import Corpus

    return {"rows": sum(part.num_rows for part in Corpus(root).kept_parts())}


def _resume(root: Path) -> Parts:
    from catalogs.compaction.records import history_of

    return {"sources": len(history_of(root).done(lambda row: False))}


def _fsck(hashes: bool) -> Callable[[Path], Parts]:
    def run(root: Path) -> Parts:
        from catalogs.corpus.fsck import fsck

        found = list(fsck(root, hashes=hashes))
        errors = [problem for problem in found if problem.severity == "error"]
        for problem in errors[:5]:
            print(f"# {problem}", file=sys.stderr)
        return {"errors": len(errors)}

    return run


def _describe(root: Path) -> Parts:
    from annotators.runner import describe_corpus

    return {"described": describe_corpus(root, "acoustic").described}


def _verify(root: Path) -> Parts:
    from annotators.verification.verify import verify_corpus

    return {"descriptions": verify_corpus(root, ANNOTATOR).verdicts.total()}


def _duplicates(root: Path) -> Parts:
    from pipeline.duplicates.mark import mark_duplicates

    return {"duplicates": mark_duplicates(root, COSINE).segments}


def _candidates(root: Path) -> Parts:
    from catalogs.candidates.build import fill_table, table_key
    from catalogs.candidates.table import Writer, open_table
    from catalogs.corpus.reader import Corpus

    folder = root.parent / f"{root.name}.candidates"
    shutil.rmtree(folder, ignore_errors=True)
    parts: Parts = {}
    with _timed(parts, "open"):
        corpus = Corpus(root)
    with _timed(parts, "key"):
        table_key([corpus])
    with _timed(parts, "fill"):
        fill_table(
            [corpus], Writer(folder / "table"), folder / "scratch", lambda name: zlib.crc32(name.encode()) / 2**32
        )
    with _timed(parts, "map"):
        parts["rows"] = len(open_table(folder / "table").seconds)
    shutil.rmtree(folder)
    return parts


OPERATIONS: dict[str, Operation] = {
    "catalog": Operation("build the catalog from nothing", _catalog, _no_catalog),
    "catalog_new": Operation("build the catalog after one new unit", _catalog, _new_unit),
    "catalog_same": Operation("build the catalog, nothing new", _catalog, _has_catalog),
    "connect": Operation("connect and ask for the first time", _connect, _has_catalog),
    "connect_new": Operation("connect after one new unit", _connect, _new_unit),
    "kept": Operation("count(*) where kept, warm", _kept, _has_catalog),
    "counts": Operation("count(*) of each view, warm", _counts, _has_catalog),
    "macros": Operation("each macro, warm", _macros, _has_catalog),
    "report_queries": Operation("report without audio", _report(0), _has_catalog),
    "report": Operation("report", _report(6_000_000), _has_catalog),
    "open": Operation("open a `Corpus`", _open),
    "index": Operation("`Corpus.index`", _index),
    "kept_parts": Operation("`Corpus.kept_parts`, all", _kept_parts),
    "resume": Operation("list what is committed, to resume", _resume),
    "fsck": Operation("fsck without hashes", _fsck(False)),
    "fsck_hashes": Operation("fsck", _fsck(True)),
    "describe": Operation("describe with `acoustic`", _describe, _no_pass),
    "verify": Operation("verify the made-up descriptions", _verify, _fresh_pass),
    "duplicates": Operation("mark duplicates, first time", _duplicates, _no_duplicates, own_rows=True),
    "duplicates_new": Operation("mark duplicates after one new unit", _duplicates, _new_unit, own_rows=True),
    "candidates": Operation("candidate table of the trainer", _candidates, _has_catalog),
}
"""The operations by name, in the order in which they are measured."""
