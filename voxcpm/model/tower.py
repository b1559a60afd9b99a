"""The MiniCPM4 tower: the stack of pre-norm blocks of TSLM, RALM, LocEnc and LocDiT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from voxcpm.config import TowerConfig
from voxcpm.model.attention import Attention, PassContext, Reach
from voxcpm.model.layers import RMSNorm, SwiGLU, rotary, signed

if TYPE_CHECKING:
    from voxcpm.model.decode_state import KVCache


class Block(nn.Module):
    """x + s attention(norm x), then x + s mlp(norm x); s is muP's depth scale or 1."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = SwiGLU(config.hidden, config.ffn)
        self.input_layernorm = RMSNorm(config.hidden, config.eps)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.eps)
        self.residual_scale = config.residual_scale

    def forward(self, x: Tensor, context: PassContext, layer: int = 0) -> Tensor:
        """[B, T, H] -> [B, T, H], or only the positions of `context.keep`."""
        attended = self.self_attn(self.input_layernorm(x), context, layer)
        if context.keep is not None:
            x = x[:, context.keep]
        if self.residual_scale == 1.0:
            x = x + attended
            return x + self.mlp(self.post_attention_layernorm(x))
        x = x + attended * self.residual_scale
        return x + self.mlp(self.post_attention_layernorm(x)) * self.residual_scale


class Tower(nn.Module):
    """Blocks and the final norm; with a vocabulary also the embedding (`embed_tokens`)."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.config = config
        if config.vocab:
            self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.eps)
        self.exact = False  #: see `VoxCPM2.set_exact`

    def forward(
        self,
        x: Tensor,
        reach: Reach,
        positions: Tensor | None = None,
        keep: slice | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """[B, T, H] -> [B, T, H]; positions: [B, T] int64, 0..T-1 if None.

        keep: the positions whose output is needed (full reach only). The last block computes only these. This does not
        change them, because the others would only be inputs of a next block.
        """
        return self.run_blocks(x, PassContext(reach, self.rope(x, positions), keep, cache))

    def rope(self, x: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Return (cos, signed sin) for the positions of x, in the blocks' form; None for a tower without RoPE."""
        tables = rotary(self.config, x.shape[1] if positions is None else positions, x.device)
        if tables is None:
            return None
        cos, sin = tables if positions is None else (tables[0].unsqueeze(1), tables[1].unsqueeze(1))
        if self.exact:
            cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        return cos, signed(sin)

    def run_blocks(self, x: Tensor, context: PassContext) -> Tensor:
        """Run `forward` with known rotary tables."""
        last = len(self.layers) - 1
        inner = PassContext(context.reach, context.rope, cache=context.cache)
        for index, block in enumerate(self.layers):
            x = block(x, context if index == last else inner, index)
        return self.norm(x)
