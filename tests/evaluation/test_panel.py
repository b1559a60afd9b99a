"""The panel: its cost counts every failure, the best checkpoint is linked, and a run ends only if the last is surely not better."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes.panel_parts import METRICS, Answer, Voice

from evaluation import panel
from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.panel import Judged, check, judge, judge_run, read_panels, reason_to_stop
from trainer.monitor.judging import judge_one

ITEMS = 6


@pytest.fixture(autouse=True)
def fake_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.metrics.METRICS", METRICS)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The output of a training: items, and three exported checkpoints."""
    held = tmp_path / "panel" / "held"
    (held / "clips").mkdir(parents=True)
    rows = []
    for number in range(ITEMS):
        soundfile.write(held / "clips" / f"{number}.wav", np.full(160, 0.1 + number / 100), 16_000)
        rows.append(
            {"id": str(number), "text": f"number {number}", "language_id": "en", "ref_audio": f"clips/{number}.wav"}
            | ({"fault": "early_stop"} if number == 5 else {"fault": "start_artifact"} if number == 4 else {})
        )
    (held / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (2, 4, 6):
        (tmp_path / "checkpoints" / f"step_{step:07d}").mkdir(parents=True)
    return tmp_path


Speak = Callable[[Mapping[int, Callable[[Item], Answer]]], dict[int, Voice]]


@pytest.fixture
def speak(monkeypatch: pytest.MonkeyPatch) -> Speak:
    """Set what each checkpoint says; return the systems by step."""

    def given(answers: Mapping[int, Callable[[Item], Answer]]) -> dict[int, Voice]:
        voices = {step: Voice(answer, str(step)) for step, answer in answers.items()}

        def opened(checkpoint: Path, recipe: str, device: str) -> Voice:
            assert recipe == "reference"
            return voices[int(checkpoint.name.removeprefix("step_"))]

        monkeypatch.setattr(panel, "_open", opened)
        return voices

    return given


def always(rate: float, cosine: float) -> Callable[[Item], Answer]:
    return lambda item: (rate, cosine)


def at(output: Path, step: int, **settings: Any) -> dict[str, Any]:
    return judge(output, output / "checkpoints" / f"step_{step:07d}", step, settings)


def test_the_cost_is_the_weighted_sum_of_its_parts(output: Path, speak: Speak) -> None:
    speak({2: always(0.2, 0.7)})
    figures = at(output, 2)["figures"]
    # One of six items stops early, one has a start artifact.
    wanted = {"words": 0.2, "voice": 0.3, "stop": 1 / 6, "start": 1 / 6}
    assert {name: figures[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)
    assert figures["cost"] == pytest.approx(0.2 + 0.3 + 0.5 / 6 + 0.25 / 6, abs=1e-4)
    other = at(output, 2, weights={"voice": 0, "stop": 2})["figures"]["cost"]
    assert other == pytest.approx(0.2 + 2 / 6 + 0.25 / 6, abs=1e-4)


@pytest.mark.parametrize("failure", ["limit", "error"])
def test_a_failed_take_costs_everything(output: Path, speak: Speak, failure: str) -> None:
    speak({2: lambda item: failure if item.name == "0" else (0.0, 1.0)})
    at(output, 2)
    (judged,) = read_panels(output)
    costs = sorted(judged.costs.values())
    assert costs[-1] == pytest.approx(2.75) and costs[:3] == pytest.approx([0, 0, 0], abs=1e-4)
    assert judged.figures["stop"] == pytest.approx(2 / 6)


def test_takes_that_failed_are_spoken_again(output: Path, speak: Speak) -> None:
    speak({2: lambda item: "error" if item.name in "012" else (0.1, 0.9)})
    assert at(output, 2)["figures"]["words"] > 0.5, "half of the takes is not more than half"
    speak({2: always(0.1, 0.9)})
    assert at(output, 2)["figures"]["words"] == pytest.approx(0.1, abs=1e-4)


def test_a_machine_that_fails_does_not_count_against_the_checkpoint(
    output: Path, speak: Speak, caplog: pytest.LogCaptureFixture
) -> None:
    speak({2: always(0.1, 0.9), 4: lambda item: "error" if item.name in "0123" else (0.1, 0.9), 6: always(0.2, 0.9)})
    at(output, 2)
    # What an earlier version wrote of such takes must not count either.
    left = output / "panel" / "step_0000004" / "panel.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    with pytest.raises(EvaluationError) as caught:
        at(output, 4)
    assert "step_0000004: 4 of 6 sentences could not be spoken (no voice today: 4); free the" in str(caught.value)
    assert "\n" not in str(caught.value) and not left.exists()
    request = {"output": str(output), "step": 4, "settings": {"judge": "evaluation.panel:judge"}}
    verdict = judge_one({**request, "checkpoint": str(output / "checkpoints" / "step_0000004")})
    assert verdict["error"].startswith("EvaluationError: step_0000004: 4 of 6") and "figures" not in verdict
    assert [one.step for one in judge_run(output)] == [2, 6] and "step_0000004 is not judged" in caplog.text


def test_the_best_is_linked_relatively_and_may_change(output: Path, speak: Speak) -> None:
    speak({2: always(0.3, 0.5), 4: always(0.1, 0.5), 6: always(0.2, 0.5)})
    assert [at(output, step)["best"] for step in (2, 4, 6)] == [2, 4, 4]
    assert (output / "best").readlink() == Path("checkpoints/step_0000004")
    (output / "checkpoints" / "step_0000004").rmdir()
    assert at(output, 6)["best"] == 6 and (output / "best").resolve().is_dir()


def test_judging_again_speaks_nothing(output: Path, speak: Speak) -> None:
    voices = speak({2: always(0.3, 0.5)})
    first = at(output, 2)
    assert at(output, 2) == first and len(voices[2].spoken) == ITEMS


def test_a_panel_looks_only_at_the_steps_before_it(output: Path, speak: Speak) -> None:
    speak({2: always(0.3, 0.5), 6: always(0.1, 0.5)})
    at(output, 6)
    assert at(output, 2)["best"] == 2


def test_judged_afterwards_the_same_checkpoint_is_best(output: Path, speak: Speak) -> None:
    voices = speak({2: always(0.3, 0.5), 4: always(0.1, 0.5), 6: always(0.2, 0.5)})
    at(output, 2)
    (output / "train.yaml").write_text("validation: {best: {every: 2, weights: {voice: 0.0}}}")
    judged = judge_run(output)
    assert [one.step for one in judged] == [2, 4, 6] and len(voices[2].spoken) == ITEMS
    assert judged[1].figures["cost"] == pytest.approx(0.1 + 0.5 / 6 + 0.25 / 6, abs=1e-4), "the run's own weights"
    assert (output / "best").readlink().name == "step_0000004"


def test_what_is_missing_is_told(output: Path, speak: Speak, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"weights: no part 'tone' of the panel's cost; known: words, voice"):
        check({"weights": {"tone": 1.0}})
    check({})
    with pytest.raises(EvaluationError, match=r"no list of items at .*; train with validation\.best"):
        judge_run(tmp_path / "nowhere")


def test_adapters_speak_with_the_model_that_they_were_trained_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, Any]] = []
    monkeypatch.setattr(panel, "open_system", lambda name, options: opened.append((name, options)))
    (tmp_path / "lora_config.json").write_text(json.dumps({"base_model": "/models/base", "lora_config": {}}))
    panel._open(tmp_path, "reference", "cpu")
    (tmp_path / "config.json").write_text("{}")
    panel._open(tmp_path, "plain", "cuda")
    assert opened == [
        ("checkpoint:/models/base", {"recipe": "reference", "device": "cpu", "retry": False, "lora": str(tmp_path)}),
        (f"checkpoint:{tmp_path}", {"recipe": "plain", "device": "cuda", "retry": False}),
    ]


def panels(costs: list[np.ndarray]) -> list[Judged]:
    return [
        Judged(
            step, f"step_{step}", {"cost": float(values.mean())}, {str(n): float(v) for n, v in enumerate(values)}, {}
        )
        for step, values in enumerate(costs, 1)
    ]


def test_a_run_ends_only_if_the_last_is_surely_not_better() -> None:
    base = np.linspace(0.2, 0.6, 40)
    settled = panels([base, base + 0.01, base + 0.03])
    assert reason_to_stop(settled, {"patience": 2, "margin": 0.02}).startswith("step 1 is the best by the panel")
    assert reason_to_stop(settled, {"patience": 3, "margin": 0.02}) == "", "too few panels"
    assert reason_to_stop(settled, {"patience": None}) == reason_to_stop([], {"patience": 1}) == ""
    rising = panels([base, base - 0.01, base - 0.02])
    assert reason_to_stop(rising, {"patience": 1}) == "", "the last is the best"
    # As bad on average, but with so much noise that the last may be better by far.
    assert reason_to_stop(panels([base, base]), {"patience": 1}) != "", "checkpoints that are alike"
    assert reason_to_stop(panels([base[:1], base[:1]]), {"patience": 1}) == "", "a single item"
    noise = np.where(np.arange(40) % 2, 0.5, -0.49)
    assert reason_to_stop(panels([base, base + noise]), {"patience": 1, "margin": 0.02}) == ""
    assert reason_to_stop(panels([base, base + noise]), {"patience": 1, "margin": 0.5}) != ""
