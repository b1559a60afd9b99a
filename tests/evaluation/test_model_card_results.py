"""The results of a run in the card of the model that it judged, and of no other model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_runs import items, planned_run

from catalogs.exchange.cards.write import CardError
from catalogs.weights.checkpoint_files import file_digests
from evaluation.metrics.speed import Speed
from evaluation.runs.score import score
from voxmill.publish import card, evaluation_section

START = Path(__file__).resolve().parents[1] / "fixtures" / "made_by_fae81e6" / "start"


def test_results_are_those_of_the_model_s_own_weights(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(START, model)
    run = planned_run(tmp_path, "run", items(3), lambda item, seed: {}, scored=False)
    score(run, [Speed()])

    def judged(**system: Any) -> None:
        settings = run.settings | {"system": {"kind": "checkpoint", **system}}
        (run.root / "run.json").write_text(json.dumps(settings))

    judged(**{"sha256 model.safetensors": "00" * 32})
    with pytest.raises(CardError, match="judged other weights"):
        evaluation_section(run.root, model)
    judged(folder="/somewhere")
    with pytest.raises(CardError, match="does not say which weights"):
        evaluation_section(run.root, model)
    # The card itself may be added to the folder after the evaluation.
    judged(**file_digests(model))
    card(model, evaluation=run.root)
    text = (model / "README.md").read_text()
    assert "3 items, 3 takes, 0 failed." in text and "| fake | en |" in text and str(tmp_path) not in text
