"""`prepare` and `decouple` on a Ray cluster of three nodes, one of which goes down in the middle: the same segments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import chaos_run, scripted_speech
from fakes.decoupling_run import SETTINGS
from fakes.processes import PATIENCE_S, family, gone
from fakes.recordings import noise, write

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from pipeline.synthesis.decouple import decouple
from pipeline.synthesis.settings import load_decouple_settings
from voxcpm.presets import config_dict

pytestmark = [pytest.mark.kill, pytest.mark.slow]

SESSIONS = 9
"""The node goes down after two of them."""
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def run(module: str, *arguments: str) -> str:
    """Standard output of a module that must come to a good end; nothing of it is left running."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    )
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        relatives = family(process.pid)
        process.kill()
        out, err = process.communicate()
        for relative in gone(relatives, within_s=60):
            relative.kill()
        pytest.fail(f"no end after {PATIENCE_S:.0f} s:\n{out}\n{err}")
    assert process.returncode == 0, out + err
    return out


def ids(corpus: Path) -> list[str]:
    return sorted(Corpus(corpus).index.column("segment_id").to_pylist())


def test_a_node_that_goes_down_costs_nothing(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for index in range(SESSIONS):
        for take in range(2):
            samples = noise(4.6, 16_000, seed=10 * index + take)
            write(sources / f"session{index:02d}" / f"take{take}.wav", samples, 16_000)
    assert chaos_run.main(str(sources), str(tmp_path / "alone"), 'executor="inline"') == 0

    out = run("fakes.cluster_run", str(sources), str(tmp_path / "cluster"), "worker")
    lines = out.splitlines()
    assert "nodes before 3" in lines
    (taken,) = [line for line in lines if line.startswith("taking away a node with ")]
    assert int(taken.split()[5]) > 0, f"the node had no work: {taken}"
    assert not [line for line in lines if line.startswith("STRIKE")], "a node's death is nobody's fault"
    summary = json.loads(lines[-1])
    assert summary["sessions"] == SESSIONS and summary["quarantined"] == []
    assert ids(tmp_path / "cluster") == ids(tmp_path / "alone")
    assert [problem for problem in fsck(tmp_path / "cluster") if problem.severity == "error"] == []


def test_decouple_survives_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from described_speech import ENGLISH, GERMAN, described_corpus

    lines = [[("en", text) for text in ENGLISH], [("de", text) for text in GERMAN]]
    corpus, model = described_corpus(tmp_path / "corpus", lines), tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config_dict("toy", 512)), encoding="utf-8")
    out = run("fakes.cluster_decoupling", str(corpus), str(model), str(tmp_path / "cluster"))
    (taken,) = [line for line in out.splitlines() if line.startswith("taking away a node with ")]
    assert int(taken.split()[5]) > 0, f"the node had no work: {taken}"
    monkeypatch.setattr("pipeline.synthesis.settings.GROUPS", scripted_speech.GROUPS)
    alone = decouple(corpus, model, tmp_path / "alone", load_decouple_settings(None, [*SETTINGS, "unit=2"]))
    summary = json.loads(out.splitlines()[-1])
    assert (summary["pairs"], summary["accepted"], summary["rejected"]) == (alone.pairs, alone.accepted, alone.rejected)
    assert ids(tmp_path / "cluster") == ids(tmp_path / "alone")
    assert fsck(tmp_path / "cluster") == []
