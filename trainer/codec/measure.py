"""Quality of reconstructed clips: spectral distance, intelligibility (STOI) and estimated listening quality (PESQ)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainer.codec.clips import CodecClip, at_input_rate, crops, resampled
from trainer.codec.config import CodecFit
from trainer.codec.losses import mel_distance
from voxcpm.audiovae import AudioVAE

_OTHERS = 8
"""Maximum number of other clips that each reconstruction is compared with."""
_RATE = 16_000
"""Sample rate (Hz) of STOI and wide-band PESQ."""
_HEARD = 16
"""Maximum number of clips for STOI and PESQ: decoding a clip takes the codec about as long as the clip lasts."""
_SHORTEST_S, _LONGEST_S = 1.0, 8.0
"""Seconds of a clip that STOI and PESQ use: STOI needs 30 frames of speech, and PESQ is slow on long clips."""


@dataclass(frozen=True)
class CodecMeasures:
    """Means over clips that were decoded from their mean latents.

    mel: distance of log-mel spectra at the codec's output rate; 0.1 is 2 dB. mel_16k: the same at 16 kHz, the encoder's band.
    mel_other: the distance to other clips; latents without information would give the same distance to all clips. stoi: 0..1.
    pesq: wide-band MOS-LQO, 1..4.64. stoi and pesq are None without their packages, or if no clip has a second of speech.
    """

    mel: float
    mel_16k: float
    mel_other: float
    stoi: float | None
    pesq: float | None

    def values(self, rate: int) -> dict[str, float]:
        """Return the values as metrics by name. rate: the codec's output rate in Hz."""
        found = {f"mel_{rate // 1000}k": self.mel, "mel_16k": self.mel_16k, "mel_other": self.mel_other,
                 "stoi": self.stoi, "pesq": self.pesq}  # fmt: skip
        return {f"held_out/{name}": value for name, value in found.items() if value is not None}

    def __str__(self) -> str:
        heard = [
            f"{name} {value:.2f}" for name, value in (("STOI", self.stoi), ("PESQ", self.pesq)) if value is not None
        ]
        return ", ".join([f"mel distance {self.mel:.3f} (at 16 kHz {self.mel_16k:.3f})", *heard])


def missing_packages() -> list[str]:
    """Return those of the packages pystoi and pesq that are not installed."""
    return [name for name in ("pystoi", "pesq") if importlib.util.find_spec(name) is None]


@torch.no_grad()
def measure(codec: AudioVAE, clips: Sequence[CodecClip], crop_s: float) -> CodecMeasures:
    """Measure the spectra of one fixed crop per clip, and STOI and PESQ of the first 16 clips, up to 8 s of each."""
    was_training = codec.training
    codec.eval()
    mel, mel_16k, other = _spectra(codec, clips, crop_s)
    stoi, pesq = _heard(codec, clips[:_HEARD])
    codec.train(was_training)
    return CodecMeasures(mel, mel_16k, other, stoi, pesq)


def _spectra(codec: AudioVAE, clips: Sequence[CodecClip], crop_s: float) -> tuple[float, float, float]:
    """Return mel distances: to the crops at the output rate, to the crops at 16 kHz, to the crops of other clips."""
    device, rate = next(codec.parameters()).device, codec.config.out_sample_rate
    one = CodecFit(batch=1, crop_s=crop_s)
    pairs = [crops(codec, [clip], one, np.random.default_rng(index)) for index, clip in enumerate(clips)]
    wanted = torch.cat([pair.target for pair in pairs]).to(device)
    made = torch.cat([codec.decode(codec.encode(p.wav.to(device)), p.rates.to(device))[:, 0] for p in pairs])
    made_16k, wanted_16k = (
        torch.from_numpy(np.stack([resampled(wave, rate, _RATE) for wave in waves.cpu().numpy()]))
        for waves in (made, wanted)
    )
    shifts = range(1, min(len(clips), _OTHERS + 1))
    other = [float(mel_distance(made, wanted.roll(shift, dims=0), rate)) for shift in shifts]
    return (
        float(mel_distance(made, wanted, rate)),
        float(mel_distance(made_16k, wanted_16k, _RATE)),
        sum(other) / len(other),
    )


def _heard(codec: AudioVAE, clips: Sequence[CodecClip]) -> tuple[float | None, float | None]:
    """Return (mean STOI, mean PESQ) of clips, up to _LONGEST_S seconds of each; None if nothing can be measured."""
    if missing_packages():
        return None, None
    from pesq import PesqError, pesq
    from pystoi import stoi

    intelligible, listened = [], []
    for clip in clips:
        if len(clip.samples) < _SHORTEST_S * clip.rate:
            continue
        wanted, made = _through(codec, CodecClip(clip.samples[: round(_LONGEST_S * clip.rate)], clip.rate))
        if not wanted.any():
            continue
        intelligible.append(float(stoi(wanted, made, _RATE)))
        opinion = float(pesq(_RATE, wanted, made, "wb", on_error=PesqError.RETURN_VALUES))
        if opinion > 0:  # -1: it finds no speech
            listened.append(opinion)
    return _mean(intelligible), _mean(listened)


def _through(codec: AudioVAE, clip: CodecClip) -> tuple[np.ndarray, np.ndarray]:
    """Return (the clip, its reconstruction), float32 [S] at 16 kHz."""
    config = codec.config
    device = next(codec.parameters()).device
    wav = torch.from_numpy(at_input_rate(clip, config.sample_rate))[None].to(device)
    rates = torch.tensor([min(clip.rate, config.out_sample_rate)], device=device)
    out = codec.decode(codec.encode(wav), rates)[0, 0].cpu().numpy()
    wanted, made = at_input_rate(clip, _RATE), resampled(out, config.out_sample_rate, _RATE)
    length = min(len(wanted), len(made))
    return wanted[:length], made[:length]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
