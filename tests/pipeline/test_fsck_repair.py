"""A damaged unit has a road back: repaired, the same prepare command processes exactly its recordings, and nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.chaos_run import CheapConfig
from fakes.recordings import noise, write

from catalogs.corpus.damage import DamagedFileError
from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from pipeline.prepare import prepare
from pipeline.runs.summary import Summary


def _prepare(tmp_path: Path) -> Summary:
    # One session a unit.
    config = CheapConfig(unit_s=1.0, engine={"executor": "inline"}, describe="none")
    return prepare([str(tmp_path / "in")], tmp_path / "corpus", config)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        write(tmp_path / "in" / f"s{number}" / "talk.wav", noise(4.6, 16_000, seed=number), 16_000)
    assert _prepare(tmp_path).units == 3
    return tmp_path / "corpus"


def _ids(root: Path) -> list[str]:
    return sorted(Corpus(root).index.column("segment_id").to_pylist())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("kind", "damage"),
    [("segments", _flip), ("segments", _cut), ("segments", Path.unlink), ("recordings", Path.unlink)],
    ids=["flipped shard", "cut shard", "missing shard", "missing recordings"],
)
def test_a_damaged_unit_is_redone_from_its_recordings(root: Path, kind: str, damage: object) -> None:
    before = _ids(root)
    path = min((root / kind).rglob("*.*"))
    damage(path)  # type: ignore[operator]
    assert [problem.severity for problem in fsck(root)] == ["error"]
    assert [problem.severity for problem in fsck(root, repair=True)] == ["repaired"]
    assert [problem.severity for problem in fsck(root)] == ["notice"], "the unit waits to be redone"
    again = _prepare(root.parent)
    assert (again.units, again.already_there) == (1, 2)
    assert _ids(root) == before and len(set(before)) == len(before) > 3
    fsck(root, repair=True)
    assert fsck(root) == [] and not list((root / "damaged").rglob("*.json"))
    assert _prepare(root.parent).units == 0


def test_a_damaged_index_comes_back_from_its_shard(root: Path) -> None:
    before = _ids(root)
    min((root / "index").rglob("*.*")).unlink()
    with pytest.raises(DamagedFileError, match="--repair"):
        _ids(root)
    fsck(root, repair=True)
    assert _ids(root) == before and fsck(root) == [] and _prepare(root.parent).units == 0


def test_gone_recordings_are_named_and_nothing_is_changed(root: Path) -> None:
    path = min((root / "segments").rglob("*.*"))
    _flip(path)
    unit = path.name.split(".")[0]
    recording = next(
        Path(row["path"])
        for row in Corpus(root).table("recordings").to_pylist()
        if row["source_id"] in json.loads((root / "units" / unit[:2] / f"{unit}.json").read_text())["source_ids"]
    )
    kept = recording.read_bytes()
    recording.write_bytes(kept[:-2])
    (problem,) = fsck(root, repair=True)
    assert problem.severity == "error" and str(recording) in problem.what
    assert len(list(Corpus(root).records)) == 3
    recording.write_bytes(kept)
    assert [problem.severity for problem in fsck(root, repair=True)] == ["repaired"]


def test_a_lost_record_comes_back_and_nothing_is_processed_again(root: Path) -> None:
    before = _ids(root)
    min((root / "units").rglob("*.json")).unlink()
    fsck(root, repair=True)
    assert _ids(root) == before and _prepare(root.parent).units == 0
