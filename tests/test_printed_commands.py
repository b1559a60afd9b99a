"""Commands that are printed for people can be pasted: whatever stands in them as an argument is quoted for a shell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("catalogs", "voxcpm", "annotators", "pipeline", "trainer", "voxmill", "benchmarks", "dev")
OPEN_COMMAND = re.compile(r"(voxmill [a-z]|torchrun |python -m |pip install |\brm |\bduckdb )[^;,.()`\n]*$")
"""A text that ends within a command."""
QUOTING = ("shlex.quote", "shlex.join", "quoted")
NAMES = {
    ("catalogs/weights/verify.py", "self.name"),
    ("catalogs/weights/registry.py", "' '.join(pulled)"),
    ("pipeline/inputs/store_access.py", "extra"),
    ("pipeline/runtime/failures.py", "extra"),
    ("pipeline/runs/fingerprint.py", "model"),
    ("pipeline/runs/summary.py", "sql"),
    ("pipeline/stages/separate.py", "self.config.model"),
    ("trainer/codec/train.py", "' '.join(missing)"),
    ("voxmill/demo.py", "sql"),
    ("voxmill/doctor.py", "name"),
}
"""Names of our own weights, extras and packages, which need no quotes, and SQL of our own within double quotes."""


def arguments(tree: ast.AST) -> Iterator[ast.expr]:
    """What f-strings fill into commands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = ""
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    if OPEN_COMMAND.search(text):
                        yield part.value
                    text += "X"
                elif isinstance(part, ast.Constant):
                    text += str(part.value)


def unquoted(source: str, name: str = "") -> list[str]:
    """The arguments of commands in a module's f-strings that nobody has quoted."""
    tree = ast.parse(source)
    variables = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_quoted(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return [
        ast.unparse(value)
        for value in arguments(tree)
        if not is_quoted(value)
        and not (isinstance(value, ast.Name) and value.id in variables)
        and (name, ast.unparse(value)) not in NAMES
    ]


def is_quoted(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) in QUOTING


@pytest.mark.parametrize("package", PACKAGES)
def test_commands_quote_their_arguments(package: str) -> None:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if missing := unquoted(path.read_text(encoding="utf-8"), name):
            found[name] = missing
    assert found == {}


def test_an_argument_without_quotes_is_found() -> None:
    assert unquoted('f"{home} has none; run: voxmill encode {home} --codec MODEL"') == ["home"]
    assert unquoted('f"run: voxmill encode {quoted(home)} --codec MODEL; see {home}"') == []
    assert unquoted('folder = shlex.quote(str(home))\nf"run: voxmill fsck {folder} --repair"') == []
