"""What differs between families of models: thinking, sampling, price, and quirks of servers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TOKENS_PER_SECOND = 32.0
"""Audio tokens per second of Gemini, the most of the known models."""


@dataclass(frozen=True)
class Profile:
    """How the models of one family are asked."""

    family: str
    price: str
    """Name in the price table."""
    thinking: tuple[str, str | int] | None = None
    """Field and value for the least thinking that is useful. A model takes only one of the two fields."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Sampling parameters that are sent. Current Gemini models ignore them; a later generation refuses them."""
    thoughts: int = 0
    """Output tokens to allow for reasoning in addition to those of the prompt."""
    clips: int = 8
    """Most clips of a request."""
    piece_s: float | None = None
    """Longest piece of audio in seconds; a longer clip is sent in several pieces. None: any length."""
    streams_only: bool = False
    """Whether the service answers only as a stream."""
    structured: bool = True
    """Whether the server takes a schema. Otherwise, the form is asked for in words only."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request body."""


_LOW = ("thinking_level", "LOW")


def _gemini(family: str, thinking: tuple[str, str | int] = _LOW) -> Profile:
    return Profile(family, family, thinking)


PROFILES: tuple[Profile, ...] = (
    _gemini("gemini-2.5-pro", ("thinking_budget", 512)),
    _gemini("gemini-2.5-flash-lite", ("thinking_budget", 512)),
    _gemini("gemini-2.5-flash", ("thinking_budget", 512)),
    _gemini("gemini-3.1-pro"),
    _gemini("gemini-3.1-flash-lite"),
    _gemini("gemini-3.5-flash-lite"),
    _gemini("gemini-3.5-flash"),
    _gemini("gemini-3.7-flash"),
    _gemini("gemini-3.8-flash"),
    _gemini("gemini-4-argon"),
    _gemini("gemini-4-hydrogen"),
    Profile(
        "step-audio",
        "step-audio",
        sampling={"temperature": 0.5},
        thoughts=8000,
        clips=1,
        piece_s=25.0,
        structured=False,
        extra={"stop_token_ids": [151665], "skip_special_tokens": False},
    ),
    Profile("moss-audio", "moss-audio", thoughts=4000),
    Profile("qwen3-omni", "qwen3-omni-30b-a3b", thoughts=4000),
    Profile("qwen3.5-omni", "qwen3.5-omni", streams_only=True),
    Profile("qwen3.8-omni", "qwen3.8-omni-flash", streams_only=True),
    Profile("mimo", "mimo-v2.6-flash"),
)
"""The first whose family begins the model's name is taken, so the longer name stands before the shorter."""

_VERSION = re.compile(r"(?:[-@](?:preview|exp|latest|stable|\d{2,4}(?:-\d{2})*(?:-\d{4})?|\d{8}))+\Z")
"""What may follow a model's name without making it another model: a version, a date, its state of release."""
_NAME = re.compile(r"[A-Za-z0-9][\w.:@/-]*")


def checked(model: str) -> str:
    """Return a model's name. Raises ValueError for one that does not fit into a path or a header."""
    if not _NAME.fullmatch(model) or ".." in model or "//" in model:
        raise ValueError(
            f"the model name {model!r} has other signs than letters, digits and . _ : @ / -: correct --model"
        )
    return model


def base_name(model: str) -> str:
    """Return a model's name in lower case, without its publisher and its version."""
    return _VERSION.sub("", model.strip().rsplit("/", 1)[-1].lower())


def profile(model: str) -> Profile:
    """Return the profile of a model; a plain one for a family that is not known."""
    name = base_name(model)
    known = (p for p in PROFILES if name == p.family or re.match(re.escape(p.family) + r"[-.]", name))
    return next(known, Profile(name, name))


def same_family(asked: str, answered: str) -> bool:
    """Return True if a model that names itself `answered` is the one that was asked for, in whatever version."""
    return base_name(asked) == base_name(answered)
