"""The codec's encoder and decoder in inference form, built from the trainable ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voxcpm.audiovae.decoder import Decoder, DecoderStage
from voxcpm.audiovae.encoder import Encoder, EncoderStage
from voxcpm.audiovae.folded_layers import (
    FoldedCondition,
    FoldedConv,
    FoldedDownsample,
    FoldedUpsample,
    fold_units,
    scaled_snake_,
    snake_scale,
)
from voxcpm.audiovae.layers import CausalConv, CausalUpsample, RateCondition, Snake
from voxcpm.audiovae.state import Histories


class FoldedDecoderStage(nn.Module):
    """Condition, snake, upsampling and residual units of one rate."""

    def __init__(self, stage: DecoderStage, condition: RateCondition | None, offset: Tensor) -> None:
        super().__init__()
        snake, upsample, *units = stage.block
        assert isinstance(snake, Snake) and isinstance(upsample, CausalUpsample)
        self.condition = FoldedCondition(condition, snake, offset)
        self.upsample = FoldedUpsample(upsample, snake_scale(snake))
        folded, self.offset = fold_units(units, self.upsample.offset)
        self.units = nn.ModuleList(folded)

    def forward(self, stream: Tensor, bucket: int | Tensor, histories: Histories) -> Tensor:
        """[B, T, C] -> [B, T * stride, C / 2]."""
        buffer = histories.open(stream, 1)
        self.condition(stream, bucket, buffer[:, 1:])
        histories.close(buffer, 1)
        y: Tensor = self.upsample(buffer)
        for unit in self.units:
            y = unit(y, histories)
        return y


class FoldedDecoder(nn.Module):
    """[B, D, F] -> [B, 1, F * decode_hop], equal to the `Decoder` it was made from up to float rounding."""

    enter_scale: Tensor
    enter_shift: Tensor
    taps: Tensor
    bias: Tensor
    sr_bin_boundaries: Tensor | None

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        entry = [layer for layer in decoder.model if isinstance(layer, CausalConv)]
        *entry, last = entry
        self.entry = nn.ModuleList(FoldedConv(conv) for conv in entry)
        offset = last.weight_v.new_zeros(entry[-1].weight_v.shape[0])
        stages: list[nn.Module] = []
        for index, layer in enumerate(decoder.model):
            if isinstance(layer, DecoderStage):
                condition = None if decoder.sr_cond_model is None else decoder.sr_cond_model[str(index)]
                assert condition is None or isinstance(condition, RateCondition)
                stage = FoldedDecoderStage(layer, condition, offset)
                stages.append(stage)
                offset = stage.offset
        self.stages = nn.ModuleList(stages)
        snake = decoder.model[-3]
        assert isinstance(snake, Snake) and last.bias is not None
        alpha = snake_scale(snake)
        self.register_buffer("enter_scale", alpha, persistent=False)
        self.register_buffer("enter_shift", alpha * offset, persistent=False)
        self.register_buffer("taps", (last.weight().detach()[0] / alpha[:, None]).t().contiguous(), persistent=False)
        self.register_buffer("bias", last.bias.detach().clone(), persistent=False)
        self.history_frames = last.history_frames
        has_buckets = decoder.sr_cond_model is not None
        self.register_buffer("sr_bin_boundaries", decoder.sr_bin_boundaries if has_buckets else None, persistent=False)
        # A copy on the host, so that an int rate needs no device synchronization.
        self.boundaries: list[int] | None = decoder.sr_bin_boundaries.tolist() if has_buckets else None

    @torch.no_grad()
    def forward(self, z: Tensor, bucket: int | Tensor, histories: Histories) -> Tensor:
        """Decode one chunk; `bucket` is one index or [B]."""
        stream = z.transpose(1, 2)
        for conv in self.entry:
            stream = conv(stream, histories)
        for stage in self.stages:
            stream = stage(stream, bucket, histories)
        buffer = histories.open(stream, self.history_frames)
        u = buffer[:, self.history_frames :]
        torch.addcmul(self.enter_shift, stream, self.enter_scale, out=u)
        scaled_snake_(u)
        histories.close(buffer, self.history_frames)
        # There is one output channel: one product computes all taps, then the rows are summed, row k shifted by k frames.
        partial = torch.matmul(self.taps, buffer.transpose(1, 2))
        length = stream.shape[1]
        wav = partial[:, 0, :length] + self.bias
        for k in range(1, len(self.taps)):
            wav += partial[:, k, k : k + length]
        return wav.tanh_()[:, None]


class FoldedEncoder(nn.Module):
    """[B, 1, S] -> mean [B, D, S / hop_length], equal to the `Encoder` it was made from up to float rounding."""

    offset: Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        first, *stages = encoder.block
        assert isinstance(first, CausalConv) and first.bias is not None
        self.entry = FoldedConv(first, with_bias=False)
        offset = first.bias.detach()
        layers: list[nn.Module] = []
        for stage in stages:
            assert isinstance(stage, EncoderStage)
            *units, snake, conv = stage.block
            assert isinstance(snake, Snake) and isinstance(conv, CausalConv)
            folded, offset = fold_units(units, offset)
            downsample = FoldedDownsample(snake, conv, offset)
            layers += [*folded, downsample]
            offset = downsample.offset
        self.layers = nn.ModuleList(layers)
        self.register_buffer("offset", offset, persistent=False)
        self.fc_mu, self.fc_logvar = FoldedConv(encoder.fc_mu), FoldedConv(encoder.fc_logvar)

    @torch.no_grad()
    def forward(self, wav: Tensor, histories: Histories) -> Tensor:
        """Encode one chunk of whole latent frames."""
        mu: Tensor = self.fc_mu(self._trunk(wav, histories), histories)
        return mu.transpose(1, 2)

    @torch.no_grad()
    def heads(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log variance), both [B, D, S / hop_length], from zero histories."""
        trunk = self._trunk(wav, Histories())
        mu, logvar = self.fc_mu(trunk, Histories()), self.fc_logvar(trunk, Histories())
        return mu.transpose(1, 2), logvar.transpose(1, 2)

    def _trunk(self, wav: Tensor, histories: Histories) -> Tensor:
        stream: Tensor = self.entry(wav.transpose(1, 2), histories)
        for layer in self.layers:
            stream = layer(stream, histories)
        return stream + self.offset
