"""The page of runs: what it says, that it needs nothing from outside, and that a browser shows it without an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes.chromium import chromium_page
from toy_runs import Hum, toy_settings

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.metrics import METRICS, load_metrics
from evaluation.metrics.words import count_errors
from evaluation.report.drifts import drift_charts
from evaluation.report.page import write_report
from evaluation.report.worst import differences
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import table_of

TEXTS = ["good morning to all", "the <b>bold</b> & the brave", "please crash now", "a train at noon", "one more text"]
HEARD = {
    TEXTS[0]: "good morning to all",
    TEXTS[1]: "the bold and brave",
    TEXTS[3]: "a train noon",
    TEXTS[4]: "one more text",
}


def spoken(folder: Path, name: str, heard: dict[str, str]) -> Run:
    """Return a run whose error rates are those of given texts, without a recognizer."""
    system = Hum()
    items = [Item(text, "en", name=f"i{number}", list_name="mine") for number, text in enumerate(TEXTS)]
    run = create_run(folder / name, {**toy_settings(system), "name": name}, items, [0])
    generate(run, system)
    metrics = {metric.name: metric for metric in load_metrics(METRICS)}
    rows = []
    for item in run.items:
        if item.text in heard:
            counts = count_errors(re.sub(r"[^a-z ]", "", item.text).split(), heard[item.text].split())
            rows.append({"item_id": item.id, "seed": 0, **(counts or {})})
    table_of(run, metrics["words_clean"], metrics).add(rows)
    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    before = spoken(folder, "before", HEARD)
    after = spoken(folder, "after", HEARD | {TEXTS[4]: "none of it"})
    return write_report([before, after])


def test_the_page_needs_nothing_from_outside_and_escapes_texts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "the &lt;b&gt;bold&lt;/b&gt; &amp; the brave" in text
    assert "<b>bold</b>" not in text


def test_a_browser_shows_figures_worst_takes_and_answers(page: Path) -> None:
    with chromium_page() as shown:
        shown.goto(page.as_uri())
        body = shown.inner_text("body")
        assert "Compared with before" in body
        assert "the model crashed on two lines" in body
        worst = shown.inner_text("section.item >> nth=0")
        assert "please crash now" in worst  # a failed take is the worst
        assert shown.locator(".heard .missing", has_text="one more text").count() == 1
        assert shown.locator(".heard .added", has_text="none of it").count() == 1
        assert "Who recognized the words?" in body
        first = shown.locator(".player").first
        first.locator("button").click()
        shown.wait_for_selector(".player.playing")


def test_a_run_without_takes_is_told(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", {"system": {}}, [Item("Hello.", "en")], [0])
    with pytest.raises(EvaluationError, match="no takes yet"):
        write_report([run])


def test_missing_and_added_words_are_told_apart() -> None:
    assert differences(["a", "b", "c", "d"], ["a", "x", "c", "d", "e"]) == [
        ("same", "a"),
        ("missing", "b"),
        ("added", "x"),
        ("same", "c d"),
        ("added", "e"),
    ]


def test_a_long_take_has_its_figures_over_time(tmp_path: Path) -> None:
    run = spoken(tmp_path, "long", HEARD)
    metrics = {metric.name: metric for metric in load_metrics(METRICS)}
    first = run.items[0].id
    series = {"times": [2.5, 5.0, 7.5], "level_db": [-20.0, -21.0, None], "pitch_st": [0.0, 1.0, 2.0]}
    row = {"item_id": first, "seed": 0, **series, "rate_series": [4.0, 4.0, 4.0], "voice_series": [1.0, 0.9, 0.8]}
    table_of(run, metrics["drift"], metrics).add([row])
    charts = drift_charts(run, metrics)
    assert [chart["title"] for chart in charts] == ["Level", "Pitch", "Likeness to the start"]
    assert all('class="line' in chart["svg"] for chart in charts)
    assert "Long takes over time" in write_report([run]).read_text(encoding="utf-8")
