"""The longest pause is that between two words of one segment."""

from __future__ import annotations

from fakes.recordings import noise
from sessions import make_stage, session_of_samples

from pipeline.records import Segment, Word


def test_the_longest_pause_is_measured() -> None:
    session = session_of_samples(noise(3.0, 16_000))
    words = [Word("one", 0.1, 0.4, 0.9), Word("two", 0.9, 1.2, 0.9), Word("three", 1.3, 1.6, 0.9)]
    source = session.recordings[0].source.source_id
    session.segments = [Segment(source, 0, 0.0, 2.0, words=words), Segment(source, 1, 2.0, 3.0, words=words[:1])]
    make_stage("measure_pauses")(session)
    assert [segment.longest_pause_s for segment in session.segments] == [0.5, 0.0]
