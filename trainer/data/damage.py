"""Samples that cannot be read: each is left out of its row, named and counted; too many end the run.

One damaged clip must not end a run of weeks. A disk that has failed must not be treated as many damaged clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainer.config import TrainError

if TYPE_CHECKING:
    from trainer.data.rows import Planned

SHARE = 0.01
"""Share of the segments of a run that may be unreadable."""
ALWAYS = 10
"""Number of segments that may always be unreadable, for small corpora."""
IN_A_ROW = 100
"""Number of unreadable samples in a row after which the run fails: the damage is then not limited to single clips."""


def is_readable(planned: Planned, unreadable: Mapping[str, str]) -> bool:
    """Return True if a sample needs none of the unreadable segments."""
    choice = planned.choice
    return choice.candidate.segment_id not in unreadable and choice.reference not in unreadable


def refuse_many_damaged(unreadable: int, segments: int, reason: str) -> None:
    """Raise TrainError if more segments are unreadable than single damaged clips explain. reason: that of the last one."""
    if unreadable > max(ALWAYS, round(SHARE * segments)):
        raise TrainError(f"{unreadable} of {segments} segments cannot be read (the last: {reason})")
