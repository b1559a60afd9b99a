"""What a corpus promises about its own files: names, records, and what is on the disk before the next step."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpus_builders import make_unit

from catalogs.corpus.commit import (
    CorpusError,
    bind_fingerprint,
    commit_unit,
    committed_units,
    corpus_info,
    create_corpus,
    is_inside,
    read_records,
    record_path,
)
from catalogs.corpus.history import quarantine_now


def test_a_new_corpus_has_its_folders_and_says_what_it_is(tmp_path: Path) -> None:
    info = create_corpus(tmp_path / "a" / "talks", license="CC0-1.0")
    assert info == corpus_info(tmp_path / "a" / "talks")
    assert (info["name"], info["license"]) == ("talks", "CC0-1.0") and datetime.fromisoformat(info["created_at"])
    assert create_corpus(tmp_path / "a" / "talks", "other") == info, "made once"
    folders = {path.name for path in (tmp_path / "a" / "talks").iterdir() if path.is_dir()}
    assert folders >= {"tmp", "units", "segments", "index", "recordings", "references", "quarantine", "annotations"}


def test_a_record_says_what_was_committed_and_lies_where_older_corpora_have_it(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    unit = make_unit("a", 5)
    commit_unit(tmp_path, unit)
    path = record_path(tmp_path, unit.unit_id)
    assert path == tmp_path / "units" / unit.unit_id[:2] / f"{unit.unit_id}.json" and path.is_file()
    record = json.loads(path.read_text())
    assert committed_units(tmp_path) == {unit.unit_id} and list(read_records(tmp_path)) == [record]
    assert record["segments"] == 5 and record["unit_id"] == unit.unit_id and record["fingerprint"] == unit.fingerprint
    assert record["source_ids"] == [recording["source_id"] for recording in unit.recordings]
    assert record["seconds"] == sum(recording["duration_s"] for recording in unit.recordings)
    assert datetime.fromisoformat(record["at"]).tzinfo is not None
    for file in record["files"]:
        kind, folder, name = file["path"].split("/")
        assert (kind, folder) == (file["kind"], unit.unit_id[:2]) and name.startswith(
            f"{unit.unit_id}.{file['sha256'][:8]}."
        )
        assert (tmp_path / file["path"]).stat().st_size == file["bytes"]


def test_a_recording_without_a_length_counts_nothing(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    unit = make_unit("a", 3)
    for recording in unit.recordings:
        recording["duration_s"] = None
    commit_unit(tmp_path, unit)
    assert [record["seconds"] for record in read_records(tmp_path)] == [0.0]


def test_everything_is_on_disk_before_the_record_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, the folders that hold them and those folders' parents, each before the record is linked; then its folder."""
    create_corpus(tmp_path)
    fsync, link, steps = os.fsync, os.link, []

    def synced(number: int) -> None:
        path = Path(f"/proc/self/fd/{number}").readlink()
        steps.append((path, path.stat().st_size if path.is_file() else 0))
        fsync(number)

    def linked(draft: Path, final: Path) -> None:
        steps.append((Path("link"), 0))
        link(draft, final)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    unit = make_unit("a", 3)
    commit_unit(tmp_path, unit)
    (record,) = read_records(tmp_path)
    shown = [path for path, _ in steps].index(Path("link"))
    before, after = steps[:shown], steps[shown:]
    for file in record["files"]:
        folder = (tmp_path / file["path"]).parent
        assert {folder, folder.parent} <= {path for path, _ in before}, file
        assert any(size == file["bytes"] for _, size in before), "the whole file was there when it was synced"
    assert tmp_path / "units" in {path for path, _ in before}
    assert record_path(tmp_path, unit.unit_id).parent in {path for path, _ in after}


def test_units_of_other_settings_are_read_only_when_asked_for(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    for name in ("a", "b"):
        commit_unit(tmp_path, make_unit(name, 2))
    records = list(read_records(tmp_path))
    assert len(records) == 2
    info = json.loads((tmp_path / "corpus.json").read_text())
    for fingerprint, read in ((records[0]["fingerprint"], 2), ("another", 0)):
        (tmp_path / "corpus.json").write_text(json.dumps(info | {"fingerprint": fingerprint}))
        assert len(list(read_records(tmp_path))) == read
        assert len(list(read_records(tmp_path, superseded=True))) == 2


def test_a_verdict_remembers_what_was_asked_for(tmp_path: Path) -> None:
    create_corpus(tmp_path)
    row = {"path": "x.wav", "source_id": "1" * 16, "stage": "decode", "error": "no audio"}
    written = quarantine_now(tmp_path, row, ["in", "ä b"])
    assert json.loads(pq.read_schema(written).metadata[b"voxmill"]) == {"arguments": ["in", "ä b"]}
    assert b"voxmill" not in (pq.read_schema(quarantine_now(tmp_path, row | {"path": "y.wav"})).metadata or {})


@pytest.mark.parametrize("name", ["/etc/passwd", "..", "../a", "a/../b", "a/..", "a\\b", "..\\a", "a\0b"])
def test_a_record_that_names_a_file_outside_is_not_read(tmp_path: Path, name: str) -> None:
    create_corpus(tmp_path)
    record = commit_unit(tmp_path, make_unit("a", 2))
    path = record_path(tmp_path, record["unit_id"])
    assert is_inside(record["files"][0]["path"]) and not is_inside(name)
    record["files"][0]["path"] = name
    path.write_text(json.dumps(record))
    with pytest.raises(CorpusError, match="which is not in this corpus"):
        list(read_records(tmp_path))


def test_what_people_read_is_not_escaped(tmp_path: Path) -> None:
    """corpus.json and the records hold names as people write them; both a path and its text name the corpus."""
    root = tmp_path / "Gespräche"
    create_corpus(str(root))
    bind_fingerprint(str(root), "f" * 16)
    assert '"Gespräche"' in (root / "corpus.json").read_text(encoding="utf-8")
    with pytest.raises(CorpusError, match="made with other settings"):
        bind_fingerprint(root, "0" * 16)
    bind_fingerprint(root, "0" * 16, redo=True)
    bind_fingerprint(root, "0" * 16)
    assert corpus_info(root)["fingerprint"] == "0" * 16
    unit = replace(make_unit("a", 2), stats={"settings": "Müller"})
    commit_unit(root, unit)
    assert "Müller" in record_path(root, unit.unit_id).read_text(encoding="utf-8")


def test_a_corpus_without_a_format_is_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "corpus.json").write_text('{"name": "old"}')
    with pytest.raises(CorpusError, match="has format 0 of an older voxmill"):
        corpus_info(tmp_path)
