"""Where a run is: the record that is saved with the weights. It knows no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.config import TrainError
from trainer.data.damage import IN_A_ROW, is_readable, refuse_many_damaged
from trainer.data.sample_counts import SampleCounts

if TYPE_CHECKING:
    from trainer.data.samples import StepRows
    from trainer.result import StepReport


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

    def record(self, rows: StepRows, report: StepReport, segments: int) -> dict[str, str]:
        """Take note of a step of the phase that the run is in, taken or not; return the damaged segments not known before.

        segments: how many the phase is trained on. TrainError if too many are damaged. All ranks must be given the same.
        """
        self.step += 1
        self.skipped |= rows.skipped
        self.rows = self.rows | {"at": rows.after}
        new = self._note_damage(rows, report.unreadable, segments)
        if report.taken:
            self.bad_in_a_row = 0
            self.first_loss = report.total if self.first_loss is None else self.first_loss
            self.last_loss = report.total
            self._count(rows, report.unreadable)
        elif report.patches:
            self.bad_steps += 1
            self.bad_in_a_row += 1
        return new

    def _count(self, rows: StepRows, unreadable: Mapping[str, str]) -> None:
        realised = rows.realised
        if unreadable:
            realised = SampleCounts()
            for item in (item for row in rows.planned for item in row if is_readable(item, unreadable)):
                realised.count(item.choice)
        self.realised.add(realised)
        self.phase.add(realised)
        self.audio_s += realised.seconds

    def _note_damage(self, rows: StepRows, unreadable: Mapping[str, str], segments: int) -> dict[str, str]:
        new = {segment: reason for segment, reason in unreadable.items() if segment not in self.unreadable}
        self.unreadable |= new
        if not unreadable:
            self.unreadable_in_a_row = 0
            return new
        read = [is_readable(item, unreadable) for row in rows.planned for item in row]
        self.unreadable_in_a_row = 0 if any(read) else self.unreadable_in_a_row + len(read)
        reason = next(iter(unreadable.values()))
        if self.unreadable_in_a_row >= IN_A_ROW:
            raise TrainError(f"{self.unreadable_in_a_row} samples in a row cannot be read (the last: {reason})")
        refuse_many_damaged(len(self.unreadable), segments, reason)
        return new
