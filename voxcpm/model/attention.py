"""Grouped-query attention, and which positions may attend to which.

The latter is a value (`Reach`) made outside the model: all positions (LocEnc, LocDiT), the past, or the past within the same
document of a packed row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxcpm.config import TowerConfig
from voxcpm.model.layers import rotate

if TYPE_CHECKING:
    from voxcpm.model.decode_state import KVCache

# varlen_attn's arguments changed with torch 2.11 (the causal mask) and 2.12 (fewer key heads than query heads).
_TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
_IS_CAUSAL: dict[str, Any] = {"window_size": (-1, 0)} if _TORCH >= (2, 11) else {"is_causal": True}
_SHARES_HEADS = _TORCH >= (2, 12)


@dataclass(frozen=True)
class Reach:
    """The positions that a position attends to.

    `Reach(causal=False)`: all. `Reach(causal=True)`: the past. With `lengths`: the past of the same document.

    lengths: sizes of the documents in the row-major sequence of all B*T positions; a document never spans two rows.
    """

    causal: bool
    lengths: tuple[int, ...] | None = None
    offsets: Tensor | None = None  #: [documents + 1] int32 on the device: 0 and the running sums of lengths
    longest: int = 0  #: an upper bound of lengths, a power of two so that a compiler sees few values

    @staticmethod
    def packed(lengths: Sequence[int], offsets: Tensor) -> Reach:
        """Return the reach for documents of these lengths.

        offsets: [documents + 1], 0 and the running sums of the lengths, on the device of the computation.
        """
        longest = 1 << max(8, (max(lengths) - 1).bit_length())
        return Reach(True, tuple(lengths), offsets.to(torch.int32), longest)


FULL = Reach(causal=False)
CAUSAL = Reach(causal=True)


@dataclass(frozen=True)
class PassContext:
    """The values that the blocks of a tower share in one pass."""

    reach: Reach
    rope: tuple[Tensor, Tensor] | None = None  #: (cos, signed sin), broadcastable to [B, heads, T, hd]
    keep: slice | None = None  #: the positions whose output is needed; full reach only
    cache: KVCache | None = None  #: has the keys and values of earlier positions, and takes those of this pass


def attend(q: Tensor, k: Tensor, v: Tensor, reach: Reach) -> Tensor:
    """Compute softmax(q k^T / sqrt(hd)) v. q: [B, h, Tq, hd]; k, v: [B, K, T, hd] -> [B, h, Tq, hd].

    Each kv head serves h / K consecutive query heads. With full reach Tq may be smaller than T.
    """
    if reach.offsets is not None:
        return _attend_documents(q, k, v, reach)
    if not reach.causal:
        return attend_all(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


def attend_all(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend from every query to every key (that `mask` [B, 1, 1, T] allows).

    The order of the queries does not matter, so the query heads of a kv head are treated as more queries. Keys and values
    need not be repeated.
    """
    batch, heads, queries, width = q.shape
    groups = k.shape[1]
    if groups == heads:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    side_by_side = q.reshape(batch, groups, heads // groups * queries, width)
    out = F.scaled_dot_product_attention(side_by_side, k, v, attn_mask=mask)
    # reshape, not view: the kernels differ in the layout of their output.
    return out.reshape(batch, heads, queries, width)


def _attend_documents(q: Tensor, k: Tensor, v: Tensor, reach: Reach) -> Tensor:
    """Causal attention inside each document, without a mask and without work across borders."""
    assert reach.offsets is not None
    batch, heads, length, width = q.shape
    # [B, h, T, hd] -> [B*T, h, hd]: documents are runs of this sequence.
    flat_q, flat_k, flat_v = (x.transpose(1, 2).reshape(batch * length, x.shape[1], width) for x in (q, k, v))
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        attended = _flash_documents(flat_q, flat_k, flat_v, reach.offsets, reach.longest)
    else:
        lengths = list(reach.lengths or ())
        pieces = [
            F.scaled_dot_product_attention(
                dq.transpose(0, 1)[None],
                dk.transpose(0, 1)[None],
                dv.transpose(0, 1)[None],
                is_causal=True,
                enable_gqa=heads != k.shape[1],
            )[0].transpose(0, 1)
            for dq, dk, dv in zip(flat_q.split(lengths), flat_k.split(lengths), flat_v.split(lengths), strict=True)
        ]
        attended = torch.cat(pieces)
    return attended.view(batch, length, heads, width).transpose(1, 2)


def _flash_documents(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, longest: int) -> Tensor:
    """torch's flash attention inside documents of one row. q: [T, h, hd], k, v: [T, K, hd] -> [T, h, hd]."""
    # Imported here, because it imports torch's compiler: half of the start-up time of a command.
    from torch.nn.attention.varlen import varlen_attn

    groups = q.shape[1] // k.shape[1]
    if _SHARES_HEADS:
        attended = varlen_attn(q, k, v, offsets, offsets, longest, longest, enable_gqa=groups > 1, **_IS_CAUSAL)
    else:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        attended = varlen_attn(q, k, v, offsets, offsets, longest, longest, **_IS_CAUSAL)
    assert isinstance(attended, Tensor)
    return attended


class Attention(nn.Module):
    """Grouped-query self-attention without biases; projections are heads x head_dim wide, not the hidden size."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.q_proj = nn.Linear(config.hidden, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, config.hidden, bias=False)

    def forward(self, x: Tensor, context: PassContext, layer: int = 0) -> Tensor:
        """x: [B, T, H] -> [B, T, H], or only the positions of `context.keep`, the only ones that need queries."""
        reach, rope, keep, cache = context.reach, context.rope, context.keep, context.cache
        batch, length, _ = x.shape
        asked = x if keep is None else x[:, keep]
        q = self.q_proj(asked).view(batch, -1, self.heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        if rope is not None:
            cos, sin = rope
            k = rotate(k, cos, sin)
            q = rotate(q, cos, sin) if keep is None else rotate(q, cos[..., keep, :], sin[..., keep, :])
        if cache is None and not reach.causal and x.device.type == "cpu":
            # The CPU's kernel is faster in float32 (few positions per row), and rotated tensors are float32 already.
            q, k, v = q.float(), k.float(), v.float()
        else:
            # The dtype of v, not of x: under autocast x may be float32 and the projections not.
            q, k = q.to(v.dtype), k.to(v.dtype)
        if cache is not None and cache.stepping:
            k, v = cache.append(layer, k, v)
            out = attend_all(q, k, v, cache.mask)
        elif cache is not None and cache.extending:
            k, v = cache.extend(layer, k, v)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=cache.mask, enable_gqa=self.heads != self.kv_heads)
        else:
            if cache is not None:
                cache.fill(layer, k, v)
            out = attend(q, k, v, reach)
        return self.o_proj(out.transpose(1, 2).reshape(batch, q.shape[2], self.heads * self.head_dim).to(x.dtype))
