"""A file that is not what was committed is one line with the command that repairs it, whoever reads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus_builders import make_unit

from annotators.providers.acoustic import Acoustic
from annotators.runner import describe_corpus
from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.damage import DamagedFileError
from catalogs.corpus.duplicates import duplicates_path
from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.corpus.repair import drop_compaction
from catalogs.corpus.shards import Shard
from catalogs.query.views import QueryError, build_catalog, query
from catalogs.report.report import build_report
from pipeline.duplicates.mark import mark_duplicates


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of two units with all companions and a catalog that is up to date."""
    root = tmp_path_factory.mktemp("whole") / "my corpus"
    create_corpus(root)
    for name in ("a", "b"):
        unit = make_unit(name, 4)
        for number, row in enumerate(unit.rows):
            row |= {"pitch_hz": 90.0 + 40 * number}
        commit_unit(root, unit)
    describe_corpus(root)
    mark_duplicates(root, 0.7)
    query(root, "select count(*) from segments")
    shutil.copytree(root, root.with_name("as it was"))
    return root


@pytest.fixture
def root(whole: Path) -> Path:
    """The corpus as it was, to damage: at its own place its catalog is up to date."""
    shutil.rmtree(whole)
    shutil.copytree(whole.with_name("as it was"), whole)
    return whole


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    """Change bytes in the middle of the file, where the data is."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle - 100 : middle + 100] = bytes(255 - byte for byte in data[middle - 100 : middle + 100])
    path.write_bytes(data)


class _Listener(Acoustic):
    """A describer that is given the audio."""

    name, listens = "listener", True


def _every_clip(root: Path) -> None:
    corpus = Corpus(root)
    for segment in corpus.kept().column("segment_id").to_pylist():
        corpus.read_audio(segment)


def _mark_again(root: Path) -> None:
    shutil.rmtree(duplicates_path(root).parent, ignore_errors=True)
    mark_duplicates(root, 0.7)


def _first(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """The reader of a corpus that was never compacted."""

    def run(root: Path) -> object:
        drop_compaction(root)
        return read(root)

    return run


QUERIES: dict[str, Callable[[Path], object]] = {
    "query": lambda root: query(root, "select sum(hash(columns(*))) from segments"),
    "recordings": lambda root: query(root, "select * from recordings order by all"),
    "references": lambda root: query(root, "select * from reference_pairs order by all"),
    "descriptions": lambda root: query(root, "select * from descriptions order by all"),
}
READERS: dict[str, Callable[[Path], object]] = {
    **{name: _first(read) for name, read in QUERIES.items()},
    "catalog": _first(build_catalog),
    "report": _first(build_report),
    "describe": describe_corpus,
    "listen": lambda root: describe_corpus(root, _Listener()),
    "duplicates": _mark_again,
    "marked": lambda root: mark_duplicates(root, 0.7),
    "index": lambda root: Corpus(root).index,
    "annotations": lambda root: Corpus(root).annotations("descriptions"),
    "read_audio": _every_clip,
}
MET_BY = {
    "index": ("query", "catalog", "report", "describe", "index", "read_audio"),
    "recordings": ("recordings", "catalog", "report"),
    "references": ("references", "catalog", "report"),
    "segments": ("report", "listen", "duplicates", "read_audio"),
    "annotations/acoustic": ("descriptions", "catalog", "report", "describe", "annotations"),
    "annotations/duplicates": ("query", "marked", "index"),
}


def _lines(root: Path, kind: str, damage: Callable[[Path], None], reader: str) -> str:
    for path in sorted((root / kind).rglob("*.*")):
        damage(path)
    with pytest.raises(DamagedFileError) as told:
        READERS[reader](root)
    return str(told.value)


CASES = [(damage, kind, name) for damage in (_remove, _cut) for kind, names in MET_BY.items() for name in names]


# A companion that is not there was never made.
@pytest.mark.parametrize(
    ("damage", "kind", "reader"), [case for case in CASES if case[0] is _cut or not case[1].startswith("annotations/")]
)
def test_a_missing_or_cut_file_is_one_line(root: Path, damage: Callable[[Path], None], kind: str, reader: str) -> None:
    line = _lines(root, kind, damage, reader)
    assert line.startswith(f"{root}/{kind}/") and "\n" not in line
    assert line.endswith(f"; run: voxmill fsck '{root}' --repair")


@pytest.mark.parametrize("reader", ["report", "read_audio"])
def test_a_clip_that_cannot_be_decoded_is_one_line(root: Path, reader: str) -> None:
    def behead(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(b"fLaC", b"xxxx"))

    assert "holds a clip that is damaged" in _lines(root, "segments", behead, reader)


@pytest.mark.parametrize("reader", ["query", "index", "describe"])
def test_a_changed_index_is_one_line(root: Path, reader: str) -> None:
    line = _lines(root, "index", _flip, reader)
    assert line.startswith(f"{root}/index/") and "--repair" in line


@pytest.mark.parametrize("damage", [_remove, _cut, _flip])
def test_copies_answer_for_damaged_units_and_are_made_again_if_they_are_damaged(
    root: Path, damage: Callable[[Path], None]
) -> None:
    expected = {name: read(root) for name, read in QUERIES.items()}
    for path in (root / "compact").rglob("*.*"):
        damage(path)
    assert {name: read(root) for name, read in QUERIES.items()} == expected
    for kind in ("index", "recordings", "references"):
        for path in (root / kind).rglob("*.parquet"):
            damage(path)
    assert {name: read(root) for name, read in QUERIES.items()} == expected
    assert any(problem.severity == "error" for problem in fsck(root))


def test_a_wrong_query_is_not_taken_for_damage(root: Path) -> None:
    for path in (root / "index").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(QueryError, match="unknown table nothing"):
        query(root, "select * from nothing")
    with pytest.raises(QueryError, match="Could not convert"):
        query(root, "select cast('x' as integer)")


def test_offsets_that_point_outside_of_the_shard_are_refused(root: Path) -> None:
    """Flipped bits in an Arrow offset must not read foreign memory."""
    import numpy as np

    path = next((root / "segments").rglob("*.arrow"))
    batch = Shard(path).reader.get_batch(0)
    ends = batch.column("audio").field("bytes").buffers()[1]
    data = bytearray(path.read_bytes())
    where = data.find(ends.to_pybytes())
    assert where > 0
    data[where + 4 : where + 8] = np.int32(2**30).tobytes()
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match="1073741824"):
        _every_clip(root)
