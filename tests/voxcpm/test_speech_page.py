"""The page of the server: what is served, that it asks nobody else, and what a person does with it in a real browser."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import soundfile

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("msgspec", reason="the extra serve is not installed")
pytest.importorskip("lameenc", reason="the extra serve is not installed")

from fakes.chromium import chromium
from speech_service import Service

from voxcpm.server.page.routes import FILES, HEADERS
from voxcpm.server.presets import PRESETS

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = Path(__file__).resolve().parents[2] / "voxcpm" / "server" / "page"


def source(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def test_nothing_comes_from_elsewhere() -> None:
    for name in FILES:
        assert not re.search(r"https?://", source(name)), name
        assert not re.search(
            r"""\b(innerHTML|outerHTML|insertAdjacentHTML|eval|document\.write)\b| style=| on\w+=["']""", source(name)
        ), name
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy


def test_every_language_says_everything() -> None:
    blocks = re.split(r"^  (?:en|zh|de): \{$", source("strings.js"), flags=re.MULTILINE)[1:]
    entries = [set(re.findall(r"[{,\s](\w+): [\"\[]", block.split("\n  },")[0])) for block in blocks]
    assert len(entries) == 3 and entries[0] == entries[1] == entries[2] and len(entries[0]) > 60
    used = set(re.findall(r'data-(?:text|placeholder)="(\w+)"', source("index.html")))
    for name in FILES:
        used |= set(re.findall(r'\bsay\("(\w+)"', source(name)))
    assert used <= entries[0], used - entries[0]


def test_every_element_that_is_asked_for_exists() -> None:
    ids = set(re.findall(r'\bid="([\w-]+)"', source("index.html")))
    for name in FILES:
        assert set(re.findall(r'\bfind\("([\w-]+)"\)', source(name))) <= ids, name


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service({"voices": tmp_path_factory.mktemp("voices")}) as found:
        yield found


def test_what_is_served(service: Service) -> None:
    index = service.ask("GET", "/")
    assert index.status == 200 and index.headers["content-type"] == "text/html; charset=utf-8"
    assert index.headers["content-security-policy"] == HEADERS["content-security-policy"]
    named = set(re.findall(r'(?:src|href)="page/([^"]+)"', index.body.decode()))
    assert named <= set(FILES)
    for name, kind in FILES.items():
        answer = service.ask("GET", f"/page/{name}")
        assert answer.status == 200 and answer.headers["content-type"].startswith(kind)
        for imported in re.findall(r'from "\./([^"]+)"', answer.body.decode()):
            assert imported in FILES
    for path in (
        "/page/routes.py",
        "/page/__init__.py",
        "/page/../app.py",
        "/page/%2e%2e%2fapp.py",
        "/page/",
        "/page/x/y",
    ):
        assert service.ask("GET", path).status == 404, path


@pytest.fixture(scope="module")
def page(service: Service) -> Iterator[Page]:
    """The page in a browser with a microphone that beeps. It writes nothing to the console and asks nobody else."""
    with chromium("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
        context = browser.new_context(viewport={"width": 1000, "height": 1100}, locale="en-US")
        found = context.new_page()
        faults: list[str] = []
        found.on("pageerror", lambda error: faults.append(str(error)))
        found.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        found.on(
            "request",
            lambda asked: None if asked.url.startswith((service.url, "blob:", "data:")) else faults.append(asked.url),
        )
        found.goto(service.url)
        found.wait_for_function("() => document.querySelectorAll('#voice option').length > 13")
        yield found
        assert faults == []


def ended(page: Page) -> str:
    """Wait until what is spoken was heard; return the status."""
    page.wait_for_function(
        "() => document.querySelector('#stop').disabled && document.querySelector('#status').textContent"
    )
    assert page.text_content("#error") == ""
    return page.text_content("#status") or ""


def sent(service: Service, page: Page, act: Any) -> list[dict[str, Any]]:
    """The messages that the page sends while something is done."""
    frames: list[dict[str, Any]] = []

    def listen(socket: Any) -> None:
        socket.on("framesent", lambda data: frames.append(json.loads(data)))

    page.on("websocket", listen)
    act()
    page.remove_listener("websocket", listen)
    return frames


def test_speaking(service: Service, page: Page) -> None:
    assert page.text_content("#model") == "tones"
    assert page.locator("#voice option").count() == 1 + len(PRESETS)
    page.fill("#text", "Guten Morgen, das ist ein Text, und er ist nicht lang.")
    assert "54 characters" in (page.text_content("#count") or "") and "German" in (page.text_content("#language") or "")
    page.fill("#seed", "7")
    page.select_option("#quality", "fast")

    def act() -> None:
        page.press("#text", "Control+Enter")
        assert "0.8 s of audio" in ended(page)

    config, text, done = sent(service, page, act)[:3]
    assert config["type"] == "session.config" and (config["seed"], config["quality"], config["cfg_value"]) == (
        7,
        "fast",
        2,
    )
    assert text["text"].startswith("Guten Morgen") and done["type"] == "input.done"
    page.wait_for_selector("#history li")
    assert "seed 7" in (page.text_content("#history li p") or "").lower()
    # The file says that it is synthetic.
    with page.expect_download() as download:
        page.click("#history a")
    data = download.value.path().read_bytes()
    audio, rate = soundfile.read(io.BytesIO(data))
    assert rate == 48_000 and len(audio) == 5 * 7680 and abs(audio).max() > 0.2
    assert b"AI-generated" in data[:200] and b"seed 7" in data[:200]
    assert '"seed":7' in (page.text_content("#curl") or "") and "client.audio.speech.create" in (
        page.text_content("#python") or ""
    )


def test_a_long_text_is_followed_and_stopped(service: Service, page: Page) -> None:
    page.fill(
        "#text", "This sentence is one of many in a long text, and it will be spoken. " * 12 + "It lasts seconds 60."
    )
    page.click("#speak")
    page.wait_for_selector("#pieces span.now")
    page.wait_for_function("() => document.querySelectorAll('#pieces span').length > 2")
    page.keyboard.press("Escape")
    page.wait_for_function("() => document.querySelector('#status').textContent === 'Stopped'")
    assert page.is_disabled("#stop") and page.text_content("#error") == ""


def test_errors_are_shown(page: Page) -> None:
    page.fill("#text", "refuse")
    page.click("#speak")
    page.wait_for_function("() => document.querySelector('#error').textContent.includes('4096 positions')")
    page.fill("#text", "")
    page.click("#speak")
    assert page.text_content("#error") == "Type a text first."


def test_cloning_a_recording(service: Service, page: Page) -> None:
    page.fill("#text", "Hello.")
    page.click("#tab-clone")
    page.click("#speak")
    assert page.text_content("#error") == "Record a clip or choose a file first."
    page.click("#record")
    page.wait_for_function("() => parseFloat(document.querySelector('#recorded').textContent) > 1.2")
    page.click("#record")
    page.wait_for_selector("#clip:not([hidden])")
    page.wait_for_function("() => document.querySelector('#warning').textContent.includes('shorter than 3')")
    page.click("#speak")
    assert page.text_content("#error") == "Tick that the speaker has agreed."
    page.check("#consent")

    def act() -> None:
        page.click("#speak")
        ended(page)

    config = sent(service, page, act)[0]
    assert config["ref_audio"].startswith("data:audio/") and "ref_text" not in config
    page.click("#tab-continue")
    page.click("#speak")
    assert page.text_content("#error") == "Write what is said in the clip."
    page.fill("#words", "Beep, beep.")
    assert sent(service, page, act)[0]["ref_text"] == "Beep, beep."
    page.fill("#name", "Beeper")
    page.click("#save")
    page.wait_for_function("() => document.querySelector('#voice').value === 'beeper'")
    assert page.get_attribute("#tab-stored", "aria-selected") == "true"
    (voice,) = service.ask("GET", "/v1/audio/voices").json["uploaded_voices"]
    assert voice["ref_text"] == "Beep, beep." and "has agreed" in voice["consent"]
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#voice-delete")
    page.wait_for_function("() => document.querySelector('#voice').value === ''")
    assert service.ask("GET", "/v1/audio/voices").json["uploaded_voices"] == []


def test_keyboard_languages_and_history(page: Page) -> None:
    page.focus("#tab-stored")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-describe"
    page.keyboard.press("End")
    assert page.get_attribute("#tab-continue", "aria-selected") == "true" and page.is_hidden("#panel-describe")
    page.keyboard.press("ArrowRight")
    for language, words in (("de", "Sprechen"), ("zh", "朗读"), ("en", "Speak")):
        page.select_option("#interface", language)
        page.wait_for_function("words => document.querySelector('#speak').textContent === words", arg=words)
        assert page.get_attribute("html", "lang") == language
    page.click("#theme")
    assert page.get_attribute("html", "data-theme") == "dark"
    rows = page.locator("#history li").count()
    assert rows > 1
    page.reload()
    page.wait_for_selector("#history li")
    assert page.locator("#history li").count() == rows and page.get_attribute("html", "data-theme") == "dark"
    page.click("#history-clear")
    page.wait_for_function("() => document.querySelectorAll('#history li').length === 0")
