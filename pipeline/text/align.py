"""Divide a given transcript over the segments of its recording: by what was recognized in each, and by its own times."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from pipeline.records import TimedText
from pipeline.text.compare import comparable


def share_out(given: str, recognized: Sequence[str], unit: str = "word") -> list[str]:
    """Return a given transcript cut into one stretch per recognized text, in order; together they are the whole transcript.

    Both are compared as words (or as characters, unit "char") without case and punctuation. A border is placed where the
    words around it match; between two places that match, in proportion.
    """
    pattern = r"\S+\s*" if unit == "word" else r"\S\s*"
    pieces = re.findall(pattern, given.strip())
    theirs = [_bare(piece) for piece in pieces]
    ours: list[str] = []
    borders = []
    for text in recognized:
        ours += [_bare(piece) for piece in re.findall(pattern, text)]
        borders.append(len(ours))
    blocks = SequenceMatcher(None, ours, theirs, autojunk=len(ours) > 20_000).get_matching_blocks()
    cuts = [0, *(_across(border, blocks, len(ours), len(theirs)) for border in borders[:-1]), len(pieces)]
    return ["".join(pieces[a:b]).strip() for a, b in itertools.pairwise(cuts)]


def share_spans(
    spans: Sequence[TimedText], places: Sequence[tuple[float, float]], recognized: Sequence[str], unit: str = "word"
) -> list[str]:
    """Return a transcript with times, cut into one stretch per place (start, end in seconds of the recording, in order).

    A part belongs to the places with which it shares at least half of itself or of the place, otherwise to the one with
    which it shares most. A part that touches no place is in no stretch: nobody speaks at its time. If several places share
    parts, the recognized text decides where the words between them are cut, because times of subtitles are seldom exact.
    """
    touched = [_touched(span, places) for span in spans]
    groups: list[tuple[int, int]] = []
    for first, last in sorted((min(found), max(found)) for found in touched if found):
        if groups and first <= groups[-1][1]:
            groups[-1] = (groups[-1][0], max(groups[-1][1], last))
        else:
            groups.append((first, last))
    shares = [""] * len(places)
    for first, last in groups:
        texts = [span.text for span, found in zip(spans, touched, strict=True) if found and first <= found[0] <= last]
        shares[first : last + 1] = share_out(" ".join(texts), recognized[first : last + 1], unit)
    return shares


def _touched(span: TimedText, places: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places (in order, without overlap) that a part belongs to."""
    if not places:
        return []
    first = bisect.bisect_right(places, span.start_s, key=lambda place: place[1])
    last = bisect.bisect_left(places, span.end_s, key=lambda place: place[0])
    length = span.end_s - span.start_s
    shared = {i: min(span.end_s, places[i][1]) - max(span.start_s, places[i][0]) for i in range(first, last)}
    half = [i for i, s in shared.items() if s >= 0.5 * min(length, places[i][1] - places[i][0])]
    return half or sorted(shared, key=lambda i: -shared[i])[:1]


def _across(place: int, blocks: Sequence[tuple[int, int, int]], ours: int, theirs: int) -> int:
    """Return the position in their words of a position in our words."""
    a, b = 0, 0
    for our, their, size in [*blocks, (ours, theirs, 0)]:
        if place < our or (place == our and size == 0):
            share = (place - a) / (our - a) if our > a else 1.0
            return b + round(share * (their - b))
        if place <= our + size and size:
            return their + place - our
        a, b = our + size, their + size
    return theirs


def _bare(text: str) -> str:
    return comparable(text).replace(" ", "")
