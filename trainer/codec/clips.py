"""The training data of a codec: crops of clips, at its input rate and at its output rate."""

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
    """One clip at its native rate (Hz): float32 [S]. The decoder must add the band above the codec's input."""

    samples: np.ndarray
    rate: int


class Crops(NamedTuple):
    """A batch: the input, the target, and the rate (Hz) whose bandwidth the output has."""

    wav: Tensor  #: float32 [B, S] at `sample_rate`
    target: Tensor  #: float32 [B, S'] at `out_sample_rate`
    rates: Tensor  #: int64 [B]


def crops(codec: AudioVAE, clips: Sequence[CodecClip | np.ndarray], fit: CodecFit, dice: np.random.Generator) -> Crops:
    """Draw random crops of random clips; shorter clips are padded with silence. Plain arrays are at the codec's input rate.

    The decoder is given the bandwidth of each target. Usually it is that of the clip. For a share `fit.narrowed` of the crops the
    target is cut to a lower bandwidth, so that every bucket of `sr_bin_boundaries` occurs.
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
    """Draw one of `count` clips, all equally likely; skip damaged ones. Raises TrainError after IN_A_ROW damaged clips in a row."""
    for _ in range(IN_A_ROW):
        try:
            return get(int(dice.integers(count)))
        except SegmentError as caught:
            error = caught
    raise TrainError(f"{IN_A_ROW} clips in a row cannot be read (the last: {error})")


def draw_bandwidth(codec: AudioVAE, rate: int, narrowed: float, dice: np.random.Generator) -> int:
    """Draw the rate (Hz) whose bandwidth the target of a clip at `rate` has: the clip's own, or for a share `narrowed` a lower one
    that the codec supports."""
    config = codec.config
    rate = min(rate, config.out_sample_rate)
    lower = [wanted for wanted in bandwidths(codec) if config.sample_rate <= wanted < rate]
    if lower and dice.random() < narrowed:
        return lower[int(dice.integers(len(lower)))]
    return rate


def as_clip(clip: CodecClip | np.ndarray, rate: int) -> CodecClip:
    """Return samples at `rate` as a clip; a clip is returned unchanged."""
    return clip if isinstance(clip, CodecClip) else CodecClip(clip, rate)


def at_input_rate(clip: CodecClip | np.ndarray, rate: int) -> np.ndarray:
    """Return float32 [S] at the codec's input rate."""
    clip = as_clip(clip, rate)
    return resampled(clip.samples, clip.rate, rate)


def bandwidths(codec: AudioVAE) -> tuple[int, ...]:
    """Return one rate (Hz) per bandwidth bucket of the decoder: each upper border, and its output rate."""
    boundaries = codec.config.sr_bin_boundaries or ()
    return (*boundaries, codec.config.out_sample_rate)


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return float32 [S] resampled from `rate` to `wanted`, both in Hz."""
    import soxr

    return samples if rate == wanted else np.asarray(soxr.resample(samples, rate, wanted), dtype=np.float32)


def _fitted(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples, (0, max(0, length - len(samples))))[:length].astype(np.float32)
