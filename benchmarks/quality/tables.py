"""Tables between their marks in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

_DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_between(mark: str, title: str, text: str) -> None:
    """Put `text` between <!-- mark --> and <!-- /mark -->. If the page lacks them, add them at its end."""
    first, last = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    page = _DOCS.read_text(encoding="utf-8")
    if first not in page:
        page = f"{page.rstrip()}\n\n## {title}\n\n{first}\n{last}\n"
    before, rest = page.split(first, 1)
    after = rest.split(last, 1)[1]
    _DOCS.write_text(f"{before}{first}\n{text}\n{last}{after}", encoding="utf-8")
