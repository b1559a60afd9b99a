"""fsck finds every kind of damage, and repairs nothing but leftovers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from corpus_builders import make_unit

from catalogs.commit import commit_unit, create_corpus
from catalogs.fsck import fsck


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_corpus(tmp_path / "c")
    for n in range(2):
        commit_unit(tmp_path / "c", make_unit(f"u{n}", 5))
    assert fsck(tmp_path / "c") == []
    return tmp_path / "c"


def _file(root: Path, kind: str) -> Path:
    return next(path for path in sorted((root / kind).rglob("*")) if path.is_file())


def _errors(root: Path, **options: bool) -> list[str]:
    return [str(problem) for problem in fsck(root, **options) if problem.severity == "error"]


@pytest.mark.parametrize("kind", ["segments", "index", "recordings", "references"])
def test_a_missing_file_is_found(root: Path, kind: str) -> None:
    _file(root, kind).unlink()
    assert any(kind in line and "missing" in line for line in _errors(root))


def test_a_flipped_bit_is_found_by_its_hash(root: Path) -> None:
    path = _file(root, "segments")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert any("sha256" in line for line in _errors(root))
    assert _errors(root, hashes=False) == []


def test_a_truncated_file_is_found_without_hashes(root: Path) -> None:
    path = _file(root, "segments")
    path.write_bytes(path.read_bytes()[:-10])
    assert any("bytes" in line for line in _errors(root, hashes=False))


def test_a_segment_committed_twice_is_found(root: Path) -> None:
    unit = make_unit("u0", 5, unit_id="d" * 16)
    commit_unit(root, unit)
    lines = _errors(root)
    assert sum("occurs 2 times" in line for line in lines) == 5
    assert any("committed in 2 units" in line for line in lines)


def test_a_lost_second_is_found(root: Path) -> None:
    unit = make_unit("lossy", 3)
    commit_unit(root, make_unit("lossy", 3, recordings=[dict(unit.recordings[0], silence_s=0.4)]))
    assert [line for line in _errors(root) if "+1.10 s of 6.00 s" in line]


def test_segments_without_their_recording_are_found(root: Path) -> None:
    commit_unit(root, make_unit("lonely", 3, recordings=[]))
    assert any("no recording" in line for line in _errors(root))


def test_a_damaged_record_is_found(root: Path) -> None:
    record = _file(root, "units")
    record.write_text(record.read_text()[:40])
    assert any("damaged" in line for line in _errors(root))


def test_a_record_that_lies_about_rows_is_found(root: Path) -> None:
    path = _file(root, "units")
    record = json.loads(path.read_text())
    record["files"][0]["rows"] += 1
    record["segments"] += 1
    path.write_text(json.dumps(record))
    assert any("rows, not" in line for line in _errors(root))


def test_leftovers_are_notices_and_repair_removes_only_them(root: Path) -> None:
    stray = _file(root, "segments").with_name("ffffffffffffffff.00000000.arrow")
    shutil.copy(_file(root, "segments"), stray)
    (root / "tmp" / "half").write_bytes(b"x")
    before = {path for path in root.rglob("*") if path.is_file()} - {stray, root / "tmp" / "half"}
    assert [problem.severity for problem in fsck(root)] == ["notice", "notice"]
    assert fsck(root, repair=True) == []
    assert {path for path in root.rglob("*") if path.is_file()} == before
