"""The proof's split keeps unseen sentences unseen, its steps are made once, and its figures count failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.result.__main__ import run
from benchmarks.result.judging import by_language, first
from benchmarks.result.learning import Plan
from benchmarks.result.recordings import in_share, reference_of
from benchmarks.result.report import between_marks, tables, verdict
from benchmarks.result.split import Prompt, is_near_copy, may_be_judged, split, within
from benchmarks.result.steps import ROOT, Steps, run_for, trained_s
from evaluation.items import Item
from pipeline.text.compare import edit_distance

VOCABULARY = ("please", "enter", "your", "number", "again", "to", "call", "press", "one", "two", "the", "extension")
WORDS = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=8)


def prompt(name: str, words: str, language: str = "en", seconds: float = 2.0) -> Prompt:
    return Prompt(name, language, f"voice-{language}", words, words, seconds)


PROMPTS = st.lists(WORDS, min_size=1, max_size=30).map(
    lambda texts: [prompt(f"p{number:02}", " ".join(words)) for number, words in enumerate(texts)]
)


@given(PROMPTS, st.integers(1, 6), st.integers(0, 5))
def test_no_held_out_sentence_or_near_copy_is_heard(prompts: list[Prompt], count: int, seed: int) -> None:
    parts = split(prompts, count, seed)
    for heard in parts.training:
        for held in parts.held_out:
            assert heard.words != held.words
            assert f" {held.words} " not in f" {heard.words} "
            assert not is_near_copy(heard.words, held.words)
    names = [p.name for part in (parts.training, parts.held_out, parts.near_copies) for p in part]
    assert sorted(names) == sorted(p.name for p in prompts), "every prompt is in exactly one part"
    assert len({p.words for p in parts.held_out}) == len(parts.held_out) <= count
    assert all(may_be_judged(p) for p in parts.held_out)


@given(PROMPTS, st.randoms(use_true_random=False))
def test_the_choice_depends_on_the_sentences_and_the_seed_alone(prompts: list[Prompt], dice: Any) -> None:
    shuffled = list(prompts)
    dice.shuffle(shuffled)
    assert {p.name for p in split(prompts, 3).held_out} == {p.name for p in split(shuffled, 3).held_out}


def test_another_seed_holds_out_other_sentences() -> None:
    prompts = [prompt(f"p{n}", f"{a} {b} {c}") for n, (a, b, c) in enumerate(_triples(60))]
    chosen = [{p.name for p in split(prompts, 10, seed).held_out} for seed in (1, 2)]
    assert chosen[0] != chosen[1]
    assert all(len(names) == 10 for names in chosen)


def _triples(count: int) -> list[tuple[str, str, str]]:
    return [(f"first{n}", f"second{n * 7 % 60}", f"third{n * 11 % 60}") for n in range(count)]


@given(PROMPTS, st.floats(0.01, 0.5))
def test_a_part_of_the_recordings_is_no_longer_than_asked(prompts: list[Prompt], minutes: float) -> None:
    part = within(prompts, minutes, 1)
    assert sum(p.seconds for p in part) <= minutes * 60
    assert set(part) <= set(within(prompts, None, 1)) == set(prompts)
    assert sum(p.seconds for p in part) > minutes * 60 - 2.0 or len(part) == len(prompts), "no room is left unused"


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ("please try again", "please try again"),
        ("that is wrong please try again", "please try again"),
        ("press two to delete this message", "press seven to delete this message"),
        ("the conference is locked", "conference the is locked"),
        ("la conferenza è bloccata", "la conferenza e bloccato"),
    ],
)
def test_near_copies_are_found(words: str, held: str) -> None:
    assert is_near_copy(words, held)


@pytest.mark.parametrize(
    ("words", "held"),
    [
        ("please", "please try again"),
        ("please enter your password", "please try again"),
        ("press one", "press one to hear the menu"),
        ("you have been disconnected", "the number is not in service"),
    ],
)
def test_sentences_of_shared_words_are_no_copies(words: str, held: str) -> None:
    assert not is_near_copy(words, held)


@given(st.text("abc", max_size=6), st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_edits_are_a_distance(one: str, two: str, three: str) -> None:
    assert edit_distance(one, two) == edit_distance(two, one)
    assert (edit_distance(one, two) == 0) == (one == two)
    assert edit_distance(one, three) <= edit_distance(one, two) + edit_distance(two, three)
    assert abs(len(one) - len(two)) <= edit_distance(one, two) <= max(len(one), len(two))


def test_a_reference_is_another_training_sentence_of_the_voice() -> None:
    held = prompt("m", "the held out sentence")
    training = [
        prompt("a", "too short", seconds=1.0),
        prompt("b", "an able sentence", seconds=3.0),
        prompt("z", "another able sentence", seconds=3.0),
        prompt("n", "una frase", "it", seconds=3.0),
    ]
    assert reference_of(held, training).name == "z"
    assert reference_of(prompt("zz", "last"), training).name == "b"


def test_finished_steps_are_not_repeated_and_a_failed_one_is(tmp_path: Path) -> None:
    calls: list[str] = []
    broken = True

    def codec() -> dict[str, int]:
        calls.append("codec")
        if broken:
            raise RuntimeError("killed")
        return {"steps": 3}

    make = {"recordings": lambda: calls.append("recordings"), "codec": codec, "judge": lambda: calls.append("judge")}
    with pytest.raises(RuntimeError):
        run(Steps(tmp_path / "steps.json"), make, "judge")
    broken = False
    run(Steps(tmp_path / "steps.json"), make, "codec")
    assert calls == ["recordings", "codec", "codec"], "judge comes after --until codec"
    run(Steps(tmp_path / "steps.json"), make, "judge")
    assert calls == ["recordings", "codec", "codec", "judge"]
    kept = json.loads((tmp_path / "steps.json").read_text())
    assert kept["codec"]["steps"] == 3
    assert all(step["minutes"] >= 0 and step["machine"] for step in kept.values()), "every figure with time and machine"


def test_a_finished_step_is_not_taken_for_one_with_other_options(tmp_path: Path) -> None:
    make: dict[str, Callable[[], dict[str, Any]]] = {
        "recordings": lambda: {"prompts": 3},
        "judge": lambda: {"figures": {}},
    }
    run(Steps(tmp_path / "steps.json"), make, "judge", {"judge": {"judge-most": 1, "shares": (0.5,)}})
    run(Steps(tmp_path / "steps.json"), make, "judge", {"judge": {"judge-most": 1, "shares": (0.5,)}})
    with pytest.raises(ValueError, match="step judge was done with judge-most 1, now None"):
        run(Steps(tmp_path / "steps.json"), make, "judge", {"judge": {"judge-most": None, "shares": (0.5,)}})
    run(Steps(tmp_path / "steps.json"), make, "recordings", {"judge": {"judge-most": None, "shares": (0.5,)}})


def test_training_ends_when_its_time_is_over_and_counts_earlier_runs(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "speed/step_s": 2.5}\n{"step": 2, "speed/step_s": 1.5}\n{"st')
    assert trained_s(tmp_path) == 4.0
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=dict(os.environ))
    run_for([sleeper], lambda: trained_s(tmp_path), 4.0, pause_s=0.01)
    assert sleeper.returncode is not None


def test_a_command_that_is_ended_ends_its_trainings() -> None:
    code = """
import subprocess, sys
from benchmarks.result.steps import exit_on_sigterm, run_for
exit_on_sigterm()
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
# Within the run: a signal between the start of a process and the run would find nobody to end it.
run_for([sleeper], lambda: print(sleeper.pid, flush=True) or 0.0, 60.0, pause_s=0.01)
"""
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert command.stdout
    sleeper = int(command.stdout.readline())
    command.send_signal(signal.SIGTERM)
    assert command.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(sleeper, 0)


def test_a_training_that_fails_is_an_error(tmp_path: Path) -> None:
    failing = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(subprocess.CalledProcessError):
        run_for([failing], lambda: 0.0, 60.0, pause_s=0.01)


def test_a_budget_is_spent_once() -> None:
    plan = Plan.of(90, (0.25, 0.5), gpu=False)
    assert 3 * plan.learn_s == pytest.approx(0.75 * 90 * 60)
    assert Plan.of(90, (), gpu=False).learn_s == pytest.approx(0.75 * 90 * 60)


def test_failed_takes_count_with_all_words_wrong() -> None:
    items = [Item("one two three", "en", name="a"), Item("four five", "en", name="b"), Item("uno due", "it", name="c")]
    keys = [(item.id, 0) for item in items]
    takes = {keys[0]: {"status": "ok"}, keys[1]: {"status": "error"}, keys[2]: {"status": "ok"}}
    words = {keys[0]: {"word_errors": 1, "words": 3}, keys[2]: {"word_errors": 0, "words": 2}}
    margins = {keys[0]: {"own": 0.8, "others": 0.5, "margin": 0.3}}
    found = by_language(items, takes, words, margins)
    assert {name: figure for name, figure in found["en"].items() if not name.endswith(("_low", "_high"))} == {
        "items": 2, "failed": 1, "words": 5, "wer": 3 / 5, "own": 0.8, "others": 0.5, "margin": 0.3,
    }  # fmt: skip
    assert found["it"]["wer"] == 0.0


def test_a_run_of_one_voice_has_no_margin_and_an_unheard_take_counts_with_all_words() -> None:
    items = [Item(f"one two {n}", "en", name=str(n)) for n in range(4)]
    keys = [(item.id, 0) for item in items]
    words: dict[Any, dict[str, Any]] = {key: {"word_errors": 0, "words": 3} for key in keys[1:]}
    words[keys[0]] = {"word_errors": None, "words": None}
    margins = {key: {"own": None, "others": None, "margin": None} for key in keys}
    found = by_language(items, {key: {"status": "ok"} for key in keys}, words, margins)["en"]
    assert found["wer"] == 3 / 12 and "margin" not in found and "own" not in found
    line = verdict({"human": {"held_out": {"en": found}}, "model/step_1": {"held_out": {"en": found}}})
    assert "likeness" not in line and "25.0%" in line


def test_some_sentences_of_each_language_are_judged_on_the_way() -> None:
    items = [Item(f"sentence {n}", "en" if n % 3 else "it") for n in range(12)]
    chosen = first(items, 2)
    assert [item.language for item in chosen] == ["it", "en", "en", "it"]
    assert first(items, None) == items


def test_the_verdict_is_that_of_unseen_sentences() -> None:
    def lists(unseen: float, seen: float, margin: float) -> dict[str, Any]:
        row = {"items": 2, "failed": 0, "words": 10, "margin": margin}
        return {"held_out": {"en": {**row, "wer": unseen}}, "seen": {"en": {**row, "wer": seen}}}

    figures = {
        "human": lists(0.05, 0.05, 0.4),
        "model/step_1": lists(0.01, 0.1, 0.3),
        "model/step_2": lists(0.28, 0.2, 0.1),
    }
    line = verdict(figures)
    assert "step_2" in line and "28.0%: " not in line
    assert "WER 28.0% over a floor of 5.0%: reached" in line
    assert "not reached (+0.2)" in line


def test_the_tables_of_a_run_replace_those_of_another(tmp_path: Path) -> None:
    done = {"prepare": {"minutes": 3.0, "machine": "two cores", "kept": {"en": {"segments": 4}}}}
    page = between_marks("before\n<!-- result -->\nold\n<!-- end of result -->\nafter\n", tables(tmp_path, done))
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
    assert "| prepare | 3.0 | kept en: segments: 4 | two cores |" in page
    assert between_marks(page, "new") == between_marks(between_marks(page, "other"), "new")


@given(st.text(min_size=1), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_smaller_part_of_the_data_lies_within_a_larger_one(segment: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert in_share(segment, large) or not in_share(segment, small)
    assert in_share(segment, 1.0)
