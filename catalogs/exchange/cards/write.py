"""Write a card into a folder, and leave alone what a person wrote there.

What voxmill writes in README.md is between two marks. The first one holds digests of the head, of this part and of the files
beside it, so that a later run knows whether anybody changed them since. Text outside of the marks is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.exchange.cards.hub import front_matter
from catalogs.files import open_atomically, write_atomically

README = "README.md"
Lines = Callable[[], Iterable[str]]
"""Returns the lines of a file, the same ones each time."""

_END = "<!-- end of the card by voxmill -->"
_BLOCK = re.compile(r"<!-- card by voxmill (?P<marks>\{[^\n]*\}) -->\n(?P<body>.*?)\n" + re.escape(_END), re.DOTALL)
_HEAD = re.compile(r"---\n(?P<head>.*?)^---\n", re.DOTALL | re.MULTILINE)


class CardError(ValueError):
    """A card cannot be written; the message is one line."""


@dataclass(frozen=True)
class Card:
    """A card: the head for the Hub, the text, and files beside README.md by name."""

    head: Mapping[str, Any]
    body: str
    files: Mapping[str, Lines] = field(default_factory=dict)


def write_card(out: Path, card: Card, force: bool = False) -> tuple[list[Path], list[str]]:
    """Write a card; return the files and notices. README.md is the last one.

    Raises CardError for a README.md that a person wrote, and for a generated part or file that a person changed, before anything
    is written; `force` writes over them.
    """
    marks = {name: _digest(lines()) for name, lines in card.files.items()}
    readme, head_is_theirs = _readme(out / README, card, marks, force)
    for name, digest in marks.items():
        _refuse_changed(out / name, {digest, _marks(out / README).get(name)}, force)
    for name, lines in card.files.items():
        with open_atomically(out / name) as file:
            for line in lines():
                file.write(line.encode() + b"\n")
    write_atomically(out / README, readme.encode())
    notices = (
        [f"{out / README}: its head was changed by hand and stays; --force writes it again"] if head_is_theirs else []
    )
    return [*(out / name for name in card.files), out / README], notices


def readme_text(card: Card, marks: Mapping[str, str]) -> str:
    """Return a new README.md. marks: digests of the files beside it."""
    return f"---\n{front_matter(card.head)}---\n\n{_block(card, marks)}"


def _block(card: Card, marks: Mapping[str, str]) -> str:
    body = card.body.strip("\n").replace(_END, "")
    digests = {"head": _hash(front_matter(card.head)), "body": _hash(body), **marks}
    return f"<!-- card by voxmill {json.dumps(digests)} -->\n{body}\n{_END}\n"


def _readme(path: Path, card: Card, marks: Mapping[str, str], force: bool) -> tuple[str, bool]:
    """Return the text of README.md, and whether its head is a person's."""
    before, found = _read(path), _marks(path)
    block = _BLOCK.search(before)
    if not before.strip() or (force and not block):
        return readme_text(card, marks), False
    if not block:
        raise CardError(f"{path} was written by a person: give another folder with --out, or --force to write over it")
    if not force and _hash(block["body"]) != found.get("body"):
        raise CardError(
            f"{path} was changed between its marks: move the changes outside of them, or give --force to write over them"
        )
    start, end = before[: block.start()], before[block.end() :].removeprefix("\n")
    head = _HEAD.match(start)
    is_theirs = not force and (_hash(head["head"]) if head else None) != found.get("head")
    if not is_theirs:
        rest = start[head.end() :] if head else start
        start = f"---\n{front_matter(card.head)}---\n{rest or chr(10)}"
    return start + _block(card, marks) + end, is_theirs


def _refuse_changed(path: Path, ours: set[str | None], force: bool) -> None:
    if path.exists() and not force and (not path.is_file() or _file_digest(path) not in ours):
        raise CardError(
            f"{path} was written or changed by a person: give another folder with --out, or --force to write over it"
        )


def _marks(path: Path) -> dict[str, str]:
    """Return the digests in the first mark of README.md; none if it has no mark."""
    block = _BLOCK.search(_read(path))
    try:
        found = json.loads(block["marks"]) if block else {}
    except ValueError:
        return {}
    return {str(name): str(digest) for name, digest in found.items()}


def _read(path: Path) -> str:
    if not path.exists():
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CardError(f"{path} is not UTF-8 text: move it away, or give another folder with --out") from None


def _digest(lines: Iterable[str]) -> str:
    found = hashlib.sha256()
    for line in lines:
        found.update(line.encode() + b"\n")
    return found.hexdigest()[:16]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
