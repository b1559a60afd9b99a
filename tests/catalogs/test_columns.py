"""Columns are declared once, and of a corpus from before a column was added every reader finds null in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_builders import make_unit

from catalogs.corpus import commit, shards
from catalogs.corpus.columns import Measures
from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import INDEX, SCHEMAS, fill, is_readable, segments_schema
from catalogs.corpus.shards import to_table
from catalogs.corpus.thresholds import Thresholds, apply_thresholds
from catalogs.query.view_columns import VIEW_COLUMNS
from catalogs.query.views import query
from catalogs.report.report import build_report
from pipeline.records import Segment

LATER = ("gain_db", "reverb_s", "snr_db")
"""Columns that the version which wrote the older unit did not know."""


def older(schema: pa.Schema) -> pa.Schema:
    """A schema without the later columns."""
    return pa.schema([field for field in schema if field.name not in LATER], metadata=schema.metadata)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A corpus of two units, the first written before three columns were added."""
    folder = tmp_path / "c"
    commit.create_corpus(folder)
    unit = make_unit("old", 2)
    for row in unit.rows:
        row.pop("snr_db")
    with pytest.MonkeyPatch.context() as version:
        version.setattr(commit, "INDEX", older(INDEX))
        version.setattr(shards, "INDEX", older(INDEX))
        version.setattr(shards, "segments_schema", lambda fingerprint: older(segments_schema(fingerprint)))
        record = commit.commit_unit(folder, unit)
    path = commit.record_path(folder, record["unit_id"])
    path.write_text(json.dumps({name: value for name, value in record.items() if name != "columns"}))
    new = make_unit("new", 2)
    for row in new.rows:
        row |= {"gain_db": 1.5, "reverb_s": 0.3}
    commit.commit_unit(folder, new)
    return folder


def test_absent_columns_are_null_for_every_reader(root: Path) -> None:
    corpus = Corpus(root)
    found = {row["session_id"]: row for row in corpus}
    old, new = sorted(found.values(), key=lambda row: row["snr_db"] is not None)
    assert [old[name] for name in LATER] == [None] * 3
    assert (new["gain_db"], new["snr_db"]) == (1.5, 35.0)
    assert corpus.index.schema == INDEX
    whole = corpus.segment(old["segment_id"])
    assert whole["reverb_s"] is None and whole["words"]
    as_it_is, rate = corpus.read_audio(old["segment_id"], level=True)
    assert rate == 16_000 and abs(as_it_is - corpus.read_audio(old["segment_id"])[0]).max() == 0
    assert query(root, "SELECT count(*), count(snr_db), max(gain_db) FROM segments")[1] == [(4, 2, 1.5)]
    assert (
        sorted(map(str, corpus.kept(Thresholds(min_snr_db=30.0)).column("snr_db").to_pylist()))
        == ["35.0"] * 2 + ["None"] * 2
    )
    assert [table.num_rows for table in corpus.kept_parts(["segment_id", "reverb_s"])] == [4]


def test_the_catalog_is_rebuilt_from_units_of_both_versions(root: Path) -> None:
    assert "snr_db" in build_report(root).read_text(encoding="utf-8")
    (root / "catalog.duckdb").unlink()
    assert query(root, "SELECT kept, count(*) FROM segments GROUP BY ALL")[1] == [(True, 4)]


def test_damage_of_an_older_unit_is_found_and_repaired_bit_for_bit(root: Path) -> None:
    assert [problem for problem in fsck(root) if problem.severity != "notice"] == []
    for record in Corpus(root).records:
        path = next(root / file["path"] for file in record["files"] if file["kind"] == "index")
        before = path.read_bytes()
        path.write_bytes(before[:100])
        assert "error" in {problem.severity for problem in fsck(root)}
        assert {problem.severity for problem in fsck(root, repair=True)} == {"repaired"}
        assert path.read_bytes() == before


def test_a_lost_record_of_an_older_unit_says_that_columns_are_absent(root: Path) -> None:
    for path in list((root / "units").glob("*/*.json")):
        path.unlink()
    fsck(root, repair=True)
    columns = [json.loads(path.read_text())["columns"] for path in (root / "units").glob("*/*.json")]
    assert sorted(columns)[0] == 0 < sorted(columns)[1]
    assert query(root, "SELECT count(*), count(reverb_s) FROM segments")[1] == [(4, 2)]


def test_a_file_without_a_column_that_was_always_there_is_not_readable() -> None:
    for kind, schema in SCHEMAS.items():
        assert is_readable(schema, kind)
        assert not is_readable(schema.remove(0), kind)
        assert not is_readable(schema.set(0, pa.field(schema.names[0], pa.int8())), kind)
        assert is_readable(schema.append(pa.field("of_a_newer_version", pa.string())), kind)
    assert is_readable(older(INDEX), "index")
    empty = fill(older(INDEX).empty_table(), INDEX)
    assert empty.schema == INDEX and apply_thresholds(empty, Thresholds()).num_rows == 0


def test_descriptions_that_another_tool_wrote_with_its_types_are_read(root: Path) -> None:
    segment = Corpus(root).index.column("segment_id")[0].as_py()
    row = {"segment_id": segment, "annotator": "theirs", "brief": "calm", "full": "A calm voice.", "tokens_in": 7}
    table = to_table([row], SCHEMAS["descriptions"])
    for name, kind in (("full", pa.large_string()), ("tokens_in", pa.int32())):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
    path = root / "annotations" / "theirs" / "one.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    assert [row["full"] for row in Corpus(root).annotations("descriptions").to_pylist()] == ["A calm voice."]
    assert query(root, 'SELECT "full", tokens_in FROM descriptions')[1] == [("A calm voice.", 7)]


def test_every_measure_is_a_column_and_a_field_of_a_segment() -> None:
    segment = Segment("source", 0, 0.0, 1.0)
    names = [column.name for column in Measures.columns()]
    assert [getattr(segment, name) for name in names if name != "separated"] == [None] * (len(names) - 1)
    declared = [column.name for column in VIEW_COLUMNS["segments"]]
    assert set(names) <= set(declared) and len(set(declared)) == len(declared)
    assert set(Measures.joining()) == set(names)
