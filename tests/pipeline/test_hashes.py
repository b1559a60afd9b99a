"""Hashes of source files: made once, kept although the run is killed, with a line on how far they are."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import pipeline.inputs.hashes as hashes_module
from catalogs.corpus.history import read_hashes
from pipeline.inputs.find import SourceListing, find_sources
from pipeline.inputs.hashes import KeptHashes, file_key, hash_files
from pipeline.inputs.telling import Meter, told
from pipeline.records import Source
from pipeline.runs.plan import measured, plan_units
from pipeline.runs.sources import by_session

COUNT = 20
KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.inputs.hashes import KeptHashes
from pipeline.inputs.find import find_sources

class Dies(KeptHashes):
    def __setitem__(self, key, sha256):
        super().__setitem__(key, sha256)
        if len(self) == 7:
            os.kill(os.getpid(), signal.SIGKILL)

find_sources([sys.argv[1]], hashes=Dies(Path(sys.argv[2])))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        (tmp_path / "in" / f"{number:02d}.wav").write_bytes(f"audio {number}".encode() * 1000)
    (tmp_path / "corpus").mkdir()
    return tmp_path / "in"


def test_a_killed_run_keeps_what_it_hashed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = folder.parent / "corpus"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(corpus)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(KeptHashes(corpus)) == 7
    # The power went in the middle of a line.
    with (corpus / "hashes.jsonl").open("a") as file:
        file.write('["/somewhere/els')
    hashed: list[Path] = []
    real = hashes_module._hash_task

    def counted(keys: Any, *rest: Any) -> None:
        hashed.extend(keys)
        real(keys, *rest)

    monkeypatch.setattr(hashes_module, "_hash_task", counted)
    hashes = KeptHashes(corpus)
    sources = find_sources([str(folder)], hashes=hashes).sources
    assert len(hashed) == COUNT - 7
    for source in sources:
        assert source.content_sha256 == hashlib.sha256(Path(source.path).read_bytes()).hexdigest()
    assert len(KeptHashes(corpus)) == COUNT
    hashes.close()
    assert len(KeptHashes(corpus)) == COUNT
    hashed.clear()
    assert find_sources([str(folder)], hashes=KeptHashes(corpus)).sources == sources and not hashed


def test_hashes_of_older_versions_are_read(folder: Path) -> None:
    file, corpus = folder / "00.wav", folder.parent / "corpus"
    state = file.stat()
    (corpus / "hashes.json").write_text(json.dumps([[str(file), state.st_size, state.st_mtime_ns, "ab" * 32]]))
    assert find_sources([str(file)], hashes=KeptHashes(corpus)).sources[0].content_sha256 == "ab" * 32


def test_two_runs_keep_their_hashes_in_two_files(folder: Path) -> None:
    corpus = folder.parent / "corpus"
    first, second = KeptHashes(corpus, "1-of-2"), KeptHashes(corpus, "2-of-2")
    first[("/a", 1, 2)], second[("/b", 1, 2)] = "ab" * 32, "cd" * 32
    second[("/b", 1, 2)] = "cd" * 32
    for hashes in (first, second):
        hashes.close()
        hashes.close()
    both = KeptHashes(corpus, keep=False)
    assert len(both) == 2 and both[("/b", 1, 2)] == "cd" * 32 and ("/b", 1, 3) not in both
    both[("/c", 1, 2)] = "ef" * 32
    assert sorted(path.name for path in corpus.iterdir()) == ["hashes-1-of-2.jsonl", "hashes-2-of-2.jsonl"]
    assert list(read_hashes(corpus))[1] == ("/b", 1, 2, "cd" * 32)


def test_files_are_read_several_at_once_and_the_meter_counts_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)
    real = hashes_module._hash_task

    def both(*task: Any) -> None:
        together.wait()  # nobody comes through alone
        real(*task)

    monkeypatch.setattr(hashes_module, "_hash_task", both)
    monkeypatch.setattr(hashes_module, "_FILES", 6)
    hashes: dict[tuple[str, int, int], str] = {}
    keys = [key for path in sorted(folder.iterdir()) if (key := file_key(path))]
    ticks = iter(range(0, 10_000, 10))
    meter = Meter(lambda: float(next(ticks)))
    meter.found(3)
    assert meter.news() == "finding recordings: 3 files so far (0 a second)" and meter.news() is None
    hash_files([*keys, ("/gone.wav", 7, 7)], hashes, meter)
    assert len(hashes) == COUNT
    line = meter.line()
    assert line.startswith(f"reading new files: {COUNT + 1} of {COUNT + 1} (") and line.endswith("left)")


def test_it_is_said_how_far_the_listing_is_also_while_a_disk_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pipeline")
    meter, said = Meter(), threading.Event()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.set()

    logger, handler = logging.getLogger("pipeline"), Heard()
    logger.addHandler(handler)
    try:
        with told(meter, (0.0,)):
            meter.found()
            assert said.wait(60)
    finally:
        logger.removeHandler(handler)
    assert caplog.messages[0].startswith("finding recordings: 1 files so far")


def test_sessions_come_while_later_ones_are_still_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    real = hashes_module._hash_task

    def slow(keys: Any, *rest: Any) -> None:
        assert not any("19.wav" in path for path, _, _ in keys) or go.wait(60)
        real(keys, *rest)

    monkeypatch.setattr(hashes_module, "_hash_task", slow)
    monkeypatch.setattr(hashes_module, "_AHEAD", 1)
    monkeypatch.setattr(hashes_module, "hash_threads", lambda: 2)
    listing = SourceListing([str(folder)])
    sessions = listing.sessions()
    names = [next(sessions)[0] for _ in range(10)]
    assert names == [f"{number:02d}.wav" for number in range(10)]
    go.set()
    assert [name for name, _ in sessions] == [f"{number:02d}.wav" for number in range(10, COUNT)]
    assert [s.source_id for _, part in SourceListing([str(folder)]).sessions() for s in part] == [
        source.source_id for source in find_sources([str(folder)]).sources
    ]


def test_headers_of_committed_sessions_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def probe(path: str) -> float:
        asked.append(path)
        return 60.0

    monkeypatch.setattr("pipeline.runs.plan.probe_seconds", probe)
    sources = [Source(f"{s}{i}", f"/in/{s}/{i}.wav", f"{s}/{i}.wav", s, 1, "0" * 64) for s in "ab" for i in range(3)]
    committed = {"a0", "a1", "a2", "b1"}
    members = list(measured(by_session(sources), committed))
    # All of `b`: its parts are those of all its recordings, or a run that was broken off would divide it in another way.
    assert sorted(asked) == ["/in/b/0.wav", "/in/b/1.wav", "/in/b/2.wav"]
    units = plan_units(members, committed, "f" * 16, 1.0, 100.0)
    planned = [source.source_id for unit in units for session in unit.sessions for source in session.sources]
    assert sorted(planned) == ["b0", "b2"]
