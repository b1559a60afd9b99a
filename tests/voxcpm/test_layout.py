"""The four layouts of the model's input, and what cannot be laid out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_voxcpm import tiny_dict

from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.prompt_layout import AUDIO_END, AUDIO_START, REFERENCE_END, REFERENCE_START, build_layout
from voxcpm.sequence.text_tokenizer import TextTokenizer

P, D = 2, 6
CONFIG = VoxCPM2Config.from_dict(tiny_dict())


class Letters(TextTokenizer):
    """One token a letter, and one for "ab": a token may span the border of two texts."""

    def __init__(self) -> None:
        pass

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text.replace("ab", "~")]


def clip(patches: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(patches, P, D, generator=torch.Generator().manual_seed(seed))


def test_marks_are_the_reference_s() -> None:
    assert (AUDIO_START, AUDIO_END, REFERENCE_START, REFERENCE_END) == (101, 102, 103, 104)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["b", "bcd"]), st.sampled_from(["", "xa"]), st.integers(0, 3), st.integers(1, 4))
def test_text_marks_and_patches_stand_in_their_places(
    text: str, prompt_text: str, references: int, prompts: int
) -> None:
    reference, prompt = clip(references), clip(prompts, 1) if prompt_text else None
    layout = build_layout(Letters(), CONFIG, text, prompt_text, reference if references else None, prompt)
    tokens = Letters().encode(prompt_text + text)
    head = [103, *[0] * references, 104] if references else []
    tail = [0] * prompts if prompt_text else []
    assert layout.text_tokens.tolist() == [*head, *tokens, 101, *tail]
    mask = [False, *[True] * references, False] if references else []
    mask += [False] * (len(tokens) + 1) + [True] * len(tail)
    assert layout.audio_mask.tolist() == mask and layout.text_mask.tolist() == [not heard for heard in mask]
    assert layout.length == len(mask)
    assert torch.equal(layout.patches, torch.cat([reference, *([] if prompt is None else [prompt])]))
    assert layout.target_tokens == len(Letters().encode(text)) and layout.prompt_patches == len(tail)
    features = layout.features()
    assert features.shape == (layout.length, P, D)
    assert torch.equal(features[layout.audio_mask], layout.patches) and not features[layout.text_mask].any()
    # What is generated continues the last position: the prompt's last patch, or a token.
    last = torch.zeros(P, D) if prompt is None else prompt[-1]
    assert torch.equal(layout.last_patch(CONFIG), last)
    for most in (0, 1, 3, 9):
        heard = clip(0) if prompt is None else prompt[max(0, prompts - most) :]
        assert torch.equal(layout.context(most), heard)


def test_a_reference_without_patches_is_none() -> None:
    layout = build_layout(Letters(), CONFIG, "b", reference=clip(0))
    assert layout.text_tokens.tolist() == [ord("b"), 101] and len(layout.patches) == 0


@pytest.mark.parametrize(("prompt_text", "prompt"), [("words", None), ("", clip(2))])
def test_a_prompt_and_its_text_go_together(prompt_text: str, prompt: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="prompt audio and prompt text go together"):
        build_layout(Letters(), CONFIG, "b", prompt_text, None, prompt)


@pytest.mark.parametrize("shape", [(3, P, D + 1), (3, P + 1, D), (P, D), (1, 3, P, D)])
def test_latents_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"reference latents have shape \({shape[0]}, .*expected \[N, 2, 6\]"):
        build_layout(Letters(), CONFIG, "b", reference=torch.zeros(shape))
    with pytest.raises(ValueError, match=r"prompt latents have shape .*expected \[N, 2, 6\]"):
        build_layout(Letters(), CONFIG, "b", "a", clip(2), torch.zeros(shape))


def test_latents_are_detached_float32_on_the_cpu() -> None:
    layout = build_layout(Letters(), CONFIG, "b", reference=clip(2).double().requires_grad_())
    assert layout.patches.dtype == torch.float32 and not layout.patches.requires_grad
