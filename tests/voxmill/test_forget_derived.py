"""`voxmill forget`: kills between a corpus and its synthetic speech, moved and further ones, late commits, and sessions."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes.forgettable import FINGERPRINT, SECRET, build, content, decoupled, left_of, voice
from typer.testing import CliRunner

from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.locks import run_at_work
from catalogs.corpus.tombstones import ERASED, HIDDEN, read_tombstones, write_tombstone
from catalogs.query.views import build_catalog, query
from voxmill import forget, resume_forgetting
from voxmill.cli import app
from voxmill.forgetting.erase import hide_locked
from voxmill.forgetting.plan import tombstone_of
from voxmill.forgetting.scope import ForgetError, Request, choose


@dataclass
class Made:
    """A corpus, with its corpus of synthetic speech beside it."""

    root: Path
    units: dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("forget") / "corpus"
    units = build(root)
    decoupled(root.with_name("corpus-decoupled"), units)
    build_catalog(root)
    return Made(root, units)


@pytest.fixture
def made(original: Made, tmp_path: Path) -> Made:
    root = shutil.copytree(original.root, tmp_path / "corpus")
    shutil.copytree(original.root.with_name("corpus-decoupled"), tmp_path / "corpus-decoupled")
    return Made(root, original.units)


class KilledError(BaseException):
    """In place of a kill."""


def stop(*arguments: Any, **options: Any) -> Any:
    """Stand for a function before which the process is killed."""
    raise KilledError


def states(made: Made) -> list[list[str]]:
    """The states of the tombstones of the corpus and of that of synthetic speech."""
    derived = made.root.parent / "corpus-decoupled"
    return [[one.state for one in read_tombstones(root)] for root in (made.root, derived) if root.exists()]


def test_a_kill_between_the_corpora_leaves_the_corpus_hidden_and_is_resumed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_first(root: Path, *arguments: Any) -> None:
        hide_locked(root, *arguments) if root == made.root else stop()

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr("voxmill.forgetting.forget.hide_locked", only_first)
        forget(made.root, recording=content("a"), yes=True)
    assert states(made) == [[HIDDEN], []]
    with pytest.raises(ForgetError, match="--resume"):
        forget(made.root, recording=content("a"), yes=True)
    assert resume_forgetting(made.root) == [] and states(made) == [[ERASED], [ERASED]]
    assert (
        left_of(made.root, SECRET.encode()) == left_of(made.root.with_name("corpus-decoupled"), SECRET.encode()) == []
    )


def test_moved_and_lost_corpora_of_synthetic_speech(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr("voxmill.forgetting.forget.erase", stop)
        forget(made.root, recording=content("a"), yes=True)
    assert read_tombstones(made.root)[0].derived == ("../corpus-decoupled",)
    (tmp_path / "moved").mkdir()
    shutil.move(made.root, tmp_path / "moved" / "corpus")
    moved = Made(tmp_path / "moved" / "corpus", made.units)
    (problem,) = resume_forgetting(moved.root)
    assert "moved/corpus-decoupled was made of" in problem and states(moved) == [[ERASED]]
    told = CliRunner().invoke(app, ["forget", str(moved.root), "--resume"])
    assert told.exit_code == 1 and "is not there" in told.output and "nothing is left" not in told.output
    voices = Path(shutil.move(tmp_path / "corpus-decoupled", tmp_path / "voices"))
    told = CliRunner().invoke(app, ["forget", str(moved.root), "--resume", "--derived", str(voices)])
    assert told.exit_code == 0, told.output
    assert left_of(voices, SECRET.encode()) == [] and [one.state for one in read_tombstones(voices)] == [ERASED]
    assert read_tombstones(moved.root)[0].derived == (str(voices),) and resume_forgetting(moved.root) == []


def test_a_corpus_of_synthetic_speech_that_is_named_later(made: Made) -> None:
    voices = Path(shutil.move(made.root.with_name("corpus-decoupled"), made.root.with_name("voices")))
    forget(made.root, recording=content("a"), yes=True)
    assert left_of(voices, SECRET.encode()) != []
    plan = forget(made.root, recording=content("a"), derived=[voices])
    assert [part.corpus for part in plan.corpora] == [str(voices)] and read_tombstones(voices) == []
    assert forget(made.root, recording=content("a"), derived=[voices], yes=True).problems == ()
    assert left_of(voices, SECRET.encode()) == [] and read_tombstones(made.root)[0].derived == ("../voices",)
    with pytest.raises(ForgetError, match="nothing in what --derived names"):
        forget(made.root, recording=content("a"), derived=[voices], yes=True)


def test_what_was_committed_since_the_tombstone_is_erased_too(made: Made) -> None:
    chosen = choose(made.root, Request(recording=content("a")))
    write_tombstone(made.root, tombstone_of(chosen, {"by": "recording", "sha256": "0"}, None, None))
    rows = [{**row, "segment_id": f"late{number}"} for number, row in enumerate(made.units["a"].rows)]
    late = dataclasses.replace(made.units["a"], unit_id="2" * 16, generation=9, rows=rows, references=())
    commit_unit(made.root, late)
    assert resume_forgetting(made.root) == [] and left_of(made.root, SECRET.encode()) == []
    assert query(made.root, f"from segments where text like '{SECRET}%'")[1] == []


def test_nothing_is_committed_between_the_plan_and_the_tombstone(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def looked(root: Path, *arguments: Any) -> Any:
        held.append(run_at_work(made.root) and run_at_work(made.root.with_name("corpus-decoupled")))
        return choose(root, *arguments)

    monkeypatch.setattr("voxmill.forgetting.forget.choose", looked)
    forget(made.root, recording=content("a"))
    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr("voxmill.forgetting.forget.hide_locked", stop)
        forget(made.root, recording=content("a"), yes=True)
    assert held == [False, True] and not run_at_work(made.root)


def test_a_session_is_its_own_parts_and_no_other_session(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    names = ["call", "call#2", "call#3", "call#3#", "call#1", "call#1#2", "caller"]
    for letter, name in zip("abcdefg", names, strict=True):
        unit = voice(letter, 1)
        for row in (*unit.rows, *unit.recordings):
            row["session_id"] = name  # type: ignore[index]
        commit_unit(root, dataclasses.replace(unit, sessions=(name,), references=()))
    found = {name: forget(root, session=name).corpora[0].sessions for name in ("call", "call#1", "caller")}
    assert found == {"call": ("call", "call#2", "call#3#"), "call#1": ("call#1", "call#1#2"), "caller": ("caller",)}
    told = CliRunner().invoke(app, ["forget", str(root), "--session", "call"])
    assert "3 sessions: call, call#2, call#3#" in told.output
