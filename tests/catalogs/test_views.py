"""The catalog answers over committed units only, from anywhere, and accounts for every second."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_builders import FINGERPRINT, make_unit, verdict

from catalogs.corpus.columns import RIGHTS
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.history import quarantine_now
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import DECOUPLED, DESCRIPTIONS, INDEX, QUARANTINE, RECORDINGS, REFERENCES, UNITS
from catalogs.corpus.shards import to_table
from catalogs.corpus.thresholds import Thresholds
from catalogs.query.view_columns import VIEW_COLUMNS, VIEW_WORDS
from catalogs.query.views import VIEWS, QueryError, build_catalog, catalog_path, connect, query

CONTRACT = {
    "recordings": RECORDINGS,
    "segments": INDEX,
    "reference_pairs": REFERENCES,
    "descriptions": DESCRIPTIONS,
    "decoupled": DECOUPLED,
    "quarantine": QUARANTINE,
    "units": UNITS,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with a catalog. Not to be changed."""
    root = tmp_path_factory.mktemp("whole") / "c"
    create_corpus(root)
    for n in range(3):
        commit_unit(root, make_unit(f"u{n}", 5))
    shutil.copytree(root, root.with_name("without a catalog"))
    build_catalog(root)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """A copy to be changed, without a catalog."""
    return Path(shutil.copytree(whole.with_name("without a catalog"), tmp_path / "c"))


def _describe(root: Path, text: str) -> None:
    segment = query(root, "SELECT segment_id FROM segments WHERE kept ORDER BY 1 LIMIT 1")[1][0][0]
    row = {"segment_id": segment, "annotator": "acoustic", "brief": text, "full": text, "status": "ok"}
    row |= {"attributes": {"gender": "female", "texture": ["warm"]}, "verdict": "agree", "disagreements": []}
    target = root / "annotations" / "acoustic" / f"{len(text)}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(to_table([row], DESCRIPTIONS), target)


@pytest.mark.parametrize("filled", [False, True])
def test_views_have_the_contract_columns_and_types(tmp_path: Path, filled: bool) -> None:
    create_corpus(tmp_path / "c")
    if filled:
        commit_unit(tmp_path / "c", make_unit("a", 5, quarantine=[verdict()]))
        _describe(tmp_path / "c", "a warm voice")
    import duckdb

    for view, schema in CONTRACT.items():
        names, rows = query(tmp_path / "c", f"DESCRIBE {view}")
        if view == "segments":
            joined = [
                *((name, pa.string()) for name in ("path", "human", "uncorrected_text")),
                *((column.name, column.type) for column in RIGHTS),
            ]
            schema = pa.schema([*schema, *(pa.field(*one) for one in joined)])
        assert [row[names.index("column_name")] for row in rows] == schema.names
        expected = [str(kind) for kind in duckdb.from_arrow(schema.empty_table()).types]
        if view == "segments":
            # In the files a list, which `datasets` can read; DuckDB has maps.
            expected[schema.names.index("extra")] = "MAP(VARCHAR, DOUBLE)"
        shown = [row[names.index("column_type")] for row in rows]
        assert [kind.replace('"', "") for kind in shown] == [kind.replace('"', "") for kind in expected]
    for view in VIEWS:
        query(tmp_path / "c", f"SELECT * FROM {view}")


def test_every_second_is_in_one_row_of_the_funnel(root: Path) -> None:
    commit_unit(root, make_unit("bad", 0, quarantine=[verdict()]))
    broken = make_unit("half", 0)
    recording = dict(broken.recordings[0], status="quarantined", duration_s=7.0, silence_s=7.0)
    commit_unit(root, make_unit("half", 0, recordings=[recording]))
    _, rows = query(root, "SELECT outcome, reason, segments, seconds FROM funnel")
    assert rows == [
        ("quarantined", "quarantined", 0, 7.0),
        ("silence", "silence", 0, 11.5),
        ("rejected", "too_short", 3, 4.5),
        ("kept", "kept", 12, 18.0),
    ]
    total = query(root, "SELECT sum(seconds), sum(share), (SELECT sum(duration_s) FROM recordings) FROM funnel")[1][0]
    assert total[0] == pytest.approx(total[2])
    assert total[1] == pytest.approx(1.0)


def test_seconds_in_no_segment_and_no_silence_are_shown(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    unit = make_unit("a", 3)
    commit_unit(tmp_path / "c", make_unit("a", 3, recordings=[dict(unit.recordings[0], silence_s=0.25)]))
    rows = query(tmp_path / "c", "SELECT outcome, seconds FROM funnel WHERE outcome = 'unaccounted'")[1]
    assert rows == [("unaccounted", pytest.approx(1.25))]


def test_thresholds_change_what_is_kept_and_are_remembered(root: Path) -> None:
    assert query(root, "SELECT count(*) FROM segments WHERE kept")[1] == [(12,)]
    build_catalog(root, Thresholds(min_dnsmos_ovr=3.5, min_snr_db=40.0))
    assert query(root, "SELECT count(*) FROM segments WHERE kept")[1] == [(0,)]
    reasons = query(root, "SELECT reason, segments, segments_any FROM funnel WHERE outcome = 'rejected' ORDER BY 1")[1]
    assert reasons == [("low_dnsmos", 12, 12), ("noisy", 0, 12), ("too_short", 3, 3)]
    build_catalog(root, Thresholds())
    assert query(root, "SELECT count(*) FROM segments WHERE kept")[1] == [(12,)]


def test_plain_duckdb_opens_the_catalog_from_elsewhere(root: Path, tmp_path: Path) -> None:
    build_catalog(root)
    script = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print(c.execute('SELECT count(*) FROM segments').fetchone()[0], c.execute('SELECT count(*) FROM funnel')."
        "fetchone()[0])"
    )
    command: list[str | Path] = [sys.executable, "-c", script, catalog_path(root)]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["15", "3"]


def test_every_view_and_column_says_what_it_is_in_plain_duckdb(whole: Path) -> None:
    import duckdb

    with duckdb.connect(str(catalog_path(whole)), read_only=True) as plain:
        views = plain.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall()
        columns = plain.execute(
            "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    assert dict(views) == VIEW_WORDS and set(VIEWS) < set(VIEW_WORDS)
    assert [column for *column, comment in columns if not comment] == []
    assert {(view, name) for view, name, _ in columns} == {
        (view, column.name) for view, columns in VIEW_COLUMNS.items() for column in columns
    }
    assert ("segments", "pitch_hz", "Median pitch [Hz]") in columns


@pytest.mark.parametrize("sql", ["describe segments", ' DESC "Segments" ;', "DESCRIBE main.segments"])
def test_describe_shows_the_words(whole: Path, sql: str) -> None:
    names, rows = query(whole, sql)
    assert names == ["column_name", "column_type", "comment"] and ("snr_db", "FLOAT") in {row[:2] for row in rows}
    assert all(row[2] for row in rows)


def test_a_segment_has_the_path_of_its_recording_and_stays_one_row(whole: Path) -> None:
    expected = {row["source_id"]: row["path"] for row in Corpus(whole).table("recordings").to_pylist()}
    rows = query(whole, "SELECT source_id, path FROM segments")[1]
    assert len(rows) == 15 and all(expected[source] == path for source, path in rows)


def test_a_query_without_the_path_does_not_join_the_recordings(whole: Path) -> None:
    plans = [query(whole, f"EXPLAIN SELECT max({column}) FROM segments")[1][0][1] for column in ("snr_db", "path")]
    assert [plan.lower().count("read_parquet") for plan in plans] == [1, 2]


def test_a_moved_corpus_is_rebuilt(root: Path, tmp_path: Path) -> None:
    query(root, "SELECT 1")
    shutil.move(root, tmp_path / "elsewhere")
    assert query(tmp_path / "elsewhere", "SELECT count(*) FROM segments")[1] == [(15,)]


def test_new_units_and_descriptions_are_seen(root: Path) -> None:
    assert query(root, "SELECT count(*) FROM units")[1] == [(3,)]
    commit_unit(root, make_unit("new", 4))
    assert query(root, "SELECT count(*) FROM units")[1] == [(4,)]
    _describe(root, "a low, calm voice")
    rows = query(root, 'SELECT "full", attributes FROM descriptions JOIN segments USING (segment_id)')[1]
    assert rows[0][0] == "a low, calm voice"
    assert rows[0][1]["texture"] == ["warm"]
    assert Corpus(root).annotations("descriptions").column("full").to_pylist() == ["a low, calm voice"]
    assert Corpus(root).annotations("decoupled").num_rows == 0


def test_files_without_a_record_are_not_seen(root: Path) -> None:
    index = next((root / "index").glob("*/*.parquet"))
    shutil.copy(index, index.with_name("ffffffffffffffff.00000000.parquet"))
    build_catalog(root)
    assert query(root, "SELECT count(*) FROM segments")[1] == [(15,)]


def test_superseded_units_are_not_mixed_in(root: Path) -> None:
    bind_fingerprint(root, FINGERPRINT)
    bind_fingerprint(root, "f" * 16, redo=True)
    commit_unit(root, make_unit("u0", 4, fingerprint="f" * 16, unit_id="e" * 16))
    assert query(root, "SELECT count(*) FROM segments")[1] == [(4,)]
    assert query(root, "SELECT count(*) FROM units")[1] == [(1,)]


def test_a_verdict_given_at_once_and_with_its_unit_counts_once(root: Path) -> None:
    quarantine_now(root, verdict())
    quarantine_now(root, verdict("other.wav"))
    commit_unit(root, make_unit("bad", 0, quarantine=[verdict()]))
    assert query(root, "SELECT path FROM quarantine ORDER BY 1")[1] == [("a/broken.wav",), ("other.wav",)]


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT durations FROM segments", "unknown column durations; did you mean duration_s"),
        ("SELECT s.kep FROM segments AS s", "unknown column kep; did you mean kept"),
        ("SELECT * FROM segmens", "unknown table segmens; did you mean segments"),
        ("SELEC 1", "Parser Error"),
        ("DROP VIEW segments", "read-only"),
        ("SELECT 1; SELECT 2", "one SELECT"),
        ("COPY segments TO '/tmp/stolen.csv'", "read-only"),
        ("SELECT text + 1.5 FROM segments", "Error"),
    ],
)
def test_wrong_queries_get_one_clear_line(whole: Path, sql: str, answer: str) -> None:
    with pytest.raises(QueryError) as caught:
        query(whole, sql)
    assert answer in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_corpus_that_cannot_be_written_is_answered_from_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def refuse(path: Path, *given: Any, **named: Any) -> None:
        if path.is_relative_to(root):
            raise PermissionError(13, "Permission denied")
        mkdir(path, *given, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert query(root, "SELECT count(*) FROM segments WHERE kept")[1] == [(12,)]
    assert not catalog_path(root).exists()


def test_a_damaged_catalog_is_built_again(root: Path) -> None:
    catalog_path(root).write_bytes(b"not a database")
    assert query(root, "SELECT count(*) FROM segments")[1] == [(15,)]


def test_readers_never_fail_while_the_catalog_is_replaced(root: Path) -> None:
    build_catalog(root)
    failures: list[BaseException] = []
    counts: list[int] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                counts.append(query(root, "SELECT count(*) FROM segments")[1][0][0])
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(6):
        commit_unit(root, make_unit(f"n{n}", 5))
        build_catalog(root)
    done.set()
    reader.join()
    assert failures == []
    assert counts == sorted(counts)


def test_descriptions_of_replaced_segments_count_nowhere(tmp_path: Path) -> None:
    from annotators.runner import describe_corpus

    create_corpus(tmp_path / "c")
    bind_fingerprint(tmp_path / "c", make_unit("a", 3).fingerprint)
    commit_unit(tmp_path / "c", make_unit("a", 3))
    describe_corpus(tmp_path / "c")
    assert query(tmp_path / "c", "SELECT count(*) FROM descriptions")[1] == [(2,)]
    bind_fingerprint(tmp_path / "c", "f" * 16, redo=True)
    assert query(tmp_path / "c", "SELECT count(*) FROM descriptions")[1] == [(0,)]


def test_threads_that_connect_at_the_same_time_do_not_disturb_each_other(whole: Path) -> None:
    """The server of `browse` reads in the background while another thread asks."""
    errors: list[Exception] = []
    start = threading.Barrier(4)

    def ask() -> None:
        try:
            for _ in range(8):
                # All have closed their connections here, so that each round begins with a new, open instance.
                start.wait()
                with connect(whole) as connection:
                    connection.execute("SELECT count(*) FROM segments").fetchall()
        except Exception as error:
            errors.append(error)
            start.abort()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]


def test_two_connections_at_once_are_both_confined(tmp_path: Path) -> None:
    create_corpus(tmp_path / "corpus")
    commit_unit(tmp_path / "corpus", make_unit("a", 3))
    query(tmp_path / "corpus", "select 1")
    with connect(tmp_path / "corpus") as first, connect(tmp_path / "corpus") as second:
        for connection in (first, second):
            assert connection.execute("select count(*), current_setting('TimeZone') from segments").fetchall() == [
                (3, "UTC")
            ]
            with pytest.raises(duckdb.Error, match="disabled"):
                connection.execute(f"select * from read_text('{__file__}')")
        assert query(tmp_path / "corpus", "select 1")[1] == [(1,)], "a third one, through the relational API"
    assert query(tmp_path / "corpus", "select count(*) from segments")[1] == [(3,)]
