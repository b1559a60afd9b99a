"""fsck finds in pieces what it would find with everything in memory: repeated ids, attempts, and files that no record names."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from corpus_builders import FINGERPRINT, both, make_unit, redone_in_part
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.corpus import ids
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus, record_path
from catalogs.corpus.fsck import fsck
from catalogs.corpus.ids import IdSet, id_values, short_hash

IDS = st.lists(st.sampled_from([short_hash(number) for number in range(40)]), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.lists(IDS, max_size=8), st.sampled_from([1, 7, 1000]))
def test_ids_on_the_disk_are_counted_as_in_memory(parts: list[list[str]], held: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids, "_HELD", held)
        found = IdSet()
        for part in parts:
            found.add(id_values(part))
        counts = Counter(name for part in parts for name in part)
        names = {int(id_values([name])[0]): name for name in counts}
        for _ in range(2):
            assert {names[value] for value in found.repeated()} == {name for name, n in counts.items() if n > 1}
            asked = [short_hash(number) for number in range(50)]
            assert found.known(id_values(asked)).tolist() == [name in counts for name in asked]


def test_the_value_of_an_id_is_its_number() -> None:
    name = short_hash("a")
    assert id_values([name, name[::-1]]).tolist() == [int(name, 16), int(name[::-1], 16)]
    assert len(set(id_values([name, "s001", "s002", "z" * 16]).tolist())) == 4
    assert id_values(["s001"])[0] == id_values(["s001", "s002"])[0] and id_values([]).dtype == np.uint64


@pytest.mark.parametrize("held", [1, 10, 1 << 20])
def test_repeated_segments_and_sources_are_named_and_counted(
    tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids, "_HELD", held)
    root = tmp_path / "c"
    create_corpus(root)
    for number in range(6):
        commit_unit(root, make_unit(f"u{number}", 4))
    assert fsck(root) == []
    twice = make_unit("u1", 4)
    for unit in ("d" * 16, "e" * 16):
        commit_unit(root, dataclasses.replace(twice, unit_id=unit))
    lines = {str(problem) for problem in fsck(root)}
    expected = {f"error: segment {row['segment_id']}: occurs 3 times" for row in twice.rows}
    (source,) = (recording["source_id"] for recording in twice.recordings)
    expected.add(f"error: source {source}: was committed in 3 units: its segments occur more than once")
    assert lines == expected


def test_ids_of_one_value_are_told_apart_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalogs.corpus import fsck as checked

    def crowded(names: list[str]) -> np.ndarray:
        return np.array([int(name[0], 16) % 2 for name in names], dtype=np.uint64)

    root = tmp_path / "c"
    create_corpus(root)
    for number in range(4):
        commit_unit(root, make_unit(f"u{number}", 4))
    monkeypatch.setattr(checked, "id_values", crowded)
    assert fsck(root) == []


def test_an_attempt_in_part_and_other_settings_are_no_repetition(tmp_path: Path) -> None:
    root = tmp_path / "c"
    redone_in_part(root)
    assert [problem for problem in fsck(root) if problem.severity == "error"] == []
    other = make_unit("b", 4, unit_id="e" * 16, fingerprint="9" * 16)
    rows = [row | {"segment_id": short_hash("other", row["segment_id"])} for row in other.rows]
    pair = {"segment_id": rows[2]["segment_id"], "reference_id": rows[0]["segment_id"]}
    commit_unit(root, dataclasses.replace(other, rows=rows, references=[pair]))
    assert [problem for problem in fsck(root) if problem.severity == "error"] == []


def test_files_in_another_folder_than_that_of_their_unit_are_named_by_their_record(tmp_path: Path) -> None:
    """A record may name any path within the corpus: such a file is not a leftover."""
    root = tmp_path / "c"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    record = commit_unit(root, both(make_unit("a", 4), make_unit("b", 4)))
    (shard,) = (root / file["path"] for file in record["files"] if file["kind"] == "segments")
    text = record_path(root, record["unit_id"]).read_text()
    moved = root / "segments" / "zz" / shard.name
    moved.parent.mkdir()
    shutil.move(shard, moved)
    record_path(root, record["unit_id"]).write_text(text.replace(f"segments/{record['unit_id'][:2]}/", "segments/zz/"))
    assert not [problem for problem in fsck(root) if "no record" in problem.what or "left by" in problem.what]
    # Leftovers of one unit are found wherever they are, also in folders before, between and after those of records.
    for folder in ("00", record["unit_id"][:2], "zz"):
        (root / "recordings" / folder).mkdir(exist_ok=True)
        (root / "recordings" / folder / f"{record['unit_id']}.00000000.parquet").write_bytes(folder.encode())
    found = [problem.path for problem in fsck(root) if "left by" in problem.what]
    assert len(found) == 3
