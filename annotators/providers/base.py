"""The interface of an annotator."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from annotators.schema import Answer, Caption, Clip, KeptRows

if TYPE_CHECKING:
    import pyarrow as pa


class Provider(abc.ABC):
    """Describe clips. The constructor takes no arguments. A clip that cannot be described gets an Answer with `error`; it raises
    nothing."""

    name: ClassVar[str]
    """Name of the pass: the folder its annotations are in."""
    model: str
    """Model and version that wrote the descriptions."""
    prompt_version: ClassVar[str]
    """Increased when the same clip may get another description."""
    listens: ClassVar[bool]
    """Whether it needs the audio; an annotator that reads only measured scores does not."""

    def prepare(self, kept: KeptRows) -> None:  # noqa: B027 - most need no preparation
        """Read the corpus before the first clip, e.g. to compute its quantiles.

        It must not hold all rows: they may not fit into memory.
        """

    def begin_unit(self, rows: pa.Table) -> None:  # noqa: B027 - most need nothing of it
        """See all kept rows (INDEX columns) of the unit whose clips follow, e.g. to pool the measures of a voice. A unit holds
        whole sessions."""

    def remember(self, segment_id: str, captions: Sequence[Caption]) -> None:  # noqa: B027 - most need nothing
        """Note the captions that an earlier pass gave a clip of the unit. Called after `begin_unit`."""

    @abc.abstractmethod
    def describe(self, clips: Sequence[Clip]) -> list[Answer]:
        """Return one answer per clip, in order."""
