"""The example package of docs/examples, installed by pip: its stage runs in `prepare` and its annotator describes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catalogs.weights import registry

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "voxmill-example"


def run(folder: Path, *command: str) -> str:
    """What a command prints, with the packages below `folder / "site"` installed."""
    paths = [str(folder / "site"), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_installed_and_runs(corpora: Path, tmp_path: Path) -> None:
    for name in registry.profile("small"):
        if not registry.available(name):
            pytest.skip(f"weights {name} are not here: voxmill models pull small")
    shutil.copytree(EXAMPLE, tmp_path / "package")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    run(tmp_path, *pip, "--no-index", "--target", "site", "./package")
    (tmp_path / "recordings").mkdir()
    shutil.copy(sorted((corpora / "read").glob("2412-*.flac"))[0], tmp_path / "recordings")
    settings = {
        "stages": "[{stage: pauses, after: refine_cuts}]",
        "describe": "numbers",
        "engine.executor": "inline",
        "transcribe.beam_size": "1",
        "sources.language": "en",
    }
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    voxmill = ["-m", "voxmill.cli"]
    summary = json.loads(run(tmp_path, *voxmill, "prepare", "recordings", "--out", "corpus", "--json", *changes))
    assert summary["kept"] >= 1
    sql = (
        "select duration_s, extra['longest_pause_s'] as pause_s, \"full\", annotator, status from segments"
        " join descriptions using (segment_id) where kept"
    )
    rows = json.loads(run(tmp_path, *voxmill, "query", "corpus", sql, "--json"))
    assert len(rows) == summary["kept"]
    for row in rows:
        assert 0.0 <= row["pause_s"] < row["duration_s"]
        assert row["full"].startswith("A voice with a median pitch of ")
        assert (row["annotator"], row["status"]) == ("numbers", "ok")
    assert max(row["pause_s"] for row in rows) > 0.0
