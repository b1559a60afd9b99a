"""A page in the system's headless Chromium, for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def chromium(*more: str) -> Iterator[Any]:
    """Start the browser, with `more` command-line options. Skips the test without playwright or Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine: install the package chromium")
    with playwright.sync_playwright() as driver:
        # Chromium refuses its sandbox to root. Sound begins without a click, as after the first key of a person.
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio", *more]
        browser = driver.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def chromium_page(**options: Any) -> Iterator[Any]:
    """Open an empty page in a new browser. It fails the test if the page writes an error to the console.

    options: of the browser context, e.g. `color_scheme` and `viewport`.
    """
    with chromium() as browser:
        page = browser.new_context(**options).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        yield page
        assert not errors, errors
