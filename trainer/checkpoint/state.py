"""The state of a run that is saved with the weights. It does not depend on the model."""

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
    """The state of a run. `rows`: the name of the phase and the position in its stream of rows."""

    step: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    audio_s: float = 0.0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    rollbacks: int = 0
    recent: list[float] = field(default_factory=list)
    """The last losses of steps that were taken, oldest first. The loss guard compares with them."""
    skipped_steps: list[dict[str, Any]] = field(default_factory=list)
    """The last steps that were not taken: step, reason, segments."""
    skipped: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Segments that were left out because they are damaged, with the reasons."""
    unreadable_in_a_row: int = 0
    """Number of samples that were left out since the last one that could be read."""
    data_key: str = ""
    base: dict[str, str] = field(default_factory=dict)
    """Digests of the weights that adapters are trained over. Empty without adapters, or if the run was begun before they were
    saved."""
    rows: dict[str, Any] = field(default_factory=dict)
    realised: SampleCounts = field(default_factory=SampleCounts)
    """Counts over all phases."""
    phases: dict[str, SampleCounts] = field(default_factory=dict)
    """Counts of each phase that was begun. They cover only the later part if the run was begun before they were saved."""
    reordered_at: int | None = None
    """The step at which the order of the data changed, since the run was begun by the rules of an earlier version."""

    @property
    def phase(self) -> SampleCounts:
        """Counts of the current phase."""
        return self.phases.setdefault(self.rows.get("phase", ""), SampleCounts())

    def record(self, rows: StepRows, report: StepReport, segments: int) -> dict[str, str]:
        """Record a step of the current phase, taken or not; return the damaged segments not known before.

        segments: number of segments of the phase. All ranks must pass the same values. Raises TrainError if too many segments are
        damaged.
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
