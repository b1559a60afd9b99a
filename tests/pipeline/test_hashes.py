"""Hashes of source files: made once, kept although the run is killed, with a line on how far they are."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.inputs.find import find_sources
from pipeline.inputs.hashes import KeptHashes, hash_files, known_hashes
from pipeline.records import Source
from pipeline.runs.plan import plan_units, promised_lengths

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
    assert len(known_hashes(corpus)) == 7
    # The power went in the middle of a line.
    with (corpus / "hashes.jsonl").open("a") as file:
        file.write('["/somewhere/els')
    hashed: list[Path] = []
    real = sys.modules["pipeline.inputs.hashes"].sha256_of

    def counted(path: Path, read: Any) -> Any:
        hashed.append(path)
        return real(path, read)

    monkeypatch.setattr("pipeline.inputs.hashes.sha256_of", counted)
    hashes = KeptHashes(corpus)
    sources = find_sources([str(folder)], hashes=hashes).sources
    assert len(hashed) == COUNT - 7
    for source in sources:
        assert source.content_sha256 == hashlib.sha256(Path(source.path).read_bytes()).hexdigest()
    assert len(known_hashes(corpus)) == COUNT
    hashes.settle()
    assert not (corpus / "hashes.jsonl").exists() and len(known_hashes(corpus)) == COUNT
    hashed.clear()
    assert find_sources([str(folder)], hashes=KeptHashes(corpus)).sources == sources and not hashed


def test_hashes_of_older_versions_are_read(folder: Path) -> None:
    file, corpus = folder / "00.wav", folder.parent / "corpus"
    state = file.stat()
    (corpus / "hashes.json").write_text(json.dumps([[str(file), state.st_size, state.st_mtime_ns, "ab" * 32]]))
    assert find_sources([str(file)], hashes=KeptHashes(corpus)).sources[0].content_sha256 == "ab" * 32


def test_files_are_read_several_at_once_and_it_is_said_how_far_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    together = threading.Barrier(2)
    real = sys.modules["pipeline.inputs.hashes"].sha256_of

    def both(path: Path, read: object) -> str:
        together.wait()  # nobody comes through alone
        return real(path, read)

    monkeypatch.setattr("pipeline.inputs.hashes.sha256_of", both)
    ticks = iter(range(0, 10_000, 10))
    caplog.set_level("INFO", "pipeline")
    hashes: dict[tuple[str, int, int], str] = {}
    hash_files(sorted(folder.iterdir()), hashes, clock=lambda: float(next(ticks)))
    assert len(hashes) == COUNT
    lines = caplog.messages
    assert lines and lines[0].startswith("reading new files: ") and "of 20 (" in lines[0] and "left)" in lines[0]


def test_headers_of_committed_sessions_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def probe(path: str) -> float:
        asked.append(path)
        return 60.0

    monkeypatch.setattr("pipeline.runs.plan.probe_seconds", probe)
    sources = [Source(f"{s}{i}", f"/in/{s}/{i}.wav", f"{s}/{i}.wav", s, 1, "0" * 64) for s in "ab" for i in range(3)]
    committed = {"a0", "a1", "a2", "b1"}
    lengths = promised_lengths(sources, committed)
    # All of `b`: its parts are those of all its recordings, or a run that was broken off would divide it in another way.
    assert sorted(asked) == ["/in/b/0.wav", "/in/b/1.wav", "/in/b/2.wav"]
    units = plan_units(sources, committed, "f" * 16, 1.0, lengths, 100.0)
    planned = [source.source_id for unit in units for session in unit.sessions for source in session.sources]
    assert sorted(planned) == ["b0", "b2"]
