"""Real clips with their words, and faults that are planted in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from evaluation.items import Item
from evaluation.metrics.base import Take, read_clip

RATE = 16_000


@dataclass(frozen=True)
class Clip:
    """A clip of ../shared/corpora with its words."""

    name: str
    text: str


JFK = Clip(
    "read/jfk.flac",
    "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country.",
)
EREWHON = Clip(
    "read/2412-153948-0000.flac",
    "If the reader will excuse me, I will say nothing of my antecedents, nor of the circumstances which led me to leave my"
    " native country. The narrative would be tedious to him and painful to myself.",
)
DESIGN = Clip(
    "read/2412-153948-0001.flac",
    "It will be seen that I did not succeed in my design, and that however much I may have met with that was new and strange,"
    " I have been unable to reap any pecuniary advantage.",
)
KIDS = Clip("ravdess/actor_01/03-01-01-01-01-01-01.flac", "Kids are talking by the door.")


def take_of(corpora: Path, clip: Clip, **fields: Any) -> Take:
    """Return a clip as a take."""
    path = corpora / clip.name
    return Take(Item(clip.text, "en", name=clip.name, **fields), 0, "ok", path, soundfile.info(path).duration)


def planted(folder: Path, name: str, samples: np.ndarray, text: str) -> Take:
    """Write float32 [S] at 16 kHz as a take of a text."""
    path = folder / f"{name}.flac"
    soundfile.write(path, samples, RATE)
    return Take(Item(text, "en", name=name), 0, "ok", path, len(samples) / RATE)


def samples_of(corpora: Path, clip: Clip) -> np.ndarray:
    """Return float32 [S] at 16 kHz."""
    return read_clip(corpora / clip.name, RATE)


def between(samples: np.ndarray, start: float, end: float) -> np.ndarray:
    """Return the samples between two times in seconds."""
    return samples[round(start * RATE) : round(end * RATE)]


def silence(seconds: float) -> np.ndarray:
    """Return silence with a little noise: float32 [S]."""
    return np.random.default_rng(0).normal(0, 1e-4, round(seconds * RATE)).astype(np.float32)
