"""Systems by kind: `checkpoint:DIR`, `folder:DIR`, `human` and so on. A kind is one file; its line is here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogs.nearest import nearest
from evaluation.errors import EvaluationError
from evaluation.systems.base import System

SYSTEMS: dict[str, str] = {
    "checkpoint": "evaluation.systems.checkpoint:Checkpoint",
    "codec": "evaluation.systems.codec:Codec",
    "folder": "evaluation.systems.folder:Folder",
    "human": "evaluation.systems.human:Human",
    "official": "evaluation.systems.official:Official",
    "openai": "evaluation.systems.openai_speech:OpenAISpeech",
    "process": "evaluation.systems.process:Process",
    "resample": "evaluation.systems.codec:Resample",
}
"""Kind and `module:Class`. A class is made with the text after the colon of a specification, and options by name."""
ARGUMENTS = {
    "checkpoint": "DIR",
    "codec": "CHECKPOINT",
    "folder": "DIR",
    "official": "PYTHON:CHECKPOINT",
    "openai": "URL",
    "process": "COMMAND",
    "resample": "RATE",
}
"""What comes after the colon, for the documentation."""


@dataclass(frozen=True)
class Kind:
    """A kind of system in words. `options`: name, default and meaning of each."""

    usage: str
    words: str
    options: tuple[tuple[str, Any, str], ...]


def systems() -> list[Kind]:
    """Return every kind of system, as its module and its options describe it."""
    found = []
    for name, place in SYSTEMS.items():
        module = importlib.import_module(place.partition(":")[0])
        model = getattr(getattr(module, place.partition(":")[2]), "options_kind", None)
        fields = {} if model is None else model.model_fields
        options = tuple(
            (option, field.get_default(call_default_factory=True), " ".join((field.description or "").split()))
            for option, field in fields.items()
        )
        words = " ".join((module.__doc__ or "").partition("\n\n")[0].split())
        usage = f"{name}:{ARGUMENTS[name]}" if name in ARGUMENTS else name
        found.append(Kind(usage, words, options))
    return found


def open_system(specification: str, options: Mapping[str, Any] | None = None) -> System:
    """Return the system of `KIND:ARGUMENT`; a folder with config.json is a checkpoint.

    Raises EvaluationError for an unknown kind, an unknown option or a system that cannot be used.
    """
    kind, colon, argument = specification.partition(":")
    if (
        not colon
        and kind not in SYSTEMS
        and not (Path(specification) / "config.json").is_file()
        and "/" in specification
    ):
        raise EvaluationError(
            f"no checkpoint at {specification} (no config.json); give the folder of a checkpoint, or KIND:ARGUMENT"
        )
    if not colon and (Path(specification) / "config.json").is_file():
        kind, argument = "checkpoint", specification
    if kind not in SYSTEMS:
        near = nearest(kind, SYSTEMS)
        raise EvaluationError(
            f"no kind of system {kind!r}; {f'did you mean {near}? ' if near else ''}Known: {', '.join(SYSTEMS)}"
        )
    module, _, name = SYSTEMS[kind].partition(":")
    made = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(made).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        known = [one for one in parameters if one != "argument"]
        for option in options or {}:
            if option not in known:
                raise EvaluationError(f"{kind} has no option {option!r}; known: {', '.join(known) or 'none'}")
    system: System = made(argument, **(options or {}))
    return system
