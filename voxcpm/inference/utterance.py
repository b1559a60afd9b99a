"""What is spoken, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxcpm.inference.prompt_cache import PromptCache

if TYPE_CHECKING:
    from voxcpm.engine.request import Ending


@dataclass(frozen=True)
class Utterance:
    """One item of `generate_batch`. A field that is None takes the value of the batch's arguments."""

    text: str
    description: str | None = None  #: the voice or style in words; put in parentheses before the text
    reference_wav_path: str | Path | None = None
    prompt_wav_path: str | Path | None = None
    prompt_text: str | None = None
    prompt_cache: PromptCache | None = None  #: replaces the three fields above
    seed: int | None = None
    cfg_value: float | None = None
    min_len: int | None = None
    max_len: int | None = None


@dataclass(frozen=True)
class Spoken:
    """Audio, and how it was generated."""

    wav: NDArray[np.float32]
    ending: Ending | None  #: why it ended; None: a chunk of a stream that continues
    attempts: int = 1  #: generations until this one, with retries of bad cases
    seed: int | None = None  #: seed of the last attempt


def own_options(utterance: Utterance, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a batch with those that an item sets."""
    names = ("seed", "cfg_value", "min_len", "max_len")
    return {**options, **{name: value for name in names if (value := getattr(utterance, name)) is not None}}
