"""Ctrl-C says in one line whether the same command resumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxmill import cli


@pytest.mark.parametrize(
    ("arguments", "function", "line"),
    [
        (["describe", "corpus"], "annotators.runner.describe_corpus", "Stopped. Run the same command to resume."),
        (["query", "corpus", "select 1"], "catalogs.query.views.query", "Stopped."),
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
