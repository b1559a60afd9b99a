"""The progress of `prepare` on a terminal: sessions, hours in, times real time, time left."""

from __future__ import annotations

from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from pipeline.engine.base import Outcome
from pipeline.engine.progress import Progress
from pipeline.records import Session
from pipeline.run import Summary
from voxmill.terminal import Terminal


class PrepareProgress:
    """A `pipeline.run.Watcher` that draws on the terminal (plain lines where it is not one)."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._bar = Bar(
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
        self._done = 0
        self._name = ""

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
        self._task = self._bar.add_task("preparing", total=sessions, note="")

    def stage_done(self, group: str, outcome: Outcome) -> None:
        """See `Watcher`."""
        if self._task is not None:
            self._bar.update(self._task, description=group.split("+")[-1])

    def session_done(self, session: Session) -> None:
        """See `Watcher`."""
        self._name = session.session_id
        if self._task is not None:
            self._bar.update(self._task, advance=1)

    def progressed(self, progress: Progress) -> None:
        """See `Watcher`."""
        note = _note(progress)
        if self._task is not None:
            self._bar.update(self._task, note=note)
        if not self._terminal.console.is_terminal and progress.sessions_done > self._done:
            left = "" if progress.left_s is None else f", about {progress.left_s:.0f} s left"
            count = f"{progress.sessions_done}/{progress.sessions}"
            self.say(f"  {count} sessions: {self._name}; {note}{left}")
        self._done = progress.sessions_done

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
        if summary.separation:
            tried, used, gain = (summary.separation[key] for key in ("tried_s", "used_s", "gain"))
            whole = max(summary.audio_s, 1e-9)
            say(
                f"source separation: tried on {tried / whole:.0%} of the audio, used for {used / whole:.0%}, "
                f"where DNSMOS rose by {gain:.2f}"
            )
        for row in summary.quarantined:
            say(f"quarantined: {row['path']} ({row['stage']}: {row['error']})")
        if summary.stage_s:
            say("seconds per stage: " + ", ".join(f"{name} {busy:.1f}" for name, busy in summary.stage_s.items()))


def _note(progress: Progress) -> str:
    """Hours in, times real time of the run and of its slowest stage, share kept."""
    done = progress.done_s
    note = f"{done / 3600:.2f} h" if done >= 3600 else f"{done / 60:.1f} min"
    note += f", {progress.times_real_time:.1f}x real time"
    slowest = min(progress.stage_times_real_time.items(), key=lambda item: item[1], default=None)
    if slowest is not None:
        note += f" ({slowest[0]} {slowest[1]:.1f}x)"
    if progress.kept_share is not None:
        note += f", {progress.kept_share:.0%} kept"
    return note


class EncodeProgress:
    """The progress of `encode` on a terminal: segments, times real time, time left."""

    def __init__(self, terminal: Terminal) -> None:
        self._bar = Bar(
            TextColumn("encode"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=terminal.console,
            transient=True,
            disable=not terminal.console.is_terminal,
        )
        self._task = self._bar.add_task("", note="")

    def __enter__(self) -> EncodeProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, done: int, of: int, speech_s: float) -> None:
        """See `trainer.encode.Watch`."""
        elapsed = self._bar.tasks[0].elapsed or 0.0
        note = f"{speech_s / elapsed:.0f}x real time" if elapsed else ""
        self._bar.update(self._task, completed=done, total=of, note=note)
