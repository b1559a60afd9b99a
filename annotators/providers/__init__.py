"""The annotators by name: the built-in ones and those of other packages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from annotators.providers.base import Provider
from annotators.providers.remote import RemoteProvider
from catalogs.extensions import ExtensionError, ExtensionPoint
from catalogs.files import one_line

ANNOTATORS = ExtensionPoint(
    "annotator",
    Provider,  # type: ignore[type-abstract]
    "voxmill.annotators",
    {
        "acoustic": "annotators.providers.acoustic:Acoustic",
    },
)
REMOTE = ExtensionPoint(
    "remote annotator",
    RemoteProvider,  # type: ignore[type-abstract]
    "voxmill.remote_annotators",
    {
        "gemini": "annotators.providers.gemini:Gemini",
        "gemini-batch": "annotators.providers.gemini_batch:GeminiBatch",
        "chat": "annotators.providers.chat:Chat",
    },
)
"""Annotators that are asked over a network. Arguments of their constructors: model, base_url, languages."""
_RESERVED = ("none", "duplicates")
"""Names that an annotator must not have: `none` is a setting, and annotations/duplicates belongs to another pass."""


def provider(name: str) -> Provider:
    """Return the annotator with this name, entry point or `module:Class`. Raises ExtensionError with a one-line message."""
    kind = ANNOTATORS.find(name)
    try:
        made = kind()
    except TypeError as error:
        raise ExtensionError(f"annotator {name} cannot be made without arguments ({one_line(error)})") from error
    missing = [part for part in ("name", "model", "prompt_version", "listens") if not hasattr(made, part)]
    if missing:
        raise ExtensionError(f"annotator {name} has no {missing[0]}: give it to the class")
    # The name becomes a folder name, and readers skip folders that begin with "tmp".
    if not re.fullmatch(r"(?!tmp)[a-z][a-z0-9_-]*", made.name):
        raise ExtensionError(f"annotator {name} has the name {made.name!r}: use small letters, digits, _ and -")
    if made.name in _RESERVED or (made.name in ANNOTATORS.ours and name != made.name):
        raise ExtensionError(f"annotator {name} has the name {made.name}, which is taken; give it another")
    return made


def remote_provider(
    name: str, model: str | None = None, base_url: str | None = None, languages: Sequence[str] | None = None
) -> RemoteProvider:
    """Return the remote annotator with this name, entry point or `module:Class`. What is None is left to its defaults.

    Raises ExtensionError for an unknown name, and ValueError for a wrong model, base URL or language.
    """
    given = {"model": model, "base_url": base_url, "languages": languages}
    kind = REMOTE.find(name)
    try:
        made = kind(**{part: value for part, value in given.items() if value is not None})
    except TypeError as error:
        raise ExtensionError(
            f"annotator {name} cannot be made from model, base_url and languages ({one_line(error)})"
        ) from error
    missing = [part for part in ("name", "model", "prompt_version", "identity") if not hasattr(made, part)]
    if missing:
        raise ExtensionError(f"annotator {name} has no {missing[0]}: set it in the constructor")
    taken = made.name in (*_RESERVED, *ANNOTATORS.ours) or (made.name in REMOTE.ours and name != made.name)
    if taken or not re.fullmatch(r"(?!tmp)[a-z][a-z0-9_-]*", made.name):
        raise ExtensionError(
            f"annotator {name} has the name {made.name!r}: use another one of small letters, digits, _ and -"
        )
    return made
