"""Prompt caches: the latents of a voice (reference) and of speech to continue (prompt), for reuse.

A cache is a plain dict, as in the official package, and can be saved to a file:
    mode            "reference", "continuation" or "ref_continuation"
    prompt_text     transcript of the prompt, absent without a prompt
    audio_feat      [Q, P, D] prompt latents, absent without a prompt
    ref_audio_feat  [R, P, D] reference latents, absent without a reference
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from voxcpm.errors import CheckpointError
from voxcpm.weights.atomic import write_file


class PromptCache(TypedDict, total=False):
    """The fields of a cache, described in the module docstring."""

    mode: str
    prompt_text: str
    audio_feat: Tensor
    ref_audio_feat: Tensor


def make_prompt_cache(prompt_text: str, prompt: Tensor | None, reference: Tensor | None) -> PromptCache:
    """Make a cache of latents. Raises ValueError if there are none."""
    if prompt is None and reference is None:
        raise ValueError("a prompt cache needs a reference clip, or a prompt clip with its text")
    mode = "reference" if prompt is None else "continuation" if reference is None else "ref_continuation"
    cache = PromptCache(mode=mode)
    if prompt is not None:
        cache["prompt_text"], cache["audio_feat"] = prompt_text, prompt
    if reference is not None:
        cache["ref_audio_feat"] = reference
    return cache


def merge_prompt_cache(cache: PromptCache | None, new_text: str, new_audio_feat: Tensor) -> PromptCache:
    """Return a cache that continues after the generated patches [n, P, D] of `new_text`; the reference is kept."""
    cache = cache if cache is not None else PromptCache()
    earlier = cache.get("audio_feat")
    new = new_audio_feat.detach().float().cpu()
    prompt = new if earlier is None else torch.cat((earlier.float().cpu(), new))
    return make_prompt_cache(cache.get("prompt_text", "") + new_text, prompt, cache.get("ref_audio_feat"))


def save_prompt_cache(cache: PromptCache, path: str | Path) -> None:
    """Write a cache to a safetensors file, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {
        name: value.detach().cpu().contiguous() for name, value in cache.items() if isinstance(value, Tensor)
    }
    about = {"voxcpm_prompt_cache": json.dumps({"mode": cache["mode"], "prompt_text": cache.get("prompt_text", "")})}
    write_file(path, save(tensors, metadata=about))


def load_prompt_cache(path: str | Path) -> PromptCache:
    """Read a cache. Raises FileNotFoundError, and CheckpointError if the file is not a prompt cache."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no prompt cache at {path}")
    try:
        with safe_open(path, "pt") as file:
            about = (file.metadata() or {}).get("voxcpm_prompt_cache")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a prompt cache ({error})") from None
    if about is None:
        raise CheckpointError(f"{path} is a safetensors file, but not a prompt cache")
    text = json.loads(about)["prompt_text"]
    return make_prompt_cache(text, tensors.get("audio_feat"), tensors.get("ref_audio_feat"))
