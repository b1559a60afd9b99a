"""The files of a lineage: what is written is read back, and nothing else is taken for it; the digest of a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from corpus_builders import make_unit
from hypothesis import given, settings
from hypothesis import strategies as st
from lineages import a_lineage, a_row, a_table

from catalogs.corpus.commit import commit_unit, create_corpus, read_records
from catalogs.lineage.digest import corpus_digest
from catalogs.lineage.files import LINEAGE, TABLE, find_recordings, read_lineage, read_table, write_lineage
from catalogs.lineage.record import SCHEMA, DrawnRecording, LineageError, Stretch


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [a_row(0), a_row(1, first_phase="only", first_position=4, first_step=2), a_row(2, generation=1)]
    written = write_lineage(tmp_path, a_lineage(), a_table(rows))
    found = read_lineage(tmp_path)
    assert found == written and found is not None and found.folder == tmp_path and found.table_rows == 3
    assert find_recordings(found) == rows
    assert find_recordings(found, source_id="s1") == [rows[1]]
    assert find_recordings(found, content_sha256={f"{2:064x}", "x"}, generation=1) == [rows[2]]
    assert [row.used for row in rows] == [False, True, True]
    assert found.parents == found.ancestors[:1]
    assert len(found.unknown) == 1 and "hub/model" in found.unknown[0]
    assert read_lineage(tmp_path / "other") is None


counts = st.integers(0, 2**40)
rows_of_any_content = st.lists(
    st.builds(
        DrawnRecording,
        corpus=st.text(), source_id=st.text(), content_sha256=st.none() | st.text(), session_id=st.none() | st.text(),
        license=st.none() | st.text(), consent=st.none() | st.text(), synthetic=st.booleans(),
        seconds=st.none() | st.floats(0, 1e9), draws=counts, drawn_s=st.floats(0, 1e9), as_reference=counts,
        through_decoupled=counts, held_out=counts, first_phase=st.none() | st.text(),
        first_position=st.none() | counts, first_step=st.none() | counts, generation=st.integers(0, 9), in_codec=counts,
    ),
    max_size=5,
)  # fmt: skip


@settings(max_examples=20)
@given(rows=rows_of_any_content, name=st.text(), waiting=st.lists(counts, max_size=4))
def test_any_names_and_counts_survive(
    rows: list[DrawnRecording], name: str, waiting: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lineage")
    lineage = a_lineage(positions=(Stretch(name, 0, 9, 1, 2, name, tuple(waiting)),), notes=(name,))
    write_lineage(folder, lineage, a_table(rows))
    found = read_lineage(folder)
    assert found is not None and found.positions == lineage.positions and found.notes == (name,)
    assert find_recordings(found) == rows


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": "1"}', "\xff"])
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / LINEAGE).write_bytes(text.encode("latin-1"))
    with pytest.raises(LineageError, match=r"lineage\.json cannot be used \(.+\): copy") as caught:
        read_lineage(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_named_and_newer_fields_are_ignored(tmp_path: Path) -> None:
    write_lineage(tmp_path, a_lineage(), a_table([]))
    values = json.loads((tmp_path / LINEAGE).read_text())
    values["corpora"][0]["later"] = values["later"] = 1
    (tmp_path / LINEAGE).write_text(json.dumps(values))
    assert read_lineage(tmp_path) is not None
    (tmp_path / LINEAGE).write_text(json.dumps(values | {"schema": SCHEMA + 1}))
    with pytest.raises(LineageError, match="update voxmill"):
        read_lineage(tmp_path)


def test_the_table_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        write_lineage(tmp_path / name, a_lineage(), a_table([a_row(number)]))
    (tmp_path / "b" / TABLE).rename(tmp_path / "a" / TABLE)
    for name, what in (("a", "not the table"), ("b", "missing")):
        found = read_lineage(tmp_path / name)
        assert found is not None
        with pytest.raises(LineageError, match=what):
            read_table(found)


def test_the_digest_of_a_corpus_is_that_of_its_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        create_corpus(tmp_path / name, name)
        # In another order: the content counts, not who was first.
        for n in (0, 1) if name == "a" else (1, 0):
            commit_unit(tmp_path / name, make_unit(f"u{n}", 3))
    before = corpus_digest(tmp_path / "a")
    assert before == corpus_digest(tmp_path / "b") == corpus_digest(tmp_path / "a", list(read_records(tmp_path / "a")))
    commit_unit(tmp_path / "b", make_unit("u2", 1))
    assert corpus_digest(tmp_path / "b") != before == corpus_digest(tmp_path / "a")
