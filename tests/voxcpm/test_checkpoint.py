"""Checkpoint folders: round trips, and refusing what is wrong with a message that names it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.kills import Killed, killed_at
from safetensors.torch import load_file, save_file
from tiny_voxcpm import tiny_dict, tiny_model
from voxcpm_fixtures import GoldenSet

from voxcpm.config import VoxCPM2Config
from voxcpm.errors import CheckpointError
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.weights import atomic
from voxcpm.weights.checkpoint import build_codec, find_checkpoint, load_backbone, load_codec, save_pretrained


@pytest.fixture
def copy(golden_set: GoldenSet, tmp_path: Path) -> Path:
    """A checkpoint folder to spoil."""
    return Path(shutil.copytree(golden_set.checkpoint, tmp_path / "checkpoint", copy_function=shutil.copyfile))


def rewrite(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip(golden_set: GoldenSet, tmp_path: Path, dtype: str) -> None:
    model, codec = load_backbone(golden_set.checkpoint), load_codec(golden_set.checkpoint)
    folder = save_pretrained(tmp_path / "out" / "new", model, model.config, golden_set.checkpoint, codec, dtype)
    again = load_backbone(folder)
    assert again.config.dtype == dtype and again.dtype == getattr(torch, dtype)
    read = again.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(read[name], tensor.to(again.dtype)), name
    written = load_codec(folder).state_dict()
    for name, tensor in codec.state_dict().items():
        assert torch.equal(written[name], tensor), name
    assert VoxCPM2Model.from_local(folder, device="cpu").generate("Hello", max_len=2, seed=1).shape == (
        1,
        2 * model.config.out_patch_samples,
    )
    # Saving over it replaces it whole and leaves nothing beside it.
    save_pretrained(folder, model.state_dict(), model.config, golden_set.checkpoint)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["new"]
    assert {p.name for p in folder.glob("audiovae.*")} == {p.name for p in golden_set.checkpoint.glob("audiovae.*")}


def test_a_failed_save_leaves_the_old_checkpoint(golden_set: GoldenSet, tmp_path: Path) -> None:
    model = load_backbone(golden_set.checkpoint)
    folder = save_pretrained(tmp_path / "new", model, model.config, golden_set.checkpoint)
    with pytest.raises(AttributeError):
        save_pretrained(folder, {"not a tensor": 1}, model.config)  # type: ignore[dict-item]
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    load_backbone(folder)


@pytest.mark.kill
@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_kill_while_a_checkpoint_is_replaced_loses_neither(
    can_exchange: bool, golden_set: GoldenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each change on the disk, the folder holds the old or the new checkpoint. Where two folders cannot be
    exchanged, its absence is one line with the command that brings it back."""
    if not can_exchange:
        monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    config = VoxCPM2Config.load(golden_set.checkpoint)
    point, absent, ended = 0, 0, False
    while not ended:
        folder = tmp_path / f"a run [{point}]" / "new"
        save_pretrained(folder, {"x": torch.ones(1)}, config)
        with killed_at(point, monkeypatch) as done:
            try:
                save_pretrained(folder, {"x": torch.zeros(1)}, config)
                ended = True
            except Killed:
                pass
        if not folder.exists():
            absent += 1
            with pytest.raises(FileNotFoundError, match=r"a save was killed .*; run: mv ") as said:
                find_checkpoint(folder)
            if absent == 1:
                subprocess.run(str(said.value).split("run: ")[1], shell=True, check=True)
                assert load_file(folder / "model.safetensors")["x"] == 1
        else:
            assert load_file(find_checkpoint(folder) / "model.safetensors")["x"] in (0, 1), done
        save_pretrained(folder, {"x": torch.full((1,), 2.0)}, config)
        assert load_file(folder / "model.safetensors")["x"] == 2
        point += 1
    assert "exchange" in done and (absent == 0) == can_exchange


def test_an_interrupt_between_the_two_renames_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    for name in ("old", "fresh"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note").write_text(name)
    honest = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "fresh":
            raise KeyboardInterrupt
        return honest(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.replace_folder(tmp_path / "fresh", tmp_path / "old")
    assert (tmp_path / "old" / "note").read_text() == "old"


def test_torch_files_are_read_without_unpickling_code(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save({"state_dict": tensors}, copy / "pytorch_model.bin")
    load_backbone(copy)

    torch.save({"state_dict": tensors, "evil": Evil()}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_backbone(copy)


class Evil:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (print, ("run",))


def test_missing_unexpected_and_misshapen(copy: Path) -> None:
    rewrite(copy, lambda t: t.update({"stop_heads.weight": t.pop("stop_head.weight")}))
    with pytest.raises(CheckpointError, match=r"missing: stop_head\.weight; unexpected: stop_heads\.weight"):
        load_backbone(copy)
    rewrite(copy, lambda t: t.update({"stop_head.weight": t.pop("stop_heads.weight")[:, :-1].contiguous()}))
    with pytest.raises(
        CheckpointError, match=r"stop_head\.weight has shape \[2, \d+\], the config asks for \[2, \d+\]"
    ):
        load_backbone(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number(copy: Path, value: float) -> None:
    rewrite(copy, lambda t: t["fsq_layer.in_proj.bias"].__setitem__(3, value))
    with pytest.raises(CheckpointError, match=r"fsq_layer\.in_proj\.bias holds NaN"):
        load_backbone(copy)


def test_a_spoilt_codec(copy: Path) -> None:
    tensors = load_codec(copy).state_dict()
    for file in copy.glob("audiovae.*"):
        file.unlink()
    name = next(iter(tensors))
    torch.save({"state_dict": {k: v for k, v in tensors.items() if k != name}}, copy / "audiovae.pth")
    with pytest.raises(CheckpointError, match="missing"):
        load_codec(copy)
    # The safetensors file goes before the torch file.
    save_file({k: v.contiguous() for k, v in tensors.items()}, copy / "audiovae.safetensors")
    load_codec(copy)
    (copy / "audiovae.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_codec(copy)


@pytest.mark.parametrize("architecture", ["voxcpm", "llama", None])
def test_other_architectures(copy: Path, architecture: str | None) -> None:
    values = json.loads((copy / "config.json").read_text())
    values.pop("architecture")
    if architecture:
        values["architecture"] = architecture
    (copy / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="VoxCPM2 only" if architecture != "llama" else "only 'voxcpm2'"):
        load_backbone(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "audiovae.*", "tokenizer.json"])
def test_files_that_are_not_there(copy: Path, name: str) -> None:
    for file in copy.glob(name):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json|model\.safetensors|audiovae|tokenizer\.json"):
        VoxCPM2Model.from_local(copy)


def test_finding_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_checkpoint(tmp_path) == tmp_path
    for name in ("/nowhere/model", "./nowhere", "nowhere"):
        with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
            find_checkpoint(name)
    with pytest.raises(FileNotFoundError, match=r"openbmb/VoxCPM2 .*local cache"):
        find_checkpoint("openbmb/VoxCPM2", cache_dir=tmp_path, local_files_only=True)


def test_config_round_trip_keeps_what_it_does_not_know() -> None:
    values = tiny_dict(future=1, lm_config__future={"a": [1]}, dit_config__mean_mode=False)
    values["dit_config"]["cfm_config"] = {"sigma_min": 1e-6, "later": True}
    written = VoxCPM2Config.from_dict(values).to_dict()

    def contains(big: object, small: object) -> bool:
        if isinstance(small, dict):
            return isinstance(big, dict) and all(k in big and contains(big[k], v) for k, v in small.items())
        return big == small

    assert contains(written, values)
    assert VoxCPM2Config.from_dict(json.loads(json.dumps(written))).to_dict() == written


def test_config_defaults_and_derived_values() -> None:
    values = tiny_dict(lm_config__use_mup=True)
    for name in ("encoder_config", "dit_config", "residual_lm_no_rope", "patch_size"):
        values.pop(name)
    values["lm_config"].pop("kv_channels")
    scaling = {
        "type": "longrope",
        "long_factor": [2.0] * 32,
        "short_factor": [1.0] * 32,
        "original_max_position_embeddings": 64,
    }
    values["lm_config"].update(hidden_size=256, num_attention_heads=4, rope_scaling=scaling)
    config = VoxCPM2Config.from_dict(values)
    assert config.patch_size == 4 and config.ralm.rope_theta is not None
    assert config.encoder_config.num_layers == 4 and config.locenc.head_dim == 64 == config.tslm.head_dim
    # 256 positions against 64 original ones: long factors and an amplitude.
    assert config.tslm.rope_factors == (2.0,) * 32 and config.tslm.rope_amplitude == pytest.approx((1 + 1 / 3) ** 0.5)
    assert config.tslm.residual_scale == pytest.approx(1.4 / 2**0.5) and config.locdit.residual_scale == pytest.approx(
        0.7
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lm_config__num_attention_heads": 3}, "not a multiple"),
        ({"lm_config__kv_channels": 16}, "factors"),
        ({"dit_config__cfm_config": {"t_scheduler": "cosine"}}, "t_scheduler"),
        ({"lm_config": {}}, "lacks the field"),
        ({"lm_config": 3}, "must be an object"),
    ],
)
def test_configs_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        VoxCPM2Config.from_dict(tiny_dict(**changes))


def test_fresh_weights_are_sound_and_repeatable() -> None:
    model, same, other = tiny_model(1), tiny_model(1), tiny_model(2)
    for (name, a), b, c in zip(model.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.isfinite(a).all() and torch.equal(a, b)
        assert a.numel() < 2 or "norm" in name or name.endswith("bias") or not torch.equal(a, c), name
    assert len(
        build_codec(
            VoxCPM2Config.from_dict(tiny_dict(audio_vae_config={"encoder_dim": 4, "decoder_dim": 64}))
        ).state_dict()
    )
