"""Discriminators of a codec's output: one network per period of the waveform, one per resolution of its spectrogram.

Multi-period discriminators are from HiFi-GAN (Kong et al., 2020), complex spectrograms in bands from DAC (Kumar et al., 2023).
They penalize faults that a mean spectral distance does not: buzz, smeared phases, missing breath.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)
WINDOWS = (2048, 1024, 512)
#: Borders of the bands, as shares of half the sample rate. Each band has separate filters, since noise differs from harmonics.
BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
_SLOPE = 0.1

#: Activations of one network, first to last layer. The last is the score map: 1 for speech, 0 for the codec's output.
Features = list[Tensor]


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Module:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return weight_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding))


class PeriodDiscriminator(nn.Module):
    """Folds the waveform into rows of `period` samples and convolves along the columns, i.e. over every period-th sample."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, width, 4 * width, 16 * width, 32 * width, 32 * width]
        strides = [3, 3, 3, 3, 1]
        self.layers = nn.ModuleList(
            _conv(a, b, (5, 1), (stride, 1)) for (a, b), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.score = _conv(widths[-1], 1, (3, 1))

    def forward(self, wav: Tensor) -> Features:
        """[B, S] -> features."""
        missing = -wav.shape[1] % self.period
        x = F.pad(wav, (0, missing), mode="reflect") if missing else wav
        x = x.view(len(x), 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), _SLOPE)
            features.append(x)
        return [*features, self.score(x)]


class SpectrogramDiscriminator(nn.Module):
    """Processes the complex spectrogram of one window length, band by band, and scores all bands' maps together."""

    def __init__(self, window: int, width: int) -> None:
        super().__init__()
        self.window = window
        bins = window // 2 + 1
        self.edges = [(int(low * bins), max(int(high * bins), int(low * bins) + 1)) for low, high in BANDS]
        strides = [1, 2, 2, 2, 1]
        self.bands = nn.ModuleList(
            nn.ModuleList(
                _conv(2 if i == 0 else width, width, (3, 9 if i < 4 else 3), (1, s)) for i, s in enumerate(strides)
            )
            for _ in BANDS
        )
        self.score = _conv(width, 1, (3, 3))

    def forward(self, wav: Tensor) -> Features:
        """[B, S] -> features."""
        shape = torch.hann_window(self.window, device=wav.device)
        spectrum = torch.stft(wav, self.window, self.window // 4, window=shape, return_complex=True)
        # [B, 2, frames, bins]: real and imaginary part as channels.
        image = torch.view_as_real(spectrum).permute(0, 3, 2, 1)
        features, maps = [], []
        for layers, (low, high) in zip(self.bands, self.edges, strict=True):
            x = image[..., low:high]
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                x = F.leaky_relu(layer(x), _SLOPE)
                features.append(x)
            maps.append(x)
        return [*features, self.score(torch.cat(maps, dim=-1))]


class Discriminators(nn.Module):
    """All discriminators, at the codec's output rate. width: channels of the first layers, 32 as published; fewer need less
    compute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, width) for period in PERIODS),
                *(SpectrogramDiscriminator(window, width) for window in WINDOWS),
            ]
        )

    def forward(self, wav: Tensor) -> list[Features]:
        """Return the features of every network for a waveform [B, S]. Level and offset are removed: a codec must not be judged by
        them."""
        centered = wav - wav.mean(dim=1, keepdim=True)
        scaled = 0.8 * centered / centered.abs().amax(dim=1, keepdim=True).clamp_min(1e-4)
        return [part(scaled) for part in self.parts]


def discriminator_loss(real: list[Features], fake: list[Features]) -> Tensor:
    """Return the least-squares loss, averaged over the networks: speech should score 1, the codec's output 0."""
    total = real[0][-1].new_zeros(())
    for one, other in zip(real, fake, strict=True):
        total = total + (1 - one[-1]).square().mean() + other[-1].square().mean()
    return total / len(real)


def adversarial_loss(fake: list[Features]) -> Tensor:
    """Return the codec's least-squares loss: its output should score 1."""
    return torch.stack([(1 - features[-1]).square().mean() for features in fake]).mean()


def feature_distance(real: list[Features], fake: list[Features]) -> Tensor:
    """Return the mean absolute difference of all activations but the scores, each relative to its mean magnitude for speech."""
    parts = [
        F.l1_loss(b, a.detach()) / a.detach().abs().mean().clamp_min(1e-6)
        for one, other in zip(real, fake, strict=True)
        for a, b in zip(one[:-1], other[:-1], strict=True)
    ]
    return torch.stack(parts).mean()
