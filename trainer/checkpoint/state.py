"""Where a run is: the record that is saved with the weights. It knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.config import TrainError
from trainer.data.sample_counts import SampleCounts

if TYPE_CHECKING:
    from trainer.data.rows import Planned
from trainer.data.damage import IN_A_ROW, is_readable, refuse_many_damaged


@dataclass
class RunState:
    """Where a run is. `rows`: the name of the phase and the place in its stream of rows."""

    step: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    audio_s: float = 0.0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    rollbacks: int = 0
    recent: list[float] = field(default_factory=list)
    """The last losses of steps that were taken, oldest first: what the guard compares with."""
    skipped_steps: list[dict[str, Any]] = field(default_factory=list)
    """The last steps that were not taken: step, reason, segments."""
    skipped: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Segments that were left out because they are damaged, and what was wrong."""
    unreadable_in_a_row: int = 0
    """Samples that were left out since the last one that could be read."""
    data_key: str = ""
    base: dict[str, str] = field(default_factory=dict)
    """Digests of the weights that adapters are trained over; nothing without adapters, or in a run begun before they were kept."""
    rows: dict[str, Any] = field(default_factory=dict)
    realised: SampleCounts = field(default_factory=SampleCounts)
    """Of all phases."""
    phases: dict[str, SampleCounts] = field(default_factory=dict)
    """Of each phase that was begun; of the later part alone where the run was begun before these were kept."""
    reordered_at: int | None = None
    """The step from which on the data comes in another order than before: the run was begun by rules of an earlier version."""

    @property
    def phase(self) -> SampleCounts:
        """Of the phase that the run is in."""
        return self.phases.setdefault(self.rows.get("phase", ""), SampleCounts())

    def count(self, realised: SampleCounts) -> None:
        """Take note of samples of the phase that the run is in."""
        self.realised.add(realised)
        self.phase.add(realised)
        self.audio_s += realised.seconds


def note_damage(
    state: RunState, unreadable: Mapping[str, str], planned: Iterable[Iterable[Planned]], segments: int
) -> dict[str, str]:
    """Take note of what a step left out of its planned rows (of all ranks); returns what was not known before.

    segments: how many the phase is trained on. TrainError where it is too much. All ranks must be told the same.
    """
    new = {segment: reason for segment, reason in unreadable.items() if segment not in state.unreadable}
    state.unreadable |= new
    if not unreadable:
        state.unreadable_in_a_row = 0
        return new
    read = [is_readable(item, unreadable) for row in planned for item in row]
    state.unreadable_in_a_row = 0 if any(read) else state.unreadable_in_a_row + len(read)
    reason = next(iter(unreadable.values()))
    if state.unreadable_in_a_row >= IN_A_ROW:
        raise TrainError(f"{state.unreadable_in_a_row} samples in a row cannot be read (the last: {reason})")
    refuse_many_damaged(len(state.unreadable), segments, reason)
    return new
