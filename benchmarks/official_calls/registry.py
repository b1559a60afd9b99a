"""The list of calls, and what all of them use. Only documented names of the package are used."""

from __future__ import annotations

import builtins
import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PATCHES = 4
#: min_len disables the stop decision, so that the length is known: PATCHES of 160 ms.
FIXED = {"min_len": PATCHES, "max_len": PATCHES, "inference_timesteps": 3}
PROMPT_TEXT = "It was the best of times, "


@dataclass
class Setting:
    """The objects that the calls use."""

    model: Any  #: VoxCPM
    golden: Path
    checkpoint: Path
    lora: Path
    ref: str
    prompt: str
    folder: Path  #: to write into


CALLS: dict[str, Callable[[Setting], Any]] = {}


def call(name: str) -> Callable[[Callable[[Setting], Any]], Callable[[Setting], Any]]:
    """Add a function to the list of calls."""

    def enter(function: Callable[[Setting], Any]) -> Callable[[Setting], Any]:
        CALLS[name] = function
        return function

    return enter


def kind(value: Any) -> Any:
    """Return the kind of a value (type, dtype, shape), without its content."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray):
        return {"type": "numpy.ndarray", "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, torch.Tensor):
        return {"type": "torch.Tensor", "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {"type": "dict", "items": {str(key): kind(item) for key, item in sorted(value.items())}}
    if isinstance(value, tuple | list):
        return {"type": type(value).__name__, "items": [kind(item) for item in value]}
    if isinstance(value, types.GeneratorType) or (isinstance(value, Iterator) and not hasattr(value, "read")):
        return {"type": "generator", "items": [kind(item) for item in value]}
    if value is None or isinstance(value, bool | int | str):
        return {"type": type(value).__name__, "value": value}
    return {"type": type(value).__name__}


def error_kind(error: BaseException) -> str:
    """Return the built-in class of an error, on which a caller can rely."""
    return next(c.__name__ for c in type(error).__mro__ if getattr(builtins, c.__name__, None) is c)


def speak(setting: Setting, **options: Any) -> Any:
    """Call `generate` with a known length."""
    return setting.model.generate(**{"text": "Hello world", **FIXED, **options})


def prompt_arguments(s: Setting) -> dict[str, Any]:
    """Return the arguments of a continuation."""
    return {"prompt_wav_path": s.prompt, "prompt_text": PROMPT_TEXT}


def package() -> Any:
    """Return the tested package."""
    return import_module("voxcpm")


def lora_config(s: Setting) -> Any:
    """Return the settings of the golden adapter."""
    values = json.loads((s.lora / "lora_config.json").read_text(encoding="utf-8"))["lora_config"]
    return import_module("voxcpm.model.voxcpm").LoRAConfig(**values)
