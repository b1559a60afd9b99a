"""Words that a native reader stumbles over stay out of help, messages, comments, docstrings and documentation (house.md)."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("catalogs", "annotators", "pipeline", "trainer", "evaluation", "voxcpm", "voxmill")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
PHRASES = re.compile(
    r"\b(is no|are no|anew|foretold|foretells?|reckon(s|ed)?|hence|whom|so many|so long|such a one|of its own|is told|are told"
    r"|are here|goes on|go on)\b",
    re.IGNORECASE,
)
BRITISH = re.compile(
    r"\b(colour|behaviour|neighbours?|favour|optimis(e|es|er|ed|ation)|recognis(e|es|er|ed)|behaviours|centred"
    r"|quantis(e|es|ed|ation)|labelled|modelled)\b"
)
QUOTED = re.compile(r"`[^`\n]*`")
"""Names in backticks are code, and spelled as the code spells them."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every string and comment of a Python file."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT):
                yield token.start[0], token.string


def faults(text: str) -> list[str]:
    """The phrases in a text that are to be written in another way."""
    plain = QUOTED.sub("", " ".join(text.split()))
    # A single word in quotes is a key or a name.
    if re.fullmatch(r"[rbf]?[\"'][\w.-]*[\"']", text):
        return []
    return [found[0] for pattern in (PHRASES, BRITISH) for found in pattern.finditer(plain)]


@pytest.mark.parametrize("package", PACKAGES)
def test_code_speaks_plain_english(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {fault}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, text in texts(path)
        for fault in faults(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_speak_plain_english(page: Path) -> None:
    found = [
        f"{page.relative_to(ROOT)}:{number}: {fault}"
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        for fault in faults(line)
    ]
    assert not found, "\n".join(found)


def test_the_words_are_found() -> None:
    assert faults("There is no file and it goes on anew") == ["is no", "goes on", "anew"]
    assert faults("the recogniser's behaviour") == ["recogniser", "behaviour"]
    assert faults('"whom"') == [] and faults("`is no` and nothing else") == []
