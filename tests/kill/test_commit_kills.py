"""The driver and the actor are killed at random points of writing and linking units; in the end the corpus is whole.

VOXMILL_KILL_ROUNDS: number of kills (each at another point, from the seed VOXMILL_KILL_SEED).
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.engine_stages import DiesWriting, TroubleConfig, session
from fakes.forked_engine import run

from catalogs.corpus.commit import UnitContent, committed_units
from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from pipeline.engine.api import SessionDone, UnitWritten
from pipeline.records import Session

pytestmark = pytest.mark.kill

ROUNDS = int(os.environ.get("VOXMILL_KILL_ROUNDS", "12"))
MOST, EACH = 5, 8
"""Killed runs into one corpus, and recordings that come with each: two units."""
RECORDINGS = (MOST + 1) * EACH


def segments(root: Path) -> list[str]:
    found: list[str] = Corpus(root).index.column("segment_id").to_pylist()
    return sorted(found)


def test_kills_in_the_actor_and_in_linking_lose_and_double_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("VOXMILL_KILL_SEED", random.randrange(10**6)))
    dice = random.Random(seed)
    assert run(tmp_path / "undisturbed", RECORDINGS) == 0
    expected = segments(tmp_path / "undisturbed")
    assert len(expected) == 2 * RECORDINGS
    notes, corpus = tmp_path / "kills", 0
    notes.touch()
    while (kills := len(notes.read_text().split())) < ROUNDS:
        root, told = tmp_path / f"killed{corpus}", [f"seed {seed}"]
        corpus += 1
        # Some kills before the run that is left alone: each leaves what the next one finds.
        for part in range(1, dice.randint(1, MOST) + 1):
            victim, repair = dice.choice(["driver", "driver", "actor"]), dice.random() < 0.3
            # Of about as many changes that each makes for two units.
            step = dice.randint(1, 14 if victim == "driver" else 30)
            status = run(root, part * EACH, victim, step)
            told.append(f"{victim} at {step}: {status}, then {len(committed_units(root))} units, repair {repair}")
            assert status in ((0, -signal.SIGKILL) if victim == "driver" else (0,)), told
            assert [str(problem) for problem in fsck(root, repair=repair) if problem.severity == "error"] == [], told
            there = segments(root)
            assert len(there) == len(set(there)) and set(there) <= set(expected), told
        assert run(root, RECORDINGS) == 0, told
        assert segments(root) == expected, told
        fsck(root, repair=True)
        assert fsck(root) == [], told
        print(f"{kills} kills before", *told, sep="\n")


@pytest.mark.slow
def test_over_ray_a_unit_whose_writer_dies_is_written_by_another(ray_node: None, tmp_path: Path) -> None:
    from pipeline.engine.ray_engine import RayEngine
    from pipeline.engine.worker import StageGroup, StageSpec

    groups = [StageGroup((StageSpec("fakes.engine_stages:Trouble", TroubleConfig()),))]
    engine = RayEngine(groups, tmp_path / "marks", tmp_path / "strikes", output=DiesWriting(tmp_path))

    def sessions() -> Iterator[Session]:
        return (session(name, "a.wav", folder=tmp_path) for name in ("s0", "s1", "s2"))

    done, records = [], []
    try:
        for event in engine.run(sessions()):
            if isinstance(event, SessionDone):
                done.append(event.session.session_id)
                if len(done) == 2:
                    engine.write(UnitContent("unit", "fp", sorted(done), (), ()))
            if isinstance(event, UnitWritten):
                records.append(event.record)
    finally:
        engine.close()
    assert sorted(done) == ["s0", "s1", "s2"] and not list(tmp_path.glob("strikes/*"))
    assert [record["made"] for record in records] == [sorted(done[:2])]
