"""The page of `voxmill browse` in a real browser, by keyboard: filters, player, marks, undo, two browsers, two hundred clips."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette", reason="the extra browse is not installed")
pytest.importorskip("uvicorn", reason="the extra browse is not installed")

from browsing import make_corpus, served, served_elsewhere
from fakes.chromium import chromium

from catalogs.corpus.marks import read_marks
from catalogs.corpus.reader import Corpus
from catalogs.query.views import query

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus", units=2)


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page that has shown its first clip. Nothing may be written to its console: no error, nothing that the policy blocks."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
    page = context.new_page()
    said: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # Chromium itself reports answers that are errors; the page shows them.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            said.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#neighbors .near")
    page.wait_for_selector("#totals b")
    try:
        yield page
        assert said == []
    finally:
        context.close()


def shown(page: Page, text: str) -> None:
    """Wait until a clip with this text is at the right."""
    page.wait_for_function("text => document.querySelector('#text').textContent.includes(text)", arg=text)


def made(page: Page, count: int) -> None:
    """Wait until the counter of marks stands at `count`."""
    page.wait_for_function("count => document.querySelector('#made').textContent === String(count)", arg=count)


def segments(page: Page, count: int) -> None:
    """Wait until so much matches."""
    page.wait_for_function("count => document.querySelector('#totals b').textContent === String(count)", arg=count)


def test_filters_by_keyboard(browser: Browser, corpus: Path) -> None:
    with served(corpus) as url, opened(browser, url) as page:
        assert "token" not in page.url
        segments(page, 12)
        page.keyboard.press("/")
        page.keyboard.type("CLIP 3")
        segments(page, 2)
        shown(page, "clip 3")
        page.fill("#search", "")
        segments(page, 12)
        page.keyboard.press("Escape")
        page.keyboard.press("c")
        page.keyboard.type("snr_db > 23")
        page.keyboard.press("Enter")
        segments(page, 4)
        page.keyboard.press("c")
        page.keyboard.type("snr_db > ) drop")
        page.keyboard.press("Enter")
        page.wait_for_selector("#message.bad:not([hidden])")
        assert "not SQL" in page.inner_text("#message") and page.locator(".field.wrong").count() == 1
        page.fill("#where", "")
        page.keyboard.press("Enter")
        segments(page, 12)
        page.click(".facet[data-name=language] summary")
        page.click(".facet[open] label:has-text('de')")
        segments(page, 6)
        page.select_option("#sort", "snr_db")
        page.click("#direction")
        page.wait_for_function("() => document.querySelector('.row .sorted')?.textContent === '25'")


def test_plays_and_shows_what_is_around(browser: Browser, corpus: Path) -> None:
    with served(corpus) as url, opened(browser, url) as page:
        page.evaluate(
            "() => { window.played = []; for (const name of ['play', 'ended'])"
            " document.addEventListener(name, (e) => played.push(name), true);"
            " const play = HTMLMediaElement.prototype.play;"
            " HTMLMediaElement.prototype.play = function () { played.push(this.duration || 0); return play.call(this); }; }"
        )
        first = page.inner_text("#facts")
        page.keyboard.press("j")
        page.wait_for_function("first => document.querySelector('#facts').innerText !== first", arg=first)
        page.wait_for_function("() => played.length > 0")
        page.wait_for_function("() => document.querySelector('#time').textContent.startsWith('0.5')")
        assert page.locator("#text .word").count() == 4 and page.locator("#lanes span").count() == 4
        page.keyboard.press("s")
        page.wait_for_function("() => document.querySelector('#top-hz').textContent === '8 kHz, mel scale'")
        page.keyboard.press("]")
        page.wait_for_selector("#neighbors .near.sounding")
        page.wait_for_function("() => !document.querySelector('.near.sounding')")
        page.keyboard.press("j")
        shown(page, "clip 2")
        page.wait_for_selector("#references .near")
        page.keyboard.press("1")
        page.wait_for_selector("#references .near.sounding")
        page.keyboard.press("?")
        assert page.locator("#key-table kbd").count() > 20 and page.locator("#keys[open]").count() == 1
        page.keyboard.press("Escape")
        page.keyboard.press("i")
        shown(page, "clip 1")
        assert "a warm voice" in page.inner_text("#descriptions")
        assert "snr_db" in page.inner_text("#scores") and "dB" in page.inner_text("#scores")


def test_marks_corrections_and_undo(browser: Browser, corpus: Path) -> None:
    with served(corpus, "Ann") as url, opened(browser, url) as page:
        page.keyboard.press("d")
        made(page, 1)
        shown(page, "clip 1")
        page.keyboard.press("f")
        page.keyboard.press("Control+a")
        page.keyboard.type("a better text")
        page.keyboard.press("Control+Enter")
        made(page, 2)
        shown(page, "clip 2")
        page.keyboard.press("w")
        page.keyboard.press("Control+a")
        page.keyboard.type("0.10 9.00 late")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#message.bad:not([hidden])")
        page.keyboard.press("Control+a")
        page.keyboard.type("0.10 0.25 two\n0.25 0.40 words")
        page.keyboard.press("Control+Enter")
        made(page, 3)
        page.keyboard.press("m")
        page.keyboard.type("a <b>note</b>")
        page.keyboard.press("Control+Enter")
        made(page, 4)
        page.wait_for_function("() => document.querySelector('#marks').textContent.includes('a <b>note</b>')")
        page.keyboard.press("u")
        made(page, 3)
        page.wait_for_function("() => document.querySelector('#marks').textContent === ''")
        page.keyboard.press("j")
        page.keyboard.press("k")
        made(page, 4)
        page.keyboard.press("u")
        made(page, 3)
    rows = query(
        corpus, "select human, text, uncorrected_text, reasons from segments where human is not null order by human"
    )[1]
    assert [row[0] for row in rows] == ["drop", "keep"] and rows[0][3] == ["human"] and rows[1][1] == "a better text"
    assert "clip 1" in rows[1][2]
    words = next(row["segment_id"] for row in read_marks(corpus) if row["words"])
    assert [word["word"] for word in Corpus(corpus).segment(words)["words"]] == ["two", "words"]


def test_two_browsers_and_two_servers_lose_nothing(browser: Browser, corpus: Path) -> None:
    with (
        served(corpus, "Ann") as one,
        served_elsewhere(corpus, "Bob") as other,
        opened(browser, one) as a,
        opened(browser, one) as b,
        opened(browser, other) as c,
    ):
        for _ in range(4):
            for page, key in ((a, "k"), (b, "d"), (c, "k")):
                page.keyboard.press(key)
        made(c, 4)
        for _ in range(300):
            if len(read_marks(corpus)) == 12:
                break
            a.wait_for_timeout(100)
    marks = read_marks(corpus)
    assert len(marks) == 12 and len({row["mark_id"] for row in marks}) == 12
    assert query(corpus, "select count(*) from marks where counts")[1] == [(8,)]


def test_two_hundred_clips_by_keyboard_and_what_training_makes_of_them(browser: Browser, tmp_path: Path) -> None:
    from trainer.data.corpora import Corpora

    corpus = make_corpus(tmp_path / "corpus", units=10, segments=21)
    (before,) = query(corpus, "select count(*) from segments where kept")[1][0]
    with served(corpus) as url, opened(browser, url) as page:
        page.keyboard.press("a")  # Without sound: a person would hear each.
        page.keyboard.press("c")
        page.keyboard.type("shard is not null")
        page.keyboard.press("Enter")
        segments(page, 200)
        for number in range(200):
            at = f".row.here[data-at='{number}']"
            page.wait_for_selector(at)
            page.keyboard.press("d" if number % 4 == 0 else "k")
        made(page, 200)
        assert page.locator(".pill.keep").count() > 3
    counts = query(
        corpus,
        "select human, count(*), count(*) filter (kept) from segments where human is not null group by 1 order by 1",
    )
    assert counts[1] == [("drop", 50, 0), ("keep", 150, 150)] and before != 150
    ((wrong,),) = query(corpus, "select count(*) from segments where (human is null) and kept")[1]
    kept = Corpus(corpus).kept()["segment_id"].to_pylist()
    assert wrong == 0 and len(kept) == 150
    assert len(Corpora([corpus]).kept()) == 150
    assert threading.active_count() < 50


def test_light_dark_and_narrow(browser: Browser, corpus: Path) -> None:
    with served(corpus) as url:
        grounds = []
        for scheme in ("light", "dark"):
            with opened(browser, url, color_scheme=scheme) as page:
                grounds.append(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
                page.set_viewport_size({"width": 420, "height": 800})
                assert page.evaluate("() => document.documentElement.scrollWidth") <= 420
        assert len(set(grounds)) == 2
