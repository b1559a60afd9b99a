"""SubRip (.srt) and WebVTT (.vtt)."""

from __future__ import annotations

import re

from pipeline.inputs.transcripts.formats import Transcript, TranscriptError, clean_caption, timed
from pipeline.records import TimedText

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?"
_ARROW = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?$")


def read_subtitles(text: str) -> Transcript:
    """Return the cues with their times. Blocks without a time (headers, notes, styles, credits) are skipped.

    Rolling captions show each line again while the next one appears; each line is returned once.
    """
    spans: list[TimedText] = []
    shown: list[str] = []
    arrows = 0
    for start, end, lines in _cues(text):
        arrows += 1
        lines = [cleaned for line in lines if (cleaned := clean_caption(line))]
        fresh = lines
        if spans and start <= spans[-1].end_s + 0.1:
            while fresh and fresh[0] in shown:
                fresh = fresh[1:]
        shown = lines
        if fresh and end > start:
            spans.append(TimedText(start, end, " ".join(fresh)))
    if not arrows:
        raise TranscriptError("no line has a time such as 00:00:01,000 --> 00:00:02,500")
    return timed(spans)


def _cues(text: str) -> list[tuple[float, float, list[str]]]:
    """Return (start, end, lines) of each cue. A cue ends at an empty line or at the next time."""
    cues: list[tuple[float, float, list[str]]] = []
    inside = False
    for line in text.split("\n"):
        if match := _ARROW.match(line):
            # The line before a time is the cue's number or name, even if the empty line before it is missing.
            if inside and cues and cues[-1][2] and cues[-1][2][-1].strip().isdigit():
                cues[-1][2].pop()
            parts = match.groups()
            cues.append((_seconds(*parts[:4]), _seconds(*parts[4:]), []))
            inside = True
        elif not line.strip():
            inside = False
        elif inside:
            cues[-1][2].append(line)
    return cues


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")
