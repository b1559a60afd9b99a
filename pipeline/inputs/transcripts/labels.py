"""Label files (.lab): HTK's with times in 100 ns, with times in seconds, xlabel's, or words alone."""

from __future__ import annotations

import re

from pipeline.inputs.transcripts.formats import SILENCE, Transcript, TranscriptError, timed
from pipeline.records import TimedText

_HTK = re.compile(r"^\s*(\d+)\s+(\d+)(?:\s+(\S.*?))?\s*$")
_SECONDS = re.compile(r"^\s*(\d+\.\d+|\d+)\s+(\d+\.\d+|\d+)(?:\s+(\S.*?))?\s*$")
_XLABEL = re.compile(r"^\s*(\d+(?:\.\d+)?)\s+\d+\s+(\S.*?)\s*$")
_HTK_UNIT_S = 1e-7


def read_labels(text: str) -> Transcript:
    """Return the words of a label file, with times if it has them. Raises TranscriptError for labels of single sounds."""
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise TranscriptError("it holds no text")
    spans = _xlabel(lines) if "#" in [line.strip() for line in lines] else _timed_lines(lines)
    if spans is None:
        return Transcript(" ".join(" ".join(lines).split()))
    spoken = [span for span in spans if span.text.lower() not in SILENCE]
    if _are_sounds(spoken):
        raise TranscriptError("its labels are single sounds, not words")
    return timed(spoken)


def _timed_lines(lines: list[str]) -> list[TimedText] | None:
    """Read `start end words` on every line; return None if a line is anything else."""
    htk = [_HTK.match(line) for line in lines]
    if all(htk):
        rows = [match.groups() for match in htk if match]
        return [TimedText(int(a) * _HTK_UNIT_S, int(b) * _HTK_UNIT_S, _words(label)) for a, b, label in rows]
    seconds = [_SECONDS.match(line) for line in lines]
    if all(seconds):
        rows = [match.groups() for match in seconds if match]
        return [TimedText(float(a), float(b), _words(label)) for a, b, label in rows]
    return None


def _words(label: str | None) -> str:
    """Return a label without the score that HTK may put after it."""
    return " ".join(re.sub(r"\s+-?\d+\.\d+(?=\s|$)", "", f" {label or ''}").split())


def _xlabel(lines: list[str]) -> list[TimedText]:
    """Read `end color label` after a line with # alone. Each label lasts from the end of the previous one to its own end."""
    start, spans = 0.0, []
    places = [line.strip() for line in lines]
    for line in lines[places.index("#") + 1 :]:
        match = _XLABEL.match(line)
        if match is None:
            raise TranscriptError(f"cannot read the line {line.strip()[:40]!r}")
        end = float(match[1])
        spans.append(TimedText(start, end, match[2]))
        start = end
    return spans


def _are_sounds(spans: list[TimedText]) -> bool:
    """Return True if labels look like phones: full-context ones, or nearly all of at most three letters and shorter than
    1/6 s on average."""
    if not spans:
        return False
    if sum(bool(re.search(r"\S[\^+=]\S", span.text)) for span in spans) > len(spans) / 2:
        return True
    mean = sum(span.end_s - span.start_s for span in spans) / len(spans)
    short = sum(len(span.text) <= 3 and span.text.isascii() for span in spans)
    return len(spans) >= 4 and mean < 1 / 6 and short > 0.9 * len(spans)
