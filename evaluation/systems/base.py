"""What a system is: it speaks items. One class per kind of system, in one table (`evaluation.systems.SYSTEMS`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from evaluation.items import Item

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Ask:
    """One utterance to be made: an item with a seed."""

    item: Item
    seed: int


@dataclass(frozen=True)
class Speech:
    """What a system answered.

    `samples`: float32 [S] mono at `rate`. `wall_s`: seconds from the request to the last sample; for a batch, the batch's seconds
    divided by its items. `first_audio_s`: seconds to the first playable chunk, if the system streams. `attempts`: generations
    that were needed. `reached_limit`: the system was stopped by the length limit instead of by itself.
    `notes`: what else is worth a column of text (JSON).
    """

    samples: np.ndarray
    rate: int
    wall_s: float | None = None
    first_audio_s: float | None = None
    attempts: int = 1
    reached_limit: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


class System(Protocol):
    """A text-to-speech system, or a stand-in such as recordings of people.

    It may have a method `check(asks)`, which is called with all takes of a run before the first is made, and raises EvaluationError
    if they cannot be told apart.
    """

    @property
    def name(self) -> str:
        """Name in tables."""

    @property
    def batch(self) -> int:
        """Items per call."""

    @property
    def seeded(self) -> bool:
        """Return True if the seed changes what is said. Of a system without seeds, only the first seed is asked."""

    def describe(self) -> dict[str, Any]:
        """Return the settings, versions and digests that decide the output, as JSON values."""

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """Return one answer per ask, in order. An answer that is an exception counts as failed; its message is one line."""

    def close(self) -> None:
        """Release the model or end the process."""
