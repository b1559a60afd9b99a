"""fsck finds every kind of damage; a repair loses nothing and makes nothing up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from corpus_builders import FINGERPRINT, make_unit, verdict

from catalogs.corpus.commit import CorpusError, bind_fingerprint, commit_unit, corpus_info, create_corpus
from catalogs.corpus.fsck import fsck
from catalogs.corpus.ids import other_channel_id
from catalogs.corpus.locks import CorpusBusyError, only_run
from catalogs.corpus.row_files import earlier_bytes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_corpus(tmp_path / "c")
    for n in range(2):
        commit_unit(tmp_path / "c", make_unit(f"u{n}", 5))
    assert fsck(tmp_path / "c") == []
    return tmp_path / "c"


def _file(root: Path, kind: str) -> Path:
    return next(path for path in sorted((root / kind).rglob("*")) if path.is_file())


def _errors(root: Path, **options: Any) -> list[str]:
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


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_or_missing_corpus_json_is_written_again(root: Path, content: bytes | None) -> None:
    bind_fingerprint(root, FINGERPRINT)
    before, marker = corpus_info(root), root / "corpus.json"
    marker.unlink() if content is None else marker.write_bytes(content)
    for use in (corpus_info, create_corpus, fsck):
        with pytest.raises(CorpusError, match=rf"corpus.json is damaged or missing; run: voxmill fsck {root} --repair"):
            use(root)
    (done,) = fsck(root, repair=True)
    assert (done.severity, done.path) == ("repaired", "corpus.json") and fsck(root) == []
    assert {**corpus_info(root), "created_at": ""} == {**before, "created_at": ""}
    assert (root / "damaged" / "corpus.json").is_file() == (content is not None)


def test_a_folder_that_is_not_a_corpus_is_not_repaired(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(CorpusError, match="is not a corpus"):
        fsck(tmp_path / "photos", repair=True)
    assert list((tmp_path / "photos").iterdir()) == []


def test_both_channels_of_a_file_that_is_gone_are_counted(tmp_path: Path) -> None:
    unit = make_unit("u0", 5)
    (one,) = unit.recordings
    other = one | {"source_id": other_channel_id(one["source_id"]), "status": "empty", "silence_s": one["duration_s"]}
    create_corpus(tmp_path / "c")
    commit_unit(tmp_path / "c", make_unit("u0", 5, recordings=[one, other]))
    _file(tmp_path / "c", "segments").unlink()
    (line,) = _errors(tmp_path / "c", repair=True)
    assert "2 of its 2 recordings are gone" in line


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


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_leftovers_are_notices_and_repair_removes_only_them(root: Path) -> None:
    shard = _file(root, "segments")
    before = _files(root)
    stray = shard.with_name(f"ffffffffffffffff.{shard.name.split('.')[1]}.arrow")
    shutil.copy(shard, stray)
    (root / "tmp" / "half").write_bytes(b"x")
    assert [problem.severity for problem in fsck(root)] == ["notice", "notice"]
    assert {problem.path for problem in fsck(root, repair=True)} == {str(stray.relative_to(root)), "tmp/half"}
    assert {name: data for name, data in _files(root).items() if name != ".lock"} == before
    assert fsck(root) == []


def test_nothing_is_called_a_leftover_while_a_run_is_at_work(root: Path) -> None:
    shard = _file(root, "segments")
    shutil.copy(shard, shard.with_name(f"ffffffffffffffff.{shard.name.split('.')[1]}.arrow"))
    with only_run(root):
        assert [problem.what.split(":")[0] for problem in fsck(root)] == ["a run is at work"]
        with pytest.raises(CorpusBusyError, match="wait for it"):
            fsck(root, repair=True)
    assert [problem.severity for problem in fsck(root)] == ["notice"]


def _same(rebuilt: dict[str, Any], lost: dict[str, Any]) -> bool:
    """The record is what it was, but for when it was written and the stages' busy seconds."""
    kept = set(lost) - {"at", "stats"}
    return {key: rebuilt[key] for key in kept} == {key: lost[key] for key in kept} and set(rebuilt) == set(lost)


@pytest.mark.parametrize("damage", ["missing", "cut off"])
def test_a_lost_record_is_rebuilt_from_its_files(root: Path, damage: str) -> None:
    quarantined = make_unit("q", 4, quarantine=[verdict()])
    commit_unit(root, quarantined)
    commit_unit(root, make_unit("silent", 0))
    records = sorted((root / "units").rglob("*.json"))
    before = {path: json.loads(path.read_text()) for path in records}
    files = {name: data for name, data in _files(root).items() if not name.startswith(("units/", "."))}
    for path in records:
        path.unlink() if damage == "missing" else path.write_text(path.read_text()[:50])
    told = fsck(root)
    assert sum("rebuilds it" in problem.what for problem in told) == 4
    assert not any("removes it" in problem.what for problem in told)
    repaired = fsck(root, repair=True)
    assert {problem.severity for problem in repaired} == {"repaired"}
    assert fsck(root) == []
    for path, lost in before.items():
        assert _same(json.loads(path.read_text()), lost)
    assert {name: data for name, data in _files(root).items() if name in files} == files


def test_a_record_of_an_older_version_is_rebuilt_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their files say nothing of the unit in their metadata; the shard has the fingerprint."""
    monkeypatch.setattr("catalogs.corpus.commit.unit_about", lambda unit, rows: {})
    commit_unit(root, make_unit("old", 5))
    path = max((root / "units").rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    lost = json.loads(path.read_text())
    path.unlink()
    fsck(root, repair=True)
    assert fsck(root) == [] and _same(json.loads(path.read_text()), lost)


@pytest.mark.parametrize("kind", ["segments", "index", "recordings", "references"])
def test_files_that_are_not_all_of_a_unit_are_not_committed_and_not_removed(root: Path, kind: str) -> None:
    record = json.loads(_file(root, "units").read_text())
    _file(root, "units").unlink()
    lost = next(file["path"] for file in record["files"] if file["kind"] == kind)
    (root / lost).unlink()
    before = _files(root)
    assert {problem.severity for problem in fsck(root)} == {"notice"}
    fsck(root, repair=True)
    assert before.items() <= _files(root).items()
    assert not (root / "units" / record["unit_id"][:2] / f"{record['unit_id']}.json").exists()


def test_a_file_that_changed_is_not_taken_into_a_rebuilt_record(root: Path) -> None:
    record = _file(root, "units")
    path = root / next(f["path"] for f in json.loads(record.read_text())["files"] if f["kind"] == "segments")
    record.unlink()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    fsck(root, repair=True)
    assert not record.exists() and path.read_bytes() == bytes(data)


@pytest.mark.parametrize("earlier", [False, True])
def test_an_index_is_rebuilt_from_its_shard_where_every_segment_has_audio(
    root: Path, earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:  # As corpora were written before dictionaries were left out.
        monkeypatch.setattr("catalogs.corpus.commit.write_rows", lambda rows, sink: sink.write(earlier_bytes(rows)))
    unit = make_unit("small", 2)
    commit_unit(root, unit)
    path = next((root / "index").rglob(f"{unit.unit_id}.*"))
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    assert [problem.severity for problem in fsck(root, repair=True)] == ["repaired"]
    assert path.read_bytes() == data and fsck(root) == []


@pytest.mark.parametrize("kind", ["segments", "index", "recordings", "references"])
def test_a_unit_whose_recordings_are_gone_is_left_as_it_is(root: Path, kind: str) -> None:
    _file(root, kind).unlink()
    before = _files(root)
    told = [problem for problem in fsck(root, repair=True) if problem.severity == "error"]
    assert len(told) == 1 and "recordings are gone" in told[0].what
    if kind != "recordings":
        assert "talk.wav" in told[0].what
    assert {name: data for name, data in _files(root).items() if name != ".lock"} == before


def test_companions_that_cannot_be_read_are_moved_aside(root: Path) -> None:
    path = root / "annotations" / "acoustic" / "aa" / "x.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 not any more")
    assert any("cannot be read" in line and "--repair" in line for line in _errors(root))
    fsck(root, repair=True)
    assert fsck(root) == [] and (root / "damaged" / "annotations" / "acoustic" / "aa" / "x.parquet").is_file()
