"""What a describer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from annotators.schema import Answer, Clip

if TYPE_CHECKING:
    import pyarrow as pa

KeptRows = Callable[[Sequence[str]], "Iterator[pa.Table]"]
"""Each call goes through the kept segments from the start: some thousands of rows at a time, of the INDEX columns it names."""


class Provider(Protocol):
    """Describes clips. A clip that cannot be described gets an Answer with `error`; nothing is raised for one clip."""

    name: str
    """Name of the pass: the folder its annotations are in."""
    model: str
    """What answered, e.g. a model's version."""
    prompt_version: str
    listens: bool
    """Whether it wants the audio; one that reads only measured scores does not."""

    def prepare(self, kept: KeptRows) -> None:
        """Look at the corpus before the first clip, e.g. to learn what is high and low in it.

        It must not hold all of the rows: they may not fit into memory.
        """

    def describe(self, clips: Sequence[Clip]) -> list[Answer]:
        """One answer a clip, in order."""
