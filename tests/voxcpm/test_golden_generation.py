"""Generated latents, hidden states and stop decisions in all layouts, with and without LoRA (tolerance 2e-3)."""

from __future__ import annotations

import pytest
import torch
from tensor_closeness import assert_close
from test_golden_text import MODES
from voxcpm_fixtures import GoldenSet

from voxcpm.engine.batch import generate_patches, stream_patches
from voxcpm.engine.request import GenerationRequest
from voxcpm.model.backbone import VoxCPM2
from voxcpm.sequence.prompt_layout import Layout, build_layout
from voxcpm.sequence.text_tokenizer import TextTokenizer
from voxcpm.weights.checkpoint import load_backbone
from voxcpm.weights.lora import enable_lora, load_lora, merge_lora, remove_lora

TOLERANCE = 2e-3


def stored_layout(golden_set: GoldenSet, mode: str) -> Layout:
    """The layout exactly as the golden file has it (that we build the same one is test_golden_text's)."""
    stored = golden_set["generation"]
    mask = stored[f"{mode}.audio_mask"].bool()
    about = golden_set.meta["generation"][mode]
    continued = len(stored["prompt_feat_left_padded"]) if about["prompt_text"] else 0
    return Layout(
        stored[f"{mode}.text_tokens"], mask, stored[f"{mode}.audio_feat"][mask], about["target_token_count"], continued
    )


@pytest.mark.parametrize("mode", MODES)
def test_six_patches(golden_set: GoldenSet, golden_backbone: VoxCPM2, mode: str) -> None:
    stored = golden_set["generation"]
    noise = stored[f"{mode}.noise"]
    n = len(noise)
    request = GenerationRequest(
        stored_layout(golden_set, mode), min_len=n, max_len=n, noise=lambda i: noise[i, 0].transpose(0, 1)
    )
    patches = [step[0] for step in stream_patches(golden_backbone, [request])]
    assert [p.ending for p in patches] == [None] * (n - 1) + ["max_len"]
    assert_close(torch.stack([p.latents for p in patches]), stored[f"{mode}.patches"], TOLERANCE)
    assert_close(torch.stack([p.lm_hidden for p in patches]), stored[f"{mode}.lm_hidden"], TOLERANCE)
    assert_close(torch.stack([p.residual_hidden for p in patches]), stored[f"{mode}.residual_hidden"], TOLERANCE)
    assert_close(torch.stack([p.stop_logits for p in patches]), stored[f"{mode}.stop_logits"], TOLERANCE)
    wanted = golden_set.meta["generation"][mode]["max_len_requested_by_ratio_rule"]
    assert GenerationRequest(request.layout, max_len=10**6).most_patches == wanted


def test_all_layouts_in_one_batch(golden_set: GoldenSet, golden_backbone: VoxCPM2) -> None:
    stored = golden_set["generation"]
    requests = []
    for mode in MODES:
        noise = stored[f"{mode}.noise"]

        def draw(i: int, noise: torch.Tensor = noise) -> torch.Tensor:
            return noise[i, 0].transpose(0, 1)

        requests.append(
            GenerationRequest(stored_layout(golden_set, mode), min_len=len(noise), max_len=len(noise), noise=draw)
        )
    for mode, generation in zip(MODES, generate_patches(golden_backbone, requests), strict=True):
        assert_close(generation.patches, stored[f"{mode}.patches"], TOLERANCE)


def test_a_run_that_stops_by_itself(
    golden_set: GoldenSet, golden_backbone: VoxCPM2, golden_tokenizer: TextTokenizer
) -> None:
    about, stored = golden_set.meta["generation"]["stop_run"], golden_set["generation"]
    noise = stored["stop_run.noise"]
    layout = build_layout(golden_tokenizer, golden_backbone.config, about["target_text"])
    request = GenerationRequest(
        layout, min_len=about["min_len"], max_len=about["max_len"], noise=lambda i: noise[i, 0].transpose(0, 1)
    )
    (generation,) = generate_patches(golden_backbone, [request])
    assert generation.ending == "stop" and len(generation.patches) == about["patches"]
    assert_close(generation.patches, stored["stop_run.patches"], TOLERANCE)


def test_lora_on_off_merged_and_removed(golden_set: GoldenSet, golden_tokenizer: TextTokenizer) -> None:
    model = load_backbone(golden_set.checkpoint, "float32")
    stored = golden_set["lora/lora_generation"]
    noise = stored["noise"]
    # The text of the golden LoRA runs is that of the reference mode, without the reference.
    text = golden_set.meta["generation"]["reference"]["target_text"]
    layout = build_layout(golden_tokenizer, model.config, text)
    request = GenerationRequest(
        layout, min_len=len(noise), max_len=len(noise), noise=lambda i: noise[i, 0].transpose(0, 1)
    )

    def patches() -> torch.Tensor:
        return generate_patches(model, [request])[0].patches

    loaded, skipped = load_lora(model, golden_set.folder / "lora")
    assert loaded and not skipped
    assert_close(patches(), stored["patches"], TOLERANCE)
    enable_lora(model, False)
    assert_close(patches(), stored["patches_lora_disabled"], TOLERANCE)
    enable_lora(model, True)
    assert_close(patches(), stored["patches"], TOLERANCE)
    remove_lora(model)
    assert_close(patches(), stored["patches_lora_disabled"], TOLERANCE)
    load_lora(model, golden_set.folder / "lora")
    merge_lora(model)
    assert not [name for name in model.state_dict() if "lora" in name]
    assert_close(patches(), stored["patches"], TOLERANCE)
