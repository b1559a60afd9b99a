"""`prepare` is killed with SIGKILL at three different moments and run again: the segments are those of an unbroken run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from fakes.processes import PATIENCE_S

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.weights import registry

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.fixture(scope="module")
def recordings(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sessions of real read speech, at most five seconds each, and one broken file."""
    for name in registry.profile("small"):
        if not registry.available(name):
            pytest.skip(f"weights {name} are not here: voxmill models pull small")
    folder = tmp_path_factory.mktemp("recordings")
    files = sorted((corpora / "read").glob("*.flac"), key=lambda path: -path.stat().st_size)[:6]
    for index, path in enumerate(files):
        (folder / f"session{index}").mkdir()
        samples, rate = soundfile.read(path, stop=5 * soundfile.info(path).samplerate, dtype="int16")
        soundfile.write(folder / f"session{index}" / path.name, samples, rate)
    (folder / "session0" / "broken.wav").write_bytes(b"this is not audio")
    return folder


def command(recordings: Path, corpus: Path, *more: str) -> list[str]:
    """Each session is a unit. Of the recognizer only what a corpus cannot do without: it takes most of the time."""
    cheap = ["transcribe.beam_size=1", "transcribe.language_windows=1", "transcribe.second_pass=off", "describe=none"]
    settings = [word for setting in ("unit_s=2", *cheap) for word in ("--set", setting)] + list(more)
    return [sys.executable, "-m", "voxmill.cli", "prepare", str(recordings), "--out", str(corpus), *settings]


def ids(corpus: Path) -> list[str]:
    return sorted(Corpus(corpus).index.column("segment_id").to_pylist())


def committed(corpus: Path) -> int:
    return len(list((corpus / "units").glob("*/*.json")))


def kill_when(recordings: Path, corpus: Path, moment: str) -> None:
    """Start `prepare` and SIGKILL its driver at a moment: while models load, after the first or the third commit."""
    process = subprocess.Popen(command(recordings, corpus), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    there = committed(corpus) if corpus.exists() else 0
    deadline = time.monotonic() + PATIENCE_S
    started = time.monotonic()
    while process.poll() is None and time.monotonic() < deadline:
        if moment == "start" and time.monotonic() - started > 5:
            break
        if moment.startswith("commits") and committed(corpus) >= there + int(moment.split()[1]):
            break
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_three_times_gives_the_same_segments(recordings: Path, tmp_path: Path) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    subprocess.run(command(recordings, unbroken, "--executor", "inline"), check=True, capture_output=True)
    for moment in ("start", "commits 1", "commits 2"):
        kill_when(recordings, broken, moment)
    last = subprocess.run(command(recordings, broken), check=True, capture_output=True, text=True)
    assert "already in the corpus" in last.stdout
    assert ids(broken) == ids(unbroken)
    assert len(set(ids(broken))) == len(ids(broken)) > 6
    assert not [problem for problem in fsck(broken) if problem.severity == "error"]
