"""The synthetic corpora: how many units each has, and what a unit holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """The shape of a synthetic corpus.

    rows: segments of a unit. spoken: recordings of a unit that hold them, in order. silent: recordings without speech.
    sessions: the session of each recording of a unit. recording_s: least length of a recording in seconds; 0: as its segments need.
    described: units for each one that has descriptions and checks.
    drawn: units whose rows are drawn; the others have the same rows under other ids. 0: all are drawn.
    """

    name: str
    units: int
    rows: int
    spoken: int
    silent: int
    sessions: tuple[int, ...]
    recording_s: float
    described: int
    drawn: int = 0

    @property
    def segments(self) -> int:
        """Segments of the corpus."""
        return self.units * self.rows

    @property
    def recordings(self) -> int:
        """Recordings of a unit."""
        return self.spoken + self.silent


KINDS = {
    # Ten minutes of recordings a unit (the default `unit_s`), in three sessions; the first has two recordings.
    "small": Kind("small", 2_000, 50, 3, 1, (0, 0, 1, 2), 0.0, 4),
    "million": Kind("million", 20_000, 50, 3, 1, (0, 0, 1, 2), 0.0, 4),
    # Nine hours a unit: 2 M hours in all. The records and recordings are those of such units, but the index rows are few: five in a
    # unit instead of some five thousand. Files of five rows do not get smaller by compression: they are written without it.
    "records": Kind("records", 228_000, 5, 5, 4, (0, 0, 0, 1, 1, 2, 2, 3, 4), 3_600.0, 40, 1_000),
}
"""The corpora by name."""


def tiny(units: int, rows: int = 12) -> Kind:
    """Return the shape of a corpus for tests: as `small`, with few units."""
    return Kind("tiny", units, rows, 3, 1, (0, 0, 1, 2), 0.0, 2)
