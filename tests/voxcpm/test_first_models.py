"""VoxCPM 0.5B and VoxCPM1.5 against the official package: latents and audio within 2e-3, losses within 1e-4 (relative)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from first_models import FOLDER, MODES, FirstModel
from safetensors.torch import load_file
from tensor_closeness import assert_close

from voxcpm.audiovae import AudioVAEConfig
from voxcpm.config import VoxCPM2Config
from voxcpm.engine.batch import generate_patches, stream_patches
from voxcpm.inference.patch_codec import PatchStream, decode_patches, encode_clip
from voxcpm.model.backbone import VoxCPM2
from voxcpm.presets import PUBLISHED, published_config, published_dict
from voxcpm.sequence.prompt_layout import build_layout
from voxcpm.sequence.text_tokenizer import TextTokenizer
from voxcpm.weights.checkpoint import build_codec, load_backbone, load_codec, save_pretrained
from voxcpm.weights.lora import load_lora, merge_lora

LATENTS, AUDIO = 2e-3, 2e-3


def test_every_key_and_shape(first: FirstModel) -> None:
    config = VoxCPM2Config.load(first.checkpoint)
    ours = {name: list(x.shape) for name, x in VoxCPM2.from_config(config, device="meta").state_dict().items()}
    ours |= {f"audio_vae.{name}": list(x.shape) for name, x in build_codec(config).state_dict().items()}
    assert ours == first.about["shapes"]


@pytest.mark.parametrize("folded", [False, True])
def test_the_codec(first: FirstModel, folded: bool) -> None:
    codec = load_codec(first.checkpoint)
    if folded:
        codec.fold_weight_norm()
    clip, latents = first["clip"][None, None], first["clip_latents"]
    assert_close(codec.encode(clip), latents, 1e-3)
    assert_close(codec.decode(latents), first["decoded"], AUDIO)
    # In pieces it is the same: the padding of 5, 3 and 7 is odd, so a piece's last sample waits for the next.
    whole = torch.nn.functional.pad(clip, (0, -clip.shape[2] % codec.config.hop_length))
    state, parts = codec.init_encoder_state(), []
    for part in whole.split(3 * codec.config.hop_length, dim=2):
        mean, state = codec.encode_stream(part, state)
        parts.append(mean)
    assert_close(torch.cat(parts, dim=2), latents, 1e-3)
    assert codec.out_sample_rate == codec.sample_rate and codec.rate_bucket(8000) == 0


def test_the_prompt_and_the_layouts(first: FirstModel) -> None:
    codec, config = load_codec(first.checkpoint), VoxCPM2Config.load(first.checkpoint)
    tokenizer, texts = TextTokenizer.load(first.checkpoint), first.about["texts"]
    prompt = encode_clip(codec, config, first["prompt"], "left")
    assert_close(prompt, first["prompt_feat"], 1e-3)
    made = {
        "basic": build_layout(tokenizer, config, texts["basic"]),
        "continuation": build_layout(tokenizer, config, texts["continuation"], texts["prompt"], prompt=prompt),
    }
    for mode in MODES:
        stored = first.layout(mode)
        assert made[mode].text_tokens.tolist() == stored.text_tokens.tolist()
        assert torch.equal(made[mode].audio_mask, stored.audio_mask)
        assert made[mode].target_tokens == stored.target_tokens


@pytest.mark.parametrize("mode", MODES)
def test_latents_and_states(first: FirstModel, mode: str) -> None:
    model = load_backbone(first.checkpoint)
    patches = [step[0] for step in stream_patches(model, [first.request(mode, first.layout(mode))])]
    for name, key in (("latents", "patches"), ("lm_hidden",) * 2, ("residual_hidden",) * 2, ("stop_logits",) * 2):
        assert_close(torch.stack([getattr(p, name) for p in patches]), first[f"{mode}.{key}"], LATENTS)


def test_both_layouts_in_one_batch(first: FirstModel) -> None:
    requests = [first.request(mode, first.layout(mode)) for mode in MODES]
    for mode, made in zip(MODES, generate_patches(load_backbone(first.checkpoint), requests), strict=True):
        assert_close(made.patches, first[f"{mode}.patches"], LATENTS)


@pytest.mark.parametrize("mode", MODES)
def test_audio_whole_and_streamed(first: FirstModel, mode: str) -> None:
    codec, config = load_codec(first.checkpoint), VoxCPM2Config.load(first.checkpoint)
    patches, context = first[f"{mode}.patches"], first.layout(mode).context(2)
    wav = decode_patches(codec, config, patches, context)
    assert len(wav) == len(patches) * config.out_patch_samples
    assert_close(wav, first[f"{mode}.wav"], AUDIO)
    stream = PatchStream(codec.fold_weight_norm(), context)
    assert_close(torch.cat([stream.push(patch[None]) for patch in patches]), first[f"{mode}.wav"], AUDIO)


def test_lora(first: FirstModel) -> None:
    model = load_backbone(first.checkpoint)
    loaded, skipped = load_lora(model, first.folder / "lora")
    assert loaded and not skipped and not any("fusion_concat_proj" in name for name in loaded)
    request = first.request("basic", first.layout("basic"), "lora")
    assert_close(generate_patches(model, [request])[0].patches, first["lora.patches"], LATENTS)
    merge_lora(model)
    assert_close(generate_patches(model, [request])[0].patches, first["lora.patches"], LATENTS)


def test_the_losses_and_gradients_of_a_step(first: FirstModel) -> None:
    model = load_backbone(first.checkpoint).requires_grad_(True)
    losses, wanted = model.training_losses(*first.step()), first.about["loss"]
    assert losses.diffusion.item() == pytest.approx(wanted["diffusion"], rel=1e-4)
    assert losses.stop.item() == pytest.approx(wanted["stop"], rel=1e-4)
    (losses.diffusion + losses.stop).backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    assert norms == pytest.approx(wanted["gradient_norms"], rel=1e-3, abs=1e-6)


def test_a_config_keeps_its_meaning_when_it_is_written(first: FirstModel) -> None:
    config = VoxCPM2Config.load(first.checkpoint)
    assert VoxCPM2Config.from_dict(config.to_dict()) == config
    # The official class reads an absent kv_channels, and refuses null.
    assert config.to_dict()["architecture"] == "voxcpm" and "kv_channels" not in config.to_dict()["dit_config"]


def test_the_fields_and_defaults_of_the_first_architecture() -> None:
    values = published_dict(PUBLISHED[2])
    for name in (
        "architecture",
        "patch_size",
        "residual_lm_num_layers",
        "scalar_quantization_latent_dim",
        "max_length",
    ):
        del values[name]
    assert VoxCPM2Config.from_dict(values).to_dict() == published_config(PUBLISHED[2]).to_dict()
    # Fields of VoxCPM2 that the official class of this architecture does not read.
    values["residual_lm_no_rope"] = True
    values["audio_vae_config"] = {"out_sample_rate": 48_000, "sr_bin_boundaries": [20_000], "sample_rate": 22_050}
    values["dit_config"]["dit_mean_mode"] = True
    config = VoxCPM2Config.from_dict(values)
    assert config.ralm.rope_theta == 10_000 and not config.dit_config.dit_mean_mode
    assert (
        config.out_sample_rate == 22_050 and AudioVAEConfig.from_dict(config.audio_vae_config).sr_bin_boundaries is None
    )
    # Mean mode is beside dit_config, and stays there for the official package.
    averaged = VoxCPM2Config.from_dict({**values, "dit_mean_mode": True})
    assert averaged.dit_config.dit_mean_mode and averaged.to_dict()["dit_mean_mode"] is True
    assert averaged.locdit.max_positions == 1 + 2 * 2


def test_what_we_write_is_what_the_official_package_reads(first: FirstModel, tmp_path: Path) -> None:
    config = VoxCPM2Config.load(first.checkpoint)
    model, codec = load_backbone(first.checkpoint), load_codec(first.checkpoint)
    save_pretrained(tmp_path / "copy", model, config, first.checkpoint, codec)
    tensors = load_file(tmp_path / "copy" / "model.safetensors")
    tensors |= {f"audio_vae.{name}": x for name, x in load_file(tmp_path / "copy" / "audiovae.safetensors").items()}
    assert {name: list(x.shape) for name, x in tensors.items()} == first.about["shapes"]
    assert VoxCPM2Config.load(tmp_path / "copy") == config


@pytest.mark.parametrize(("hub_id", "hertz", "seconds"), [(PUBLISHED[1], 44_100, 0.16), (PUBLISHED[2], 16_000, 0.08)])
def test_the_published_models_on_the_meta_device(hub_id: str, hertz: int, seconds: float) -> None:
    config = published_config(hub_id)
    with torch.device("meta"):
        parts = {"model": VoxCPM2.from_config(config, device="meta"), "codec": build_codec(config)}
    counted = {}
    for part, module in parts.items():
        tensors = module.state_dict()
        lines = "".join(f"{name} {list(tensors[name].shape)}\n" for name in sorted(tensors))
        digest = hashlib.sha256(lines.encode()).hexdigest()
        counted[part] = {"tensors": len(tensors), "weights": sum(x.numel() for x in tensors.values()), "sha256": digest}
    assert counted == json.loads((FOLDER / "published.json").read_text(encoding="utf-8"))[hub_id]
    # The released files: 2 bytes per weight of the model and 4 of the codec, with a header each.
    sizes = {PUBLISHED[1]: (1_603_516_600, 346_023_712), PUBLISHED[2]: (1_304_607_744, 301_494_192)}[hub_id]
    for part, width, size in (("model", 2, sizes[0]), ("codec", 4, sizes[1])):
        assert 0 < size - width * counted[part]["weights"] < 100_000
    assert config.sample_rate == config.out_sample_rate == hertz and config.patch_seconds == seconds
