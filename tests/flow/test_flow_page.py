"""The state page and `--status`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flow_helpers import MAKE, changed, flow, loop, run_here
from typer.testing import CliRunner

from catalogs.settings import dump_settings
from voxmill.cli import app
from voxmill.flow.build import open_flow
from voxmill.flow.page import ROW, arrows, flow_rows, write_page
from voxmill.flow.processes import alone
from voxmill.flow.settings import FlowError
from voxmill.flow.state import begin


def test_the_page_names_every_step_its_state_and_its_inputs(tmp_path: Path) -> None:
    settings = flow(tmp_path, loop())
    run_here(settings)
    page = (tmp_path / "index.html").read_text()
    assert "<title>tried: 8 of 8 steps done" in page
    for name in loop():
        assert f"<h2>{name}</h2>" in page
    assert "from prepare, decouple, stage1" in page
    # Self-contained, and links lead to what is there.
    assert "http://" not in page and "https://" not in page and "<script" not in page
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) >= 8 and all((tmp_path / link).exists() for link in links)


def test_a_changed_setting_shows_what_is_due(tmp_path: Path) -> None:
    run_here(flow(tmp_path, loop()))
    rows = {row["name"]: row for row in flow_rows(flow(tmp_path, changed(loop(), "stage2", value="n")))}
    assert rows["stage2"]["state"] == "due" and rows["stage2"]["reason"] == "changed: settings"
    assert rows["evaluate"]["state"] == "due" and rows["export"]["state"] == "done"


def test_killed_and_new_steps(tmp_path: Path) -> None:
    settings = flow(tmp_path, loop())
    run_here(settings, last="describe")
    begin(tmp_path, "verify", "x", "f", {})
    states = [row["state"] for row in flow_rows(settings)]
    assert states == ["done", "done", "killed", "new", "new", "new", "new", "new"]
    with alone(tmp_path):
        assert flow_rows(settings)[2]["state"] == "running"


def test_what_a_step_says_is_text_and_not_html(tmp_path: Path) -> None:
    settings = flow(tmp_path, {"a": {"kind": MAKE, "value": "<script>alert(1)</script>"}})
    run_here(settings)
    page = write_page(*_opened(settings)).read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page


def _opened(settings: object) -> tuple:  # type: ignore[type-arg]
    folder, steps = open_flow(settings)  # type: ignore[arg-type]
    return folder, settings, steps


def test_arrows_do_not_share_a_lane_unless_they_come_from_one_step() -> None:
    names = ["a", "b", "c", "d"]
    found = arrows(names, {"b": ["a"], "c": ["a", "b"], "d": ["b"]})
    assert [(one["from"], one["to"]) for one in found] == [("a", "b"), ("a", "c"), ("b", "c"), ("b", "d")]
    lanes = {one["from"]: re.findall(r"Q(\d+) ", one["path"])[0] for one in found}
    assert lanes["a"] != lanes["b"]
    assert f" {ROW // 2 + 12} " in found[0]["path"]


def test_status_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "tried.yaml"
    path.write_text(dump_settings(flow(tmp_path / "f", loop())))
    with pytest.raises(FlowError, match="the flow has not begun; start it without --status"):
        CliRunner().invoke(app, ["run", str(path), "--status"], catch_exceptions=False)
    run_here(flow(tmp_path / "f", loop()), last="verify")
    done = CliRunner().invoke(app, ["run", str(tmp_path / "f"), "--status"], catch_exceptions=False)
    assert done.exit_code == 0 and re.search(r"verify\s+done", done.stdout) and re.search(r"stage1\s+new", done.stdout)
    dry = CliRunner().invoke(app, ["run", str(tmp_path / "f"), "--dry-run"], catch_exceptions=False)
    assert re.search(r"stage1\s+will run \(new\)", dry.stdout) and "total" in dry.stdout
