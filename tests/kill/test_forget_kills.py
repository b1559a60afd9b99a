"""`voxmill forget` is killed at every change that it makes on the disk. Resumed, it ends with the corpus of an unbroken run.

VOXMILL_KILL_ROUNDS: kills that are each followed by one unbroken run (VOXMILL_KILL_SEED: their places). Catalogs are left out
here: they are made of the units, and tests/voxmill/test_forget.py makes them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fakes.forgettable import SECRET, build, ids, left_of, tree
from fakes.forked_engine import FORK, die_at

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.corpus.tombstones import Tombstone, read_tombstones
from voxmill.forgetting import erase as steps
from voxmill.forgetting.plan import prints_of, tombstone_of
from voxmill.forgetting.scope import Request, choose

pytestmark = pytest.mark.kill

ROUNDS = int(os.environ.get("VOXMILL_KILL_ROUNDS", "4"))
NEVER = 10**9


@dataclass
class Case:
    """A corpus, what is to be forgotten of it, and what an unbroken run makes of it."""

    root: Path
    tombstone: Tombstone
    prints: list[tuple[str, bytes]]
    gone: set[str]
    others: dict[str, Any]
    expected: dict[str, Any]
    changes: int


def rows(root: Path, gone: set[str]) -> dict[str, Any]:
    """Everything that readers show of the other segments, with their audio, but not where it is."""
    corpus = Corpus(root)
    places = {"shard", "row", "duplicate_of", "duplicate_kind", "duplicate_group"}
    found: dict[str, Any] = {}
    for row in corpus.index.to_pylist():
        if row["segment_id"] not in gone:
            audio = bytes(corpus.audio_buffer(row["segment_id"])) if row["shard"] else None
            found[row["segment_id"]] = {k: v for k, v in row.items() if k not in places}, audio
    for kind in ("descriptions", "checks"):
        found[kind] = [row for row in corpus.annotations(kind).to_pylist() if row["segment_id"] not in gone]
    return found


def go_on(root: Path, case: Case, step: int = NEVER) -> int:
    """Do what `forget --yes` does, or `forget --resume` if it was begun, in a process that is killed at a change; its status."""

    def live() -> None:
        patched: Any = steps
        patched.build_catalog = patched.fsck = lambda *arguments, **options: ()
        if step == NEVER:
            count_changes(root.parent / "changes")
        die_at(step, root.parent / "kills")
        if not read_tombstones(root):
            steps.hide(root, case.tombstone, case.prints)
        steps.erase(root)
        os._exit(0)

    process = FORK.Process(target=live)
    process.start()
    process.join()
    return int(process.exitcode or 0)


def count_changes(notes: Path) -> None:
    """Write down how many changes this process makes, when it is done."""
    count, leave = [0], os._exit

    def counted(honest: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            return honest(*arguments, **options)

        return call

    for name in ("fsync", "replace", "link", "unlink", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))

    def told(status: int) -> None:
        notes.write_text(str(count[0]))
        leave(status)

    patched: Any = os
    patched._exit = told


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("forget") / "corpus"
    made = build(root)
    chosen = choose(root, Request(recording="a" * 64))
    prints = prints_of(root, chosen)
    tombstone = replace(tombstone_of(chosen, {"by": "recording", "sha256": "0"}, None, None), prints=len(prints))
    gone = set(ids(made["a"]))
    assert chosen.ids == gone and len(prints) == 4
    whole = shutil.copytree(root, root.with_name("whole"))
    case = Case(root, tombstone, prints, gone, rows(root, gone), {}, 0)
    assert go_on(whole, case) == 0
    case.expected = tree(whole)
    assert left_of(whole, SECRET.encode()) == [] and [str(p) for p in fsck(whole)] == []
    assert (
        rows(whole, gone) == case.others and set(Corpus(whole).index.column("segment_id").to_pylist()) & gone == set()
    )
    case.changes = int((root.parent / "changes").read_text())
    return case


def check(root: Path, case: Case, thorough: bool = True) -> None:
    """What is true at any time: no reader shows half of it, and all else is there once."""
    there = Corpus(root).index.column("segment_id").to_pylist()
    assert case.gone.isdisjoint(there) or not read_tombstones(root)
    assert len(there) == len(set(there)) and set(case.others) - {"descriptions", "checks"} == set(there) - case.gone
    if thorough:
        assert rows(root, case.gone) == case.others


def test_kills_one_after_the_other_at_every_change(case: Case, tmp_path: Path) -> None:
    root = shutil.copytree(case.root, tmp_path / "corpus")
    step, kills = 1, 0
    while (status := go_on(root, case, step)) != 0:
        assert status == -signal.SIGKILL
        check(root, case, thorough=kills % 8 == 0)
        kills += 1
        # A change that is made again before the next one: the step after it.
        step += 1
    assert kills > 20
    assert go_on(root, case) == 0 and tree(root) == case.expected
    assert fsck(root) == [] and left_of(root, SECRET.encode()) == []


def test_a_kill_anywhere_and_one_unbroken_run_give_the_same_bytes(case: Case, tmp_path: Path) -> None:
    seed = int(os.environ.get("VOXMILL_KILL_SEED", random.randrange(10**6)))
    places = random.Random(seed).sample(range(1, case.changes), min(ROUNDS, case.changes - 1))
    for number, step in enumerate(places):
        root = shutil.copytree(case.root, tmp_path / f"killed{number}")
        assert go_on(root, case, step) == -signal.SIGKILL, (seed, step)
        check(root, case)
        errors = [str(p) for p in fsck(root, repair=number % 2 == 0) if p.severity == "error"]
        assert errors == [], (seed, step)
        check(root, case)
        assert go_on(root, case) == 0 and tree(root) == case.expected, (seed, step)
        assert fsck(root) == [], (seed, step)
        shutil.rmtree(root)
