"""What a person sees of a run: a live table on a terminal, lines where there is none."""

from __future__ import annotations

import io

from rich.console import Console

from pipeline.engine.api import ItemStarted, Outcome
from pipeline.engine.progress import Progress
from pipeline.runs.summary import Summary, summary_lines
from voxmill.progress import PrepareProgress, note
from voxmill.terminal import Terminal

HALF_WAY = ItemStarted("talk.wav", "transcribe", 5400.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def half_way(clock: Clock) -> Progress:
    """One session of three hours, decoded, its transcripts half done after half an hour."""
    progress = Progress(sessions=1, audio_s=10_800.0, clock=clock, costs={"decode": 0.02, "transcribe": 1.0})
    progress.item_started(ItemStarted("talk.wav", "decode", 0.0))
    clock.now = 36.0
    progress.stage_done(Outcome("talk.wav", busy_s={"decode": 36.0}, audio_s=10_800.0))
    progress.item_started(ItemStarted("talk.wav", "transcribe", 0.0))
    clock.now = 1836.0
    progress.item_started(HALF_WAY)
    return progress


def terminal(is_terminal: bool) -> tuple[Terminal, io.StringIO]:
    told = Terminal()
    out = io.StringIO()
    told.console = Console(file=out, force_terminal=is_terminal, width=80, highlight=False, soft_wrap=True)
    return told, out


def test_one_long_recording_shows_hours_speed_and_time_left() -> None:
    assert (
        note(half_way(Clock()))
        == "1 h 31 min of 3 h 00 min done, 3.0x real time (transcribe 3.0x), about 30 min 00 s left"
    )


def test_a_terminal_gets_a_table_of_the_stages() -> None:
    clock = Clock()
    told, out = terminal(True)
    with PrepareProgress(told, clock) as shown:
        shown(HALF_WAY, half_way(clock))
        shown._live.refresh()
    text = out.getvalue()
    for words in (
        "0/1 session ",
        "50%",
        "about 30 min 00 s left",
        "decode",
        "3 h 00 min",
        "300x",
        "transcribe",
        "1 h 30 min",
    ):
        assert words in text, words


def test_without_a_terminal_a_line_is_said_every_minute() -> None:
    clock = Clock()
    told, out = terminal(False)
    with PrepareProgress(told, clock) as shown:
        progress = half_way(clock)
        for _ in range(3):
            shown(HALF_WAY, progress)
        clock.now += 61.0
        shown(HALF_WAY, progress)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 and all("at transcribe (1 h 30 min)" in line and " s left" in line for line in lines)


def test_recordings_that_were_there_before_are_not_counted_as_done_by_the_run() -> None:
    (line,) = summary_lines(Summary("c", sources=5, already_there=3, sessions=2, audio_s=60.0, wall_s=30.0))
    assert line.startswith("2 recordings, 1 min 00 s in 30.0 s (2.0x real time)")
