"""What commands say: the version, help, query results, the weights that are missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from annotators.providers import ANNOTATORS, REMOTE
from catalogs.corpus.commit import create_corpus
from catalogs.report.report import ReportError, _weights
from catalogs.weights import registry, verify
from pipeline.config import load_config
from pipeline.engine.worker import StageGroup
from pipeline.runs.errors import PrepareError
from pipeline.runs.weights import check_weights
from voxmill.cli import app
from voxmill.terminal import explain


def test_version_and_short_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("voxmill ")
    for arguments in (["-h"], ["prepare", "-h"], ["models", "-h"], ["models", "pull", "-h"]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0 and "--help" in done.stdout


def test_a_paragraph_of_help_is_broken_by_the_terminal_and_not_by_the_source() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        paragraphs = (command.help or "").split("\n\n")
        assert paragraphs[0] and not any("\n" in paragraph for paragraph in paragraphs), name
    text = CliRunner().invoke(app, ["prepare", "-h"], terminal_width=100).stdout
    assert "RECORDINGS" in text and "recordings}" not in text


def test_describe_offers_only_annotators_that_exist() -> None:
    help_text = CliRunner().invoke(app, ["describe", "--help"]).stdout
    assert all(name in help_text for name in (*ANNOTATORS.ours, *REMOTE.ours)) and "openai" not in help_text


def test_a_query_as_json_keeps_columns_of_one_name_and_prints_no_table(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    done = CliRunner().invoke(app, ["query", str(tmp_path / "c"), "select 1 as a, 2 as a, 3 as b", "--json"])
    assert json.loads(done.stdout) == [{"a": 1, "a_2": 2, "b": 3}] and done.stderr == ""


def test_a_wide_result_has_one_field_a_line(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    columns = ", ".join(f"'{'word ' * 12}' as column_{n}" for n in range(20))
    lines = CliRunner().invoke(app, ["query", str(tmp_path / "c"), f"select {columns}"]).stdout.splitlines()
    assert sum("column_" in line for line in lines) == 20 and all("word word" in line for line in lines[1:])


def test_a_result_without_rows_says_so(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    for sql in ("select * from segments", "select path from quarantine"):
        assert CliRunner().invoke(app, ["query", str(tmp_path / "c"), sql]).stdout == "no rows\n"


def test_one_error_of_a_corpus_is_one_error(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    path = tmp_path / "c" / "units" / "aa" / "aaaaaaaaaaaaaaaa.json"
    path.parent.mkdir(parents=True)
    path.write_text("no record")
    done = CliRunner().invoke(app, ["fsck", str(tmp_path / "c")])
    assert done.exit_code == 1 and done.stdout.splitlines()[-1].endswith(": 1 error")


def test_a_missing_library_of_the_report_is_not_unexpected() -> None:
    ours = explain(ModuleNotFoundError("No module named 'voxcpm.gone'", name="voxcpm.gone"))
    assert "unexpected" in ours and "pip install" not in ours
    assert "unexpected" not in explain(ReportError("the report needs jinja2"))


def test_the_time_limit_of_a_stage_is_one_number() -> None:
    assert StageGroup(stages=()).timeout_s == load_config().engine.timeout_s


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["ecapa"], r"ecapa are .*run: voxmill models pull ecapa$"),
        (["ecapa", "whisper-large-v3"], r"ecapa, whisper-large-v3 .*run: voxmill models pull ecapa whisper-large-v3$"),
        (["ecapa", "silero-vad"], r"ecapa, silero-vad .*run: voxmill models pull ecapa && pip install "),
    ],
)
def test_all_missing_weights_are_named_at_once(monkeypatch: pytest.MonkeyPatch, names: list[str], words: str) -> None:
    monkeypatch.setattr("pipeline.runs.weights.available", lambda name: False)
    monkeypatch.setattr("pipeline.runs.weights.resolve", lambda name: pytest.fail("asked the hub"))
    with pytest.raises(PrepareError, match=words):
        check_weights(iter(names))


@pytest.mark.parametrize("kind", [verify.DigestMismatch, verify.NotPinned, verify.WeightsMissing])
def test_weights_that_must_not_be_loaded_stop_the_run_with_one_line(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def refuse(name: str) -> Path:
        raise kind(f"{name} is not the pinned file")

    monkeypatch.setattr("pipeline.runs.weights.resolve", refuse)
    monkeypatch.setattr("pipeline.runs.weights.available", lambda name: True)
    with pytest.raises(PrepareError, match=r"^ge2e is not the pinned file$"):
        check_weights(["ge2e"])


def test_an_unknown_size_is_not_called_zero() -> None:
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)}
    assert rows["emotion-hubert"]["megabytes"] is None and rows["whisper-base"]["megabytes"] == 148
    lines = CliRunner().invoke(app, ["models", "list"], terminal_width=300).stdout.splitlines()
    assert any("emotion-hubert" in line and "size unknown" in line for line in lines)
    assert any("whisper-base" in line and "148 MB" in line for line in lines)


def test_a_profile_holds_only_weights_that_its_stages_use() -> None:
    for name in ("small", "studio"):
        config = load_config(None, [f"profile={name}", "separate.mode=always", "transcribe.second_pass=whisper-base"])
        assert set(registry.profile(name)) <= set(config.weights())


def test_the_report_names_the_weights_of_the_settings_and_not_of_the_profile() -> None:
    config = load_config(None, ["transcribe.model=whisper-large-v3", "separate.mode=off"])
    names = [entry.name for entry in _weights(config.model_dump(mode="json"))]
    assert "whisper-large-v3" in names and "whisper-base" not in names and "htdemucs" not in names
