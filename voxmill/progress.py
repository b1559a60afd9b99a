"""The progress of `prepare` on a terminal: sessions, hours in, times real time, time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.engine.base import Outcome
from pipeline.records import Session
from pipeline.run import Summary
from voxmill.terminal import Terminal


class PrepareProgress:
    """A `pipeline.run.Watcher` that draws on the terminal (plain lines where it is not one)."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=terminal.console,
            transient=True,
            disable=not terminal.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._started = time.monotonic()
        self._audio_s = 0.0
        self._sessions = 0
        self._done = 0

    def __enter__(self) -> PrepareProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """See `Watcher`."""
        self._terminal.say(line)

    def planned(self, sessions: int, audio_s: float) -> None:
        """See `Watcher`."""
        self._sessions = sessions
        self._started = time.monotonic()
        self._task = self._bar.add_task("preparing", total=sessions, note="")

    def stage_done(self, group: str, outcome: Outcome) -> None:
        """See `Watcher`."""
        if self._task is not None:
            self._bar.update(self._task, description=group.split("+")[-1])

    def session_done(self, session: Session) -> None:
        """See `Watcher`."""
        self._done += 1
        self._audio_s += sum(recording.duration_s for recording in session.recordings)
        elapsed = time.monotonic() - self._started
        note = f"{self._audio_s / 60:.1f} min, {self._audio_s / max(elapsed, 1e-9):.1f}x real time"
        if self._task is not None:
            self._bar.update(self._task, advance=1, note=note)
        if not self._terminal.console.is_terminal:
            left = elapsed / self._done * (self._sessions - self._done)
            name = session.session_id
            self.say(f"  {self._done}/{self._sessions} sessions: {name}; {note}, about {left:.0f} s left")

    def summarize(self, summary: Summary) -> None:
        """What the run did, in a few lines."""
        say = self._terminal.say
        rate = summary.audio_s / summary.wall_s if summary.wall_s else 0.0
        say(
            f"{summary.sources} recordings, {summary.audio_s / 60:.1f} minutes in {summary.wall_s:.0f} s"
            f" ({rate:.1f}x real time): {summary.segments} segments, {summary.kept} kept"
            f" ({summary.kept_s / 60:.1f} minutes)"
        )
        if summary.rejected:
            reasons = ", ".join(f"{reason} {count}" for reason, count in summary.rejected.items())
            say(f"rejected, by reason: {reasons}")
        for row in summary.quarantined:
            say(f"quarantined: {row['path']} ({row['stage']}: {row['error']})")
        if summary.stage_s:
            say("seconds per stage: " + ", ".join(f"{name} {busy:.1f}" for name, busy in summary.stage_s.items()))
