"""The annotators by name: the built-in ones and those of other packages."""

from __future__ import annotations

import re

from annotators.providers.base import Provider
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
