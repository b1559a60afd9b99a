"""Tokens and layouts against the reference's."""

from __future__ import annotations

import json

import torch
from voxcpm_fixtures import GoldenSet

from voxcpm.model.backbone import VoxCPM2
from voxcpm.sequence.prompt_layout import build_layout
from voxcpm.sequence.text_tokenizer import TextTokenizer

MODES = ("basic", "voice_design", "reference", "controllable", "continuation", "ref_continuation")


def test_every_tokenizer_case(golden_set: GoldenSet, golden_tokenizer: TextTokenizer) -> None:
    cases = json.loads((golden_set.folder / "tokenizer_cases.json").read_text(encoding="utf-8"))
    assert cases
    for case in cases:
        assert golden_tokenizer.pieces(case["text"]) == case["tokens"], case["text"]
        assert golden_tokenizer.encode(case["text"]) == case["ids"], case["text"]


def test_every_layout(golden_set: GoldenSet, golden_tokenizer: TextTokenizer, golden_backbone: VoxCPM2) -> None:
    stored = golden_set["generation"]
    for mode in MODES:
        about = golden_set.meta["generation"][mode]
        layout = build_layout(
            golden_tokenizer,
            golden_backbone.config,
            about["target_text"],
            about["prompt_text"] or "",
            stored["ref_feat_right_padded"] if about["uses_reference"] else None,
            stored["prompt_feat_left_padded"] if about["prompt_text"] else None,
        )
        assert torch.equal(layout.text_tokens, stored[f"{mode}.text_tokens"])
        assert torch.equal(layout.text_mask.long(), stored[f"{mode}.text_mask"])
        assert torch.equal(layout.audio_mask.long(), stored[f"{mode}.audio_mask"])
        assert torch.equal(layout.features(), stored[f"{mode}.audio_feat"])
        assert layout.target_tokens == about["target_token_count"]
        assert len(layout.context(3)) == about["context_patches"]
