"""The spectral loss of a reconstruction: log-mel spectra at several resolutions."""

from __future__ import annotations

from functools import lru_cache
from math import log2, log10

import torch
import torch.nn.functional as F
from torch import Tensor

#: (window, mel bands) at 48 kHz; the hop is a quarter of the window.
RESOLUTIONS = ((256, 20), (512, 40), (1024, 80), (2048, 160))
FLOOR_DB = -80.0
"""Level relative to a full-scale sine. Without a floor the silence above 8 kHz would outweigh the voice."""


def resolutions(rate: int) -> tuple[tuple[int, int], ...]:
    """Return (window, mel bands) at a rate in Hz: windows as long as those of RESOLUTIONS at 48 kHz, rounded to powers of two."""
    halvings = max(0, round(log2(48_000 / rate)))
    return tuple((window >> halvings, bands) for window, bands in RESOLUTIONS)


def mel_distance(a: Tensor, b: Tensor, rate: int, floor_db: float = FLOOR_DB) -> Tensor:
    """Return the mean absolute difference of log10 mel magnitudes over the four resolutions; a, b: float32 [B, S] at `rate` Hz.

    0.1 is 2 dB. Short windows resolve clicks and onsets, long ones harmonics: a single window smears one of them. Differences
    below `floor_db` (relative to a full-scale sine) are ignored.
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
    """Return [bands, window // 2 + 1] float32: triangles evenly spaced in mel (2595 log10(1 + f / 700)), each at least one bin
    wide on either side and normalized to sum 1."""
    mel = torch.linspace(0.0, 2595 * log10(1 + rate / 2 / 700), bands + 2, dtype=torch.float64)
    edges = 700 * (10 ** (mel / 2595) - 1) / rate * window
    bins = torch.arange(window // 2 + 1, dtype=torch.float64)
    low, center, high = (edges[i : i + bands, None] for i in range(3))
    # At low frequencies a band narrower than a bin would contain no bin.
    low, high = torch.minimum(low, center - 1), torch.maximum(high, center + 1)
    up, down = (bins - low) / (center - low), (high - bins) / (high - center)
    bank = torch.minimum(up, down).clamp_min(0.0)
    return (bank / bank.sum(dim=1, keepdim=True)).float()


# Copied once per device: copies from pageable memory would stall a GPU four times per step.
@lru_cache(maxsize=64)
def _bank_on(window: int, bands: int, rate: int, device: torch.device) -> Tensor:
    # A tensor that validation creates must be usable in training too.
    with torch.inference_mode(False):
        return mel_bank(window, bands, rate).to(device)


@lru_cache(maxsize=64)
def _hann(window: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.hann_window(window, device=device)
