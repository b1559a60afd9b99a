"""Audio of many utterances from one codec, patch by patch: one batched call per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE
    from voxcpm.audiovae.state import DecoderState


class CodecStreams:
    """One stream per utterance, by number. The audio of a stream does not depend on the others."""

    def __init__(self, codec: AudioVAE) -> None:
        self._codec = codec
        self._apart: dict[int, DecoderState] = {}  # streams that were not in the last call
        self._together: list[int] = []  # streams of the last call, in the order of `_state`
        self._state: DecoderState | None = None

    def start(self, number: int, context: Tensor) -> None:
        """Begin a stream after the patches `context` [C, P, D], which may be none."""
        with torch.inference_mode():
            if len(context):
                self._apart[number] = self._codec.warm_state(self._frames(context[None]))
            else:
                self._apart[number] = self._codec.init_decoder_state(1)

    def stop(self, number: int) -> None:
        """Forget a stream; nothing if there is none."""
        if number in self._together:
            self._split(keep=[other for other in self._together if other != number])
        self._apart.pop(number, None)

    def decode(self, numbers: Sequence[int], patches: Tensor) -> list[NDArray[np.float32]]:
        """Decode the next patch [n, P, D] of each stream; return the samples of each, float32.

        Raises KeyError if a stream was not started.
        """
        with torch.inference_mode():
            if list(numbers) != self._together:
                self._gather(numbers)
            assert self._state is not None
            audio, self._state = self._codec.decode_stream(self._frames(patches), self._state)
            wav = audio[:, 0].float().cpu().numpy()
        return [row.copy() for row in wav]

    def _frames(self, patches: Tensor) -> Tensor:
        """[n, P, D] or [1, C, P, D] -> [n, D, frames] on the codec's device."""
        rows = patches.reshape(patches.shape[0], -1, patches.shape[-1])
        return rows.transpose(1, 2).to(device=self._codec.device, dtype=torch.float32)

    def _gather(self, numbers: Sequence[int]) -> None:
        """Make `numbers`, in this order, the streams of the next call."""
        wanted = set(numbers)
        self._split(keep=[number for number in self._together if number in wanted])
        states = [self._state] if self._state is not None else []
        order = list(self._together)
        for number in numbers:
            if number in self._apart:
                states.append(self._apart.pop(number))
                order.append(number)
        missing = [number for number in numbers if number not in order]
        if missing:
            raise KeyError(f"stream {missing[0]} was not started")
        joined = type(states[0]).join(states) if len(states) > 1 else states[0]
        at = {number: row for row, number in enumerate(order)}
        rows = [at[number] for number in numbers]
        self._state = joined if rows == list(range(len(rows))) else joined.select(rows)
        self._together = list(numbers)

    def _split(self, keep: Sequence[int]) -> None:
        """Keep these streams together and put the others apart."""
        if self._state is None:
            return
        at = {number: row for row, number in enumerate(self._together)}
        for number in set(self._together) - set(keep):
            self._apart[number] = self._state.select([at[number]])
        self._state = self._state.select([at[number] for number in keep]) if keep else None
        self._together = list(keep)
