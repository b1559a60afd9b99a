"""State of a causal codec between two chunks: a plain value that is passed in and returned, not stored in a module.

Every causal convolution needs the last few frames of its input. Those *histories*, in the order in which the layers
run, are the whole state. They start as zeros, which is the left padding of the published codec. A stream with any chunk
sizes therefore equals one long call. One row of the batch is one stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from voxcpm.audiovae.config import RESIDUAL_DILATIONS, RESIDUAL_KERNEL, AudioVAEConfig


@dataclass(frozen=True)
class _StreamState:
    """Histories of the causal layers: [B, C, n] in the trainable form, [B, n, C] in the folded one."""

    histories: tuple[Tensor, ...]
    folded: bool

    @property
    def batch(self) -> int:
        """Number of streams."""
        return self.histories[0].shape[0]

    def select(self, rows: Sequence[int] | Tensor) -> Self:
        """The streams `rows` (indices), in that order; a row may be taken twice to fork a stream."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.histories[0].device)
        return replace(self, histories=tuple(history.index_select(0, index) for history in self.histories))

    def reset(self, rows: Sequence[int] | Tensor) -> Self:
        """The same streams, with those in `rows` (indices) reset to zero histories."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.histories[0].device)
        return replace(self, histories=tuple(history.index_fill(0, index, 0.0) for history in self.histories))

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """Join several states into one batched state, rows in order. Raises ValueError if their codec forms differ."""
        if len({state.folded for state in states}) != 1:
            raise ValueError("stream states of a folded and of an unfolded AudioVAE cannot be joined")
        rows = zip(*(state.histories for state in states), strict=True)
        return cls(tuple(torch.cat(row) for row in rows), states[0].folded)


@dataclass(frozen=True)
class DecoderState(_StreamState):
    """State of streaming decoding, made by `AudioVAE.init_decoder_state` or `AudioVAE.warm_state`."""


@dataclass(frozen=True)
class EncoderState(_StreamState):
    """State of streaming encoding, made by `AudioVAE.init_encoder_state`."""


class Histories:
    """Histories during one pass over the layers: each layer, in turn, takes its history and stores the new one.

    Without histories the pass starts from zeros and stores nothing (a call that decodes or encodes everything at once).
    """

    def __init__(self, past: tuple[Tensor, ...] | None = None) -> None:
        self._past = None if past is None else iter(past)
        self._kept: list[Tensor] = []

    def extend(self, x: Tensor, frames: int) -> Tensor:
        """[B, C, T] -> [B, C, frames + T]: x after the `frames` frames before it (trainable form)."""
        if frames == 0:
            return x
        past = x.new_zeros(x.shape[0], x.shape[1], frames) if self._past is None else next(self._past)
        extended = torch.cat([past, x], dim=2)
        if self._past is not None:
            self._kept.append(extended[:, :, extended.shape[2] - frames :].clone())
        return extended

    def open(self, like: Tensor, frames: int) -> Tensor:
        """Return a buffer [B, frames + T, C] for `like` [B, T, C]: the history, then uninitialized frames (folded form)."""
        batch, length, channels = like.shape
        buffer = like.new_empty(batch, frames + length, channels)
        if self._past is None:
            buffer[:, :frames] = 0.0
        else:
            buffer[:, :frames] = next(self._past)
        return buffer

    def close(self, buffer: Tensor, frames: int) -> None:
        """Store the last `frames` frames of a buffer from `open`, after the caller has written its new frames."""
        if self._past is not None:
            # A clone, because a view would keep the whole buffer alive from chunk to chunk.
            self._kept.append(buffer[:, buffer.shape[1] - frames :].clone())

    def state(self) -> tuple[Tensor, ...]:
        """The new histories, after all layers have run."""
        return tuple(self._kept)


class HistoryShape(NamedTuple):
    """Size of a layer's history: `frames` frames of `channels` channels; one frame spans `samples` audio samples."""

    channels: int
    frames: int
    samples: int


def decoder_history_shapes(config: AudioVAEConfig) -> list[HistoryShape]:
    """Histories of the decoder, in the order in which its layers run; `samples` counts output samples."""
    samples = config.decode_hop
    shapes = [HistoryShape(config.latent_dim, RESIDUAL_KERNEL - 1, samples)]
    channels = config.decoder_dim
    for rate in config.decoder_rates:
        shapes.append(HistoryShape(channels, 1, samples))
        channels, samples = channels // 2, samples // rate
        shapes += _residual_shapes(channels, samples)
    return [*shapes, HistoryShape(channels, RESIDUAL_KERNEL - 1, samples)]


def encoder_history_shapes(config: AudioVAEConfig) -> list[HistoryShape]:
    """Histories of the encoder, in the order of its layers (the heads share the last); `samples` counts input samples."""
    shapes = [HistoryShape(1, RESIDUAL_KERNEL - 1, 1)]
    channels, samples = config.encoder_dim, 1
    for rate in config.encoder_rates:
        shapes += [*_residual_shapes(channels, samples), HistoryShape(channels, config.stride_padding(rate), samples)]
        channels, samples = channels * 2, samples * rate
    return [*shapes, HistoryShape(channels, 2, samples)]


def _residual_shapes(channels: int, samples: int) -> list[HistoryShape]:
    return [HistoryShape(channels, (RESIDUAL_KERNEL - 1) * dilation, samples) for dilation in RESIDUAL_DILATIONS]


def zero_histories(
    shapes: Sequence[HistoryShape], batch: int, folded: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, ...]:
    """Zero histories of `batch` streams before their first frame."""
    return tuple(
        torch.zeros(
            (batch, s.frames, s.channels) if folded else (batch, s.channels, s.frames), dtype=dtype, device=device
        )
        for s in shapes
    )
