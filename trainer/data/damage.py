"""Samples of which some cannot be read: each is left out of its row, named and counted; too many end the run.

One damaged clip must not end a run of weeks, nor may a disk that has gone be taken for many damaged clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from trainer.config import TrainError
from trainer.data.corpora import SegmentError
from voxcpm.sequence.training_rows import Sample

if TYPE_CHECKING:
    from trainer.data.rows import Planned, SampleMaker
    from voxcpm.config import VoxCPM2Config

SHARE = 0.01
"""Share of the segments of a run that may be unreadable."""
ALWAYS = 10
"""Number of segments that may be unreadable in any case, for small corpora."""
IN_A_ROW = 100
"""Samples in a row that are left out before the run gives up: the damage is then not limited to single clips."""


def make_all(
    maker: SampleMaker, rows: Iterable[Iterable[Planned]], config: VoxCPM2Config
) -> tuple[list[list[Sample]], dict[str, str]]:
    """The samples of planned rows, and why some are not there: segment id -> reason.

    In the place of one that cannot be read stands a document of one position without audio, from which nothing is learned: the
    others keep their numbers in the row and with them their random numbers.
    """
    unreadable: dict[str, str] = {}

    def made(planned: Planned) -> Sample:
        try:
            return maker.make(planned)
        except SegmentError as error:
            unreadable[error.segment_id] = str(error)
            return _nothing(config)

    return [[made(planned) for planned in row] for row in rows], unreadable


def is_readable(planned: Planned, unreadable: Mapping[str, str]) -> bool:
    """Return True if a sample needs none of the unreadable segments."""
    choice = planned.choice
    return choice.candidate.segment_id not in unreadable and choice.reference not in unreadable


def refuse_many_damaged(unreadable: int, segments: int, reason: str) -> None:
    """Raise TrainError if too many segments for single damaged clips cannot be read; `reason` is that of the last one."""
    if unreadable > max(ALWAYS, round(SHARE * segments)):
        raise TrainError(f"{unreadable} of {segments} segments cannot be read (the last: {reason})")


def _nothing(config: VoxCPM2Config) -> Sample:
    no = torch.zeros(1, dtype=torch.bool)
    zero = torch.zeros(1, dtype=torch.int64)
    return Sample(zero, no, no, zero, torch.zeros(0, config.patch_size, config.feat_dim))
