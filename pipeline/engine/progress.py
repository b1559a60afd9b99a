"""What can be said of a run while it goes on: hours in, times real time, time left, share kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.engine.base import Outcome


@dataclass
class Progress:
    """Counts of a run; seconds of audio unless said otherwise. `sessions` and `audio_s` are what is to be done."""

    sessions: int
    audio_s: float
    clock: Callable[[], float] = time.monotonic
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

    def stage_done(self, outcome: Outcome) -> None:
        """A group of stages has finished with a session."""
        for stage, worked in outcome.cpu_s.items():
            self.stage_cpu_s[stage] = self.stage_cpu_s.get(stage, 0.0) + worked
        for stage, busy in outcome.busy_s.items():
            self.stage_busy_s[stage] = self.stage_busy_s.get(stage, 0.0) + busy
            self.stage_audio_s[stage] = self.stage_audio_s.get(stage, 0.0) + outcome.audio_s

    def session_done(self, audio_s: float, speech_s: float, kept_s: float) -> None:
        """A session came out of the last stage."""
        self.sessions_done += 1
        self.done_s += audio_s
        self.speech_s += speech_s
        self.kept_s += kept_s

    @property
    def elapsed_s(self) -> float:
        """Wall seconds since the run began."""
        return self.clock() - self.started

    @property
    def times_real_time(self) -> float:
        """Seconds of finished audio per wall second."""
        return self.done_s / max(self.elapsed_s, 1e-9)

    @property
    def stage_times_real_time(self) -> dict[str, float]:
        """Per stage, seconds of audio per second that one actor of it was busy."""
        return {stage: self.stage_audio_s[stage] / busy for stage, busy in self.stage_busy_s.items() if busy > 0}

    @property
    def left_s(self) -> float | None:
        """Wall seconds that the rest will take at the pace so far; None before a session has come through.

        The share done is that of the busy seconds: what each stage has spent, to what it will have spent on all of the
        audio. So half-done sessions count, and each stage counts by its cost.
        """
        if not self.sessions_done:
            return None
        if self.sessions_done >= self.sessions:
            return 0.0
        whole = sum(
            busy * max(1.0, self.audio_s / self.stage_audio_s[stage])
            for stage, busy in self.stage_busy_s.items()
            if self.stage_audio_s[stage] > 0
        )
        busy = sum(self.stage_busy_s.values())
        share = min(busy / whole, 1.0) if whole > 0 else self.sessions_done / self.sessions
        return self.elapsed_s * (1.0 - share) / share if share > 0 else None

    @property
    def kept_share(self) -> float | None:
        """Share of the segments' seconds that is kept; None before there is a segment."""
        return self.kept_s / self.speech_s if self.speech_s > 0 else None
