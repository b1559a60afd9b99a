"""The real `prepare` over Ray under fire: drivers and workers killed at random, killers and hangers among the recordings,
a disk that fills up. In the end the corpus is that of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fakes import chaos_run
from fakes.processes import PATIENCE_S, Process, family, gone
from fakes.recordings import noise, write

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus

pytestmark = [pytest.mark.kill, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
POLL_S = 0.2
"""To find the actors, all processes of the machine are read."""
KILLS = ["driver that starts", "driver at work", "actor", "actor"]
ACTORS = 4
"""Of a run: one for each group of stages, and two for `trouble`. After `KILLS`, the oldest actor is killed as often as this, so
that none is left out."""


def start(sources: Path, corpus: Path, *settings: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "fakes.chaos_run", str(sources), str(corpus), *settings]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=REPOSITORY
    )


def finish(process: subprocess.Popen[str], limit_s: float = PATIENCE_S) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of a run that is left alone."""
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        end(process)
        raise
    return process.returncode, out, err


def run_here(sources: Path, corpus: Path) -> int:
    """Exit status of an unbroken run in this process, over recordings that harm nobody."""
    return chaos_run.main(str(sources), str(corpus), 'executor="inline"', "harmless=true")


def end(process: subprocess.Popen[str]) -> list[str]:
    """SIGKILL a driver; the workers that outlive it by more than a minute. Processes that Ray left are killed, too."""
    relatives = family(process.pid)
    workers = actors(process)
    process.kill()
    process.communicate()
    left = [worker.title for worker in gone(workers, within_s=60)]
    for relative in relatives:
        # Ray's agents notice only after a while that they are alone.
        relative.kill()
    return left


def actors(process: subprocess.Popen[str]) -> list[Process]:
    return [child for child in family(process.pid) if child.title.startswith("ray::StageActor")]


def make_sources(folder: Path, sessions: int, bad: bool) -> Path:
    for index in range(sessions):
        for take in range(2):
            samples = noise(4.6 + 0.1 * index, 16_000, seed=10 * index + take)
            write(folder / f"session{index:02d}" / f"take{take}.wav", samples, 16_000)
    if bad:
        for kind in ("poison", "hang"):
            for number, name in enumerate((kind, "good")):
                write(folder / f"with_{kind}" / f"{name}.wav", noise(4.0, 16_000, seed=900 + number), 16_000)
    return folder


def by_path(corpus: Path) -> dict[str, str]:
    """{segment id: name of the recording it is from}, failing where an id occurs twice."""
    table = Corpus(corpus).index
    ids = table.column("segment_id").to_pylist()
    assert len(ids) == len(set(ids)), "a segment was committed twice"
    names = {row["source_id"]: Path(row["path"]).stem for row in Corpus(corpus).table("recordings").to_pylist()}
    return dict(zip(ids, (names[source] for source in table.column("source_id").to_pylist()), strict=True))


def quarantine_of(corpus: Path) -> list[dict[str, Any]]:
    return [row for file in Corpus(corpus).files("quarantine") for row in pq.ParquetFile(file).read().to_pylist()]


def errors(corpus: Path) -> list[str]:
    return [str(problem) for problem in fsck(corpus) if problem.severity == "error"]


def test_eight_kills_a_killer_and_a_hanger_change_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "20261123"))
    dice = random.Random(seed)
    sources = make_sources(tmp_path / "sources", sessions=9, bad=True)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert run_here(sources, unbroken) == 0

    plan = dice.sample(KILLS, len(KILLS)) + ["oldest actor"] * ACTORS
    settings = ("seconds=0.8", "timeout_s=4", "unit_s=16", 'actors={"trouble": 2}')
    told = [f"seed {seed}"]
    began = time.monotonic()
    process = start(sources, broken, *settings)

    def wait_for_an_actor() -> None:
        while process.poll() is None and not actors(process):
            time.sleep(POLL_S)

    try:
        for number, what in enumerate(plan):
            if what != "driver that starts":
                wait_for_an_actor()
            limits = {"driver that starts": (0.5, 3.0), "driver at work": (0.5, 6.0)}
            time.sleep(dice.uniform(*limits.get(what, (0.0, 2.5))))
            if what.endswith("actor"):
                wait_for_an_actor()
            if process.poll() is not None:
                pytest.fail("\n".join([f"the run ended before kill {number + 1}", *told, *process.communicate()]))
            if what.startswith("driver"):
                told.append(f"{time.monotonic() - began:.1f} s: {what}")
                assert not end(process), "workers outlived their driver"
                process = start(sources, broken, *settings)
            else:
                there = sorted(actors(process), key=lambda actor: (actor.started, actor.pid))
                victim = there[0] if what == "oldest actor" else dice.choice(there)
                told.append(f"{time.monotonic() - began:.1f} s: {what} {victim.title}")
                assert victim.kill(), told
        status, _, err = finish(process)
    finally:
        if process.poll() is None:
            end(process)
    told.append(f"{time.monotonic() - began:.1f} s: finished")
    print("\n".join(told))
    assert status == 0, (err, told)

    expected = {segment for segment, name in by_path(unbroken).items() if name not in ("poison", "hang")}
    assert set(by_path(broken)) == expected and len(expected) > 30, told
    assert errors(broken) == []
    quarantine = {Path(row["path"]).stem: row for row in quarantine_of(broken)}
    assert sorted(quarantine) == ["hang", "poison"], told
    assert all(row["attempts"] >= 3 and row["stage"] == "trouble" for row in quarantine.values())
    assert "worker died" in quarantine["poison"]["error"]
    assert "no answer within 4 s" in quarantine["hang"]["error"]
    assert not list((broken / "strikes").glob("*.json")), "what is committed needs no strikes any more"
    assert not list((broken / "tmp").glob("*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five sessions, and the corpus of an unbroken run."""
    folder = tmp_path_factory.mktemp("five")
    sources = make_sources(folder / "sources", sessions=5, bad=False)
    assert run_here(sources, folder / "unbroken") == 0
    return sources, folder / "unbroken"


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_full_disk_stops_with_one_line_and_is_gone_on_from(
    five: tuple[Path, Path],
    small_disk: Path,
    executor: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only over Ray a process of its own, and only for the disk that fills up half way: on one that is full at the start, Ray is
    not started, and to go on takes the same steps either way."""
    (sources, unbroken), broken = five, small_disk / "corpus"

    def run(executor: str) -> tuple[int, str, str]:
        status = chaos_run.main(str(sources), str(broken), f'executor="{executor}"')
        return status, *capfd.readouterr()

    full = small_disk / "full"
    with pytest.raises(OSError, match="No space"), full.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)
    capfd.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.engine.ray_engine.RayEngine", lambda *_: pytest.fail("Ray was started"))
        assert_said_plainly(*run(executor))
    full.unlink()
    assert_said_plainly(*(run("inline") if executor == "inline" else finish(start(sources, broken, 'executor="ray"'))))
    done = by_path(broken)
    assert 0 < len(done) < len(by_path(unbroken)), "the disk was to fill up half way"
    assert errors(broken) == [] and quarantine_of(broken) == []

    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    status, out, err = run("inline")
    assert status == 0, err
    assert json.loads(out.splitlines()[-1])["already_there"] > 0
    assert by_path(broken) == by_path(unbroken)
    assert fsck(broken) == [], "nothing half written is left"
    assert quarantine_of(broken) == []


def assert_said_plainly(status: int, out: str, err: str) -> None:
    assert status == 1, out
    assert "no space left" in err and "free some" in err
    assert len(err.splitlines()) == 1, err
