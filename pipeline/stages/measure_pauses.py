"""Measure the longest pause within each segment."""

from __future__ import annotations

from itertools import pairwise

from pipeline.records import Segment, Session
from pipeline.stage import Resources, Stage, StageConfig


class MeasurePausesConfig(StageConfig):
    """Settings of `measure_pauses`: none."""


class MeasurePauses(Stage[MeasurePausesConfig]):
    """Segments with words -> `longest_pause_s`: seconds between two words."""

    name = "measure_pauses"
    version = "1"
    config_type = MeasurePausesConfig
    inputs = ("segments", "segment.words")
    outputs = ("segment.longest_pause_s",)
    resources = Resources(cpus=0.01)

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.alive(), _measure)
        return session


def _measure(segment: Segment) -> None:
    segment.longest_pause_s = max((after.start - before.end for before, after in pairwise(segment.words)), default=0.0)
