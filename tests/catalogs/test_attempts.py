"""Sources that were processed again: the newest record counts in every reader, and nothing appears twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_builders import FINGERPRINT, annotate, both, make_unit, redone_in_part, verdict

from catalogs.corpus.attempts import cause_of_row, newest_records
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus, read_records
from catalogs.corpus.fsck import fsck
from catalogs.corpus.history import note_replaced, read_history
from catalogs.corpus.ids import other_channel_id
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import QUARANTINE
from catalogs.query.views import query


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A unit of the recordings a and b, of which a failed in one stage and was processed again, with a later unit of c."""
    root = tmp_path / "corpus"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    a = make_unit("a", 5)
    source = a.recordings[0]["source_id"]
    failed = verdict("a/talk.wav", "transcribe") | {"source_id": source, "cause": "machine", "runs": 1}
    commit_unit(root, both(dataclasses.replace(a, quarantine=[failed]), make_unit("b", 4)))
    again = [row | {"snr_db": 20.0} for row in a.rows]
    commit_unit(root, dataclasses.replace(a, unit_id="f" * 16, generation=1, rows=again))
    commit_unit(root, make_unit("c", 3))
    return root


def test_every_reader_takes_the_newest_attempt_once(corpus: Path) -> None:
    reader = Corpus(corpus)
    ids = reader.index.column("segment_id").to_pylist()
    assert len(ids) == len(set(ids)) == len(reader) == 12
    source = make_unit("a").recordings[0]["source_id"]
    assert {row["snr_db"] for row in reader if row["source_id"] == source} == {20.0}
    assert len(reader.table("recordings")) == 3
    pairs = reader.table("references").to_pylist()
    assert len(pairs) == 2 and {row["segment_id"] for row in pairs} <= set(ids)
    assert reader.read_audio(make_unit("a", 5).rows[0]["segment_id"])[1] == 16_000
    assert reader.place(make_unit("a", 5).rows[0]["segment_id"])[0].startswith("segments/ff/")


def test_every_view_takes_the_newest_attempt_once(corpus: Path) -> None:
    counts = "select (select count(*) from {0}), (select count(distinct {1}) from {0})"
    for view, key, count in [
        ("segments", "segment_id", 12),
        ("recordings", "source_id", 3),
        ("reference_pairs", "segment_id || reference_id", 2),
        ("quarantine", "path", 0),
    ]:
        assert query(corpus, counts.format(view, key))[1] == [(count, count)], view
    assert query(corpus, "select outcome from funnel where outcome in ('unaccounted', 'quarantined')")[1] == []
    assert query(corpus, "select count(*) from segments where snr_db = 20.0")[1] == [(5,)]


@pytest.mark.parametrize(("kind", "words"), [("descriptions", '"full"'), ("decoupled", "text")])
def test_what_was_made_of_an_older_attempt_counts_nowhere(tmp_path: Path, kind: str, words: str) -> None:
    again, left = redone_in_part(tmp_path / "corpus")
    for expected in (dict.fromkeys(left, "old"), dict.fromkeys(left, "old") | dict.fromkeys(again, "new")):
        viewed = query(tmp_path / "corpus", f"select segment_id, {words} from {kind}")[1]
        read = Corpus(tmp_path / "corpus").annotations(kind).select(["segment_id", words.strip('"')]).to_pylist()
        assert sorted(viewed) == sorted(tuple(row.values()) for row in read) == sorted(expected.items())
        annotate(tmp_path / "corpus", "0" * 16, again, "new")


def test_a_corpus_with_two_attempts_is_whole(corpus: Path) -> None:
    assert fsck(corpus) == []


def test_the_history_tells_what_failed_in_the_newest_attempt_only(corpus: Path) -> None:
    source = make_unit("a").recordings[0]["source_id"]
    history = read_history(corpus)
    assert history.failures == {} and history.generation(source) == 1 and len(history.committed) == 3
    assert set(history.done(lambda row: True)) == set(history.committed)


def test_a_unit_that_was_processed_again_as_a_whole_is_not_read(corpus: Path) -> None:
    units = {record["unit_id"] for record in read_records(corpus)}
    b = both(make_unit("b", 4), make_unit("c", 3), unit_id="e" * 16, generation=1)
    commit_unit(corpus, b)
    found = {record["unit_id"]: record.get("superseded") for record in read_records(corpus)}
    assert found == {"f" * 16: None, "e" * 16: None} and len(units) == 3
    assert query(corpus, "select count(*) from segments")[1] == [(12,)] and len(Corpus(corpus)) == 12


def test_the_generation_decides_and_not_the_clock() -> None:
    newer = {"unit_id": "b", "at": "2026-01-01", "generation": 1, "source_ids": ["x"]}
    older = {"unit_id": "a", "at": "2026-02-02", "source_ids": ["x", other_channel_id("x"), "y"]}
    assert newest_records([older, newer]) == [older | {"superseded": sorted(["x", other_channel_id("x")])}, newer]
    alone = [{"unit_id": "a", "at": "1", "source_ids": ["x"]}, {"unit_id": "b", "at": "2", "source_ids": ["y"]}]
    assert newest_records(alone) is alone, "where no source is listed twice nothing is copied"


def test_a_quarantine_of_before_there_were_causes_is_read(tmp_path: Path) -> None:
    """Files of commit fae81e6 have neither cause nor runs, version and log."""
    root = tmp_path / "corpus"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    rows = [verdict("a/x.wav"), verdict("a/y.wav") | {"error": "cannot be fetched (TimeoutError)"}]
    commit_unit(root, make_unit("a", quarantine=rows))
    (path,) = Corpus(root).files("quarantine")
    old = pa.schema([field for field in QUARANTINE if field.name not in ("cause", "runs", "version", "log")])
    pq.write_table(pa.Table.from_pylist(rows, schema=old), path)
    assert query(root, "select path, cause, runs from quarantine order by path")[1] == [
        ("a/x.wav", "data", None),
        ("a/y.wav", "machine", None),
    ]
    assert [cause_of_row(row) for row in rows] == ["data", "machine"]
    assert not any("columns" in problem.what for problem in fsck(root, hashes=False))


def test_a_failed_file_that_was_replaced_leaves_the_view_and_comes_back_with_its_old_content(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    row = verdict("/r/x.wav")
    broken = make_unit("a", 0).recordings[0] | {"source_id": row["source_id"], "status": "quarantined"}
    commit_unit(root, make_unit("a", 0, recordings=[broken], quarantine=[row]))
    seen = []
    for found in ([("/r/x.wav", "mended")], [], [("/r/x.wav", row["source_id"])]):
        note_replaced(root, read_history(root), found)
        seen.append(query(root, "select count(*) from quarantine")[1][0][0])
    assert seen == [0, 0, 1]
