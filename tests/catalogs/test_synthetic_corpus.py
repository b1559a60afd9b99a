"""The synthetic corpora of `benchmarks/scale.py` are corpora: readers, queries and fsck take them as the pipeline's own."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.query.views import query
from pipeline.duplicates.mark import mark_duplicates

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
UNITS, ROWS = 6, 20


@pytest.fixture(scope="module")
def synthetic() -> Iterator[tuple[ModuleType, ModuleType]]:
    before = list(sys.path)
    # At the end: benchmarks/ has modules of the names of packages.
    sys.path.append(str(BENCHMARKS))
    yield importlib.import_module("scale_parts.corpus"), importlib.import_module("scale_parts.kinds")
    sys.path[:] = before


@pytest.fixture(scope="module", params=["drawn", "copied"])
def root(
    synthetic: tuple[ModuleType, ModuleType], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    corpus, kinds = synthetic
    root = tmp_path_factory.mktemp("synthetic") / "corpus"
    # Most units of the largest corpus are others under new ids.
    drawn = UNITS // 2 if request.param == "copied" else 0
    corpus.make_corpus(root, dataclasses.replace(kinds.tiny(UNITS, ROWS), drawn=drawn), log=lambda line: None)
    return root


def test_fsck_finds_no_fault(root: Path) -> None:
    assert fsck(root) == []


def test_every_id_is_there_once_and_leads_to_its_clip(root: Path) -> None:
    for view, name in (("segments", "segment_id"), ("recordings", "source_id"), ("recordings", "path")):
        assert query(root, f"SELECT count(*) - count(DISTINCT {name}) FROM {view}")[1] == [(0,)], (view, name)
    corpus = Corpus(root)
    for segment in corpus.kept().column("segment_id").to_pylist()[::7]:
        assert corpus.segment(segment)["segment_id"] == segment


def test_a_lost_record_is_rebuilt(root: Path) -> None:
    record = next((root / "units").glob("*/*.json"))
    before = json.loads(record.read_text())
    record.unlink()
    fsck(root, repair=True)
    assert json.loads(record.read_text())["files"] == before["files"]


def test_every_second_and_row_is_there(root: Path) -> None:
    corpus = Corpus(root)
    assert len(corpus) == corpus.index.num_rows == UNITS * ROWS
    assert not query(root, "SELECT * FROM funnel WHERE outcome = 'unaccounted'")[1]
    (found,) = query(
        root, "SELECT count(*) FILTER (kept), count(*) FILTER (NOT kept), count(*) FILTER (shard IS NULL) FROM segments"
    )[1]
    assert found[0] > found[1] > 0 and found[2] < UNITS * ROWS / 4
    for view in ("recordings", "reference_pairs", "descriptions", "checks", "units", "stages"):
        assert query(root, f"SELECT count(*) FROM {view}")[1][0][0] > 0, view


def test_no_pair_joins_neighbors_or_two_voices(root: Path) -> None:
    joined = """
        SELECT count(*) FROM reference_pairs AS pair JOIN segments AS one USING (segment_id)
        JOIN segments AS two ON two.segment_id = pair.reference_id
        WHERE gap = 1 OR one.speaker <> two.speaker OR one.session_id <> two.session_id OR one.seq - two.seq <> gap
    """
    assert query(root, joined)[1] == [(0,)]


def test_the_same_seed_makes_the_same_files_and_a_run_continues(
    synthetic: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    corpus, kinds = synthetic
    kind = dataclasses.replace(kinds.tiny(UNITS, ROWS), drawn=UNITS - 1)
    for name in ("one", "again"):
        corpus.make_corpus(tmp_path / name, kind, log=lambda line: None)
    first = next((tmp_path / "again" / "units").glob("*/*.json"))
    first.unlink()
    corpus.make_corpus(tmp_path / "again", kind, log=lambda line: None)

    def files(folder: Path) -> dict[str, bytes]:
        kept = ("units", "index", "segments", "recordings", "references", "annotations")
        return {
            str(p.relative_to(folder)): p.read_bytes() for name in kept for p in sorted((folder / name).rglob("*.*"))
        }

    assert files(tmp_path / "one") == files(tmp_path / "again")


def test_copies_are_found(synthetic: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    corpus, kinds = synthetic
    corpus.make_corpus(tmp_path / "corpus", kinds.tiny(20, 50), log=lambda line: None)
    found = mark_duplicates(tmp_path / "corpus", 0.7)
    assert found.kinds.get("exact", 0) + found.kinds.get("reencode", 0) >= 5
