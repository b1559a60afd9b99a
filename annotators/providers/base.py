"""What a describer is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from annotators.schema import Answer, Clip


class Provider(Protocol):
    """Describes clips. A clip that cannot be described gets an Answer with `error`; nothing is raised for one clip."""

    name: str
    """Name of the pass: the folder its annotations are in."""
    model: str
    """What answered, e.g. a model's version."""
    prompt_version: str
    listens: bool
    """Whether it wants the audio; one that reads only measured scores does not."""

    def prepare(self, rows: Sequence[dict[str, object]]) -> None:
        """See all rows of the corpus once before the first clip, e.g. to learn what is high and low in it."""

    def describe(self, clips: Sequence[Clip]) -> list[Answer]:
        """One answer a clip, in order."""
