"""Gender and age by LAION Humaneness Ears (CC-BY-4.0): a Whisper encoder with regression heads, from a local folder.

The folder is `$VOXMILL_EARS`, or the weights `humaneness-ears` of catalogs/weights/models.toml. It holds config.json (the
encoder's sizes and `outputs`, the names of the scores in order) and model.safetensors. Nothing is unpickled and nothing is
downloaded here. The weights were not at hand when this was written: the layout is that of the Hugging Face format, and a folder
that differs in one tensor is refused, not half loaded.
"""

from __future__ import annotations

import abc
import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from annotators.experts.base import Expert, ExpertError, Shares
from annotators.experts.whisper_encoder import RATE, Size, log_mel, names_of, scores
from annotators.schema import Clip
from catalogs.corpus.shards import decode
from catalogs.files import one_line
from catalogs.vocabulary.voices import AGES
from catalogs.weights import registry
from catalogs.weights.verify import DigestMismatch, NotPinned, WeightsMissing

if TYPE_CHECKING:
    import torch

FOLDER = "VOXMILL_EARS"
_LARGEST = 64 * 1024**2
"""Bytes of a config.json that is still read."""
_LARGEST_SIZE = 16_384
"""Largest size in a config.json: Whisper large has 1500 positions, a width of 1280 and 32 layers."""
_WEIGHTS = "humaneness-ears"
_MIDDLE, _PER_POINT = 3.0, 2.0
"""Gender is scored 0 (feminine) to 6 (masculine). The slope is a guess until it is fitted on voices of known gender."""
_ANCHORS = {"child": 1.0, "teen": 2.0, "young": 3.0, "middle": 4.0, "senior": 5.2}
"""Age is scored 0 (infant) to 6 (very old); 3 is a young adult."""
_SPREAD = 0.8


@dataclass(frozen=True)
class Ears:
    """A loaded model. `score` returns its outputs by name."""

    size: Size
    outputs: tuple[str, ...]
    tensors: Mapping[str, torch.Tensor]

    def score(self, clips: Sequence[Clip]) -> list[dict[str, float]]:
        """Return the scores of each clip, of its first 30 s. The clips need their audio."""
        import torch

        found = []
        for clip in clips:
            features = torch.from_numpy(log_mel(_samples(clip), self.size.num_mel_bins, self.size.samples))
            values = scores(features[None], self.tensors, self.size)[0]
            found.append(dict(zip(self.outputs, values.tolist(), strict=True)))
        return found


@functools.cache
def load_ears(folder: Path) -> Ears:
    """Load a folder. Raises ExpertError with one line for a folder that is absent, incomplete or laid out differently."""
    from safetensors.torch import load_file

    try:
        config = _config(folder)
        sizes = {field.name: config[field.name] for field in fields(Size) if field.name in config}
        size, outputs = Size(**sizes), tuple(config["outputs"])
        tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ExpertError(
            f"the ears in {folder} cannot be loaded ({type(error).__name__}: {one_line(error)}): it needs config.json"
            " and model.safetensors"
        ) from None
    except Exception as error:  # safetensors has an error class that derives from Exception
        raise ExpertError(f"the ears in {folder} are damaged ({one_line(error)}): download them again") from None
    _check(folder, size, outputs, tensors)
    return Ears(size, outputs, tensors)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if path.stat().st_size > _LARGEST:
        raise ValueError("config.json is too large")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found["outputs"]):
        raise ValueError("config.json has no list of names `outputs`")
    for field in fields(Size):
        size = found.get(field.name, 1)
        if not isinstance(size, int) or not 1 <= size <= _LARGEST_SIZE:
            raise ValueError(f"{field.name} in config.json is not a number from 1 to {_LARGEST_SIZE}")
    return found


def _check(folder: Path, size: Size, outputs: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> None:
    heads = sum(name.startswith("head.") for name in tensors) // 2
    wanted = names_of(size, max(heads, 1))
    missing, unknown = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted)
    if missing or unknown:
        fault = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        raise ExpertError(f"the ears in {folder} have another layout ({fault}): this version reads Whisper encoders")
    try:
        made = _shape(tensors, size)
    except (RuntimeError, ValueError) as error:
        raise ExpertError(f"the ears in {folder}: a tensor has another shape ({one_line(error)})") from None
    if made != (1, len(outputs)):
        raise ExpertError(f"the ears in {folder} have {len(outputs)} names for {made[-1]} scores")


def _shape(tensors: Mapping[str, torch.Tensor], size: Size) -> tuple[int, ...]:
    """Return the shape of the scores of one clip. Computes nothing: tensors on `meta` have shapes only."""
    import torch

    positions, width = tensors["encoder.embed_positions.weight"].shape
    if (positions, width) != (size.max_source_positions, size.d_model):
        raise ValueError(f"encoder.embed_positions.weight is {[positions, width]}")
    features = torch.empty(1, size.num_mel_bins, 2 * positions, device="meta")
    return tuple(scores(features, {name: tensor.to("meta") for name, tensor in tensors.items()}, size).shape)


def _samples(clip: Clip) -> np.ndarray:
    """Return a clip as float32 [S] at 16 kHz, mono."""
    import soxr

    if clip.flac is None:
        raise ExpertError(f"segment {clip.segment_id} was given without its audio")
    mono, rate = decode(clip.flac)
    return np.asarray(soxr.resample(mono, rate, RATE) if rate != RATE else mono, dtype=np.float32)


def _folder(name: str) -> Path:
    """Return the folder of the model. Raises ExpertError for one that is on this machine neither way."""
    if own := os.environ.get(FOLDER):
        return Path(own).resolve()
    try:
        return registry.resolve(_WEIGHTS, fetch=False) / "base"
    except (WeightsMissing, DigestMismatch, NotPinned) as error:
        raise ExpertError(f"expert {name}: {error}, or set ${FOLDER} to a folder that holds them") from None


class _EarsExpert(Expert):
    """An expert that reads one score of the model."""

    listens = True
    license = "CC-BY-4.0"
    score: str
    """Name of the score, without the family before a colon ("voice:GEND")."""

    def load(self) -> None:
        """Load the model, once per process."""
        folder = _folder(self.name)
        self._ears = load_ears(folder)
        names = [name for name in self._ears.outputs if name.rpartition(":")[2] == self.score]
        if len(names) != 1:
            raise ExpertError(f"the ears in {folder} have no score {self.score}: expert {self.name} cannot use them")
        self._output = names[0]

    def judge(self, clips: Sequence[Clip]) -> list[Shares | None]:
        """Return the shares of each clip; None for a score that is not a number."""
        values = [scored[self._output] for scored in self._ears.score(clips)]
        return [self.shares(value) if math.isfinite(value) else None for value in values]

    @abc.abstractmethod
    def shares(self, score: float) -> Shares:
        """Return the shares for a finite score."""


class EarsGender(_EarsExpert):
    """Judge gender by the score GEND."""

    name, attribute, score = "ears-gender", "gender", "GEND"

    def shares(self, score: float) -> Shares:
        """Return the shares: even in the middle of the scale."""
        male = 1 / (1 + math.exp(-_PER_POINT * max(-6.0, min(6.0, score - _MIDDLE))))
        return {"female": 1 - male, "male": male}


class EarsAge(_EarsExpert):
    """Judge age by the score AGEV."""

    name, attribute, score = "ears-age", "age", "AGEV"

    def shares(self, score: float) -> Shares:
        """Return a bell around the score over the bands."""
        near = min(max(score, 0.0), 6.0)
        bells = {band: math.exp(-0.5 * ((near - _ANCHORS[band]) / _SPREAD) ** 2) for band in AGES}
        return {band: bell / sum(bells.values()) for band, bell in bells.items()}
