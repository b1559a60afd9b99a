"""Where an audio watermark is put into speech: between the engine and the format, chunk by chunk.

A watermark is streaming by contract: however the samples are cut into chunks, the result is the same as for all of them at
once. Audio may come out later than it went in, but no sample is lost: `finish` returns what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Name = TypeVar("Name")


class Watermark(Protocol):
    """Marks any number of streams, each with a state. It is the same object for all, so it keeps nothing of a stream."""

    def start(self, rate: int) -> Any:
        """Return the state of a new stream at `rate` Hz."""
        ...

    def mark(self, samples: Samples, state: Any) -> tuple[Samples, Any]:
        """Return (marked samples [m], state after them) for the next samples [n] float32. m may differ from n."""
        ...

    def finish(self, state: Any) -> Samples:
        """Return the marked samples [m] that are left at the end of a stream, so that as many came out as went in."""
        ...


class NoWatermark:
    """Leaves audio as it is. The default."""

    def start(self, rate: int) -> None:
        """See `Watermark`."""

    def mark(self, samples: Samples, state: None) -> tuple[Samples, None]:
        """See `Watermark`."""
        return samples, state

    def finish(self, state: None) -> Samples:
        """See `Watermark`."""
        return np.zeros(0, np.float32)


NO_WATERMARK = NoWatermark()


def marked_chunks(chunks: Iterable[Samples], rate: int, watermark: Watermark) -> Iterator[Samples]:
    """Yield marked samples of one stream of chunks [n] at `rate` Hz, as many in all as came in."""
    state = watermark.start(rate)
    for chunk in chunks:
        samples, state = watermark.mark(chunk, state)
        if len(samples):
            yield samples
    rest = watermark.finish(state)
    if len(rest):
        yield rest


def marked_pairs(
    pairs: Iterable[tuple[Name, Samples]], rate: int, watermark: Watermark
) -> Iterator[tuple[Name, Samples]]:
    """Yield the pairs (name, samples) of one stream with marked samples. If some are left at the end, the last name comes again."""
    state = watermark.start(rate)
    last: list[Name] = []
    for name, samples in pairs:
        marked, state = watermark.mark(samples, state)
        yield name, marked
        last = [name]
    rest = watermark.finish(state)
    if last and len(rest):
        yield last[0], rest


def marked_samples(samples: Samples, rate: int, watermark: Watermark) -> Samples:
    """Return a whole clip [n] marked."""
    return np.concatenate([samples[:0], *marked_chunks([samples], rate, watermark)])
