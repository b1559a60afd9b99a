"""Progress of a run: hours processed, speed in times real time, time left, share kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.engine.api import ItemStarted, Outcome

_ENOUGH_S = 20.0
"""Seconds of audio after which the measured pace of a stage is used."""
_KNOWN = 0.5
"""Share of the stages' declared costs that must have a measured pace before the rest is estimated from the declaration."""


@dataclass
class _AtWork:
    """A stage on a session: seconds of the session's audio that it has finished, and when it began and ended (clock)."""

    done_s: float
    since: float
    until: float | None = None


@dataclass
class Progress:
    """Counts of a run, in seconds of audio unless stated otherwise. `sessions` and `audio_s` are the totals to process.

    `costs`: the declared cost of each stage relative to the others (`Resources.cpus`), for stages that are not measured
    yet.
    """

    sessions: int
    audio_s: float
    clock: Callable[[], float] = time.monotonic
    costs: Mapping[str, float] = field(default_factory=dict)
    sessions_done: int = 0
    done_s: float = 0.0
    speech_s: float = 0.0
    """Seconds of all segments, and `kept_s` of those that passed every threshold."""
    kept_s: float = 0.0
    stage_busy_s: dict[str, float] = field(default_factory=dict)
    stage_cpu_s: dict[str, float] = field(default_factory=dict)
    stage_audio_s: dict[str, float] = field(default_factory=dict)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()
        self._began: float | None = None
        self._at_work: dict[str, dict[str, _AtWork]] = {}

    def item_started(self, item: ItemStarted) -> None:
        """Record how far a stage is with the session that it is processing."""
        now = self.clock()
        if self._began is None:
            # Until now, models were loaded. The rest of the run does not repeat that.
            self._began = now
        stages = self._at_work.setdefault(item.session_id, {})
        if item.stage not in stages:
            for before in stages.values():
                before.until = before.until or now
            stages[item.stage] = _AtWork(item.done_s, now)
        stages[item.stage].done_s = item.done_s

    def stage_done(self, outcome: Outcome) -> None:
        """Record that a group of stages has finished a session."""
        self._at_work.pop(outcome.session_id, None)
        for stage, worked in outcome.cpu_s.items():
            self.stage_cpu_s[stage] = self.stage_cpu_s.get(stage, 0.0) + worked
        for stage, busy in outcome.busy_s.items():
            self.stage_busy_s[stage] = self.stage_busy_s.get(stage, 0.0) + busy
            self.stage_audio_s[stage] = self.stage_audio_s.get(stage, 0.0) + outcome.audio_s

    def session_done(self, audio_s: float, speech_s: float, kept_s: float, planned_s: float | None = None) -> None:
        """Count a session that came out of the last stage. `planned_s`: its part of the plan's `audio_s`, if that was an
        estimate."""
        self.sessions_done += 1
        self.done_s += audio_s
        self.audio_s += audio_s - (audio_s if planned_s is None else planned_s)
        self.speech_s += speech_s
        self.kept_s += kept_s

    def session_lost(self, audio_s: float, speech_s: float, kept_s: float, planned_s: float) -> None:
        """Take back `session_done`: the session is processed again."""
        self.session_done(-audio_s, -speech_s, -kept_s, -planned_s)
        self.sessions_done -= 2

    @property
    def elapsed_s(self) -> float:
        """Wall seconds since the run began."""
        return self.clock() - self.started

    @property
    def at_work(self) -> dict[str, int]:
        """Number of sessions that each stage is processing."""
        counts: dict[str, int] = {}
        for stages in self._at_work.values():
            for stage, at in stages.items():
                counts[stage] = counts.get(stage, 0) + (at.until is None)
        return {stage: count for stage, count in counts.items() if count}

    @property
    def stages(self) -> dict[str, tuple[float, float]]:
        """Per stage that has begun: (seconds of audio it has finished, seconds it was busy), including sessions in
        progress."""
        now = self.clock()
        found = {stage: (self.stage_audio_s[stage], busy) for stage, busy in self.stage_busy_s.items()}
        for stages in self._at_work.values():
            for stage, at in stages.items():
                audio, busy = found.get(stage, (0.0, 0.0))
                found[stage] = (audio + at.done_s, busy + (now if at.until is None else at.until) - at.since)
        return found

    @property
    def times_real_time(self) -> float:
        """Seconds of audio per wall second, from the share of work that is done, otherwise from finished sessions."""
        share = self.share
        done = self.done_s if share is None else max(self.done_s, share * self.audio_s)
        return done / max(self.elapsed_s, 1e-9)

    @property
    def stage_times_real_time(self) -> dict[str, float]:
        """Per stage, seconds of audio per second that one of its actors was busy."""
        return {stage: audio / busy for stage, (audio, busy) in self.stages.items() if audio > 0 and busy > 0}

    @property
    def share(self) -> float | None:
        """Share of the work that is done, 0 to 1; None before it can be estimated.

        It is a share of busy seconds: what each stage has spent, divided by what it will have spent on all of the audio.
        Unfinished sessions count, also in a run over a single recording, and each stage counts by its cost. Stages that
        have not begun are assumed to cost what they declare, in proportion to those that have.
        """
        if self.sessions_done >= self.sessions:
            return 1.0
        if self.audio_s <= 0:
            return self.sessions_done / self.sessions if self.sessions_done else None
        stages = self.stages
        enough_s = min(_ENOUGH_S, self.audio_s)
        pace = {stage: busy / audio for stage, (audio, busy) in stages.items() if audio >= enough_s}
        declared, measured = sum(self.costs.values()), sum(self.costs.get(stage, 0.0) for stage in pace)
        if not pace or measured < _KNOWN * declared or not (declared or self.sessions_done):
            # Too little is measured: only finished sessions count.
            return min(self.done_s / self.audio_s, 1.0) if self.sessions_done else None
        scale = sum(pace[stage] for stage in pace if stage in self.costs) / measured if measured else 0.0
        expected = {stage: cost * scale for stage, cost in self.costs.items()} | pace
        spent = {stage: busy for stage, (_, busy) in stages.items()}
        whole = sum(max(spent.get(stage, 0.0), cost * self.audio_s) for stage, cost in expected.items())
        return min(sum(spent.values()) / whole, 1.0) if whole > 0 else self.sessions_done / self.sessions

    @property
    def left_s(self) -> float | None:
        """Wall seconds that the rest will take at the pace so far; None before that can be estimated."""
        share = self.share
        if not share:
            return None
        worked = self.clock() - (self.started if self._began is None else self._began)
        return worked * (1.0 - share) / share

    @property
    def kept_share(self) -> float | None:
        """Share of the segments' seconds that is kept; None before there is a segment."""
        return self.kept_s / self.speech_s if self.speech_s > 0 else None
