"""A listener at the page of a listening test, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Download, Page


@contextmanager
def opened(context: BrowserContext, path: Path) -> Iterator[Page]:
    """The page of a test. Nothing may be written to its console, and nothing asked from anywhere but its own folder."""
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("#begin")
    yield page
    assert said == []
    folder = path.parent.as_uri()
    assert all(url.startswith((folder, "blob:")) for url in asked), asked
    page.close()


def start(page: Page, listener: int) -> None:
    """Agree and give the number, by keyboard."""
    page.focus("#agree")
    page.keyboard.press("Space")
    page.fill("#number", str(listener))
    page.keyboard.press("Enter")


def hear(page: Page) -> None:
    """Play every clip of a screen to its end by the space bar."""
    for number in range(page.locator(".play").count()):
        page.keyboard.press("Space")
        page.wait_for_function("n => document.querySelectorAll('.play.heard').length > n", arg=number)


def level(page: Page) -> None:
    """The screen of the volume."""
    page.wait_for_selector(".play")
    assert page.is_disabled("#next")
    hear(page)
    page.keyboard.press("Enter")


def stored(context: BrowserContext, path: Path, answers: int) -> None:
    """Wait until the browser has stored a number of answers: a page of another process reads them."""
    other = context.new_page()
    other.goto(path.as_uri())
    other.wait_for_function(
        "count => Object.keys(localStorage).some((name) => JSON.parse(localStorage.getItem(name)).answers?.length === count)",
        arg=answers,
    )
    other.close()


def at(page: Page, position: int, total: int) -> None:
    """Wait for a trial."""
    page.wait_for_function(
        "text => document.querySelector('h1').textContent === text && !document.querySelector('.play.heard')",
        arg=f"{position} of {total}",
    )


def downloaded(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as waiting:
        page.click(button)
    found: Download = waiting.value
    path = folder / found.suggested_filename
    found.save_as(path)
    return path


CONTRAST = """() => {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((value) => channel(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
  };
  const found = {};
  for (const element of document.querySelectorAll('main *, #bar *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || element.closest('.unseen, [hidden], details')) continue;
    const [one, two] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    found[`${element.tagName} ${element.textContent.slice(0, 30)}`] = (one + 0.05) / (two + 0.05);
  }
  return found;
}"""
NAMED = """() => [...document.querySelectorAll('input:not([type=file]), button, progress, fieldset')].filter((element) =>
  !element.getAttribute('aria-label') && !element.labels?.length && !element.textContent.trim() && !element.closest('[hidden]')
).map((element) => element.outerHTML)"""
