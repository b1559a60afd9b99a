"""LoRA: only adapters are trained, they are published in the official form, and merged they are the same model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from train_runs import Runs, losses

from trainer.checkpoint.restore import latest, saved_state
from trainer.checkpoint.save import _save_adapter
from trainer.config import LoRASettings, ModelSettings, TrainError
from trainer.data.corpora import Corpora
from trainer.dryrun.checks import check_all
from trainer.dryrun.plan import plan
from trainer.model.base import base_digests, tensors_digest
from trainer.model.build import build
from trainer.run import train
from trainer.runtime.metrics import read_metrics
from voxcpm.weights.checkpoint import load_backbone
from voxcpm.weights.lora import load_lora, lora_state_dict, merge_lora

LORA = {"r": 4, "alpha": 8, "dropout": 0.1}


def config(runs: Runs, output: Path, **changes: Any) -> Any:
    model = {"start": str(runs.start), "lora": LORA}
    return runs.config(output, {"steps": 6, "lr": 5e-3, "schedule": "constant"}, model=model, **changes)


@pytest.fixture(scope="module")
def trained(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("lora") / "out"
    result = train(config(runs, output))
    assert result.adapter == str(output / "latest") and result.checkpoint == str(output / "merged")
    return output


def test_the_adapter_is_in_the_official_form_and_small(trained: Path, runs: Runs) -> None:
    folder = trained / "latest"
    assert sorted(path.name for path in folder.iterdir()) == [
        "lineage.json",
        "lineage.parquet",
        "lora_config.json",
        "lora_weights.safetensors",
    ]
    settings = json.loads((folder / "lora_config.json").read_text(encoding="utf-8"))
    assert settings["base_model"] == str(runs.start) and settings["lora_config"]["r"] == 4
    tensors = load_file(folder / "lora_weights.safetensors")
    assert all(name.endswith((".lora_A", ".lora_B")) for name in tensors)
    assert all(tensor.abs().max() > 0 for name, tensor in tensors.items() if name.endswith("lora_B"))


def test_merged_is_the_base_with_the_adapter_and_nothing_else(trained: Path, runs: Runs) -> None:
    base = load_backbone(runs.start)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    load_lora(base, trained / "latest")
    merge_lora(base)
    merged = load_backbone(trained / "merged").state_dict()
    assert merged.keys() == before.keys()
    for name, value in base.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=0, atol=1e-6)
    adapted = {
        name.rsplit(".", 1)[0] + ".weight" for name in load_file(trained / "latest" / "lora_weights.safetensors")
    }
    changed = {name for name, value in merged.items() if not torch.equal(value, before[name])}
    assert changed == adapted


def test_a_continued_run_is_the_unbroken_one_dropout_included(trained: Path, runs: Runs, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = train(config(runs, output, steps=4))
    assert first.steps == 4
    train(config(runs, output))
    assert losses(output) == losses(trained)
    ours, theirs = (load_file(folder / "latest" / "lora_weights.safetensors") for folder in (output, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_over_another_base_is_refused_and_one_over_the_same_elsewhere_goes_on(
    trained: Path, runs: Runs, tmp_path: Path
) -> None:
    base, output = tmp_path / "base", tmp_path / "out"
    shutil.copytree(runs.start, base)

    def over(start: Path, **changes: Any) -> Any:
        return config(runs, output, **changes).model_copy(
            update={"model": ModelSettings(start=str(start), lora=LoRASettings(**LORA))}
        )

    train(over(base, steps=1))
    written = {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and path.name != ".lock"}
    honest = load_file(base / "model.safetensors")
    name = "base_lm.layers.0.mlp.up_proj.weight"
    save_file(honest | {name: honest[name] * 1.001}, base / "model.safetensors")
    for begin in (lambda settings: train(settings), plan):
        with pytest.raises(TrainError, match=rf"another model than {base} holds now: give .* model\.start") as refused:
            begin(over(base))
        assert "\n" not in str(refused.value)
    assert written == {path: path.read_bytes() for path in written}, "nothing was written"
    # The same weights in another place, and in another kind of file.
    (base / "model.safetensors").unlink()
    torch.save(honest, base / "pytorch_model.bin")
    base.rename(tmp_path / "moved")
    assert train(over(tmp_path / "moved", steps=2)).steps == 2
    assert losses(output) == {step: value for step, value in losses(trained).items() if step <= 2}
    # A run begun before digests were kept continues; its base is compared by name, as then.
    saved = latest(output)
    assert saved is not None and saved_state(saved).base == base_digests(runs.start)
    values = torch.load(saved.resume, weights_only=True)
    del values["state"]["base"]
    torch.save(values, saved.resume)
    assert not saved_state(saved).base and check_all(over(tmp_path / "moved"))[1] == saved
    with pytest.raises(TrainError, match=r"other model settings \(model\.start"):
        check_all(over(runs.start))


def test_every_tensor_of_a_base_counts_for_its_digest(runs: Runs) -> None:
    assert base_digests(runs.start) == base_digests(runs.start)
    tensors = load_file(runs.start / "model.safetensors")
    before = tensors_digest(tensors)
    assert tensors_digest(dict(reversed(tensors.items()))) == before
    for name, value in tensors.items():
        assert tensors_digest(tensors | {name: value * 1.01 + 1e-3}) != before, name
        assert tensors_digest(tensors | {name: value.unsqueeze(0)}) != before, name
    large = torch.zeros(9000)
    for at in (0, 4500, 8999):
        assert tensors_digest({"x": large.index_fill(0, torch.tensor(at), 1.0)}) != tensors_digest({"x": large})


def test_over_frozen_weights_in_bfloat16_it_validates_and_speaks(runs: Runs, tmp_path: Path) -> None:
    """As the released checkpoint is adapted on a GPU: frozen matrices stay bfloat16, adapters are float32."""
    start = tmp_path / "start"
    shutil.copytree(runs.start, start)
    values = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(values | {"dtype": "bfloat16"}))
    settings = runs.config(
        tmp_path / "out",
        {"steps": 2, "rows": 1},
        model={"start": str(start), "lora": LORA},
        dtype="bfloat16",
        validation={"every": 2, "share": 0.3, "speak": 2},
    )
    train(settings)
    (row,) = [row for row in read_metrics(tmp_path / "out") if "validation/diffusion" in row]
    assert 0 < row["validation/diffusion"] < 100
    spoken = sorted((tmp_path / "out" / "heard" / "step_0000002").iterdir())
    assert len(spoken) == 2 and all(path.stat().st_size > 1000 for path in spoken)


def test_the_base_of_an_adapter_is_what_the_user_named(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub's cache has a folder for it that exists on this machine only.
    monkeypatch.setattr("trainer.model.build.find_checkpoint", lambda name: {"somebody/voice": runs.start}[name])
    settings = config(runs, tmp_path / "out")
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"start": "somebody/voice"})})
    trainee = build(settings, Corpora(settings.corpora), None)
    assert trainee.lora is not None
    _save_adapter(tmp_path / "adapter", lora_state_dict(trainee.model), trainee.lora, trainee.start)
    written = json.loads((tmp_path / "adapter" / "lora_config.json").read_text(encoding="utf-8"))
    assert written["base_model"] == "somebody/voice"
