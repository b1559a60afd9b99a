"""What a describer is."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from annotators.schema import Answer, Clip

if TYPE_CHECKING:
    import pyarrow as pa

KeptRows = Callable[[Sequence[str]], "Iterator[pa.Table]"]
"""Each call goes through the kept segments from the start: some thousands of rows at a time, of the INDEX columns it names."""


class Provider(abc.ABC):
    """Describes clips; made without arguments. A clip that cannot be described gets an Answer with `error`: nothing is raised
    for one clip."""

    name: ClassVar[str]
    """Name of the pass: the folder its annotations are in."""
    model: str
    """What answered, e.g. a model's version."""
    prompt_version: ClassVar[str]
    """Raised when the same clip may be described otherwise."""
    listens: ClassVar[bool]
    """Whether it wants the audio; one that reads only measured scores does not."""

    def prepare(self, kept: KeptRows) -> None:  # noqa: B027 - most have nothing to learn
        """Look at the corpus before the first clip, e.g. to learn what is high and low in it.

        It must not hold all of the rows: they may not fit into memory.
        """

    @abc.abstractmethod
    def describe(self, clips: Sequence[Clip]) -> list[Answer]:
        """One answer a clip, in order."""
