"""Which requests join and which rows run in the next step. It uses neither torch nor a clock: all of it can be tested.

Playback sets the deadlines. A live row whose listener has audio for more than `AHEAD` patches can be left out of a step, and a
newcomer may join if no listener runs dry meanwhile. Whole rows (nobody listens yet) take what is left, but always their turn.
A row that is left out continues later as if nothing had happened, so that all of this changes times only, never the audio.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from voxcpm.engine.costs import CostModel

Kind = Literal["live", "whole"]

MARGIN = 0.15
"""Share of a patch's time that steps of live rows leave free."""
AHEAD = 4
"""Patches of audio that a listener must have before a row is left out of a step in favor of others."""
PREFILL = 512
"""Positions of newcomers in one step, but always one whole request."""
MOST_AHEAD_S = 30.0
"""Audio that a listener has not taken yet before a row pauses."""
WAIT_S = 2.0
"""A whole row that was left out for this long runs before live rows that have audio ahead."""
QUEUE = 4
"""Requests that may wait, for each slot."""
STARVE_S = 10.0
"""A whole row that was left out for this long runs whatever happens."""


class EngineBusyError(RuntimeError):
    """A request is refused: the queue is full, or its first audio would be late. `retry_after_s`: when to ask again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(eq=False)
class Entry:
    """What the scheduler knows of a request."""

    number: int
    kind: Kind
    prefill: int  #: positions of the layout
    positions: int  #: most positions
    most_patches: int
    arrived: float  #: seconds on the engine's clock
    deadline_s: float  #: of the first audio, after arrival; infinite: always taken, as its listener waits already; unused if whole
    lane: int | None = None  #: capacity of its lane
    patches: int = 0
    started: float | None = None  #: time of the first audio
    last_run: float = 0.0
    taken_s: float = 0.0  #: audio that the listener has taken
    reports: bool = False  #: something was said of what the listener has taken

    def slack(self, now: float, patch_s: float) -> float:
        """Seconds until the listener has nothing to hear; of a whole request: endless.

        Audio that the listener has not taken yet counts in any case: somebody who pauses does not run dry.
        """
        if self.kind == "whole":
            return math.inf
        if self.started is None:
            # Without a deadline its listener hears what it continues, and runs dry before those who come now.
            return self.arrived + (self.deadline_s if math.isfinite(self.deadline_s) else 0.0) - now
        return max(self.started + patch_s * self.patches - now, self.ahead_s(patch_s) if self.reports else -math.inf)

    def begin_again(self, now: float, patch_s: float) -> None:
        """Let the playback of a listener who has run dry begin again now, as a player does."""
        if self.started is not None:
            self.started = max(self.started, now - patch_s * self.patches)

    def ahead_s(self, patch_s: float) -> float:
        """Audio that was made and not taken, seconds."""
        return self.patches * patch_s - self.taken_s


@dataclass(frozen=True)
class StepPlan:
    """Numbers of the requests that join before the step, and of the rows that run in it (those that join are among them)."""

    join: tuple[int, ...]
    run: tuple[int, ...]
    prefill: int = 0  #: positions of those that join

    @property
    def empty(self) -> bool:
        """Return True if there is nothing to do."""
        return not self.run


@dataclass
class Scheduler:
    """Slots, queue and choice of rows. lanes: {capacity: slots}."""

    lanes: Mapping[int, int]
    patch_s: float
    costs: CostModel = field(default_factory=CostModel)
    queue: int | None = None  #: most requests that wait; None: four for each slot

    def __post_init__(self) -> None:
        self.running: dict[int, Entry] = {}
        self.waiting: dict[int, Entry] = {}
        self._free = dict(sorted(self.lanes.items()))
        self._slots = sum(self._free.values())
        self._most_waiting = QUEUE * self._slots if self.queue is None else self.queue

    @property
    def slots(self) -> int:
        """Number of slots in all lanes."""
        return self._slots

    @property
    def free(self) -> dict[int, int]:
        """Free slots by capacity."""
        return dict(self._free)

    @property
    def listened(self) -> bool:
        """Return True if a running request is live."""
        return any(entry.kind == "live" for entry in self.running.values())

    @property
    def budget_s(self) -> float:
        """Seconds that a step of all live rows may take."""
        return self.patch_s * (1 - MARGIN)

    # -- what happens to requests ----------------------------------------------------------------------------------------

    def submit(self, entry: Entry, now: float) -> None:
        """Queue a request.

        Raises EngineBusyError if the queue is full, or if its first audio is expected after its deadline; ValueError if no
        lane holds it.
        """
        if entry.positions > max(self._free):
            raise ValueError(f"{entry.positions} positions do not fit the engine's longest lane of {max(self._free)}")
        wait = self.expected_wait(entry)
        if len(self.waiting) >= self._most_waiting:
            raise EngineBusyError(f"{len(self.waiting)} requests are waiting already", _retry(wait))
        if entry.kind == "live" and wait > entry.deadline_s:
            raise EngineBusyError(
                f"the first audio would take about {wait:.0f} s, more than the deadline of {entry.deadline_s:g} s",
                _retry(wait),
            )
        self.waiting[entry.number] = entry

    def expected_wait(self, entry: Entry) -> float:
        """Estimate the seconds until a request that comes now gets a slot. 0 if there is one, and time for its row."""
        queue = list(self.waiting.values())
        live_only = entry.kind == "live"
        before = [other for other in queue if other.kind == "live"] if live_only else queue
        rows = list(self.running.values())
        if self._can_start(entry, len(before), len([r for r in rows if r.kind == "live"])):
            return 0.0
        step = self.costs.seconds(max(1, len(rows)))
        # Every row ends at its limit at the latest. Half of it is what speech takes on average of the official limit.
        left = sorted((row.most_patches - row.patches) * step / 2 for row in rows)
        left = left or [0.0]
        place = len(before)
        rounds, index = divmod(place, len(left))
        return left[index] + rounds * left[-1] + self.costs.seconds(1, entry.prefill)

    def _can_start(self, entry: Entry, waiting: int, live: int) -> bool:
        if waiting >= sum(count for capacity, count in self._free.items() if capacity >= entry.positions):
            return False
        return entry.kind == "whole" or self._carries(live + waiting + 1)

    def _carries(self, live: int) -> bool:
        """Return True if steps of this many live rows are faster than playback, or if not even those of one row are."""
        return self._too_slow() or live <= 1 or self.costs.seconds(live) <= self.budget_s

    def cancel(self, number: int) -> None:
        """End a request wherever it is; nothing if it is unknown. The engine must free the slot of a running one."""
        self.waiting.pop(number, None)
        self._release(number)

    def taken(self, number: int, seconds: float) -> None:
        """Note how much of its audio, in all, a listener has taken."""
        entry = self.running.get(number)
        if entry is not None:
            entry.taken_s, entry.reports = max(entry.taken_s, seconds), True

    def _release(self, number: int) -> None:
        entry = self.running.pop(number, None)
        if entry is not None and entry.lane is not None:
            self._free[entry.lane] += 1
            entry.lane = None

    # -- the step --------------------------------------------------------------------------------------------------------

    def plan(self, now: float) -> StepPlan:
        """Choose what the next step does, and give slots to those that join.

        A listener with slack s, who runs dry in s seconds, may be left out of a step of T seconds if s >= T + `budget_s`, because
        a step of all live rows takes at most `budget_s`; otherwise the row runs, and T <= s must hold. As a new listener has
        one patch (s > `budget_s`), steps that keep both rules keep every listener supplied.
        """
        rows = [entry for entry in self.running.values() if not self._paused(entry)]
        for entry in rows:
            entry.begin_again(now, self.patch_s)
        listening = [e.slack(now, self.patch_s) for e in rows if e.kind == "live" and e.started is not None]
        if self._too_slow():
            # The machine cannot keep up with one listener: only throughput counts.
            listening = []
        join, positions, blocked = self._newcomers(listening, now)
        run = self._chosen(rows, listening, len(join), positions, blocked, now)
        return StepPlan(tuple(e.number for e in join), tuple(e.number for e in (*join, *run)), positions)

    def ran(self, plan: StepPlan, seconds: float, now: float, ended: Iterable[int], learn: bool = True) -> None:
        """Note that a step was made: it took `seconds` and ended at `now`, and these requests have ended.

        learn: False if something that was not the step's delayed it.
        """
        if learn and plan.run:
            self.costs.observe(len(plan.run), plan.prefill, seconds)
        for number in plan.run:
            entry = self.running.get(number)
            if entry is not None:
                entry.patches += 1
                entry.last_run = now
                entry.started = now if entry.started is None else entry.started
        for number in ended:
            self._release(number)

    def _paused(self, entry: Entry) -> bool:
        return entry.kind == "live" and entry.ahead_s(self.patch_s) > MOST_AHEAD_S

    def _too_slow(self) -> bool:
        return self.costs.seconds(1) > self.budget_s

    def _must_run(self, listening: list[float], others: int, positions: int) -> tuple[int, bool]:
        """Return how many listeners must run in a step with `others` more rows, and whether all of them are in time.

        listening: their slacks. A listener who has run dry already is late whatever happens, and must not keep others out.
        """
        must = 0
        while True:
            seconds = self.costs.seconds(must + others, positions)
            urgent = [slack for slack in listening if slack < seconds + self.budget_s]
            if len(urgent) == must:
                return must, seconds <= min((slack for slack in urgent if slack > 0), default=math.inf)
            must = len(urgent)

    def _newcomers(self, listening: list[float], now: float) -> tuple[list[Entry], int, bool]:
        """Move waiting requests to free slots, live ones by deadline, then whole ones in order.

        Returns (those that join, their positions, whether a live one waits for time only).
        """
        join: list[Entry] = []
        positions = 0
        live = sum(entry.kind == "live" for entry in self.running.values())
        whole = len(self.running) - live

        def rank(entry: Entry) -> tuple[bool, float, float]:
            """Live ones by deadline, then whole ones; a whole one that has waited long is the first."""
            waited = now - entry.arrived
            if entry.kind == "whole" and waited > STARVE_S:
                return False, STARVE_S - waited, entry.arrived
            return entry.kind == "whole", entry.slack(now, self.patch_s), entry.arrived

        for entry in sorted(self.waiting.values(), key=rank):
            lane = next((c for c, n in self._free.items() if n and c >= entry.positions), None)
            allowed = self._carries(live + 1) if entry.kind == "live" else self._leaves_slots(whole)
            if lane is None or not allowed:
                continue
            if join and positions + entry.prefill > PREFILL:
                break
            if listening and not self._must_run(listening, len(join) + 1, positions + entry.prefill)[1]:
                return join, positions, entry.kind == "live"
            self.waiting.pop(entry.number)
            self._free[lane] -= 1
            entry.lane, entry.last_run = lane, now
            self.running[entry.number] = entry
            join.append(entry)
            positions += entry.prefill
            live, whole = live + (entry.kind == "live"), whole + (entry.kind == "whole")
        return join, positions, False

    def _leaves_slots(self, whole: int) -> bool:
        """Return True if another whole row leaves slots for live ones; of fewer than four slots none is kept."""
        return whole + 1 <= self._slots - self._slots // 4

    def _chosen(
        self, rows: list[Entry], listening: list[float], joining: int, positions: int, blocked: bool, now: float
    ) -> list[Entry]:
        """Choose the rows that run beside the newcomers: those that must, then others as long as nobody runs dry.

        blocked: a live newcomer waits for listeners to get ahead, so that whole rows take less.
        """
        if not listening or self.costs.seconds(joining + len(rows), positions) <= min(listening):
            return rows
        slack = {entry: entry.slack(now, self.patch_s) for entry in rows}
        patience = STARVE_S if blocked else WAIT_S

        def rank(entry: Entry) -> tuple[int, float]:
            waited = now - entry.last_run
            if entry.kind == "whole":
                return (0 if waited > patience else 3 if blocked else 2, -waited)
            return (1 if slack[entry] < AHEAD * self.patch_s or blocked else 4, slack[entry])

        by_slack = sorted(rows, key=slack.__getitem__)
        run, _ = self._with_urgent([], by_slack, slack, joining, positions)
        for entry in sorted(rows, key=rank):
            if entry in run:
                continue
            wider, in_time = self._with_urgent([*run, entry], by_slack, slack, joining, positions)
            starved = entry.kind == "whole" and now - entry.last_run > STARVE_S
            if in_time or starved:
                run = wider
        if not run and not joining and by_slack:
            # No step is in time for everybody, and waiting makes nothing better: a listener whose player holds back the last
            # patch does not become more urgent. So the most urgent one runs, with those who must.
            run, _ = self._with_urgent(by_slack[:1], by_slack, slack, joining, positions)
        return run

    def _with_urgent(
        self, run: list[Entry], by_slack: list[Entry], slack: Mapping[Entry, float], joining: int, positions: int
    ) -> tuple[list[Entry], bool]:
        """Add the listeners who must run in a step with these rows; return all, and whether they are in time."""
        run = list(run)
        while True:
            seconds = self.costs.seconds(joining + len(run), positions)
            late = [entry for entry in by_slack if slack[entry] < seconds + self.budget_s and entry not in run]
            if not late:
                return run, seconds <= min((slack[entry] for entry in run if slack[entry] > 0), default=math.inf)
            run += late


def _retry(wait: float) -> float:
    return min(60.0, max(1.0, wait))
