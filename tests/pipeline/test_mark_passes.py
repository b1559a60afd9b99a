"""Duplicates found pass by pass are those of one pass over the whole corpus, whatever came when, was redone or killed."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogs.corpus.commit import UnitContent, commit_unit, create_corpus
from catalogs.corpus.duplicates import duplicates_path, read_duplicates
from catalogs.corpus.ids import short_hash, source_id
from catalogs.corpus.reader import Corpus
from pipeline.duplicates import mark, match, search, sorted_runs, store
from pipeline.duplicates.audio_print import SILENT
from pipeline.duplicates.groups import Link, duplicate_rows, exact_links, links_of
from pipeline.duplicates.mark import mark_duplicates, work_folder
from pipeline.duplicates.match import match_prints
from pipeline.duplicates.same_text import VoiceGroups, text_key

COSINE = 0.78
TEXTS = (None, "yes", "good evening everyone", "something about mountains and the sea", "the sea and the mountains")


class Recordings:
    """Random fingerprints with copies, damaged copies, shared stretches and repeated texts."""

    def __init__(self, seed: int) -> None:
        self.dice = np.random.default_rng(seed)
        self.known: list[np.ndarray] = []
        self.jingle = self.words(40)

    def words(self, count: int) -> np.ndarray:
        return self.dice.integers(1, 2**16, count, dtype=np.uint16)

    def print(self) -> np.ndarray:
        """A new fingerprint, or something of an earlier one."""
        kind = self.dice.choice(
            ["new", "exact", "damaged", "jingle", "short", "none"], p=[0.3, 0.2, 0.3, 0.1, 0.05, 0.05]
        )
        old = self.known[int(self.dice.integers(len(self.known)))] if self.known else self.words(40)
        if kind == "exact":
            return old
        if kind == "damaged":
            flips = (self.dice.random((len(old), 16)) < 0.06) @ (1 << np.arange(16))
            return np.maximum(old ^ flips.astype(np.uint16), 1)[int(self.dice.integers(0, 6)) :]
        if kind in ("short", "none"):
            return self.words(12 if kind == "short" else 0)
        own = self.words(int(self.dice.integers(30, 80)))
        if kind == "jingle":
            own = np.concatenate([self.jingle, own, np.full(3, SILENT, np.uint16), self.words(60)])
        self.known.append(own)
        return own

    def unit(self, name: str, segments: int) -> UnitContent:
        """A unit of one recording."""
        source, rows = source_id(name, name), []
        for seq in range(segments):
            own = self.print()
            row: dict[str, Any] = {
                "segment_id": short_hash(name, seq, int(self.dice.integers(1 << 40))),
                "session_id": short_hash("session", name),
                "source_id": source,
                "seq": seq,
                "duration_s": 1.0,
                "text": TEXTS[int(self.dice.integers(len(TEXTS)))],
                "audio_sha256": short_hash(own.tobytes().hex()) * 4 if self.dice.random() < 0.95 else None,
                "audio_print": own.astype("<u2").tobytes() if len(own) else None,
                "embedding": np.eye(8, dtype=np.float32)[int(self.dice.integers(3))] if seq % 7 else None,
                "audio": b"flac",
            }
            rows.append(row)
        recording = {"source_id": source, "path": name, "duration_s": float(segments)}
        return UnitContent(short_hash("unit", name), "f" * 16, [name], rows, [recording])


def whole_pass(root: Path, before: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one pass over everything in memory."""
    corpus = Corpus(root)
    rows = [
        corpus.shard(row["shard"]).row(row["row"])
        for row in sorted(corpus, key=lambda row: (row["session_id"], row["seq"], row["segment_id"]))
        if row["shard"]
    ]
    prints = [np.frombuffer(row["audio_print"] or b"", dtype="<u2") for row in rows]
    hashes = [row["audio_sha256"] for row in rows]
    links = exact_links(hashes) + links_of(match_prints(prints))
    voices: dict[str, VoiceGroups] = defaultdict(lambda: VoiceGroups(COSINE))
    for place, row in enumerate(rows):
        key, own = text_key(row["text"]), row["embedding"]
        if key and own is not None:
            first = voices[key].first_of(place, np.array(own, dtype=np.float32))
            if first is not None:
                links.append(Link(first, place, "same_text"))
    return duplicate_rows([row["segment_id"] for row in rows], hashes, links, before)


def rows_of(root: Path) -> list[dict[str, Any]]:
    return read_duplicates(root).to_pylist()


def marked(root: Path) -> list[dict[str, Any]]:
    """Mark, compare with a pass over everything, and return the rows."""
    before = {row["segment_id"]: row for row in rows_of(root)}
    mark_duplicates(root, COSINE)
    assert rows_of(root) == whole_pass(root, before)
    return rows_of(root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("size", ["ordinary", "small pieces"])
def test_passes_in_any_order_give_the_rows_of_one(
    root: Path, seed: int, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == "small pieces":
        for module, name, value in (
            (mark, "_BATCH_BYTES", 600), (sorted_runs, "MOST_ROWS", 64), (search, "MOST_ROWS", 50),
            (search, "_VOTE_ROWS", 40), (search, "_MEMBERS", 3), (search, "_MAPPED_BYTES", 0), (search, "_PAIRS", 7),
            (sorted_runs, "_KEYS", 5), (sorted_runs, "_DENSE_ROWS", 9),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, value)
    recordings = Recordings(seed)
    units = [recordings.unit(f"r{number}", int(recordings.dice.integers(0, 12))) for number in range(9)]
    recordings.dice.shuffle(units)
    found = 0
    while units:
        for _ in range(int(recordings.dice.integers(1, 4))):
            if units:
                commit_unit(root, units.pop())
        found = len(marked(root))
    assert found > 20
    # Without an earlier result nothing was first: the rows are those of a first pass.
    duplicates_path(root).unlink()
    together = marked(root)
    shutil.rmtree(duplicates_path(root).parent)
    assert marked(root) == together


@pytest.mark.parametrize("seed", range(3))
def test_segments_that_were_processed_again_are_forgotten(root: Path, seed: int) -> None:
    recordings = Recordings(seed)
    units = [recordings.unit(f"r{number}", 10) for number in range(4)]
    joined = UnitContent(
        "a" * 16, "f" * 16, ["two"], [*units[0].rows, *units[1].rows], [*units[0].recordings, *units[1].recordings]
    )
    for unit in (joined, *units[2:]):
        commit_unit(root, unit)
    first = marked(root)
    again = recordings.unit("r1", 6)
    commit_unit(root, UnitContent("b" * 16, "f" * 16, ["r1"], again.rows, again.recordings, generation=1))
    assert marked(root) != first
    gone = {row["segment_id"] for row in units[1].rows}
    assert not gone & {row["segment_id"] for row in rows_of(root)}


def test_an_attempt_that_takes_no_segment_away_needs_no_search_of_the_others(root: Path) -> None:
    recordings = Recordings(3)
    unit, failed = recordings.unit("r0", 10), recordings.unit("r1", 0)
    both = UnitContent("a" * 16, "f" * 16, ["two"], unit.rows, [*unit.recordings, *failed.recordings])
    commit_unit(root, both)
    marked(root)
    held = store.Store(work_folder(root)).about.chunks
    again = recordings.unit("r1", 10)
    commit_unit(root, UnitContent("b" * 16, "f" * 16, ["r1"], again.rows, again.recordings, generation=1))
    marked(root)
    assert store.Store(work_folder(root)).about.chunks[: len(held)] == held


def test_the_rule_for_many_words_holds_for_what_was_found_before(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = Recordings(1)
    own = recordings.words(10)
    copy = own.copy()
    copy[[1, 5]] ^= np.uint16(1)
    copy[[5, 8]] ^= np.uint16(1 << 15)

    def commit(name: str, *prints: np.ndarray) -> None:
        unit = recordings.unit(name, len(prints))
        for row, words in zip(unit.rows, prints, strict=True):
            row |= {"audio_print": words.tobytes(), "audio_sha256": None, "text": None}  # type: ignore[operator]
        commit_unit(root, unit)

    monkeypatch.setattr(match, "FEW_WORDS", 100)
    monkeypatch.setattr(search, "FEW_WORDS", 100)
    commit("r0", own, copy)
    assert len(marked(root)) == 2
    commit("r1", recordings.words(200))
    assert marked(root) == []


def test_another_limit_for_voices_compares_all_texts_again(root: Path) -> None:
    recordings = Recordings(5)
    commit_unit(root, recordings.unit("r0", 30))
    low = marked(root)
    assert any(row["duplicate_kind"] == "same_text" for row in low)
    mark_duplicates(root, 1.5)
    assert not any(row["duplicate_kind"] == "same_text" for row in rows_of(root))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda work: (work / "manifest.json").write_text("{"),
        lambda work: (work / "manifest.json").write_text('{"version": 1, "more": 2}'),
        lambda work: (work / "words.bin").write_bytes(b""),
        lambda work: next(work.glob("keys-*")).unlink(),
        lambda work: next(work.glob("sha-*")).write_bytes(b"no numbers"),
        lambda work: next(work.glob("segments-*")).write_bytes(b"no table"),
    ],
)
def test_a_damaged_store_is_made_again(root: Path, spoil: Callable[[Path], object]) -> None:
    recordings = Recordings(2)
    commit_unit(root, recordings.unit("r0", 12))
    marked(root)
    spoil(work_folder(root))
    commit_unit(root, recordings.unit("r1", 12))
    assert len(marked(root)) > 10


class Killed(BaseException):
    """As a kill would end the pass."""


@pytest.mark.parametrize("seed", range(2))
def test_a_pass_killed_anywhere_leaves_the_last_result_and_the_next_one_finishes(
    root: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = Recordings(seed)
    monkeypatch.setattr(mark, "_BATCH_BYTES", 600)
    for name in ("r0", "r1"):
        commit_unit(root, recordings.unit(name, 10))
    before = marked(root)
    for name in ("r2", "r3", "r4"):
        commit_unit(root, recordings.unit(name, 10))
    real = os.fsync
    left, step = 0, 3 * seed

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        real(handle)

    # Every write ends with an fsync: the pass is killed at the first, at the second, and so on.
    kills = 0
    while True:
        copy = root.with_name(f"copy{step}")
        shutil.copytree(root, copy)
        left = step
        monkeypatch.setattr(os, "fsync", fsync)
        try:
            mark_duplicates(copy, COSINE)
            done = True
        except Killed:
            done = False
        monkeypatch.setattr(os, "fsync", real)
        if not done:
            kills += 1
            assert rows_of(copy) in (before, whole_pass(copy, {row["segment_id"]: row for row in before}))
            mark_duplicates(copy, COSINE)
        expected = whole_pass(copy, {row["segment_id"]: row for row in before})
        assert rows_of(copy) == expected
        shutil.rmtree(copy)
        if done:
            break
        step += 7
    assert kills > 3
