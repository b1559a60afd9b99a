"""Keys and values of voices: a reference clip always comes first in its layout, so what it leaves in the caches can be reused."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from voxcpm.model.decode_state import DecodeState
from voxcpm.sequence.prompt_layout import Layout, reference_length


@dataclass(frozen=True)
class _Prefix:
    """Keys and values [layers, K, length, hd] of both language models."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


class PrefixCache:
    """The last used voices, at most `most_bytes` of memory. The reuse is exact but for the rounding of other kernel shapes."""

    def __init__(self, most_bytes: int = 512 * 2**20) -> None:
        self._most = most_bytes
        self._prefixes: OrderedDict[bytes, _Prefix] = OrderedDict()
        self._bytes = 0
        self.hits = 0

    def __len__(self) -> int:
        return len(self._prefixes)

    @property
    def nbytes(self) -> int:
        """Memory in use, bytes."""
        return self._bytes

    def knows(self, layout: Layout) -> bool:
        """Return True if the layout begins with a voice whose keys and values are cached."""
        key = _key(layout)
        return key is not None and key in self._prefixes

    def keep(self, layout: Layout, state: DecodeState, slot: int) -> None:
        """Copy what the voice of a layout left in its slot; nothing for a layout without one."""
        key = _key(layout)
        if key is None or key in self._prefixes:
            return
        n = reference_length(layout)
        towers = (state.tslm.k, state.tslm.v, state.ralm.k, state.ralm.v)
        k, v, rk, rv = (tensor[:, slot, :, :n].clone() for tensor in towers)
        prefix = _Prefix((k, v, rk, rv))
        # A voice that turned into NaN must not spoil the requests after it.
        if prefix.nbytes > self._most or not all(bool(tensor.isfinite().all()) for tensor in prefix.tensors):
            return
        self._prefixes[key] = prefix
        self._bytes += prefix.nbytes
        while self._bytes > self._most:
            self._bytes -= self._prefixes.popitem(last=False)[1].nbytes

    def restore(self, layout: Layout, state: DecodeState) -> int:
        """Copy the voice of a layout into the next free slot; return its positions. Raises KeyError without it."""
        key = _key(layout)
        assert key is not None
        prefix = self._prefixes[key]
        self._prefixes.move_to_end(key)
        self.hits += 1
        n, slot = prefix.tensors[0].shape[2], state.active
        for tensor, kept in zip((state.tslm.k, state.tslm.v, state.ralm.k, state.ralm.v), prefix.tensors, strict=True):
            tensor[:, slot, :, :n] = kept
        return n


def _key(layout: Layout) -> bytes | None:
    """Digest of the reference patches of a layout; None without a reference."""
    n = reference_length(layout)
    if n == 0:
        return None
    clip = layout.patches[: n - 2].contiguous()
    return hashlib.blake2b(clip.view(torch.uint8).numpy().tobytes(), digest_size=16).digest()
