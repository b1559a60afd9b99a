"""Lanes: slots of equal capacity, so that a short utterance never reads a long one's cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from voxcpm.engine.request import Row
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.decode_state import DecodeState

CAPACITIES = (1024, 2048, 8192)
"""Positions of the lanes. What is read is what the longest row of a lane has filled, so that capacity costs memory, not time."""


@dataclass
class Lane:
    """Slots of one capacity. `rows[i]` is in slot i of `state`."""

    state: DecodeState
    rows: list[Row] = field(default_factory=list)

    @property
    def capacity(self) -> int:
        """Positions of a slot."""
        return self.state.capacity

    @property
    def free(self) -> int:
        """Number of free slots."""
        return self.state.slots - len(self.rows)

    def release(self, row: Row, clean: bool) -> None:
        """Free a row's slot. clean: also overwrite what it wrote, which is needed if that is not finite."""
        slot = self.rows.index(row)
        self.state.release(slot, clean)
        self.rows[slot] = self.rows[-1]
        self.rows.pop()

    def bring_forward(self, groups: Sequence[int]) -> None:
        """Order the slots by the group of their rows (groups[i] is that of rows[i], small numbers first)."""
        groups = list(groups)
        wanted = sorted(groups)
        for slot, group in enumerate(wanted):
            if groups[slot] == group:
                continue
            # The last one of the group: those between stay where they are as often as possible.
            other = len(groups) - 1 - groups[::-1].index(group)
            self.state.swap(slot, other)
            self.rows[slot], self.rows[other] = self.rows[other], self.rows[slot]
            groups[slot], groups[other] = groups[other], groups[slot]


def lane_of(positions: int, longest: int) -> int:
    """Return the smallest capacity that holds `positions`. longest: of the model's context."""
    return next((c for c in CAPACITIES if positions <= c <= longest), longest)


def make_lanes(model: VoxCPM2, slots: Mapping[int, int]) -> list[Lane]:
    """Allocate lanes, {capacity: slots}, smallest capacity first."""
    made = [(capacity, count) for capacity, count in sorted(slots.items()) if count]
    return [Lane(DecodeState.allocate(model.config, n, c, model.dtype, model.device)) for c, n in made]


def lanes_for(model: VoxCPM2, rows: Sequence[Row], most: int) -> list[Lane]:
    """Allocate lanes for these rows, at most `most` at once: no slot is longer than the longest row of its class."""
    classes: dict[int, list[int]] = {}
    for row in rows:
        classes.setdefault(lane_of(row.positions, model.config.max_length), []).append(row.positions)
    return make_lanes(model, {max(lengths): min(len(lengths), most) for lengths in classes.values()})
