"""`prepare` is killed with SIGKILL at three different moments and run again: the segments are those of an unbroken run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from fakes.processes import PATIENCE_S, family

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.weights import registry

pytestmark = [pytest.mark.kill, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SESSIONS = 6


@pytest.fixture(scope="module")
def recordings(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sessions of real read speech, at most five seconds each, and one broken file."""
    for name in registry.profile("small"):
        if not registry.available(name):
            pytest.skip(f"weights {name} are not here: voxmill models pull small")
    folder = tmp_path_factory.mktemp("recordings")
    files = sorted((corpora / "read").glob("*.flac"), key=lambda path: -path.stat().st_size)[:SESSIONS]
    for index, path in enumerate(files):
        (folder / f"session{index}").mkdir()
        samples, rate = soundfile.read(path, stop=5 * soundfile.info(path).samplerate, dtype="int16")
        soundfile.write(folder / f"session{index}" / path.name, samples, rate)
    (folder / "session0" / "broken.wav").write_bytes(b"this is not audio")
    return folder


def command(recordings: Path, corpus: Path, *more: str, module: str = "fakes.lean_ray") -> list[str]:
    """Each session is a unit. The recognizer takes most of the time: one actor, which does only what a corpus needs."""
    cheap = ["transcribe.beam_size=1", "sources.language=en", "transcribe.second_pass=off", "describe=none"]
    cheap += ["unit_s=2", "engine.actors={transcribe: 1}"]
    settings = [word for setting in cheap for word in ("--set", setting)] + list(more)
    return [sys.executable, "-m", module, "prepare", str(recordings), "--out", str(corpus), *settings]


def ids(corpus: Path) -> list[str]:
    return sorted(Corpus(corpus).index.column("segment_id").to_pylist())


def committed(corpus: Path) -> int:
    return len(list((corpus / "units").glob("*/*.json")))


def kill_when(recordings: Path, corpus: Path, moment: str) -> None:
    """Start `prepare` and SIGKILL its driver at a moment: while models load, or after more commits."""
    process = subprocess.Popen(
        command(recordings, corpus), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    )
    there = committed(corpus)
    reached: dict[str, Callable[[], bool]] = {
        "models load": lambda: any(child.title.startswith("ray::StageActor") for child in family(process.pid)),
        "1 commit": lambda: committed(corpus) >= there + 1,
        "2 commits": lambda: committed(corpus) >= there + 2,
    }
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline and not reached[moment]():
        time.sleep(0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()


def environment() -> dict[str, str]:
    """This process's variables, with the repository and its fakes on the path."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}


def test_killed_three_times_gives_the_same_segments(recordings: Path, tmp_path: Path) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(command(recordings, unbroken, "--executor", "inline"))
    for moment in ("models load", "1 commit", "2 commits"):
        kill_when(recordings, broken, moment)
    assert committed(broken) < SESSIONS
    assert "already in the corpus" in finish(command(recordings, broken, module="voxmill.cli"))
    assert ids(broken) == ids(unbroken)
    assert len(set(ids(broken))) == len(ids(broken)) > 6
    assert not [problem for problem in fsck(broken) if problem.severity == "error"]


def finish(words: list[str]) -> str:
    """Standard output of a command that must come to a good end."""
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout
