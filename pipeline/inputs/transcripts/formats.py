"""The result of every reader of transcripts, and the cleaning that they share."""

from __future__ import annotations

import codecs
import html
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.records import TimedText

#: Marks for silence in label files and TextGrids, in lower case.
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
    """A transcript that cannot be used; the message states the reason in a few words."""


@dataclass(frozen=True)
class Transcript:
    """The text of a recording and, if known, the times of its parts in seconds."""

    text: str
    spans: tuple[TimedText, ...] = ()


def decode_text(data: bytes) -> str:
    """Return UTF-8 or UTF-16 text with any line ends, without its byte order mark. Raises UnicodeDecodeError for anything
    else.

    UTF-16 is recognized by its mark, or by every second byte being zero at the start (some editors of TextGrids leave the
    mark out).
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
    """Return a transcript of spans, in order of time. Raises TranscriptError if there are none or a time is impossible."""
    kept = sorted((span for span in spans if span.text), key=lambda span: (span.start_s, span.end_s))
    if not kept:
        raise TranscriptError("it holds no text")
    for span in kept:
        if not (math.isfinite(span.start_s) and math.isfinite(span.end_s) and 0 <= span.start_s <= span.end_s):
            raise TranscriptError(f"the time {span.start_s:g} to {span.end_s:g} s is impossible")
    return Transcript(" ".join(span.text for span in kept), tuple(kept))


def clean_caption(text: str) -> str:
    """Return one caption as words alone, without markup, names of speakers, remarks such as [music] or (laughs), and notes."""
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
