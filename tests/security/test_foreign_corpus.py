"""A corpus that somebody else made: what its records, rows, catalog and texts name is read inside of it only, and runs nowhere."""

from __future__ import annotations

import json
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

sys.path.append(str(Path(__file__).parent.parent / "catalogs"))

from corpus_builders import make_unit

from catalogs.corpus.commit import CorpusError, commit_unit, create_corpus, is_inside, read_records
from catalogs.corpus.history import quarantine_now
from catalogs.corpus.reader import Corpus
from catalogs.query.views import QueryError, build_catalog, connect, query
from catalogs.report.report import build_report

OUTSIDE = ["/etc/passwd", "../outside", "index/../../outside", "index\\..\\..\\outside"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A corpus of one unit, with a secret beside it."""
    (tmp_path / "outside").write_text("secret", encoding="utf-8")
    create_corpus(tmp_path / "c", "theirs", license="CC0-1.0")
    commit_unit(tmp_path / "c", make_unit("one", 3))
    return tmp_path / "c"


def change_record(root: Path, **changes: Any) -> Path:
    """Write the one record again; `path`: of its index file."""
    (path,) = (root / "units").glob("*/*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    for file in record["files"]:
        if file["kind"] == "index" and "path" in changes:
            file["path"] = changes["path"]
    record |= {key: value for key, value in changes.items() if key != "path"}
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_record_that_names_a_file_outside(root: Path, name: str) -> None:
    for changes in ({"path": name}, {"unit_id": name}):
        copy = root.parent / "copy"
        shutil.copytree(root, copy)
        change_record(copy, **changes)
        for use in (
            lambda c: list(read_records(c)),
            Corpus,
            build_catalog,
            lambda c: query(c, "select 1"),
            build_report,
        ):
            with pytest.raises(CorpusError, match="which is not in this corpus") as error:
                use(copy)
            assert "\n" not in str(error.value)
        shutil.rmtree(copy)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_row_that_names_a_shard_outside(root: Path, name: str) -> None:
    corpus = Corpus(root)
    (index,) = corpus.files("index")
    table = pq.read_table(index)
    at = table.column_names.index("shard")
    pq.write_table(table.set_column(at, "shard", [[name] * len(table)]), index)
    corpus = Corpus(root)
    for read in (corpus.segment, corpus.audio_buffer, corpus.read_audio):
        with pytest.raises(CorpusError, match="which is not in this corpus") as error:
            read(corpus.index.column("segment_id")[0].as_py())
        assert "\n" not in str(error.value)


def test_names_of_ours_are_inside(root: Path) -> None:
    names = [file["path"] for record in read_records(root) for file in record["files"]]
    assert names and all(is_inside(name) for name in names)
    assert is_inside("index/ab/a..b.parquet") and not is_inside("index/..")


def outside_queries(root: Path) -> list[str]:
    """SELECTs that read what is not of the corpus."""
    there = root.parent
    return [
        f"SELECT * FROM read_text('{there}/outside')",
        f"SELECT * FROM read_text('{root}/../outside')",
        f"SELECT * FROM glob('{there}/*')",
        f"SELECT * FROM '{there}/other.parquet'",
        "SELECT * FROM read_csv('http://127.0.0.1:9/a.csv')",
        "SELECT * FROM read_text('/etc/passwd')",
    ]


def test_a_query_reads_the_corpus_only(root: Path) -> None:
    shutil.copy(Corpus(root).files("index")[0], root.parent / "other.parquet")
    assert query(root, "SELECT count(*) FROM segments")[1] == [(3,)]
    for sql in outside_queries(root):
        with pytest.raises(QueryError, match="reads files of its corpus only") as error:
            query(root, sql)
        assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_a_query_cannot_write_or_change_the_rules(root: Path) -> None:
    with connect(root) as connection:
        for sql in (
            f"COPY (SELECT 1) TO '{root.parent}/canary.csv'",
            f"ATTACH '{root.parent}/canary.db'",
            "SET enable_external_access = true",
            "SET allowed_directories = ['/']",
            "INSTALL httpfs",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)
    assert not list(root.parent.glob("canary*"))


def test_a_catalog_that_came_with_the_corpus_reads_the_corpus_only(root: Path) -> None:
    # Its state is that of this corpus, so that it is not built again, but its views read something else.
    catalog = build_catalog(root)
    with duckdb.connect(str(catalog)) as connection:
        connection.execute(f"CREATE OR REPLACE VIEW units AS SELECT content FROM read_text('{root.parent}/outside')")
    with pytest.raises(QueryError, match="reads files of its corpus only") as error:
        query(root, "SELECT * FROM units")
    assert "secret" not in str(error.value)


def test_a_read_only_corpus_is_confined_as_well(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("catalogs.query.views.build_catalog", refuse)
    assert query(root, "SELECT count(*) FROM segments")[1] == [(3,)]
    with pytest.raises(QueryError, match="reads files of its corpus only"):
        query(root, outside_queries(root)[0])


# -- the report --------------------------------------------------------------------------------------------------------

ATTACKS = [
    "<script>document.title='canary'</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "'; alert(1); '",
    "</style></script><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% for x in y %}",
    "<iframe src=//evil.example></iframe><a href=//evil.example>",
    "'); DROP TABLE segments; --",
]


class Page(HTMLParser):
    """The elements and attributes of a page, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def hostile_corpus(root: Path, attacks: list[str]) -> Path:
    """A corpus whose name, license, transcripts, speakers, reasons, sessions, file names and faults are `attacks`."""
    create_corpus(root, attacks[0], license=attacks[1 % len(attacks)])
    count = 9
    rows = [dict(row) for row in make_unit("one", count).rows]
    for number, row in enumerate(rows):
        attack = attacks[number % len(attacks)]
        row |= {"text": attack, "speaker": attack, "session_id": attack, "language": attack, "license": attack}
        row |= {"gender": attack, "text_source": attack}
        if number % 3 == 0:
            row |= {"reasons": [attack], "kept": False}
    recordings = [dict(one) for one in make_unit("one", count).recordings]
    for one in recordings:
        one |= {"path": attacks[0] + ".wav", "session_id": attacks[0], "license": attacks[0]}
    commit_unit(root, make_unit("one", count, rows=rows, recordings=recordings))
    for number, attack in enumerate(attacks):
        fault = {"path": f"{attack}.wav", "source_id": str(number), "stage": attack, "error": attack, "attempts": 1}
        quarantine_now(root, fault)
    return root


def test_a_report_of_a_corpus_full_of_html_runs_nothing(tmp_path: Path) -> None:
    plain = ["words"] * len(ATTACKS)
    pages = {}
    for name, texts in (("plain", plain), ("hostile", ATTACKS)):
        path = build_report(hostile_corpus(tmp_path / name, texts))
        pages[name] = Page(path.read_text(encoding="utf-8"))
    hostile, known = pages["hostile"], {tag for tag, _ in pages["plain"].tags}
    scripts = [attrs for tag, attrs in hostile.tags if tag == "script"]
    assert scripts == [attrs for tag, attrs in pages["plain"].tags if tag == "script"]
    assert {tag for tag, _ in hostile.tags} <= known
    for tag, attrs in hostile.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        for name in ("src", "href", "data", "srcset", "action", "style", "xlink:href"):
            value = attrs.get(name) or ""
            assert not value.lower().lstrip().startswith(("javascript", "//", "http")), (tag, value)
    # It is all there to be read.
    for attack in ATTACKS[2:6]:
        assert attack in hostile.words
    assert "{{ 7 * 7 }}" in hostile.words and "49{%" not in hostile.words
