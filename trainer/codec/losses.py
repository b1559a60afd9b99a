"""What a reconstruction should agree in: log-mel spectra at several resolutions, and the waveform."""

from __future__ import annotations

from functools import lru_cache
from math import log2, log10

import torch
import torch.nn.functional as F
from torch import Tensor

#: (window, mel bands) at 48 kHz; the hop is a quarter of the window.
RESOLUTIONS = ((256, 20), (512, 40), (1024, 80), (2048, 160))
FLOOR_DB = -80.0
"""Below a full-scale sine. Without a floor the silence above 8 kHz would outweigh the voice."""


def resolutions(rate: int) -> tuple[tuple[int, int], ...]:
    """(window, mel bands) at a rate: windows last as long as those of RESOLUTIONS at 48 kHz, rounded to powers of two."""
    halvings = max(0, round(log2(48_000 / rate)))
    return tuple((window >> halvings, bands) for window, bands in RESOLUTIONS)


def mel_distance(a: Tensor, b: Tensor, rate: int, floor_db: float = FLOOR_DB) -> Tensor:
    """Mean absolute difference of log10 mel magnitudes over the four resolutions; a, b: float32 [B, S] at `rate` Hz.

    0.1 is 2 dB. Short windows see clicks and onsets, long ones harmonics: one alone leaves the other smeared. Magnitudes below
    `floor_db` (of a full-scale sine's) are not told apart.
    """
    total = a.new_zeros(())
    for window, bands in resolutions(rate):
        shape = _hann(window, a.device)
        # A full-scale sine has a magnitude of a quarter of the (Hann) window.
        floor = 10 ** (floor_db / 20) * window / 4
        bank = _bank_on(window, bands, rate, a.device)
        mels = []
        for x in (a, b):
            spectrum = torch.stft(x, window, window // 4, window=shape, return_complex=True)
            # The square root's slope is infinite at 0: digital silence would give NaN gradients.
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()
            mels.append((bank @ magnitude).clamp_min(floor).log10())
        total = total + F.l1_loss(mels[0], mels[1])
    return total / len(RESOLUTIONS)


@lru_cache(maxsize=32)
def mel_bank(window: int, bands: int, rate: int) -> Tensor:
    """[bands, window // 2 + 1]: triangles of equal height, evenly spaced in mel (2595 log10(1 + f / 700)), each at least
    one bin wide."""
    mel = torch.linspace(0.0, 2595 * log10(1 + rate / 2 / 700), bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mel / 2595) - 1) / rate * window
    bins = torch.arange(window // 2 + 1, dtype=torch.float64)
    low, center, high = (edges[i : i + bands, None] for i in range(3))
    # A band narrower than a bin would see nothing at low frequencies.
    low, high = torch.minimum(low, center - 1), torch.maximum(high, center + 1)
    up, down = (bins - low) / (center - low), (high - bins) / (high - center)
    bank = torch.minimum(up, down).clamp_min(0.0)
    return (bank / bank.sum(dim=1, keepdim=True)).float()


# Copied once per device: from pageable memory, each copy would stop a GPU four times per step.
@lru_cache(maxsize=64)
def _bank_on(window: int, bands: int, rate: int, device: torch.device) -> Tensor:
    # Made by a validation first, it must serve training too.
    with torch.inference_mode(False):
        return mel_bank(window, bands, rate).to(device)


@lru_cache(maxsize=64)
def _hann(window: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(window, device=device)
