"""State of generation from patch to patch: slots with preallocated key/value caches and the last hidden states.

The running requests always occupy the slots 0..active-1, so that every step works on views. If one ends, the last active slot
moves into its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxcpm.config import TowerConfig, VoxCPM2Config


class KVCache:
    """Keys and values of one tower, [layers, slots, K, capacity, hd]; only the filled part is ever read."""

    def __init__(
        self, config: TowerConfig, slots: int, capacity: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        shape = (config.layers, slots, config.kv_heads, capacity, config.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.stepping = False
        #: [n, 1, 1, filled] bool if the stepping slots differ in length; [length, start + length] of an extension
        self.mask: Tensor | None = None
        self.extending = False
        self._filled = 0
        self._extension = (0, 0, 0)
        self._positions: Tensor | int = 0
        self._prefill: tuple[tuple[int, int, int], ...] = ()

    def prepare_fill(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Prepare for a packed prefill of these lengths, in this order, into these slots."""
        self.stepping = self.extending = False
        starts = [sum(lengths[:i]) for i in range(len(lengths))]
        self._prefill = tuple(zip(slots, starts, lengths, strict=True))

    def fill(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store the keys and values [1, K, sum of lengths, hd] of a packed prefill."""
        for slot, start, length in self._prefill:
            self.k[layer, slot, :, :length] = k[0, :, start : start + length]
            self.v[layer, slot, :, :length] = v[0, :, start : start + length]

    def prepare_extend(self, slot: int, start: int, length: int) -> None:
        """Prepare for `length` positions after the first `start` of a slot, which are filled."""
        self.stepping, self.extending = False, True
        self._extension = (slot, start, start + length)
        reach = torch.arange(start + length, device=self.k.device)
        self.mask = reach <= reach[start:].unsqueeze(1)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store [1, K, length, hd] and return all keys and values of the slot, [1, K, start + length, hd]."""
        slot, start, end = self._extension
        self.k[layer, slot, :, start:end] = k[0]
        self.v[layer, slot, :, start:end] = v[0]
        return self.k[layer, slot : slot + 1, :, :end], self.v[layer, slot : slot + 1, :, :end]

    def prepare_step(self, lengths: Sequence[int], positions: Tensor) -> None:
        """Prepare for one position in each of the first n slots, at `lengths` (host) = `positions` [n] (device)."""
        self.stepping, self.extending = True, False
        self._filled = max(lengths) + 1
        if min(lengths) == max(lengths):
            self._positions, self.mask = lengths[0], None
        else:
            self._positions = positions
            reach = torch.arange(self._filled, device=positions.device)
            self.mask = (reach <= positions.unsqueeze(1)).view(len(lengths), 1, 1, self._filled)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store [n, K, 1, hd] and return all keys and values so far, [n, K, filled, hd]."""
        n = k.shape[0]
        if isinstance(self._positions, int):
            self.k[layer, :n, :, self._positions] = k[:, :, 0]
            self.v[layer, :n, :, self._positions] = v[:, :, 0]
        else:
            rows = torch.arange(n, device=k.device)
            self.k[layer][rows, :, self._positions] = k[:, :, 0]
            self.v[layer][rows, :, self._positions] = v[:, :, 0]
        return self.k[layer, :n, :, : self._filled], self.v[layer, :n, :, : self._filled]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a slot's first `length` positions into another slot."""
        self.k[:, target, :, :length] = self.k[:, source, :, :length]
        self.v[:, target, :, :length] = self.v[:, source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for tensor in (self.k, self.v):
            kept = tensor[:, one, :, :length].clone()
            tensor[:, one, :, :length] = tensor[:, other, :, :length]
            tensor[:, other, :, :length] = kept

    def clear(self, slot: int) -> None:
        """Overwrite a slot with zeros."""
        self.k[:, slot] = 0
        self.v[:, slot] = 0


@dataclass
class DecodeState:
    """The state of a batch of generations. `slots` are rows of every tensor; the first `len(lengths)` are in use.

    Every step works on the first slots, as views: those that are to be left out of a step must be the last ones (`swap`).
    """

    tslm: KVCache
    ralm: KVCache
    capacity: int
    lm_hidden: Tensor  #: [slots, H] h' before the next patch: conditions it and decides whether it is the last
    residual_hidden: Tensor  #: [slots, H]
    previous: Tensor  #: [slots, P, D] float32, the patch before the next one (zeros if it was text)
    lengths: list[int] = field(default_factory=list)  #: filled positions per active slot

    @staticmethod
    def allocate(
        config: VoxCPM2Config, slots: int, capacity: int, dtype: torch.dtype, device: torch.device | str
    ) -> DecodeState:
        """Allocate `slots` generations of at most `capacity` positions each (prompt and patches together).

        Raises ValueError if capacity exceeds the model's `max_length`.
        """
        if capacity > config.max_length:
            raise ValueError(
                f"{capacity} positions do not fit the model's context of {config.max_length}: shorten the text or the audio"
            )
        width = config.lm_config.hidden_size
        return DecodeState(
            KVCache(config.tslm, slots, capacity, dtype, device),
            KVCache(config.ralm, slots, capacity, dtype, device),
            capacity,
            torch.zeros(slots, width, dtype=dtype, device=device),
            torch.zeros(slots, width, dtype=dtype, device=device),
            torch.zeros(slots, config.patch_size, config.feat_dim, device=device),
        )

    @property
    def active(self) -> int:
        """Number of slots in use."""
        return len(self.lengths)

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self.lm_hidden.shape[0]

    def release(self, slot: int, clean: bool = False) -> None:
        """End a generation. The last active slot moves into its place, and callers must reorder their lists in the same way.

        clean: overwrite what the generation wrote. Masked positions are multiplied by zero, which does not remove a NaN.
        """
        last = self.active - 1
        if slot != last:
            self.tslm.move(last, slot, self.lengths[last])
            self.ralm.move(last, slot, self.lengths[last])
            for tensor in (self.lm_hidden, self.residual_hidden, self.previous):
                tensor[slot] = tensor[last]
            if clean:
                # Beyond the moved part the slot still has what the ended generation wrote.
                for cache in (self.tslm, self.ralm):
                    cache.k[:, slot, :, self.lengths[last] :] = 0
                    cache.v[:, slot, :, self.lengths[last] :] = 0
            self.lengths[slot] = self.lengths[last]
        elif clean:
            self.tslm.clear(slot)
            self.ralm.clear(slot)
        self.lengths.pop()

    def swap(self, one: int, other: int) -> None:
        """Exchange two active slots; callers must reorder their lists in the same way."""
        longest = max(self.lengths[one], self.lengths[other])
        self.tslm.swap(one, other, longest)
        self.ralm.swap(one, other, longest)
        for tensor in (self.lm_hidden, self.residual_hidden, self.previous):
            kept = tensor[one].clone()
            tensor[one] = tensor[other]
            tensor[other] = kept
        self.lengths[one], self.lengths[other] = self.lengths[other], self.lengths[one]
