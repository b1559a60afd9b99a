"""What every reader of a transcript gives back, and the cleaning they share."""

from __future__ import annotations

import codecs
import html
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.records import TimedText

#: Marks for "nothing is said here" in label files and TextGrids, in lower case.
SILENCE = frozenset(
    (
        "",
        "sil",
        "sp",
        "spn",
        "pau",
        "silence",
        "<sil>",
        "<s>",
        "</s>",
        "<eps>",
        "#",
        "##",
        "h#",
        "_",
        "nsn",
        "!enter",
        "!exit",
    )
)


class TranscriptError(ValueError):
    """A transcript that cannot be used; the message says why in a few words."""


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording: all of it, and where it is known the seconds in which each part is said."""

    text: str
    spans: tuple[TimedText, ...] = ()


def decode_text(data: bytes) -> str:
    """UTF-8 or UTF-16 text with any line ends, without its byte order mark; raises UnicodeDecodeError for anything else.

    UTF-16 is known by its mark, or by every second byte being zero at the start (some editors of TextGrids leave the mark
    out).
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16")
    elif len(data) >= 4 and data[1:4:2] == b"\0\0" and data[0] and data[2]:
        text = data.decode("utf-16-le")
    elif len(data) >= 4 and data[0:4:2] == b"\0\0" and data[1] and data[3]:
        text = data.decode("utf-16-be")
    else:
        text = data.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def timed(spans: Iterable[TimedText]) -> Transcript:
    """A transcript of spans, in order of time. Raises TranscriptError where there are none or a time is impossible."""
    kept = sorted((span for span in spans if span.text), key=lambda span: (span.start_s, span.end_s))
    if not kept:
        raise TranscriptError("it holds no text")
    for span in kept:
        if not (math.isfinite(span.start_s) and math.isfinite(span.end_s) and 0 <= span.start_s <= span.end_s):
            raise TranscriptError(f"the time {span.start_s:g} to {span.end_s:g} s is impossible")
    return Transcript(" ".join(span.text for span in kept), tuple(kept))


def clean_caption(text: str) -> str:
    """One caption as words alone: no markup, no names of speakers, no remarks such as [music] or (laughs), no notes."""
    text = re.sub(r"<[^<>]*>|\{\\[^{}]*\}", "", text)
    text = html.unescape(text)
    text = re.sub(r"\[[^\[\]]*\]|\([^()]*\)|（[^（）]*）|【[^【】]*】|[♪♫♬]+|(?<!\S)#+(?!\S)", " ", text)
    lines = []
    for line in text.split("\n"):
        # "- Hello." opens a speaker's line; "JOHN:" or ">> JOHN:" names one.
        line = re.sub(r"^\s*(?:[-–—‐]\s*|>{1,3}\s*)+", "", line)
        line = re.sub(r"^\s*[A-ZÀ-ÖØ-Þ][A-ZÀ-ÖØ-Þ .'\d]{1,24}:\s+", "", line)
        lines.append(line)
    return " ".join(" ".join(lines).split())
