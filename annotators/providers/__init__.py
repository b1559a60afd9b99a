"""The describers by name."""

from __future__ import annotations

from annotators.providers.base import Provider

NAMES = ("acoustic",)


def provider(name: str) -> Provider:
    """The describer with this name; ValueError names the known ones."""
    if name == "acoustic":
        from annotators.providers.acoustic import Acoustic

        return Acoustic()
    raise ValueError(f"no annotator {name!r}; annotators: {', '.join(NAMES)}")
