"""What a codec is trained on: crops of clips, at the rate it takes and at the rate it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainer.config import TrainError
from trainer.data.corpora import SegmentError
from trainer.data.damage import IN_A_ROW
from voxcpm.audiovae import AudioVAE

if TYPE_CHECKING:
    from trainer.codec.config import CodecFit

T = TypeVar("T")


@dataclass(frozen=True)
class CodecClip:
    """One clip at its native rate (Hz): float32 [S]. What it holds above the codec's input is what the decoder must add."""

    samples: np.ndarray
    rate: int


class Crops(NamedTuple):
    """A batch: what goes in, what is to come out, and the rate (Hz) whose bandwidth the output has."""

    wav: Tensor  #: float32 [B, S] at `sample_rate`
    target: Tensor  #: float32 [B, S'] at `out_sample_rate`
    rates: Tensor  #: int64 [B]


def crops(codec: AudioVAE, clips: Sequence[CodecClip | np.ndarray], fit: CodecFit, dice: np.random.Generator) -> Crops:
    """Random crops of random clips; shorter clips are padded with silence. Plain arrays are at the codec's input rate.

    The decoder gets the bandwidth of each target: that of the clip, or, for a share `fit.narrowed` of the crops, a lower
    one that the target is cut to, so that every bucket of `sr_bin_boundaries` occurs.
    """
    config = codec.config
    frames = max(1, round(fit.crop_s * config.sample_rate / config.hop_length))
    wavs, targets, rates = [], [], []
    for _ in range(fit.batch):
        clip = as_clip(draw_clip(len(clips), clips.__getitem__, dice), config.sample_rate)
        size = round(frames * config.hop_length * clip.rate / config.sample_rate)
        samples = np.pad(clip.samples, (0, max(0, size - len(clip.samples))))
        start = int(dice.integers(len(samples) - size + 1))
        crop = np.ascontiguousarray(samples[start : start + size], dtype=np.float32)
        rate = draw_bandwidth(codec, clip.rate, fit.narrowed, dice)
        narrow = resampled(crop, clip.rate, rate)
        wavs.append(_fitted(resampled(crop, clip.rate, config.sample_rate), frames * config.hop_length))
        targets.append(_fitted(resampled(narrow, rate, config.out_sample_rate), frames * config.decode_hop))
        rates.append(rate)
    return Crops(torch.from_numpy(np.stack(wavs)), torch.from_numpy(np.stack(targets)), torch.tensor(rates))


def draw_clip(count: int, get: Callable[[int], T], dice: np.random.Generator) -> T:
    """One of `count` clips, each as likely; damaged ones are passed over. TrainError where nothing but these comes."""
    for _ in range(IN_A_ROW):
        try:
            return get(int(dice.integers(count)))
        except SegmentError as caught:
            error = caught
    raise TrainError(f"{IN_A_ROW} clips in a row cannot be read (the last: {error})")


def draw_bandwidth(codec: AudioVAE, rate: int, narrowed: float, dice: np.random.Generator) -> int:
    """The rate (Hz) whose bandwidth a target of a clip at `rate` has: the clip's, or for a share `narrowed` a lower one that the
    codec knows."""
    config = codec.config
    rate = min(rate, config.out_sample_rate)
    lower = [wanted for wanted in bandwidths(codec) if config.sample_rate <= wanted < rate]
    if lower and dice.random() < narrowed:
        return lower[int(dice.integers(len(lower)))]
    return rate


def as_clip(clip: CodecClip | np.ndarray, rate: int) -> CodecClip:
    """A clip of samples at `rate`, or as it is."""
    return clip if isinstance(clip, CodecClip) else CodecClip(clip, rate)


def at_input_rate(clip: CodecClip | np.ndarray, rate: int) -> np.ndarray:
    """float32 [S] at the codec's input rate."""
    clip = as_clip(clip, rate)
    return resampled(clip.samples, clip.rate, rate)


def bandwidths(codec: AudioVAE) -> tuple[int, ...]:
    """One rate (Hz) for each bucket the decoder knows: the upper border of each, and its own output rate."""
    boundaries = codec.config.sr_bin_boundaries or ()
    return (*boundaries, codec.config.out_sample_rate)


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """float32 [S] at another rate."""
    import soxr

    return samples if rate == wanted else np.asarray(soxr.resample(samples, rate, wanted), dtype=np.float32)


def _fitted(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples, (0, max(0, length - len(samples))))[:length].astype(np.float32)
