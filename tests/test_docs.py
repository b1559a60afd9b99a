"""The documentation keeps to the code: generated pages, commands with examples, links that lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[tuple[str, Any]]:
    """(path, command) of every command of `voxmill`."""
    from voxmill.cli import app

    found: list[tuple[str, Any]] = []

    def add(command: Any, path: str) -> None:
        if hasattr(command, "commands"):
            for name, sub in command.commands.items():
                add(sub, f"{path} {name}")
        else:
            found.append((path, command))

    add(typer.main.get_command(app), "voxmill")
    return found


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_help_with_an_example(path: str, command: Any) -> None:
    assert command.help and f"Example:  {path}" in command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{path}: {parameter.name} has no help"


def test_the_readme_names_every_command_that_it_should() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [path for path, _ in commands() if path not in text]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
