"""The real fingerprints of the recipes: which settings make a step due, and which later steps that may concern."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxmill.flow.build import open_flow
from voxmill.flow.fingerprints import depends_on
from voxmill.flow.settings import load_flow, recipes
from voxmill.flow.steps.base import Step

#: (recipe, override, steps that are due by themselves, later steps that are due if these make something else).
CHANGES: list[tuple[str, str, list[str], list[str]]] = [
    ("flow-toy", "steps.recordings.seed=8", ["recordings"], [
        "prepare", "describe", "report", "codec", "encode", "stage1", "decouple", "stage2", "evaluate", "export",
    ]),
    ("flow-toy", "steps.prepare.set.thresholds.min_snr_db=20", ["prepare"], [
        "describe", "report", "codec", "encode", "stage1", "decouple", "stage2", "evaluate", "export",
    ]),
    ("flow-toy", "steps.prepare.set.engine.executor=ray", [], []),
    ("flow-toy", "steps.prepare.set.unit_s=120", [], []),
    ("flow-toy", "steps.describe.everything=true", ["describe"],
     ["report", "stage1", "decouple", "stage2", "evaluate", "export"]),
    ("flow-toy", "steps.describe.concurrency=2", [], []),
    ("flow-toy", "steps.codec.set.steps=101", ["codec"], ["encode", "stage1", "decouple", "stage2", "evaluate"]),
    ("flow-toy", "steps.codec.set.threads=2", [], []),
    ("flow-toy", "steps.encode.batch_s=100", [], []),
    ("flow-toy", "steps.stage1.set.seed=2", ["stage1"], ["decouple", "stage2", "evaluate"]),
    ("flow-toy", "steps.stage1.set.log_every=1", [], []),
    ("flow-toy", "steps.stage1.set.compute.device=cpu", [], []),
    ("flow-toy", "steps.stage1.set.checkpoint.every=5", [], []),
    ("flow-toy", "steps.decouple.set.seed=3", ["decouple"], ["stage2", "evaluate"]),
    ("flow-toy", "steps.stage2.set.phases.toy.steps=21", ["stage2"], ["evaluate"]),
    ("flow-toy", "steps.evaluate.limit=4", ["evaluate"], []),
    ("flow-toy", "steps.export.to=hf", ["export"], []),
    ("flow-voice", "steps.voice.set.model.lora.r=16", ["voice"], ["evaluate", "cloned"]),
    ("flow-voice", "steps.voice.set.model.start=/elsewhere", ["voice"], ["evaluate", "cloned"]),
    ("flow-voice", "steps.voice.set.validation.best.device=cpu", [], []),
    ("flow-voice", "steps.encode.checkpoint=/elsewhere", ["encode"], []),
    ("flow-corpus", "steps.prepare.set.transcribe.beam_size=2", ["prepare"], [
        "describe", "report", "encode", "stage1", "decouple", "stage2", "stage3", "evaluate", "control", "export",
    ]),
    ("flow-corpus", "steps.stage3.set.phases.annealing.lr=1e-5", ["stage3"], ["evaluate", "control"]),
    ("flow-cluster", "steps.stage1.set.launch.workers=16", [], []),
    ("flow-cluster", "steps.prepare.set.engine.address=10.0.0.1", [], []),
    ("flow-cluster", "steps.prepare.set.profile=small", ["prepare"], [
        "describe", "report", "encode", "stage1", "decouple", "stage2", "stage3", "evaluate", "export",
    ]),
    ("flow-proof", "steps.model.set.phases.words.steps=151", ["model"], ["evaluate"]),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "override", "own", "later"), CHANGES, ids=[f"{c[0]} {c[1]}" for c in CHANGES])
def test_a_setting_concerns_these_steps(
    recipe: str, override: str, own: list[str], later: list[str], tmp_path: Path
) -> None:
    before, after = (_steps(recipe, tmp_path, given) for given in ([], [override]))
    due = [name for name in before if before[name].effective() != after[name].effective()]
    assert due == own
    reached: list[str] = []
    for name, step in after.items():
        if name not in own and set(depends_on(step)) & {*own, *reached}:
            reached.append(name)
    assert reached == later


@pytest.mark.parametrize("recipe", recipes())
def test_the_folder_is_in_no_fingerprint(recipe: str, tmp_path: Path) -> None:
    first, second = (_steps(recipe, folder, []) for folder in (tmp_path / "one", tmp_path / "two"))
    assert {n: s.effective() for n, s in first.items()} == {n: s.effective() for n, s in second.items()}


def test_a_default_that_is_written_out_changes_nothing(tmp_path: Path) -> None:
    plain = _steps("flow-voice", tmp_path, [])
    written = _steps("flow-voice", tmp_path, ["steps.voice.set.optim.clip=1.0", "steps.describe.annotator=acoustic"])
    assert {n: s.effective() for n, s in plain.items()} == {n: s.effective() for n, s in written.items()}


def _steps(recipe: str, folder: Path, overrides: list[str]) -> dict[str, Step]:
    return open_flow(load_flow(recipe, overrides, ["/recordings"], folder))[1]
