"""Layers of the codec in their inference form: [B, T, C] tensors, constants folded at construction.

Four transformations make a chunk of a few frames cheap without changing its value:

* With channels last, every dense convolution is one matrix product; a depthwise one is seven multiply-adds over rows.
* Snake in scaled units: with u = a x, a * snake(x) = u + sin(u)^2. The factor a is folded into the layer that computes x
  and 1/a into the layer that reads the result, which leaves one sine and one multiply-add. (Snake divides by a + 1e-9,
  this by a. The difference, 1e-9 of the square, is below float32 resolution.)
* A bias that is added to the residual stream is a constant per channel. It is not added, but kept as `offset`
  (true signal = stream + offset). It is folded into the affine map at the start of the next snake.
* A transposed convolution with kernel 2s and stride s is a product of [previous frame, frame] with a [2C, s C'] matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxcpm.audiovae.layers import CausalConv, CausalUpsample, NoiseBlock, RateCondition, ResidualUnit, Snake
from voxcpm.audiovae.state import Histories
from voxcpm.kernels.packed_linear import PackedLinear

SMALLEST_ALPHA = 1e-9
"""A smaller |alpha| is replaced by this: 1/alpha would overflow, and snake differs from x by at most 1e-9 x^2 there."""
NUMPY_SINE_THREADS = 2
"""Up to this many threads numpy's float32 sine is used. It takes half the time of torch's (158 against 327 us for 2^18 values),
but runs on one thread only."""


def snake_scale(snake: Snake) -> Tensor:
    """alpha [C], with values near zero replaced so that it can be a divisor."""
    alpha = snake.alpha.detach().flatten()
    tiny = alpha.abs() < SMALLEST_ALPHA
    return torch.where(tiny, torch.full_like(alpha, SMALLEST_ALPHA), alpha)


def scaled_snake_(u: Tensor) -> Tensor:
    """Compute u + sin(u)^2 in place: snake with input and output both multiplied by alpha."""
    if u.device.type == "cpu" and u.dtype == torch.float32 and _numpy_is_faster():
        sine = torch.empty_like(u)
        np.sin(u.numpy(), out=sine.numpy())
    else:
        sine = torch.sin(u)
    return u.addcmul_(sine, sine)


def _numpy_is_faster() -> bool:
    return torch.get_num_threads() <= NUMPY_SINE_THREADS and not torch.compiler.is_compiling()


def windows(buffer: Tensor, kernel: int, dilation: int) -> Tensor:
    """[B, (kernel - 1) dilation + T, C] -> [B, T, kernel * C]: each row holds all inputs of one output frame."""
    length = buffer.shape[1] - (kernel - 1) * dilation
    return torch.cat([buffer[:, k * dilation : k * dilation + length] for k in range(kernel)], dim=2)


def dense_matrix(weight: Tensor) -> Tensor:
    """Convolution weight [C', C, k] -> [C', k C], the matrix for rows of `windows`."""
    return weight.permute(0, 2, 1).flatten(1)


class FoldedConv(nn.Module):
    """Stride-1 convolution of an unscaled signal (entry of the decoder, entry and heads of the encoder)."""

    def __init__(self, conv: CausalConv, *, with_bias: bool = True) -> None:
        super().__init__()
        weight = conv.weight().detach()
        if conv.groups == weight.shape[0] and conv.groups > 1:
            weight = torch.diag_embed(weight[:, 0].t()).permute(1, 2, 0)  # dense, as it has only 64 channels
        self.kernel, self.dilation, self.history_frames = weight.shape[2], conv.dilation, conv.history_frames
        self.product = PackedLinear(dense_matrix(weight), conv.bias if with_bias else None)

    def forward(self, x: Tensor, histories: Histories) -> Tensor:
        """[B, T, C] -> [B, T, C']."""
        if self.history_frames == 0:
            y: Tensor = self.product(x)
            return y
        buffer = histories.open(x, self.history_frames)
        buffer[:, self.history_frames :] = x
        histories.close(buffer, self.history_frames)
        y = self.product(windows(buffer, self.kernel, self.dilation))
        return y


class FoldedResidualUnit(nn.Module):
    """A residual unit on (stream, offset); the attribute `offset` is that of its output."""

    enter_scale: Tensor
    enter_shift: Tensor
    taps: Tensor
    bias: Tensor

    def __init__(self, unit: ResidualUnit, offset: Tensor) -> None:
        super().__init__()
        snake1, wide, snake2, pointwise = unit.block
        assert isinstance(snake1, Snake) and isinstance(snake2, Snake)
        assert isinstance(wide, CausalConv) and isinstance(pointwise, CausalConv)
        assert wide.bias is not None and pointwise.bias is not None
        alpha1, alpha2 = snake_scale(snake1), snake_scale(snake2)
        self.register_buffer("enter_scale", alpha1, persistent=False)
        self.register_buffer("enter_shift", alpha1 * offset, persistent=False)
        self.register_buffer("bias", alpha2 * wide.bias.detach(), persistent=False)
        weight = wide.weight().detach()
        self.kernel, self.dilation, self.history_frames = weight.shape[2], wide.dilation, wide.history_frames
        self.dense: PackedLinear | None = None
        if wide.groups == 1:
            scaled = weight * alpha2[:, None, None] / alpha1[None, :, None]
            self.dense = PackedLinear(dense_matrix(scaled), self.bias)
        else:
            taps = (weight[:, 0] * (alpha2 / alpha1)[:, None]).t().contiguous()
            self.register_buffer("taps", taps, persistent=False)
        self.pointwise = PackedLinear(pointwise.weight().detach()[:, :, 0] / alpha2)
        self.offset = offset + pointwise.bias.detach()

    def forward(self, stream: Tensor, histories: Histories) -> Tensor:
        """[B, T, C] -> [B, T, C]; changes `stream` in place."""
        buffer = histories.open(stream, self.history_frames)
        u = buffer[:, self.history_frames :]
        torch.addcmul(self.enter_shift, stream, self.enter_scale, out=u)
        scaled_snake_(u)
        histories.close(buffer, self.history_frames)
        inner = (
            self._depthwise(buffer) if self.dense is None else self.dense(windows(buffer, self.kernel, self.dilation))
        )
        stream += self.pointwise(scaled_snake_(inner))
        return stream

    def _depthwise(self, buffer: Tensor) -> Tensor:
        if buffer.device.type != "cpu":  # one kernel launch instead of seven
            weight = self.taps.t()[:, None]
            y = F.conv1d(buffer.transpose(1, 2), weight, self.bias, 1, 0, self.dilation, weight.shape[0])
            return y.transpose(1, 2).contiguous()
        length = buffer.shape[1] - self.history_frames
        y = torch.addcmul(self.bias, buffer[:, :length], self.taps[0])
        for k in range(1, self.kernel):
            start = k * self.dilation
            y.addcmul_(buffer[:, start : start + length], self.taps[k])
        return y


class FoldedCondition(nn.Module):
    """Rate condition, pending offset and snake scale as one affine map per bucket: u = stream * scale[b] + shift[b]."""

    scale: Tensor
    shift: Tensor
    embed: Tensor

    def __init__(self, condition: RateCondition | None, snake: Snake, offset: Tensor) -> None:
        super().__init__()
        alpha = snake_scale(snake)
        self.mix: PackedLinear | None = None
        if condition is None:
            scale, shift, embed = torch.ones_like(offset)[None], offset[None], None
        elif condition.kind == "add":
            shift, embed = offset + condition.cond_embed.weight.detach(), None
            scale = torch.ones_like(shift)
        elif condition.kind == "concat":
            embed = condition.cond_embed.weight.detach()
            scale, shift = offset.new_ones(len(embed), len(offset)), offset.expand(len(embed), -1)
        else:
            scale, embed = condition.scale_embed.weight.detach(), None
            shift = scale * offset + condition.bias_embed.weight.detach()
        if condition is not None and condition.out_layer is not None:
            # A snake and a channel mixer come between the condition and the stage's snake: the tables are scaled for the former.
            inner, conv = condition.out_layer
            assert isinstance(inner, Snake) and isinstance(conv, CausalConv) and conv.bias is not None
            beta = snake_scale(inner)
            matrix = conv.weight().detach()[:, :, 0] / beta
            self.mix = PackedLinear(alpha[:, None] * matrix, alpha * conv.bias.detach())
            width = scale.shape[1]
            scale, shift = scale * beta[:width], shift * beta[:width]
            embed = None if embed is None else embed * beta[width:]
        else:
            scale, shift = scale * alpha, shift * alpha
        self.register_buffer("scale", scale.contiguous(), persistent=False)
        self.register_buffer("shift", shift.contiguous(), persistent=False)
        self.register_buffer("embed", embed, persistent=False)

    def forward(self, stream: Tensor, bucket: int | Tensor, out: Tensor) -> None:
        """Write alpha * snake(condition(stream)) for `stream` [B, T, C] into `out` [B, T, C]; `bucket` is one or [B]."""
        scale, shift = self._row(self.scale, bucket), self._row(self.shift, bucket)
        if self.mix is None:
            torch.addcmul(shift, stream, scale, out=out)
        else:
            inner = torch.addcmul(shift, stream, scale)
            if self.embed is not None:
                embed = self._row(self.embed, bucket).expand(*stream.shape[:2], self.embed.shape[1])
                inner = torch.cat([inner, embed], dim=2)
            out.copy_(self.mix(scaled_snake_(inner)))
        scaled_snake_(out)

    @staticmethod
    def _row(table: Tensor, bucket: int | Tensor) -> Tensor:
        if len(table) == 1:
            return table[0]
        return table[bucket] if isinstance(bucket, int) else table[bucket][:, None]


class FoldedUpsample(nn.Module):
    """Transposed convolution of a scaled signal: rows [previous, current] times one [2C, s C'] matrix."""

    def __init__(self, conv: CausalUpsample, alpha: Tensor) -> None:
        super().__init__()
        assert conv.bias is not None
        self.stride = conv.stride
        direction = conv.weight_v.detach()
        scale = conv.weight_g.detach().flatten() / torch.linalg.vector_norm(direction, dim=(1, 2)) / alpha
        # [C, C', 2s] -> rows of C values, by one matrix transposition: gathering single values takes four times as long.
        rows = direction.flatten(1).t().contiguous().view(direction.shape[1], 2, conv.stride, direction.shape[0])
        # [C', now | before, s, C] -> [s C', before C | now C]: the s samples of a frame are contiguous in a row.
        matrix = torch.empty_like(rows).view(conv.stride, direction.shape[1], 2, direction.shape[0])
        for half in (0, 1):
            torch.mul(rows[:, 1 - half].transpose(0, 1), scale, out=matrix[:, :, half])
        del rows
        self.product = PackedLinear(matrix.flatten(2).flatten(0, 1))
        self.offset = conv.bias.detach()

    def forward(self, buffer: Tensor) -> Tensor:
        """[B, 1 + T, C] -> [B, T * stride, C'] without the bias (it is `offset`)."""
        rows = torch.cat([buffer[:, :-1], buffer[:, 1:]], dim=2)
        spread: Tensor = self.product(rows)
        return spread.view(rows.shape[0], rows.shape[1] * self.stride, -1)


class FoldedDownsample(nn.Module):
    """Snake and strided convolution: previous and current group of s frames, each times its half of the weight.

    With even padding (s + 1 frames of history) the groups are one frame earlier, and the last frame of a chunk waits for the next.
    """

    enter_scale: Tensor
    enter_shift: Tensor

    def __init__(self, snake: Snake, conv: CausalConv, offset: Tensor) -> None:
        super().__init__()
        assert conv.bias is not None
        alpha = snake_scale(snake)
        self.stride, self.history_frames = conv.stride, conv.history_frames
        self.register_buffer("enter_scale", alpha, persistent=False)
        self.register_buffer("enter_shift", alpha * offset, persistent=False)
        previous, current = (conv.weight().detach() / alpha[:, None]).split(conv.stride, dim=2)
        self.previous, self.current = PackedLinear(dense_matrix(previous)), PackedLinear(dense_matrix(current))
        self.offset = conv.bias.detach()

    def forward(self, stream: Tensor, histories: Histories) -> Tensor:
        """[B, T, C] -> [B, T / stride, 2C] without the bias (it is `offset`)."""
        buffer = histories.open(stream, self.history_frames)
        u = buffer[:, self.history_frames :]
        torch.addcmul(self.enter_shift, stream, self.enter_scale, out=u)
        scaled_snake_(u)
        histories.close(buffer, self.history_frames)
        whole = buffer[:, : self.stride + stream.shape[1]]
        groups = whole.reshape(buffer.shape[0], -1, self.stride * buffer.shape[2])
        y: Tensor = self.current(groups[:, 1:])
        y += self.previous(groups[:, :-1])
        return y


class FoldedNoise(nn.Module):
    """Noise block. It needs the true signal: it adds the pending offset first, so the offset of its output is zero."""

    pending: Tensor

    def __init__(self, block: NoiseBlock, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("pending", offset, persistent=False)
        self.product = PackedLinear(block.linear.weight().detach()[:, :, 0])
        self.offset = torch.zeros_like(offset)

    def forward(self, stream: Tensor, histories: Histories) -> Tensor:
        """[B, T, C] -> [B, T, C]; draws from torch's global generator."""
        x = stream + self.pending
        noise = torch.randn(x.shape[0], 1, x.shape[1], dtype=x.dtype, device=x.device)
        return x.addcmul_(noise.transpose(1, 2), self.product(x))


def fold_units(units: Sequence[nn.Module], offset: Tensor) -> tuple[list[nn.Module], Tensor]:
    """Fold consecutive residual units and noise blocks, passing the offset on; return the layers and the last offset."""
    folded: list[nn.Module] = []
    for unit in units:
        layer: FoldedNoise | FoldedResidualUnit
        if isinstance(unit, NoiseBlock):
            layer = FoldedNoise(unit, offset)
        else:
            assert isinstance(unit, ResidualUnit)
            layer = FoldedResidualUnit(unit, offset)
        folded.append(layer)
        offset = layer.offset
    return folded, offset
