"""Perth's implicit watermark (MIT), for comparison: its weights from the package index, its two networks written here.

Its wheel cannot be imported with today's setuptools; the weights are read with `weights_only=True`. Nothing of it is kept here.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attacks import resampled
from clips import Samples
from torch import Tensor, nn
from torch.nn import functional

_WHEEL = "resemble-perth==1.0.1"
_WEIGHTS = "perth/perth_net/pretrained/implicit/perth_net_250000.pth.tar"
_RATE, _FFT, _HOP, _BINS = 32_000, 2048, 320, 128
_FLOOR_DB, _HEADROOM_DB = -180.0, 15.0
"""Levels are divided by the distance of the two."""


class _Layer(nn.Module):
    """A convolution of odd width that keeps the length, with LeakyReLU unless it is the last one."""

    def __init__(self, inputs: int, outputs: int, width: int, last: bool = False) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv1d(inputs, outputs, width, padding=width // 2), last

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if self.last else functional.leaky_relu(x)


def _stack(outputs: int) -> nn.Sequential:
    middle = [_Layer(256, 256, 7) for _ in range(5)]
    return nn.Sequential(_Layer(_BINS, 256, 1), *middle, _Layer(256, outputs, 1, last=True))


class Perth(nn.Module):
    """`mark(samples, rate)` adds the residual of the encoder, `confidence(samples, rate)` is the decoder's verdict in 0..1."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.encoder = _stack(_BINS)
        self.branches = nn.ModuleDict({name: _stack(2) for name in ("slow", "normal", "fast")})
        state: dict[str, Any] = torch.load(_weights(folder), map_location="cpu", weights_only=True)["model"]
        places = {"encoder.layers": "encoder"} | {
            f"decoder.{name}_layers": f"branches.{name}" for name in self.branches
        }
        own = {}
        for name, value in state.items():
            for theirs, ours in places.items():
                if name.startswith(f"{theirs}."):
                    own[name.replace(theirs, ours, 1)] = value
        self.load_state_dict(own)
        self.eval()

    @torch.inference_mode()
    def mark(self, samples: Samples, rate: int) -> Samples:
        """Return marked samples. Only the difference is resampled, so that nothing above 16 kHz is lost."""
        own = torch.from_numpy(resampled(samples, rate, _RATE))
        spectrum = _spectrum(own)
        levels = _levels(spectrum)
        changed = levels[:_BINS] + self.encoder(levels[None, :_BINS])[0] * _active(levels)
        factors = torch.ones_like(levels)
        factors[:_BINS] = 10 ** ((changed - levels[:_BINS]) * (_HEADROOM_DB - _FLOOR_DB) / 20)
        window = torch.hann_window(_FFT)
        made = torch.istft(spectrum * factors, _FFT, _HOP, window=window, length=len(own))
        added = resampled((made - own).numpy(), _RATE, rate)[: len(samples)]
        return samples + np.pad(added, (0, len(samples) - len(added)))

    @torch.inference_mode()
    def confidence(self, samples: Samples, rate: int) -> float:
        """Return 0 (no mark) to 1."""
        levels = _levels(_spectrum(torch.from_numpy(resampled(samples, rate, _RATE))))
        mask, low = _active(levels)[None, None], levels[None, :_BINS]
        verdicts = []
        for name, scale in (("slow", 1.25), ("normal", 1.0), ("fast", 0.75)):
            length = int(low.shape[2] * scale)
            scaled = functional.interpolate(low, length, mode="linear", align_corners=True) if scale != 1 else low
            out, own = self.branches[name](scaled), functional.interpolate(mask, length, mode="nearest")
            verdicts.append((out * own).sum(dim=2) / own.sum(dim=2))
        weights, marks = torch.cat(verdicts).unbind(1)
        return float((weights.softmax(0) * marks).sum().clip(0, 1))


def _spectrum(samples: Tensor) -> Tensor:
    return torch.stft(samples, _FFT, _HOP, window=torch.hann_window(_FFT), return_complex=True)


def _levels(spectrum: Tensor) -> Tensor:
    decibels = 20 * spectrum.abs().clip(1e-9).log10()
    return (decibels - _FLOOR_DB) / (_HEADROOM_DB - _FLOOR_DB)


def _active(levels: Tensor) -> Tensor:
    """Return 1 for frames that are not far quieter than the loudest one, otherwise 0."""
    sums = levels.sum(dim=0)
    return (sums > 0.05 * sums.max()).float()


def _weights(folder: Path) -> Path:
    """Return the path of the weights; download the wheel if they are missing."""
    path = folder / _WEIGHTS
    if not path.is_file():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder), _WHEEL]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(folder.glob("resemble_perth-*.whl"))) as wheel:
            wheel.extract(_WEIGHTS, folder)
    return path
