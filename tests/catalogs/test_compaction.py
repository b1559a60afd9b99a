"""Compacted files hold what the units and passes hold, whatever happened between two compactions and whenever one is killed."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from corpus_builders import FINGERPRINT, annotate, make_unit, verdict
from fakes.processes import PATIENCE_S
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.compaction import draft, generation, units
from catalogs.compaction.compact import compact
from catalogs.compaction.generation import present_generation
from catalogs.compaction.judged import Judge
from catalogs.compaction.records import history_of
from catalogs.corpus.columns import RIGHTS
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus, record_path
from catalogs.corpus.history import quarantine_now, read_history
from catalogs.corpus.reader import Corpus
from catalogs.corpus.repair import drop_compaction
from catalogs.corpus.schema import DESCRIPTIONS
from catalogs.corpus.shards import to_table
from catalogs.corpus.thresholds import Thresholds
from catalogs.files import file_sha256
from catalogs.query.views import build_catalog, connect, query

TABLES = (
    "segments",
    "recordings",
    "reference_pairs",
    "descriptions",
    "decoupled",
    "quarantine",
    "units",
    "stages",
    "funnel",
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that fill up and merge with a few units."""
    monkeypatch.setattr(draft, "BLOCK_ROWS", 12)
    monkeypatch.setattr(draft, "SMALL_BLOCKS", 2)
    monkeypatch.setattr(units, "BLOCK_ROWS", 12)


def new_corpus(folder: Path) -> Path:
    create_corpus(folder)
    bind_fingerprint(folder, FINGERPRINT)
    return folder


def views(root: Path) -> dict[str, list[str]]:
    with connect(root) as connection:
        tables = {name: connection.sql(f"SELECT * FROM {name}").to_arrow_table() for name in TABLES}
    return {name: sorted(map(repr, table.to_pylist())) for name, table in tables.items()}


def rows_by_reader(root: Path) -> dict[str, list[str]]:
    """Ids by the reader of the units, which knows nothing of compaction."""
    corpus = Corpus(root)
    found = {
        "segments": corpus.index.column("segment_id"),
        "recordings": corpus.table("recordings").column("source_id"),
        "reference_pairs": corpus.table("references").column("segment_id"),
        "descriptions": corpus.annotations("descriptions").column("full"),
        "decoupled": corpus.annotations("decoupled").column("text"),
    }
    return {name: sorted(column.to_pylist()) for name, column in found.items()}


def ids_of_views(root: Path) -> dict[str, list[str]]:
    keys = {"segments": "segment_id", "recordings": "source_id", "reference_pairs": "segment_id"}
    keys |= {"descriptions": '"full"', "decoupled": "text"}
    return {name: sorted(row[0] for row in query(root, f"SELECT {key} FROM {name}")[1]) for name, key in keys.items()}


def commit(root: Path, name: str, again: int = 0) -> None:
    unit = make_unit(name, 4, quarantine=[verdict(f"{name}/x.wav")] if name == "b" else [])
    own = f"{again}{unit.unit_id[1:]}" if again else unit.unit_id
    commit_unit(root, dataclasses.replace(unit, generation=again, unit_id=own))


def describe(root: Path, name: str, said: str) -> None:
    unit = make_unit(name, 4)
    annotate(root, unit.unit_id, [row["segment_id"] for row in unit.rows if row["kept"]], said)


def foreign(root: Path, name: str, said: str) -> None:
    """A file of another tool, of segments that may not exist yet."""
    row = {"segment_id": make_unit(name, 4).rows[0]["segment_id"], "annotator": "they", "full": said, "status": "ok"}
    path = root / "annotations" / "they" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table([row], DESCRIPTIONS), path)


def change(root: Path, kind: str, name: str, number: int) -> None:
    unit = make_unit(name, 4).unit_id
    match kind:
        case "commit":
            commit(root, name)
        case "again":
            commit(root, name)
            commit(root, name, again=1)
        case "describe":
            describe(root, name, f"words {number}")
        case "foreign":
            foreign(root, name, f"theirs {number}")
        case "forget":
            shutil.rmtree(root / "annotations" / "acoustic" / unit[:2], ignore_errors=True)
        case "quarantine":
            quarantine_now(root, verdict(f"{name}/refused.wav"))
        case "settings":
            bind_fingerprint(root, FINGERPRINT if number % 2 else "f" * 16, redo=True)
        case "lose":
            record_path(root, unit).unlink(missing_ok=True)


KINDS = ("commit", "again", "describe", "foreign", "forget", "quarantine", "settings", "lose")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("abcd"), st.booleans()), min_size=2, max_size=9)


@settings(max_examples=12, deadline=None)
@given(STEPS)
def test_views_are_those_of_the_units_whatever_was_compacted_before(steps: list[tuple[str, str, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = new_corpus(Path(folder) / "c")
        for number, (kind, name, is_compacted) in enumerate(steps):
            change(root, kind, name, number)
            if is_compacted:
                compact(root)
        found = views(root)
        assert ids_of_views(root) == rows_by_reader(root)
        assert history_of(root) == read_history(root)
        drop_compaction(root)
        assert views(root) == found


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    root = new_corpus(tmp_path / "c")
    for name in ("a", "b", "c", "d"):
        commit(root, name)
    describe(root, "a", "before")
    first = compact(root)
    assert compact(root) == first
    for path in [*(root / "index").rglob("*.parquet"), *(root / "recordings").rglob("*.parquet")]:
        path.unlink()
    commit(root, "e")
    second = compact(root)
    assert second.folder != first.folder and len(second.blocks) == len(first.blocks) + 1
    for block in first.blocks:
        for file in block.files.values():
            assert (second.folder / file.path).stat().st_ino == (first.folder / file.path).stat().st_ino
    assert query(root, "SELECT count(*) FROM segments")[1] == [(20,)]


def test_many_small_blocks_are_merged(tmp_path: Path) -> None:
    root = new_corpus(tmp_path / "c")
    numbers = []
    for name in "abcdefgh":
        commit_unit(root, make_unit(name, 2))
        describe(root, name, name)
        numbers.append(len([block for block in compact(root).blocks if not block.group]))
    assert max(numbers) <= 4
    assert query(root, "SELECT count(*), count(DISTINCT segment_id) FROM segments")[1] == [(16, 16)]
    found = compact(root)
    assert sum(block.members for block in found.blocks if not block.group) == 8
    assert found.is_whole()


def test_a_description_of_a_segment_that_comes_later_counts_then(tmp_path: Path) -> None:
    root = new_corpus(tmp_path / "c")
    commit(root, "a")
    foreign(root, "b", "early")
    assert query(root, "SELECT count(*) FROM descriptions")[1] == [(0,)]
    commit(root, "b")
    assert query(root, 'SELECT "full" FROM descriptions')[1] == [("early",)]


def test_a_moved_corpus_opens_in_plain_duckdb_from_anywhere(tmp_path: Path) -> None:
    root = new_corpus(tmp_path / "c")
    commit(root, "a")
    describe(root, "a", "words")
    build_catalog(root)
    moved = tmp_path / "it's, moved"
    root.rename(moved)
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(*c.execute('SELECT (SELECT count(*) FROM segments), (SELECT count(*) FROM descriptions)').fetchone())"
    )
    for folder, name in [
        (tmp_path, moved / "catalog.duckdb"),
        (tmp_path, "it's, moved/catalog.duckdb"),
        (moved, "catalog.duckdb"),
    ]:
        command = [sys.executable, "-c", script, str(name)]
        shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        assert shown.stdout.split() == ["4", "3"]
    before = present_generation(moved)
    with duckdb.connect() as plain:
        plain.execute(f"ATTACH '{str(moved).replace(chr(39), chr(39) * 2)}/catalog.duckdb' AS corpus_db (READ_ONLY)")
        plain.execute("SET VARIABLE corpus = ?", [str(moved)])
        assert plain.execute("SELECT count(*) FROM corpus_db.segments").fetchall() == [(4,)]
    assert query(moved, "SELECT count(*) FROM segments")[1] == [(4,)] and present_generation(moved) == before


def test_replaced_generations_stay_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = new_corpus(tmp_path / "c")
    for name in "abc":
        commit(root, name)
        compact(root)
    assert len(list((root / "compact").iterdir())) == 3
    monkeypatch.setattr(generation, "_KEPT_S", -1.0)
    commit(root, "d")
    last = compact(root)
    assert list((root / "compact").iterdir()) == [last.folder] and last.is_whole()


WRITER = """
import sys, time
from pathlib import Path
sys.path += sys.argv[2:]
from test_compaction import commit, describe, draft, units
from catalogs.files import file_sha256
from catalogs.query.views import build_catalog
draft.BLOCK_ROWS = units.BLOCK_ROWS = 12
draft.SMALL_BLOCKS = 2
root = Path(sys.argv[1])
print("ready", flush=True)
for name in "abcdefghijkl":
    commit(root, name)
    describe(root, name, name)
    build_catalog(root)
"""


def test_a_copy_that_does_not_fit_into_memory_is_made_by_one_thread(tmp_path: Path) -> None:
    class Full:
        """A connection whose first copy does not fit."""

        def __init__(self, real: duckdb.DuckDBPyConnection) -> None:
            self.real, self.told = real, list[str]()

        def execute(self, sql: str) -> None:
            self.told.append(sql)
            if sql.startswith("COPY") and "SET threads = 1" not in self.told:
                raise duckdb.OutOfMemoryException("could not allocate block")
            self.real.execute(sql)

    (tmp_path / "draft").mkdir()
    with duckdb.connect() as real:
        made = draft.Draft(tmp_path, tmp_path / "draft", Full(real), Judge(Thresholds()))  # type: ignore[arg-type]
        file = made.copy("references", "one", "SELECT range AS a FROM range(5)")
    assert file is not None and file.rows == 5 and file.sha256 == file_sha256(tmp_path / "draft" / file.path)


@pytest.mark.kill
def test_a_compaction_that_is_killed_leaves_the_one_before(tmp_path: Path) -> None:
    # Issue 15 asks for 200 kills: VOXMILL_KILL_ROUNDS=200.
    rounds, rng = int(os.environ.get("VOXMILL_KILL_ROUNDS", "3")), random.Random(15)
    root = new_corpus(tmp_path / "c")
    commit(root, "z")
    build_catalog(root)
    counts: list[int] = []
    failures: list[BaseException] = []
    stopped = threading.Event()

    def read() -> None:
        # As another program reads: the catalog as it lies there, never made again.
        while not stopped.is_set():
            try:
                with duckdb.connect(str(root / "catalog.duckdb"), read_only=True) as plain:
                    row = plain.execute("SELECT count(*), count(DISTINCT segment_id) FROM segments").fetchone()
                assert row is not None and row[0] == row[1]
                counts.append(row[0])
            except BaseException as error:
                failures.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    here = str(Path(__file__).parent)
    for _ in range(rounds):
        command = [sys.executable, "-c", WRITER, str(root), here, str(Path(here).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
            try:
                writer.wait(rng.uniform(0.0, 2.0))
            except subprocess.TimeoutExpired:
                writer.kill()
        found = present_generation(root)
        assert found is not None and found.is_whole()
    stopped.set()
    reader.join(PATIENCE_S)
    assert not failures and counts == sorted(counts)
    found_views = views(root)
    assert ids_of_views(root) == rows_by_reader(root)
    drop_compaction(root)
    assert views(root) == found_views


def test_a_generation_of_an_older_version_opens_unchanged_and_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older version compacted recordings without the columns that were added since: nothing of it is written again."""
    monkeypatch.setattr(draft, "BLOCK_ROWS", 1000)
    root = new_corpus(tmp_path / "c")
    commit(root, "a")
    old = compact(root)
    (path,) = (old.folder / file for file in old.files("recordings"))
    rights = [column.name for column in RIGHTS]
    pq.write_table(pq.read_table(path).drop_columns(rights), path)
    text = (old.folder / "manifest.json").read_text(encoding="utf-8")
    about = json.loads(text)
    file = about["blocks"][0]["files"]["recordings"]
    file |= {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (old.folder / "manifest.json").write_text(json.dumps(about), encoding="utf-8")
    columns = f"license, {', '.join(rights)}"
    empty = [("CC0-1.0", *(None for _ in rights))]
    assert query(root, f"SELECT DISTINCT {columns} FROM recordings")[1] == empty
    assert query(root, f"SELECT DISTINCT {columns} FROM segments")[1] == empty
    assert compact(root).folder == old.folder
    stated = {"license_source": "rules", "consent": "explicit", "purposes": ["research"]}
    for name in "bcdefg":
        unit = make_unit(name, 4)
        commit_unit(root, dataclasses.replace(unit, recordings=[unit.recordings[0] | stated]))
        build_catalog(root)
    now = present_generation(root)
    assert now is not None and not {*old.files("recordings")} & {*now.files("recordings")}
    found = query(root, "SELECT path, license_source, consent, purposes FROM recordings ORDER BY path")[1]
    new = [(f"{name}/talk.wav", "rules", "explicit", ["research"]) for name in "bcdefg"]
    assert found == [("a/talk.wav", None, None, None), *new]
