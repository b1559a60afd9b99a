"""Latents beside a corpus are those of the segments as they are now, whatever was stored for an earlier attempt at them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpus_builders import FINGERPRINT, flac, make_unit, tone

from catalogs.corpus.commit import UnitContent, bind_fingerprint, commit_unit, create_corpus, record_path
from catalogs.corpus.fsck import fsck
from catalogs.corpus.latents import LatentForm, StoredLatents, latent_files, write_latents
from catalogs.corpus.reader import Corpus

FORM = LatentForm("c" * 16, 2, 3)


def ids(unit: UnitContent) -> list[str]:
    """Segments of a unit that have audio."""
    return [row["segment_id"] for row in unit.rows if row["audio"] is not None]


def store(root: Path, segments: Sequence[str], value: int) -> Path:
    """Latents full of `value` of some segments of one shard, as the corpus is now."""
    (shard,) = {Corpus(root).place(segment)[0] for segment in segments}
    return write_latents(root, FORM, shard, [(s, np.full((1, 2, 3), value, np.uint16)) for s in segments])[0]


def stored(root: Path) -> dict[str, int]:
    """The value of each segment's latents."""
    found = StoredLatents(root, FORM)
    segments = Corpus(root).index.column("segment_id").to_pylist()
    return {s: int(values[0, 0, 0]) for s in segments if (values := found.get(s)) is not None}


@pytest.fixture
def units() -> tuple[UnitContent, UnitContent]:
    return make_unit("a", 3), make_unit("b", 3)


@pytest.fixture
def root(tmp_path: Path, units: tuple[UnitContent, UnitContent]) -> Path:
    """A corpus of one unit of the recordings a and b."""
    root = tmp_path / "corpus"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    a, b = units
    names = ("rows", "recordings", "sessions")
    joined: dict[str, Any] = {name: [*getattr(a, name), *getattr(b, name)] for name in names}
    commit_unit(root, dataclasses.replace(a, **joined))
    return root


def again(unit: UnitContent, name: str) -> UnitContent:
    """A later attempt at the same recording: the same segments with other audio."""
    rows = [{**row, "audio": row["audio"] and flac(tone(1.5, 400.0))} for row in unit.rows]
    return dataclasses.replace(unit, unit_id=name * 16, generation=1, rows=rows)


def _unnamed(path: Path) -> None:
    """Make a file of latents one of before: without the name of its shard."""
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    about = json.loads(table.schema.metadata[b"voxmill"])
    del about["shard"]
    with pa.ipc.new_file(path, table.schema.with_metadata({b"voxmill": json.dumps(about).encode()})) as writer:
        writer.write_table(table.replace_schema_metadata({b"voxmill": json.dumps(about).encode()}))


@pytest.mark.parametrize("old_file", [False, True])
def test_latents_of_recordings_that_were_processed_again_are_not_read(
    root: Path, units: tuple[UnitContent, UnitContent], old_file: bool
) -> None:
    a, b = units
    path = store(root, ids(a) + ids(b), 1)
    if old_file:
        _unnamed(path)
    assert stored(root) == dict.fromkeys(ids(a) + ids(b), 1)
    commit_unit(root, again(a, "f"))
    assert stored(root) == dict.fromkeys(ids(b), 1)
    store(root, ids(a), 2)
    assert stored(root) == dict.fromkeys(ids(a), 2) | dict.fromkeys(ids(b), 1)
    commit_unit(root, again(b, "0"))
    assert stored(root) == dict.fromkeys(ids(a), 2)
    store(root, ids(b), 3)
    assert stored(root) == dict.fromkeys(ids(a), 2) | dict.fromkeys(ids(b), 3)
    (problem,) = fsck(root, hashes=not old_file)
    assert (problem.severity, problem.path) == ("notice", path.relative_to(root).as_posix())
    assert "processed again: nothing reads it" in problem.what


def test_a_unit_that_a_repair_had_made_again_has_latents_of_its_new_shard(
    root: Path, units: tuple[UnitContent, UnitContent]
) -> None:
    """It has the same id: its record was taken away, and nothing else lists its recordings."""
    a, b = units
    store(root, ids(a), 1)
    record = record_path(root, a.unit_id)
    record.unlink()
    commit_unit(root, dataclasses.replace(again(a, "f"), unit_id=a.unit_id, generation=0))
    commit_unit(root, b)
    assert stored(root) == {}
    store(root, ids(a), 2)
    assert stored(root) == dict.fromkeys(ids(a), 2) and len(latent_files(root)) == 2


def test_latents_of_other_settings_are_not_read(root: Path, units: tuple[UnitContent, UnitContent]) -> None:
    store(root, ids(units[0]), 1)
    bind_fingerprint(root, "e" * 16, redo=True)
    commit_unit(root, dataclasses.replace(again(units[0], "f"), fingerprint="e" * 16, generation=0))
    assert stored(root) == {}
