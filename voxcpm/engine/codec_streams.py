"""Audio of many utterances from one codec, patch by patch: one batched call per step, or two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE
    from voxcpm.audiovae.state import DecoderState


@dataclass
class _Group:
    """Streams that are decoded together: numbers[i] is row i of `state`."""

    numbers: list[int]
    state: DecoderState


class CodecStreams:
    """One stream per utterance, by number. The audio of a stream does not depend on the others."""

    def __init__(self, codec: AudioVAE) -> None:
        self._codec = codec
        self._apart: dict[int, DecoderState] = {}  # streams that were not in the last call
        self._groups: list[_Group] = []  # those that were

    def start(self, number: int, context: Tensor) -> None:
        """Begin a stream after the patches `context` [C, P, D], which may be none."""
        with torch.inference_mode():
            if len(context):
                self._apart[number] = self._codec.warm_state(self._frames(context[None]))
            else:
                self._apart[number] = self._codec.init_decoder_state(1)

    def stop(self, number: int) -> None:
        """Forget a stream; nothing if there is none."""
        for group in self._groups:
            if number in group.numbers:
                self._part(group)
                self._groups.remove(group)
                break
        self._apart.pop(number, None)

    def decode(
        self, numbers: Sequence[int], patches: Tensor, workers: ThreadPoolExecutor | None = None
    ) -> list[NDArray[np.float32]]:
        """Decode the next patch [n, P, D] of each stream; return the samples of each, float32.

        workers: two threads that share the streams, see `row_workers`. Raises KeyError if a stream was not started.
        """
        first = (len(numbers) + 1) // 2 if workers is not None else len(numbers)
        shares = [list(share) for share in (numbers[:first], numbers[first:]) if len(share)]
        if shares != [group.numbers for group in self._groups]:
            self._gather(shares)
        if workers is None or len(shares) == 1:
            audio = [self._decode(group, patches) for group in self._groups]
        else:
            audio = list(workers.map(self._decode, self._groups, (patches[:first], patches[first:])))
        return [row.copy() for rows in audio for row in rows]

    def _decode(self, group: _Group, patches: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            audio, group.state = self._codec.decode_stream(self._frames(patches), group.state)
            return audio[:, 0].float().cpu().numpy()

    def _frames(self, patches: Tensor) -> Tensor:
        """[n, P, D] or [1, C, P, D] -> [n, D, frames] on the codec's device."""
        rows = patches.reshape(patches.shape[0], -1, patches.shape[-1])
        return rows.transpose(1, 2).to(device=self._codec.device, dtype=torch.float32)

    def _gather(self, shares: Sequence[list[int]]) -> None:
        """Make `shares` the groups of the next call."""
        known = {*self._apart, *(number for group in self._groups for number in group.numbers)}
        for number in (number for share in shares for number in share):
            if number not in known:
                raise KeyError(f"stream {number} was not started")
        kept = {tuple(group.numbers): group for group in self._groups if group.numbers in shares}
        for group in self._groups:
            if tuple(group.numbers) not in kept:
                self._part(group)
        self._groups = [kept.get(tuple(share)) or self._join(share) for share in shares]

    def _join(self, numbers: list[int]) -> _Group:
        states = [self._apart.pop(number) for number in numbers]
        with torch.inference_mode():
            return _Group(numbers, type(states[0]).join(states) if len(states) > 1 else states[0])

    def _part(self, group: _Group) -> None:
        """Put the streams of a group apart."""
        with torch.inference_mode():
            self._apart |= {number: group.state.select([row]) for row, number in enumerate(group.numbers)}
