"""The page of a listening test in a real browser, from file://: by keyboard, resumed, exported and read back."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fakes.chromium import chromium
from listening_browser import CONTRAST, NAMED, at, downloaded, hear, level, opened, start, stored
from listening_panel import answer_sheet, make_items, make_run, read_key, write_sheets

from evaluation.items import Item
from evaluation.listen.make import make_test
from evaluation.listen.read import read_answers
from evaluation.listen.settings import ListenSettings
from evaluation.listen.tables import markdown
from evaluation.runs.folder import Run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BARE: dict[str, Any] = {"training": 0, "attention": 0, "gold": False, "headphone_trials": 0, "sessions": 2}
"""No checks."""
POINTS = {"good-system": 5, "poor-system": 2}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return make_items(tmp_path_factory.mktemp("clips"), 5, human=True, reference=True)


@pytest.fixture(scope="module")
def runs(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    return [make_run(root / name, items, name, 100 * number) for number, name in enumerate(POINTS)]


def digits(trial: dict[str, Any], key: dict[str, Any]) -> str:
    """The keys by which a good listener answers a trial."""
    row = key["trials"][trial["id"]]
    if "right" in row:
        return str(row["right"] + (2 if trial["layout"] == "prefer" else 0))
    return str(POINTS[row["systems"][0]])


def sessions(page: Page) -> list[list[dict[str, Any]]]:
    found: list[list[dict[str, Any]]] = page.evaluate(
        "() => JSON.parse(document.querySelector('#data').textContent).sessions"
    )
    return found


def test_a_session_by_keyboard_is_resumed_exported_and_read_back(
    browser: Browser, runs: list[Run], tmp_path: Path
) -> None:
    settings = ListenSettings(
        items=3, sessions=4, training=1, attention=1, headphone_trials=1, tone_s=0.1, contact="lab@example.org"
    )
    made = make_test(runs, tmp_path / "test", settings)
    key = read_key(tmp_path / "test")
    context = browser.new_context()
    with opened(context, made.page) as page:
        plan = sessions(page)[1]
        total = len(plan)
        assert total == 7
        assert page.is_disabled("#begin")
        start(page, 2)
        level(page)
        for position, trial in enumerate(plan, 1):
            at(page, position, total)
            choices = page.locator("input[type=radio]")
            assert choices.count() == {"tones": 3, "prefer": 3}.get(trial["layout"], 5)
            assert page.locator("fieldset:disabled input").count() == choices.count() and page.is_disabled("#next")
            page.keyboard.press("1")
            page.keyboard.press("Enter")
            assert page.locator("input:checked").count() == 0
            hear(page)
            assert page.locator("fieldset:disabled").count() == 0 and page.is_disabled("#next")
            page.keyboard.press(digits(trial, key))
            assert page.locator("input:checked").count() == 1 and page.is_enabled("#next")
            if position == 4:
                stored(context, made.page, position - 1)
                page.reload()
                page.wait_for_selector("#begin")
                assert page.input_value("#number") == "2" and page.inner_text("#begin") == "Continue at 4 of 7"
                start(page, 2)
                at(page, 4, total)
                hear(page)
                page.keyboard.press(digits(trial, key))
            page.keyboard.press("Enter")
        page.wait_for_selector("#json")
        assert "lab@example.org" in page.inner_text("main")
        exported = downloaded(page, "#json", tmp_path)
        table = downloaded(page, "#csv", tmp_path)
        stored(context, made.page, total)
        page.reload()
        page.wait_for_selector("#begin")
        start(page, 2)
        page.wait_for_selector("#json")
        assert downloaded(page, "#json", tmp_path / "again").read_bytes() == exported.read_bytes()
    context.close()
    answers = json.loads(exported.read_text())
    assert (
        answers["finished"]
        and answers["listener"] == 2
        and [a["trial"] for a in answers["answers"]] == answers["order"]
    )
    assert "user" not in exported.read_text().lower()
    assert all(answer["seconds"] > 0 and set(answer["plays"].values()) == {1} for answer in answers["answers"])
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], float(row["score"])) for row in rows] == [
        (answer["trial"], next(iter(answer["scores"].values()))) for answer in answers["answers"]
    ]
    others = [
        answer_sheet(key, n, lambda trial, scale, rng: POINTS[trial["systems"][0]] - rng.randint(0, 1))
        for n in (1, 3, 4)
    ]
    found = read_answers(tmp_path / "test", [exported, *write_sheets(tmp_path / "others", others)], draws=300)
    assert not found.faults and not found.exclusions and found.counted == 4 and not found.incomplete
    mine = [row for row in found.rows if row.listener.startswith("2-")]
    assert len(mine) == 3 and all(row.score == POINTS[row.systems[0]] for row in mine)
    (gap,) = found.differences["naturalness"].values()
    # All agree, but three items do not tell two systems apart: six of them, and six listeners, would.
    assert 2 <= gap.mean <= 4 and gap.crossed and gap.crossed[0] < 0 < gap.mean < gap.crossed[1] <= 4
    assert gap.verdict == "not told apart"
    assert "| good-system over poor-system |" in markdown(found)


def test_several_questions_are_answered_by_digits_in_turn(browser: Browser, runs: list[Run], tmp_path: Path) -> None:
    scales: Any = ("naturalness", "similarity", "instruction")
    made = make_test(runs, tmp_path / "test", ListenSettings(items=1, scales=scales, show_text=True, **BARE))
    context = browser.new_context()
    with opened(context, made.page) as page:
        start(page, 1)
        level(page)
        at(page, 1, 1)
        assert "A low voice." in page.inner_text("main") and "This is sentence number" in page.inner_text("main")
        assert page.locator(".play").count() == 2
        page.locator(".play").nth(1).click()
        page.wait_for_selector(".play.heard")
        assert page.locator("fieldset:disabled").count() == 3
        page.locator(".play").nth(0).click()
        page.wait_for_selector("fieldset:enabled")
        page.locator("input[type=radio]:enabled").nth(2).focus()
        for digit in "425":
            assert page.is_disabled("#next")
            page.keyboard.press(digit)
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        answers = json.loads(downloaded(page, "#json", tmp_path).read_text())
    context.close()
    assert answers["answers"][0]["scores"] == {"naturalness": 4, "similarity": 2, "instruction": 1}


@pytest.mark.parametrize(("kind", "key", "score"), [("cmos", "7", 3), ("ab", "1", -1), ("abx", "2", 0)])
def test_comparisons(browser: Browser, runs: list[Run], tmp_path: Path, kind: Any, key: str, score: int) -> None:
    embed = kind != "ab"
    made = make_test(runs, tmp_path / "test", ListenSettings(kind=kind, items=1, embed=embed, **BARE))
    context = browser.new_context()
    with opened(context, made.page) as page:
        start(page, 1)
        level(page)
        at(page, 1, 1)
        assert page.locator(".play").count() == (3 if kind == "abx" else 2)
        hear(page)
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        exported = downloaded(page, "#json", tmp_path)
    context.close()
    assert list(json.loads(exported.read_text())["answers"][0]["scores"].values()) == [score]
    found = read_answers(tmp_path / "test", [exported], draws=50)
    (one,) = found.versus.values()
    assert (one.wins, one.ties, one.losses).count(1) == 1 and one.ties == (score == 0)
    row = found.rows[0]
    better = row.systems[1] if score > 0 else row.systems[0]
    assert score == 0 or (one.wins == 1) == (min(row.systems) == better)


def test_mushra_by_keyboard(browser: Browser, runs: list[Run], tmp_path: Path) -> None:
    made = make_test(runs, tmp_path / "test", ListenSettings(kind="mushra", items=1, **BARE))
    context = browser.new_context()
    with opened(context, made.page) as page:
        start(page, 1)
        level(page)
        at(page, 1, 1)
        assert page.locator("input[type=range]:disabled").count() == 5
        hear(page)
        for number in range(1, 6):
            page.wait_for_selector("input[type=range]:enabled")
            assert page.is_disabled("#next")
            page.keyboard.press(str(number))
            page.keyboard.press("End" if number == 1 else "Home")
            for _ in range(number):
                page.keyboard.press("ArrowRight")
        page.wait_for_selector("#next:enabled")
        page.keyboard.press("Enter")
        exported = downloaded(page, "#json", tmp_path)
    context.close()
    answer = json.loads(exported.read_text())["answers"][0]
    assert [answer["scores"][clip] for clip in answer["clips"]] == [100, 2, 3, 4, 5]
    found = read_answers(tmp_path / "test", [exported], draws=50, keep=["reference"])
    assert set(found.opinions["quality"]) == {*POINTS, "human", "anchor-3500", "anchor-7000"}


def test_pause_and_continue_on_another_computer(browser: Browser, runs: list[Run], tmp_path: Path) -> None:
    made = make_test(runs, tmp_path / "test", ListenSettings(items=2, **BARE))
    (tmp_path / "other.json").write_text('{"test": "another", "answers": []}')
    context = browser.new_context()
    with opened(context, made.page) as page:
        start(page, 1)
        level(page)
        at(page, 1, 2)
        hear(page)
        page.keyboard.press("3")
        page.keyboard.press("Enter")
        at(page, 2, 2)
        page.click("#pause")
        part = downloaded(page, "#part", tmp_path)
        page.keyboard.press("Escape")
        page.click("#go-on")
        at(page, 2, 2)
    context.close()
    other = browser.new_context()
    with opened(other, made.page) as page:
        page.click("summary")
        page.set_input_files("#file", tmp_path / "other.json")
        page.wait_for_selector("#said.fault:not(:empty)")
        assert "no answers to this test" in page.inner_text("#said")
        page.set_input_files("#file", part)
        at(page, 2, 2)
        hear(page)
        page.keyboard.press("4")
        page.keyboard.press("Enter")
        answers = json.loads(downloaded(page, "#json", tmp_path / "end").read_text())
    other.close()
    assert [answer["scores"]["naturalness"] for answer in answers["answers"]] == [3, 4]
    assert answers["who"] == json.loads(part.read_text())["who"]


def test_a_clip_cannot_be_skipped(browser: Browser, runs: list[Run], tmp_path: Path) -> None:
    settings = ListenSettings(items=1, **{**BARE, "headphone_trials": 1, "tone_s": 1.0})
    made = make_test(runs, tmp_path / "test", settings)
    context = browser.new_context()
    with opened(context, made.page) as page:
        start(page, 1)
        level(page)
        at(page, 1, 2)
        page.keyboard.press("Space")
        page.wait_for_function("() => document.querySelector('audio').currentTime > 0")
        page.evaluate("() => { document.querySelector('audio').currentTime = 3.5; }")
        # It is set back to where it was heard; otherwise it would stand at its end.
        page.wait_for_function("() => document.querySelector('audio').currentTime < 1.5", timeout=10_000)
        assert page.locator(".play.heard").count() == 0
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_names_focus_and_a_narrow_screen(
    browser: Browser, runs: list[Run], tmp_path: Path, scheme: Any
) -> None:
    made = make_test(runs, tmp_path / "test", ListenSettings(items=1, scales=("naturalness", "instruction"), **BARE))
    context = browser.new_context(color_scheme=scheme, viewport={"width": 360, "height": 700}, reduced_motion="reduce")
    with opened(context, made.page) as page:
        dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 27)"
        assert dark == (scheme == "dark")
        for screen in ("start", "volume", "unheard", "heard"):
            assert page.evaluate("() => document.activeElement.tagName") == "H1" or screen == "heard"
            low = {text: ratio for text, ratio in page.evaluate(CONTRAST).items() if ratio < 4.5}
            assert not low, (screen, low)
            assert page.evaluate(NAMED) == []
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
            if screen == "start":
                start(page, 1)
                page.wait_for_selector(".play")
            elif screen == "volume":
                level(page)
                at(page, 1, 1)
            elif screen == "unheard":
                hear(page)
    context.close()


def test_a_stored_state_that_is_damaged_starts_again(browser: Browser, runs: list[Run], tmp_path: Path) -> None:
    made = make_test(runs, tmp_path / "test", ListenSettings(items=1, **BARE))
    context = browser.new_context()
    with opened(context, made.page) as page:
        for damaged in (
            "{",
            "null",
            '{"answers": 3}',
            json.dumps({"test": made.id, "format": 1, "listener": 1, "answers": [{}]}),
        ):
            page.evaluate("([name, text]) => localStorage.setItem(name, text)", [f"listen:{made.id}:1", damaged])
            page.fill("#number", "1")
            assert page.inner_text("#begin") == "Begin"
        start(page, 1)
        level(page)
        at(page, 1, 1)
    context.close()
