"""The network of Distill-MOS: convolutions on complex spectra, a transformer, and attention over time.

Layer sizes and names of tensors are those of the published weights (distillmos 0.9.1, variant 7). Import this module only where
the network is used: it imports torch.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogs.files import one_line
from evaluation.errors import EvaluationError

RATE = 16_000
WINDOW = 122_880
"""Samples that the network hears at once: 7.68 s at 16 kHz."""
LONGEST_HOP = RATE
"""Largest distance of two windows in samples."""

_FFT, _HOP = 320, 160
_CHANNELS = (64, 64, 128, 256, 256, 256)
_FREQUENCIES = 4
"""Rows of the spectrum that are left after the convolutions."""
_WIDTH, _HEADS, _LAYERS = 200, 8, 7
_FRAMES = 384
_COMPRESSION = 0.3
_LEAST = 1e-12

_HEAD = "transformer_pool_attn."
_NAMES = {
    "convolutions.": "cnn.cnn.",
    "norm_spectra.": f"{_HEAD}norm_input.",
    "norm_projection.": f"{_HEAD}transformer.norm.",
    "projection.": f"{_HEAD}transformer.linear_proj.",
    "positions": f"{_HEAD}transformer.position_encoding.pe",
    "transformer.": f"{_HEAD}transformer.transformer_encoder.",
    "norm_frames.": f"{_HEAD}norm_trans.",
    "weigh.0.": f"{_HEAD}pool.linear1.",
    "weigh.2.": f"{_HEAD}pool.linear2.",
    "rate.": f"{_HEAD}pool.linear3.",
}
"""Names of our modules and of the tensors in the file."""


class DistillMosNet(nn.Module):
    """Returns one score from 1 to 5 per window."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 2
        for number, channels in enumerate(_CHANNELS):
            stride = (1 if number == 0 else 2, 2 if number == len(_CHANNELS) - 1 else 1)
            layers += [nn.Conv2d(before, channels, 3, stride, padding=(0, 1)), nn.LeakyReLU(0.1)]
            before = channels
        width = before * _FREQUENCIES
        self.convolutions = nn.Sequential(*layers)
        self.norm_spectra = nn.BatchNorm1d(width)
        self.norm_projection = nn.BatchNorm1d(width)
        self.projection = nn.Linear(width, _WIDTH)
        self.register_buffer("positions", torch.zeros(1, _FRAMES, _WIDTH))
        layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, 2 * _WIDTH, dropout=0.0, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
        self.norm_frames = nn.BatchNorm1d(_WIDTH)
        self.weigh = nn.Sequential(nn.Linear(_WIDTH, 2 * _WIDTH), nn.ReLU(), nn.Linear(2 * _WIDTH, 1))
        self.rate = nn.Linear(_WIDTH, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """Return scores [B] of windows [B, 122880] with a peak of 1."""
        spectra = self.convolutions(compressed_spectra(windows)).flatten(1, 2)
        frames = self.projection(self.norm_projection(self.norm_spectra(spectra)).mT)
        frames = self.transformer(frames + self.positions)
        frames = self.norm_frames(frames.mT).mT
        share = self.weigh(frames).softmax(dim=1)
        return 1 + 4 * torch.sigmoid(self.rate((share * frames).sum(dim=1)))[:, 0]


def compressed_spectra(windows: Tensor) -> Tensor:
    """Return [B, 2, 161, frames]: real and imaginary parts of spectra with magnitudes to the power of 0.3; windows: [B, S]."""
    side = (_FFT - _HOP) // 2
    padded = F.pad(windows, (side, side), mode="reflect")
    shape = torch.hann_window(_FFT, device=windows.device)
    spectra = torch.view_as_real(torch.stft(padded, _FFT, _HOP, window=shape, center=False, return_complex=True))
    magnitude = spectra.square().sum(dim=-1, keepdim=True).sqrt().clamp_min(_LEAST)
    return (spectra * magnitude ** (_COMPRESSION - 1)).permute(0, 3, 1, 2)


def windows_of(samples: np.ndarray) -> np.ndarray:
    """Return float32 [N, 122880] of float32 [S] at 16 kHz: windows at most 1 s apart, from the first sample to the last.

    A short clip is filled with zeros. Each window is scaled to a peak of 1.
    """
    samples = np.asarray(samples, dtype=np.float32)
    beyond = max(0, len(samples) - WINDOW)
    padded = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    # Truncated as in the reference implementation, so that each window is the same to the sample.
    starts = (np.linspace(0, 1, -(-beyond // LONGEST_HOP) + 1) * beyond).astype(int)
    windows = np.stack([padded[start : start + WINDOW] for start in starts])
    return windows / (np.abs(windows).max(axis=1, keepdims=True) + np.float32(1e-8))


def load_net(path: Path) -> DistillMosNet:
    """Return the network with the weights of a file, ready to use. Raises EvaluationError if the file holds something else."""
    net = DistillMosNet()
    wanted = {_theirs(name): name for name in net.state_dict()}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model"]
        net.load_state_dict({wanted[name]: value for name, value in state.items()})
    except (KeyError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise EvaluationError(f"{path} is not the Distill-MOS network ({one_line(error)})") from None
    # Convolutions on a CPU take a quarter less time with this layout; the figures are the same.
    net.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net.eval().requires_grad_(False)


def _theirs(name: str) -> str:
    """Return the name in the file of one of our tensors."""
    (prefix,) = (prefix for prefix in _NAMES if name.startswith(prefix))
    return _NAMES[prefix] + name.removeprefix(prefix)
