"""From clips to latents and from latents to audio, as the reference does around the model (audio tolerance 2e-3)."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from tensor_closeness import assert_close
from voxcpm_fixtures import GoldenSet

from voxcpm.audiovae.codec import AudioVAE
from voxcpm.config import VoxCPM2Config
from voxcpm.inference.patch_codec import PatchStream, decode_patches, encode_clip
from voxcpm.model.backbone import VoxCPM2
from voxcpm.sequence.training_rows import Sample, lay_out_sample, pack_rows
from voxcpm.weights.checkpoint import load_codec

LATENTS, AUDIO = 1e-4, 2e-3


@pytest.fixture(scope="module")
def codec(golden_set: GoldenSet) -> AudioVAE:
    return load_codec(golden_set.checkpoint)


@pytest.fixture
def config(golden_backbone: VoxCPM2) -> VoxCPM2Config:
    return golden_backbone.config


def test_reference_and_prompt_clips(golden_set: GoldenSet, codec: AudioVAE, config: VoxCPM2Config) -> None:
    stored = golden_set["generation"]
    cases: list[tuple[str, str, Literal["left", "right"]]] = [
        ("ref_feat_right_padded", "ref_wav_16k", "right"),
        ("prompt_feat_left_padded", "prompt_wav_16k", "left"),
    ]
    for name, wav, side in cases:
        assert_close(encode_clip(codec, config, stored[wav], side), stored[name], LATENTS)


@pytest.mark.parametrize("mode", ["basic", "continuation"])
def test_audio_in_one_piece(golden_set: GoldenSet, codec: AudioVAE, config: VoxCPM2Config, mode: str) -> None:
    stored, about = golden_set["generation"], golden_set.meta["generation"][mode]
    context = stored["prompt_feat_left_padded"][len(stored["prompt_feat_left_padded"]) - about["context_patches"] :]
    wav = decode_patches(codec, config, stored[f"{mode}.patches"], context)
    assert len(wav) == about["wav_samples"]
    assert_close(wav[None], stored[f"{mode}.wav"], AUDIO)


def test_streamed_audio_warm_and_cold(golden_set: GoldenSet, codec: AudioVAE, config: VoxCPM2Config) -> None:
    stored = golden_set["generation"]
    context = stored["prompt_feat_left_padded"][-3:]

    def stream(cold: bool) -> torch.Tensor:
        source = PatchStream(codec, context, cold)
        return torch.cat([source.push(patch[None]) for patch in stored["continuation.patches"]])[None]

    assert_close(stream(cold=True), stored["continuation.wav_streaming"], AUDIO)
    # Ours is warm: the same as in one piece, without the reference's difference in the first 0.8 s.
    assert_close(stream(cold=False), stored["continuation.wav"], AUDIO)


def test_the_training_batch_from_its_clips(golden_set: GoldenSet, codec: AudioVAE, config: VoxCPM2Config) -> None:
    stored = golden_set["training"]

    def patches(name: str) -> torch.Tensor:
        return encode_clip(codec, config, stored[name], "right")

    def sample(i: int, **more: Any) -> Sample:
        return lay_out_sample(stored[f"clip{i}_text_ids"].tolist(), patches(f"clip{i}_wav_16k"), **more)

    samples = [sample(0), sample(1, reference=patches("clip1_ref_wav_16k")), sample(2, prompt_only=True)]
    batch = pack_rows([[one] for one in samples])
    for ours, theirs in (("text_tokens", "text_tokens"), ("text_mask", "text_mask"), ("audio_mask", "audio_mask"),
                         ("loss_mask", "loss_mask"), ("stop_labels", "labels"), ("position_ids", "position_ids")):  # fmt: skip
        assert torch.equal(getattr(batch, ours).long(), stored[f"packed.{theirs}"]), ours
    assert_close(batch.features, stored["packed.audio_feats"], LATENTS)
