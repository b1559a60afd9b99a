"""Assign the parts of a given transcript to the segments of its recording."""

from __future__ import annotations

from collections.abc import Sequence

from catalogs.vocabulary.languages import text_unit
from pipeline.records import Segment, Source
from pipeline.text.align import share_out, share_spans


def share_transcript(source: Source, segments: Sequence[Segment], recognized: Sequence[str]) -> list[str]:
    """Return the given text of each segment ("" if it has none): by its times if they came with it, otherwise by alignment.

    `segments` are those of the recording that were recognized, in order of time.
    """
    if not source.text:
        return [""] * len(segments)
    language = next((segment.language for segment in segments if segment.language), None)
    unit = text_unit(language, source.text)
    if source.spans:
        return share_spans(source.spans, [(s.start_s, s.end_s) for s in segments], recognized, unit)
    return share_out(source.text, recognized, unit)
