"""The progress of `prepare` and `encode` on a terminal: hours in and done, times real time, share kept, time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.progress_bar import ProgressBar
from rich.table import Table

from catalogs.durations import duration_text
from pipeline.engine.api import Event, SessionDone
from pipeline.engine.progress import Progress
from voxmill.terminal import Terminal

_REDRAW_S = 0.5
_TELL_AGAIN_S = 60.0
"""Maximum seconds between lines if no terminal is attached. A session may be one recording of hours."""


class PrepareProgress:
    """Context manager that prints a run's log and its progress (a live table on a terminal, otherwise lines).

    Pass it as the `watch` of `pipeline.prepare.prepare`.
    """

    def __init__(self, terminal: Terminal, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal
        self._clock = clock
        self._live = Live(console=terminal.console, transient=True, refresh_per_second=2)
        self._shown = ExitStack()
        self._drawn = -1e9
        self._told: float | None = None

    def __enter__(self) -> PrepareProgress:
        self._shown.enter_context(self._terminal.printing("pipeline"))
        self._shown.callback(self._live.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()

    def __call__(self, event: Event, progress: Progress) -> None:
        """Show the state of the run after an event."""
        now = self._clock()
        if self._terminal.console.is_terminal:
            self._live.start()
            if isinstance(event, SessionDone) or now - self._drawn >= _REDRAW_S:
                # Drawn here and not at the terminal's refresh: that is in another thread, while the counts change in this one.
                self._live.update(
                    Group(_Headline(progress), escape(note(progress, slowest=False)), stage_table(progress))
                )
                self._drawn = now
            return
        if self._told is None:
            self._told = progress.started
        if isinstance(event, SessionDone):
            state = f"{event.session.session_id}; {note(progress)}"
        elif now - self._told >= _TELL_AGAIN_S:
            state = f"{note(progress)}; at {_working(progress)}"
        else:
            return
        self._terminal.say(f"  {progress.sessions_done}/{progress.sessions} {_sessions(progress)}: {state}")
        self._told = now


class _Headline:
    """Share done, sessions and elapsed time; rebuilt at every refresh, so that the time advances without events."""

    def __init__(self, progress: Progress) -> None:
        self._elapsed_s = progress.elapsed_s
        self._drawn = time.monotonic()
        self._share = progress.share
        self._sessions = f"{progress.sessions_done}/{progress.sessions} {_sessions(progress)}"

    def __rich__(self) -> RenderableType:
        line = Table.grid(padding=(0, 1))
        elapsed = duration_text(self._elapsed_s + time.monotonic() - self._drawn)
        bar = ProgressBar(total=1.0, completed=self._share or 0.0, width=20)
        line.add_row(bar, "  ?" if self._share is None else f"{self._share:4.0%}", self._sessions, f"in {elapsed}")
        return line


def stage_table(progress: Progress) -> Table:
    """Return a table of the stages that have begun: hours done and times real time of one actor; bold while at work."""
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in ("stage", "done", "speed") * 2:
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    speeds, at_work = progress.stage_times_real_time, progress.at_work
    cells = [
        (f"[bold]{stage}[/bold]" if stage in at_work else stage, duration_text(audio), _times(speeds.get(stage)))
        for stage, (audio, _) in progress.stages.items()
    ]
    # Two stages per line: a dozen lines would fill a small terminal.
    half = (len(cells) + 1) // 2
    for index, left in enumerate(cells[:half]):
        right = cells[half + index] if half + index < len(cells) else ("", "", "")
        table.add_row(*left, *right)
    return table


def _times(speed: float | None) -> str:
    if speed is None:
        return ""
    return f"{speed:.1f}x" if speed < 100 else f"{speed:.0f}x" if speed < 1000 else ">1000x"


def note(progress: Progress, slowest: bool = True) -> str:
    """Return a line with hours done of all hours, times real time of the run (and its slowest stage), share kept, time left.

    Half-done sessions count by the share of their work that is done.
    """
    share = progress.share
    done_s = progress.done_s if share is None else max(progress.done_s, share * progress.audio_s)
    parts = [
        f"{duration_text(done_s)} of {duration_text(progress.audio_s)} done",
        f"{progress.times_real_time:.1f}x real time",
    ]
    slow = min(progress.stage_times_real_time.items(), key=lambda item: item[1], default=None)
    if slowest and slow is not None:
        parts[-1] += f" ({slow[0]} {_times(slow[1])})"
    if progress.kept_share is not None:
        parts.append(f"{progress.kept_share:.0%} kept")
    if progress.left_s is not None:
        parts.append(f"about {duration_text(progress.left_s)} left")
    return ", ".join(parts)


def _sessions(progress: Progress) -> str:
    return "session" if progress.sessions == 1 else "sessions"


def _working(progress: Progress) -> str:
    """Return the stages at work, each with the hours that it has done."""
    done = progress.stages
    return ", ".join(f"{stage} ({duration_text(done[stage][0])})" for stage in progress.at_work) or "nothing"


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
        """See `trainer.encode_corpus.Watch`."""
        elapsed = self._bar.tasks[0].elapsed or 0.0
        note = f"{speech_s / elapsed:.0f}x real time" if elapsed else ""
        self._bar.update(self._task, completed=done, total=of, note=note)
