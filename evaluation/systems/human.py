"""The recordings of people that a list has for its texts: the best that can be expected, and the floor of a recognizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.errors import SpeakError
from evaluation.systems.base import Ask, Speech
from evaluation.systems.folder import read_speech


class Human:
    """Answers with `Item.human`."""

    batch = 1
    seeded = False
    name = "human"

    def __init__(self, argument: str = "") -> None:
        del argument

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        return {"kind": "human"}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`."""
        return [
            SpeakError("the list has no recording of this text")
            if ask.item.human is None
            else read_speech(ask.item.human)
            for ask in asks
        ]

    def close(self) -> None:
        """See `System`."""
