"""Ids by value: a corpus of today must be recognized for ever."""

from __future__ import annotations

from catalogs.corpus.ids import other_channel_id, segment_id, source_id, unit_id


def test_ids_are_what_they_have_always_been() -> None:
    assert source_id("a/talk.wav", "ab" * 32) == "06e301ed930b51e5"
    assert other_channel_id("0123456789abcdef") == "0206e90c47eed7dc"
    assert unit_id([("s2", 2, "y"), ("s1", 1, "x")], "f") == "bc5c14c6a3a89e99"
    assert segment_id("s1", 0, 16000, "f") == "e55abe84d4d4d45b"
