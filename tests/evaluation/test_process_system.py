"""A worker in another environment: its answers, its crashes, its silence, and what it prints besides."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.processes import PATIENCE_S, Process, gone

from evaluation.errors import EvaluationError, SpeakError, TimedOutError
from evaluation.items import Item
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.systems import SYSTEMS, open_system, systems
from evaluation.systems.base import Ask, Speech, System

WORKER = Path(__file__).resolve().parents[1] / "fakes" / "speech_worker.py"
Opener = Callable[..., System]


def command(*words: str) -> str:
    return "process:" + shlex.join([sys.executable, str(WORKER), *words])


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Open workers with arguments and options; all are closed at the end."""
    systems: list[System] = []

    def start(*words: str, **options: Any) -> System:
        systems.append(open_system(command(*words), options))
        return systems[-1]

    yield start
    for system in systems:
        system.close()


def ask(text: str, seed: int = 1, **fields: Any) -> Ask:
    return Ask(Item(text, "en", **fields), seed)


def said(system: System, text: str, seed: int = 1) -> Speech | Exception:
    (answer,) = system.speak([ask(text, seed)])
    return answer


def test_a_worker_is_given_the_item_and_its_figures_are_kept(opened: Opener, tmp_path: Path) -> None:
    system = opened()
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"not read by us")
    (answer,) = system.speak(
        [ask("say café", 3, reference=clip, reference_text="its words", instruction="slowly", name="n")]
    )
    assert isinstance(answer, Speech)
    assert (answer.rate, len(answer.samples), answer.wall_s) == (16_000, 8_000, 0.25)
    assert (answer.first_audio_s, answer.attempts, answer.reached_limit) == (0.1, 2, False)
    given = answer.notes["given"]
    assert given.pop("out").endswith(".wav") and given.pop("max_seconds") == pytest.approx(2 * 8 / 14 + 2)
    assert given == {
        "id": 1, "text": "say café", "language": "en", "reference": str(clip), "reference_text": "its words",
        "instruction": "slowly", "seed": 3,
    }  # fmt: skip
    assert system.name == "fake tts" and system.seeded
    described = system.describe()
    assert (described["kind"], described["version"], described["voice"]) == ("process", "9", "tone")


def test_prints_of_libraries_are_no_answers(opened: Opener) -> None:
    system = opened()
    answer = said(system, "noisy")
    assert isinstance(answer, Speech) and answer.attempts == 1 and answer.notes == {}
    assert answer.wall_s is not None and answer.wall_s > 0
    assert isinstance(said(system, "say on"), Speech)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("error", "the text is too strange"),
        ("nothing", "the worker answered without writing the audio"),
        ("broken", "cannot be read"),
        ("crash", "was killed by SIGSEGV; it said: traceback line | out of memory"),
        ("exit", "the worker ended with exit status 3"),
        ("deaf", "the worker closed its standard output"),
    ],
)
def test_a_text_that_fails_costs_that_text_only(opened: Opener, text: str, message: str) -> None:
    system = opened()
    before, failed, after = system.speak([ask("say one"), ask(text), ask("say one")])
    assert isinstance(before, Speech) and isinstance(after, Speech)
    assert isinstance(failed, SpeakError) and message in str(failed) and "\n" not in str(failed)
    assert np.array_equal(before.samples, after.samples)


def test_a_worker_that_hangs_is_killed_with_its_children(opened: Opener, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    system = opened("--starts", str(starts), timeout_s=3)
    group = int(starts.read_text())
    failed = said(system, "hang")
    assert isinstance(failed, TimedOutError) and str(failed) == "no answer in 3 s; the worker was killed"
    members = [Process(pid, started) for pid, started in processes_of(group)]
    assert not gone(members, PATIENCE_S)
    assert isinstance(said(system, "say again"), Speech)
    assert len(starts.read_text().split()) == 2


def processes_of(group: int) -> list[tuple[int, int]]:
    """(id, start time) of the living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append((int(entry.name), int(fields[19])))
    return found


def test_a_worker_that_only_crashes_ends_the_run_with_its_rows_kept(opened: Opener, tmp_path: Path) -> None:
    system = opened(most_crashes=3)
    items = [Item(f"crash {number}", "en") for number in range(5)]
    run = create_run(tmp_path / "run", {"system": system.describe()}, items, [0])
    with pytest.raises(EvaluationError, match=r"crashed 3 times and spoke nothing .*out of memory"):
        generate(run, system)
    assert [row["status"] for row in run.generated.rows()] == ["error", "error"]


def test_crashes_after_a_success_are_takes(opened: Opener, tmp_path: Path) -> None:
    system = opened(most_crashes=1)
    items = [Item("say this", "en"), *(Item(f"crash {number}", "en") for number in range(3))]
    run = create_run(tmp_path / "run", {"system": system.describe()}, items, [0])
    assert generate(run, system) == {"ok": 1, "error": 3}


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["--dies"], {}, "process: the worker ended with exit status 1; it said: no weights at /nowhere"),
        (["--never"], {"start_s": 1}, "was not ready"),
        ([], {"timeout": 1}, "process: unknown setting timeout; did you mean timeout_s?"),
    ],
)
def test_a_worker_that_cannot_be_used_is_one_line(words: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        open_system(command(*words), options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("process:", "the command is missing"),
        ("process:'open", "cannot be read"),
        ("process:/nowhere/python x", "/nowhere/python cannot be started"),
        ("official:/nowhere/python:x", "no Python at /nowhere/python; make one with: make upstream-venv"),
        (f"official:{sys.executable}:/nowhere", "no checkpoint at /nowhere"),
        ("proces:x", "did you mean process?"),
    ],
)
def test_a_wrong_specification_is_one_line(specification: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        open_system(specification)


def test_every_kind_and_option_is_described() -> None:
    kinds = {kind.usage.partition(":")[0]: kind for kind in systems()}
    assert kinds.keys() == SYSTEMS.keys()
    for kind in kinds.values():
        assert kind.words
        assert [name for name, _, words in kind.options if not words] == []
    assert ("cfg", 2.0, "Guidance.") in kinds["checkpoint"].options
    assert kinds["official"].usage == "official:PYTHON:CHECKPOINT"
