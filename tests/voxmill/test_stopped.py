"""Ctrl-C says in one line whether the same command resumes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from fakes.processes import PATIENCE_S

from voxmill import cli


@pytest.mark.parametrize(
    ("arguments", "function", "line"),
    [
        (["describe", "corpus"], "annotators.describe.describe_corpus", "Stopped. Run the same command to resume."),
        (["query", "corpus", "select 1"], "catalogs.query.streaming.streamed", "Stopped."),
    ],
)
def test_ctrl_c_is_one_line(
    arguments: list[str],
    function: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(function, interrupted)
    monkeypatch.setattr("sys.argv", ["voxmill", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip().splitlines() == [line]


_INTERRUPTED = """
import importlib, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {during!r}:
            signal.raise_signal(signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
module, function = {entry!r}.split(":")
getattr(importlib.import_module(module), function)()
"""


@pytest.mark.parametrize(("command", "during"), [("voxmill", "typer"), ("voxcpm", "voxcpm.inference.options")])
def test_ctrl_c_while_the_command_line_is_imported_is_one_line(command: str, during: str) -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    entry = pyproject["project"]["scripts"].get(command, "voxcpm.__main__:main")
    code = _INTERRUPTED.format(during=during, entry=entry)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "Stopped.")
