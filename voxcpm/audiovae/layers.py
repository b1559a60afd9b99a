"""Layers of the codec in their trainable form: [B, C, T] tensors, weight norm applied at every call.

Parameter names are those of the published checkpoint (`weight_g`, `weight_v`, `bias`, `alpha`). All layers are causal
and take the pass's `Histories`, so one code path serves whole calls and streams.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxcpm.audiovae.config import RESIDUAL_KERNEL
from voxcpm.audiovae.state import Histories

SNAKE_EPSILON = 1e-9


class Snake(nn.Module):
    """Periodic activation x + sin(alpha x)^2 / (alpha + 1e-9), one alpha per channel (Ziyin et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        return x + (self.alpha + SNAKE_EPSILON).reciprocal() * torch.sin(self.alpha * x).square()


class WeightNorm(nn.Module):
    """A weight parametrized by direction and norm: w = g v / |v|, with the norm over all dimensions except the first."""

    def __init__(self, shape: tuple[int, int, int], bias: int | None) -> None:
        super().__init__()
        self.bias = None if bias is None else nn.Parameter(torch.zeros(bias))
        weight = torch.empty(shape)
        length = torch.empty(shape[0], 1, 1)
        if not weight.is_meta:  # a meta weight is loaded later; initializing it would import torch's tracing code (1 s)
            nn.init.trunc_normal_(weight, std=0.02)
            length = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
        self.weight_g = nn.Parameter(length)
        self.weight_v = nn.Parameter(weight)

    def weight(self) -> Tensor:
        """The effective weight, in the shape of `weight_v`."""
        return torch._weight_norm(self.weight_v, self.weight_g, 0)  # torch's only fused forward and backward for it


class CausalConv(WeightNorm):
    """Convolution padded on the left only.

    With stride 1 an output depends on (kernel - 1) * dilation earlier frames. With stride s (kernel 2s) it depends on `padding`
    earlier frames, s or s + 1, and the length is divided by s; it must be a multiple of s.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding: int | None = None,
    ) -> None:
        super().__init__((outputs, inputs // groups, kernel), outputs if bias else None)
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.history_frames = padding if padding is not None else (kernel - 1) * dilation if stride == 1 else stride

    def forward(self, x: Tensor, histories: Histories) -> Tensor:
        """[B, inputs, T] -> [B, outputs, T / stride]."""
        extended = histories.extend(x, self.history_frames)
        return F.conv1d(extended, self.weight(), self.bias, self.stride, 0, self.dilation, self.groups)


class CausalUpsample(WeightNorm):
    """Transposed convolution, kernel 2s, stride s: T frames become exactly s T; each depends on one earlier frame."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__((inputs, outputs, 2 * stride), outputs)
        self.stride = stride

    def forward(self, x: Tensor, histories: Histories) -> Tensor:
        """[B, inputs, T] -> [B, outputs, T * stride]."""
        extended = histories.extend(x, 1)
        spread = F.conv_transpose1d(extended, self.weight(), self.bias, self.stride)
        # The first s samples belong to the previous frame, the last s to the next frame.
        return spread[:, :, self.stride : -self.stride]


class ResidualUnit(nn.Module):
    """x + conv1(snake(conv7(snake(x)))), the wide convolution dilated and, in the published codec, depthwise."""

    def __init__(self, channels: int, dilation: int, depthwise: bool) -> None:
        super().__init__()
        groups = channels if depthwise else 1
        self.block = nn.ModuleList(
            [
                Snake(channels),
                CausalConv(channels, channels, RESIDUAL_KERNEL, dilation=dilation, groups=groups),
                Snake(channels),
                CausalConv(channels, channels, 1),
            ]
        )

    def forward(self, x: Tensor, histories: Histories) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        snake1, wide, snake2, pointwise = self.block
        residual: Tensor = pointwise(snake2(wide(snake1(x), histories)), histories)
        return x + residual


class NoiseBlock(nn.Module):
    """x + n * conv1(x), n white noise shared by all channels, so that the decoder can produce breath and hiss."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = CausalConv(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, histories: Histories) -> Tensor:
        """[B, C, T] -> [B, C, T]; draws from torch's global generator."""
        noise = torch.randn(x.shape[0], 1, x.shape[2], dtype=x.dtype, device=x.device)
        return x + noise * self.linear(x, histories)


class RateCondition(nn.Module):
    """Condition of a decoder stage on the output bandwidth: an embedding of the sample-rate bucket.

    It is added, applied as scale and bias, or concatenated. Both scale_bias types compute x * scale + bias and are
    initialized to the identity here.
    """

    def __init__(self, channels: int, buckets: int, kind: str, dim: int, out_layer: bool) -> None:
        super().__init__()
        self.kind = kind
        if kind in ("scale_bias", "scale_bias_init"):
            self.scale_embed, self.bias_embed = nn.Embedding(buckets, channels), nn.Embedding(buckets, channels)
            nn.init.ones_(self.scale_embed.weight)
            nn.init.zeros_(self.bias_embed.weight)
        else:
            self.cond_embed = nn.Embedding(buckets, channels if kind == "add" else dim)
            nn.init.normal_(self.cond_embed.weight, std=0.02)
        width = channels + dim if kind == "concat" else channels
        self.out_layer = nn.ModuleList([Snake(width), CausalConv(width, channels, 1)]) if out_layer else None

    def forward(self, x: Tensor, bucket: Tensor, histories: Histories) -> Tensor:
        """[B, C, T] and bucket indices [B] or [1] -> [B, C, T]."""
        if self.kind == "add":
            x = x + self.cond_embed(bucket)[:, :, None]
        elif self.kind == "concat":
            x = torch.cat([x, self.cond_embed(bucket)[:, :, None].expand(x.shape[0], -1, x.shape[2])], dim=1)
        else:
            x = x * self.scale_embed(bucket)[:, :, None] + self.bias_embed(bucket)[:, :, None]
        if self.out_layer is not None:
            snake, conv = self.out_layer
            x = conv(snake(x), histories)
        return x
