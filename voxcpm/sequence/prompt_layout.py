"""The sequence layouts of VoxCPM2: which positions are text, which are patches.

    basic, voice design        text 101
    reference, controllable    103 [reference patches] 104 text 101
    continuation               prompt_text+text 101 [prompt patches]
    both                       103 [reference patches] 104 prompt_text+text 101 [prompt patches]

A voice or style description is plain text in parentheses before the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.text_tokenizer import TextTokenizer

AUDIO_START, AUDIO_END, REFERENCE_START, REFERENCE_END = 101, 102, 103, 104


@dataclass(frozen=True)
class Layout:
    """The input sequence of one request: T positions, N of them patches."""

    text_tokens: Tensor  #: [T] int64, 0 at patches
    audio_mask: Tensor  #: [T] bool
    patches: Tensor  #: [N, P, D] float32, reference patches first, in the order of their positions
    target_tokens: int  #: tokens of the text to be spoken, without the prompt's text and the special tokens
    prompt_patches: int  #: Q, the number of prompt patches, the last of the layout; generation continues them

    @property
    def length(self) -> int:
        """The number of positions T."""
        return len(self.text_tokens)

    @property
    def text_mask(self) -> Tensor:
        """[T] bool, the positions that are tokens."""
        return ~self.audio_mask

    def features(self) -> Tensor:
        """[T, P, D]: the patches at their positions, zeros at tokens."""
        rows = self.patches.new_zeros(self.length, *self.patches.shape[1:])
        rows[self.audio_mask] = self.patches
        return rows

    def last_patch(self, config: VoxCPM2Config) -> Tensor:
        """[P, D]: the patch at the last position, zeros if that is a token."""
        if bool(self.audio_mask[-1]):
            return self.patches[-1]
        return torch.zeros(config.patch_size, config.feat_dim)

    def context(self, most: int) -> Tensor:
        """[C, P, D]: the last min(most, Q) prompt patches, which the codec decodes before the first generated one.

        The official code takes them from all patches, so the end of the reference clip would precede a prompt shorter than
        `most`. Here they are from the prompt only.
        """
        wanted = min(most, self.prompt_patches)
        return self.patches[len(self.patches) - wanted :]


def reference_length(layout: Layout) -> int:
    """Number of positions of the voice that comes first in a layout: `103 [reference patches] 104`; 0 without one."""
    references = len(layout.patches) - layout.prompt_patches
    return references + 2 if references else 0


def build_layout(
    tokenizer: TextTokenizer,
    config: VoxCPM2Config,
    text: str,
    prompt_text: str = "",
    reference: Tensor | None = None,
    prompt: Tensor | None = None,
) -> Layout:
    """Build the layout of one request. reference: [R, P, D], prompt: [Q, P, D] latents. The given arguments set the mode.

    Raises ValueError if a prompt is given without its text or the reverse, or if latents have another shape.
    """
    if (prompt is None) != (not prompt_text):
        raise ValueError("prompt audio and prompt text go together: give both or none")
    none = torch.zeros(0, config.patch_size, config.feat_dim)
    reference = none if reference is None else reference.detach().float().cpu()
    prompt = none if prompt is None else prompt.detach().float().cpu()
    for name, clip in (("reference", reference), ("prompt", prompt)):
        if tuple(clip.shape[1:]) != (config.patch_size, config.feat_dim):
            raise ValueError(
                f"{name} latents have shape {tuple(clip.shape)}, expected [N, {config.patch_size}, {config.feat_dim}]"
            )
    # Concatenated as strings: a token may span the border.
    tokens = [*tokenizer.encode(prompt_text + text), AUDIO_START]
    ids: list[int] = []
    audio: list[bool] = []
    if len(reference):
        ids += [REFERENCE_START, *[0] * len(reference), REFERENCE_END]
        audio += [False, *[True] * len(reference), False]
    ids += tokens + [0] * len(prompt)
    audio += [False] * len(tokens) + [True] * len(prompt)
    return Layout(
        torch.tensor(ids, dtype=torch.int64),
        torch.tensor(audio, dtype=torch.bool),
        torch.cat((reference, prompt)),
        target_tokens=len(tokenizer.encode(text)),
        prompt_patches=len(prompt),
    )
