"""The GE2E speaker encoder (generalized end-to-end loss): a voiceprint of 256 values from a light LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio.mel import mel_filters
from pipeline.records import PCM_RATE
from pipeline.stage import LoadError

_N_MELS, _N_FFT, _HOP = 40, 400, 160
PARTIAL_FRAMES = 160
"""Frames of one partial: 1.6 s, the length that the encoder was trained on."""
_PARTIAL_HOP = 80
_TARGET_DBFS = -30.0


class Ge2e:
    """LSTM(40, 256) x 3, linear 256, ReLU, unit length; on mel power spectrograms of 25 ms frames, 10 ms apart."""

    width = 256

    def __init__(self, folder: Path) -> None:
        """Load the weights. Raises LoadError if the file holds something else."""
        import torch

        path = folder / "pretrained.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        except Exception as error:
            raise LoadError(f"{path} is not the GE2E speaker encoder ({type(error).__name__})") from None
        self._lstm = torch.nn.LSTM(_N_MELS, 256, num_layers=3, batch_first=True)
        self._linear = torch.nn.Linear(256, 256)
        self._lstm.load_state_dict({k.removeprefix("lstm."): v for k, v in state.items() if k.startswith("lstm.")})
        self._linear.load_state_dict(
            {k.removeprefix("linear."): v for k, v in state.items() if k.startswith("linear.")}
        )
        self._filters = torch.from_numpy(mel_filters(_N_MELS, _N_FFT, PCM_RATE))

    def partials(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return, per clip, unit-length voiceprints of its windows of 1.6 s every 0.8 s: float32 [N, 256], N >= 1. The
        clips, float32 [S] at 16 kHz, are computed in one batch."""
        import torch

        parts = [self._windows(samples) for samples in clips]
        with torch.inference_mode():
            _, (hidden, _) = self._lstm(torch.cat(parts))
            prints = torch.relu(self._linear(hidden[-1]))
            prints = prints / prints.norm(dim=1, keepdim=True).clamp_min(1e-9)
        return [np.asarray(own.numpy(), dtype=np.float32) for own in prints.split([len(part) for part in parts])]

    def _windows(self, samples: np.ndarray) -> Any:
        """Return the mel frames of the windows of one clip: [N, 160, 40]."""
        import torch

        mel = self._mel(_louder(samples))
        starts = list(range(0, max(1, mel.shape[0] - PARTIAL_FRAMES // 4), _PARTIAL_HOP))
        windows = []
        for start in starts:
            window = mel[start : start + PARTIAL_FRAMES]
            if start and window.shape[0] < PARTIAL_FRAMES * 3 // 4:
                continue
            windows.append(torch.nn.functional.pad(window, (0, 0, 0, PARTIAL_FRAMES - window.shape[0])))
        return torch.stack(windows)

    def _mel(self, samples: np.ndarray) -> Any:
        """Return the mel power spectrogram [frames, 40], frames centered."""
        import torch

        audio = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        window = torch.hann_window(_N_FFT)
        spectrum = torch.stft(audio, _N_FFT, _HOP, window=window, center=True, pad_mode="constant", return_complex=True)
        return (self._filters @ spectrum.abs().square()).T


def _louder(samples: np.ndarray) -> np.ndarray:
    """Return the clip raised to -30 dBFS; a louder one is unchanged, as in the encoder's training."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    if level <= 0:
        return samples
    gain = 10 ** (_TARGET_DBFS / 20) / level
    return samples * max(gain, 1.0)
