"""A stage that measures the longest pause within each segment."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field

from pipeline.records import Segment, Session
from pipeline.stage import Resources, Stage, StageConfig


class PausesConfig(StageConfig):
    """Settings of `pauses`."""

    least_s: float = Field(0.05, ge=0)
    """A shorter pause counts as none: word times are not more exact."""


class Pauses(Stage[PausesConfig]):
    """Segments with words -> `extra['longest_pause_s']`: seconds between two words of the segment."""

    name = "pauses"
    version = "1"
    config_type = PausesConfig
    inputs = ("segments", "segment.words")
    outputs = ("segment.extra",)
    resources = Resources(cpus=0.01)

    def __call__(self, session: Session) -> Session:
        # A segment that raises is recorded as failed and does not stop the others.
        self.for_each(session, session.alive(), self._measure)
        return session

    def _measure(self, segment: Segment) -> None:
        pauses = [after.start - before.end for before, after in pairwise(segment.words)]
        longest = max(pauses, default=0.0)
        segment.extra["longest_pause_s"] = longest if longest >= self.config.least_s else 0.0
