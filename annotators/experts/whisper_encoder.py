"""The encoder of Whisper with regression heads on its mean, in torch: what the vocal experts run on.

Tensors have the names of the Hugging Face format (`encoder.layers.0.self_attn.q_proj.weight`, ...), and the heads are
`head.<n>.weight` and `head.<n>.bias`, linear layers in order with GELU between them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

RATE = 16_000
_WINDOW, _HOP = 400, 160


@dataclass(frozen=True)
class Size:
    """Sizes of an encoder, by the names of its config.json."""

    d_model: int
    encoder_layers: int
    encoder_attention_heads: int
    num_mel_bins: int = 80
    max_source_positions: int = 1500

    @property
    def samples(self) -> int:
        """Samples at 16 kHz that one pass covers: 30 s for Whisper."""
        return self.max_source_positions * 2 * _HOP


def log_mel(samples: np.ndarray, bins: int, length: int) -> np.ndarray:
    """Return Whisper's features of float32 [S] at 16 kHz, cut or padded to `length` samples: float32 [bins, length / 160]."""
    padded = np.zeros(length, dtype=np.float64)
    padded[: min(length, len(samples))] = samples[:length]
    around = np.pad(padded, _WINDOW // 2, mode="reflect")
    window = np.hanning(_WINDOW + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(around, _WINDOW)[::_HOP][: length // _HOP] * window
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    logs = np.log10(np.maximum(power @ _mel_filters(bins).T, 1e-10)).T
    logs = np.maximum(logs, logs.max() - 8.0)
    return np.asarray((logs + 4.0) / 4.0, dtype=np.float32)


@functools.cache
def _mel_filters(bins: int) -> np.ndarray:
    """Return triangular filters on Slaney's scale with equal area: float64 [bins, 201]."""
    linear, step = 200.0 / 3, math.log(6.4) / 27

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * linear, 1000.0 * np.exp(step * (mel - 15)))

    highest = 15 + math.log(RATE / 2 / 1000) / step
    edges = to_hz(np.linspace(0, highest, bins + 2))
    hz = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    rising = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None])


def names_of(size: Size, heads: int) -> set[str]:
    """Return the names of all tensors of a model with this number of linear layers as its head."""
    found = {"encoder.embed_positions.weight"}
    for part in ("conv1", "conv2", "layer_norm"):
        found |= {f"encoder.{part}.weight", f"encoder.{part}.bias"}
    for layer in range(size.encoder_layers):
        for part in (
            "self_attn.q_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
            "self_attn_layer_norm",
            "fc1",
            "fc2",
            "final_layer_norm",
        ):
            found |= {f"encoder.layers.{layer}.{part}.{kind}" for kind in ("weight", "bias")}
        found.add(f"encoder.layers.{layer}.self_attn.k_proj.weight")
    return found | {f"head.{n}.{kind}" for n in range(heads) for kind in ("weight", "bias")}


def scores(features: torch.Tensor, tensors: Mapping[str, torch.Tensor], size: Size) -> torch.Tensor:
    """Return the outputs of the heads, [B, outputs], for `log_mel` features [B, bins, frames]."""
    import torch
    from torch.nn import functional as F

    with torch.inference_mode():
        hidden = F.gelu(F.conv1d(features, *_pair(tensors, "encoder.conv1"), padding=1))
        hidden = F.gelu(F.conv1d(hidden, *_pair(tensors, "encoder.conv2"), stride=2, padding=1)).transpose(1, 2)
        hidden = hidden + tensors["encoder.embed_positions.weight"][: hidden.shape[1]]
        for layer in range(size.encoder_layers):
            hidden = _layer(hidden, tensors, f"encoder.layers.{layer}", size)
        mean = _norm(hidden, tensors, "encoder.layer_norm").mean(dim=1)
        last = sum(name.startswith("head.") for name in tensors) // 2 - 1
        for n in range(last + 1):
            mean = F.linear(mean, *_pair(tensors, f"head.{n}"))
            mean = F.gelu(mean) if n < last else mean
        return mean


def _layer(hidden: torch.Tensor, tensors: Mapping[str, torch.Tensor], name: str, size: Size) -> torch.Tensor:
    from torch.nn import functional as F

    count, frames, width = hidden.shape
    heads = size.encoder_attention_heads
    normed = _norm(hidden, tensors, f"{name}.self_attn_layer_norm")

    def split(part: str) -> torch.Tensor:
        made: torch.Tensor = F.linear(normed, tensors[f"{part}.weight"], tensors.get(f"{part}.bias"))
        return made.view(count, frames, heads, width // heads).transpose(1, 2)

    query, key, value = (split(f"{name}.self_attn.{part}_proj") for part in "qkv")
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(count, frames, width)
    hidden = hidden + F.linear(mixed, *_pair(tensors, f"{name}.self_attn.out_proj"))
    inner = F.gelu(F.linear(_norm(hidden, tensors, f"{name}.final_layer_norm"), *_pair(tensors, f"{name}.fc1")))
    return hidden + F.linear(inner, *_pair(tensors, f"{name}.fc2"))


def _norm(hidden: torch.Tensor, tensors: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    from torch.nn import functional as F

    made: torch.Tensor = F.layer_norm(hidden, hidden.shape[-1:], *_pair(tensors, name))
    return made


def _pair(tensors: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]
