"""`tts_model` as a module: the official names, one set of children with the backbone, `.to()`, copies, adapters."""

from __future__ import annotations

import copy
import json
import pathlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import nn
from voxcpm_fixtures import GoldenSet

from voxcpm import LoRAConfig, VoxCPM2Model
from voxcpm.errors import CheckpointError
from voxcpm.kernels.packed_linear import PackedLinear, pack_linears, unpack_linears
from voxcpm.model.flow import Solver
from voxcpm.sequence.prompt_layout import build_layout
from voxcpm.weights.lora import adapters, apply_lora, remove_lora


def load(golden_set: GoldenSet, **options: Any) -> VoxCPM2Model:
    torch.set_num_threads(1)
    return VoxCPM2Model.from_local(golden_set.checkpoint, device="cpu", **options)


@pytest.fixture(scope="module")
def kept(golden_set: GoldenSet) -> VoxCPM2Model:
    """A model that tests must not change."""
    return load(golden_set, optimize=False)


@pytest.fixture
def tts(kept: VoxCPM2Model) -> VoxCPM2Model:
    """A model that a test may change: a copy."""
    return copy.deepcopy(kept)


def test_the_state_dict_has_the_official_names(kept: VoxCPM2Model, golden_set: GoldenSet) -> None:
    model = load_file(golden_set.checkpoint / "model.safetensors")
    state = kept.state_dict()
    codec = {name for name in state if name.startswith("audio_vae.")}
    assert state.keys() - codec == {name for name in model if not name.startswith("audio_vae.")}
    assert codec and {name.removeprefix("audio_vae.") for name in codec} == kept.audio_vae.state_dict().keys()
    assert {name for name, _ in kept.named_parameters()} <= state.keys()
    assert {name.partition(".")[0] for name in state} <= {name for name, _ in kept.named_children()}


def test_a_child_is_the_same_in_model_and_backbone(tts: VoxCPM2Model) -> None:
    backbone = tts.backbone
    assert not isinstance(tts.enc_to_lm_proj, PackedLinear)
    tts.enc_to_lm_proj = nn.Linear(*reversed(tts.enc_to_lm_proj.weight.shape))
    assert backbone.enc_to_lm_proj is tts.enc_to_lm_proj
    pack_linears(backbone)
    assert dict(tts.named_children())["enc_to_lm_proj"] is backbone.enc_to_lm_proj is tts.enc_to_lm_proj
    unpack_linears(tts)
    assert type(backbone.enc_to_lm_proj) is type(tts.get_submodule("stop_proj")) is nn.Linear
    tts.add_module("mine", nn.Linear(1, 1))
    assert "mine.weight" in tts.state_dict() and "mine" not in dict(backbone.named_children())
    del tts.mine
    del tts.stop_head
    assert not {"mine", "stop_head"} & {name for name, _ in tts.named_children()} and not hasattr(backbone, "stop_head")
    with pytest.raises(AttributeError, match="stop_head"):
        _ = tts.stop_head
    assert "base_lm" in repr(tts) and "audio_vae" in dir(tts)


def test_what_is_loaded_into_the_model_is_in_the_backbone(tts: VoxCPM2Model) -> None:
    state = {name: torch.full_like(value, 0.5) for name, value in tts.state_dict().items()}
    tts.load_state_dict(state)
    assert bool((tts.backbone.stop_head.weight == 0.5).all())


@pytest.mark.parametrize("through", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_a_model_by_itself(through: Any, kept: VoxCPM2Model) -> None:
    other = through(kept)
    assert other.base_lm is other.backbone.base_lm is not kept.base_lm
    assert torch.equal(other.generate("Hi", max_len=2, seed=3), kept.generate("Hi", max_len=2, seed=3))


@pytest.mark.parametrize("optimize", [False, True])
def test_to_another_dtype_leaves_the_codec_in_float32(optimize: bool, golden_set: GoldenSet) -> None:
    tts = load(golden_set, optimize=optimize, dtype="float32")
    wav = tts.generate("Hi", max_len=3, seed=1)
    assert tts.to("cpu") is tts and torch.equal(tts.generate("Hi", max_len=3, seed=1), wav)
    tts.to(torch.bfloat16)
    codec = [t for t in tts.audio_vae.buffers() if t.is_floating_point()] + list(tts.audio_vae.parameters())
    assert tts.backbone.dtype == torch.bfloat16 and {t.dtype for t in codec} == {torch.float32}
    half = tts.generate("Hi", max_len=3, seed=1)
    assert half.shape == wav.shape and half.dtype == torch.float32 and bool(half.isfinite().all())


def test_small_attributes(kept: VoxCPM2Model, golden_set: GoldenSet, tmp_path: Path) -> None:
    codec = kept.audio_vae
    assert (kept.patch_size, kept.feat_dim) == (4, codec.latent_dim)
    assert (kept.sample_rate, kept._encode_sample_rate) == (codec.out_sample_rate, codec.sample_rate)
    assert (kept.chunk_size, kept._decode_chunk_size) == (codec.chunk_size, codec.decode_chunk_size) == (640, 1920)
    assert (kept.audio_start_token, kept.ref_audio_start_token, kept.ref_audio_end_token) == (101, 103, 104)
    assert kept.text_tokenizer("Hello 你好") == kept.text_tokenizer.encode("Hello 你好")
    soundfile.write(tmp_path / "ref.wav", golden_set["generation"]["ref_wav_16k"].numpy(), 16000)
    feat = kept._encode_wav(str(tmp_path / "ref.wav"), padding_mode="right")
    tokens, features, text_mask, audio_mask = kept._make_ref_prefix(feat, torch.device("cpu"))
    layout = build_layout(kept.text_tokenizer, kept.config, "Hello", reference=feat)
    count = len(feat) + 2
    assert tokens.dtype == text_mask.dtype == audio_mask.dtype == torch.int32 and features.dtype == torch.float32
    assert torch.equal(tokens.long(), layout.text_tokens[:count]) and torch.equal(features, layout.features()[:count])
    assert torch.equal(audio_mask.bool(), layout.audio_mask[:count])
    assert torch.equal(text_mask, 1 - audio_mask)


def test_the_decoder_is_called_as_the_official_one(kept: VoxCPM2Model) -> None:
    width = kept.lm_to_dit_proj.out_features + kept.res_to_dit_proj.out_features
    mu, cond = torch.randn(2, width), torch.randn(2, kept.feat_dim, kept.patch_size)
    torch.manual_seed(5)
    got = kept.feat_decoder(mu=mu, patch_size=kept.patch_size, cond=cond, n_timesteps=4, cfg_value=1.5, temperature=0.5)
    torch.manual_seed(5)
    noise = torch.randn(2, kept.feat_dim, kept.patch_size)
    with torch.inference_mode():
        expected = kept.feat_decoder.solve(mu, cond.mT, noise.mT, 1.5, Solver(4, temperature=0.5)).mT
    assert torch.equal(got, expected)


def test_the_codec_streams_as_the_official_one(kept: VoxCPM2Model) -> None:
    z = torch.randn(1, kept.feat_dim, 6, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = kept.audio_vae.decode(z, sr_cond=kept.sample_rate)
        for _ in range(2):  # a decoder can be used again
            with kept.audio_vae.streaming_decode() as decoder:
                parts = [decoder.decode_chunk(part) for part in z.split(2, dim=2)]
            torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-4, rtol=0)


def test_the_config_of_the_adapters(tts: VoxCPM2Model, golden_set: GoldenSet) -> None:
    assert tts.lora_config is None
    apply_lora(tts.backbone, LoRAConfig(enable_dit=True, r=3))
    assert tts.lora_config == LoRAConfig(enable_dit=True, r=3) and any("lora_A" in name for name in tts.state_dict())
    tts.load_lora_weights(str(golden_set.folder / "lora"), device="cpu")
    assert tts.lora_config is not None and tts.lora_config.r == 4
    remove_lora(tts.backbone)
    assert tts.lora_config is None


def test_an_older_adapter_is_read_and_a_payload_is_not(
    tts: VoxCPM2Model, golden_set: GoldenSet, tmp_path: Path
) -> None:
    tensors = load_file(golden_set.folder / "lora" / "lora_weights.safetensors")
    about = json.loads((golden_set.folder / "lora" / "lora_config.json").read_text(encoding="utf-8"))
    (tmp_path / "lora_config.json").write_text(json.dumps(about), encoding="utf-8")
    torch.save({"state_dict": tensors}, tmp_path / "lora_weights.ckpt")
    loaded, skipped = tts.load_lora_weights(str(tmp_path))
    assert set(loaded) == set(tensors) and not skipped
    before = {name: module.lora_A.clone() for name, module in adapters(tts).items()}

    marker = tmp_path / "marker"
    torch.save(
        {"state_dict": {name: t + 1 for name, t in tensors.items()}, "boom": Payload(marker)},
        tmp_path / "lora_weights.ckpt",
    )
    with pytest.raises(CheckpointError, match="cannot be read"):
        tts.load_lora_weights(str(tmp_path))
    assert not marker.exists()
    assert all(torch.equal(module.lora_A, before[name]) for name, module in adapters(tts).items())


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return pathlib.Path.write_text, (self.path, "run")
