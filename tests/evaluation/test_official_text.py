"""The dialect of Seed-TTS-Eval on a table of pairs."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.official_text import DELETED, official_units
from evaluation.metrics.words import count_errors


@pytest.mark.parametrize(
    ("language", "text", "heard", "errors", "words"),
    [
        # A straight apostrophe stays, a curly one is deleted.
        ("en", "I don't know.", "i don't know", 0, 3),
        ("en", "I don’t know.", "I don't know", 1, 3),
        ("en", "I don’t know.", "I don‘t know", 0, 3),
        # A hyphen does not separate: one word against two.
        ("en", "a well-known song", "a well known song", 2, 3),
        ("en", "a well-known song", "a wellknown song", 0, 3),
        ("en", "one—two", "one two", 2, 1),
        # Numbers stay as they are written.
        ("en", "fifty people", "50 people", 1, 2),
        ("en", "$1,000.50", "100050", 0, 1),
        # What is left of a lone mark is a double space, which does not count.
        ("en", "yes - no", "yes no", 0, 2),
        ("en", "yes - - - no", "yes no", 0, 2),
        ("en", "  Yes   no ", "yes no", 0, 2),
        ("en", "Yes\t no", "yes no", 0, 2),
        ("en", "HELLO", "hello!", 0, 1),
        ("en", "hello world", "", 2, 2),
        # Chinese: characters, spaces do not count, letters keep their case.
        ("zh", "你好，世界。", "你好 世界", 0, 4),
        ("zh", "我用iPhone。", "我用 iPhone", 0, 8),
        ("zh", "我用iPhone", "我用iphone", 1, 8),
        ("zh", "他说：“好”·！", "他说好", 0, 3),
        ("zh", "五十", "50", 2, 2),
        ("de", "Größe, bitte!", "größe bitte", 0, 2),
        ("ja", "東京、です。", "東京です", 0, 4),
    ],
)
def test_pairs(language: str, text: str, heard: str, errors: int, words: int) -> None:
    counts = count_errors(official_units(text, language), official_units(heard, language, heard=True))
    assert counts is not None and (counts["word_errors"], counts["words"]) == (errors, words)


@pytest.mark.parametrize("text", ["...", "", "  ", "—“”…", "！？。"])
def test_a_text_of_marks_has_no_words(text: str) -> None:
    assert official_units(text, "en") == official_units(text, "zh") == []
    assert count_errors(official_units(text, "en"), ["word"]) is None


def test_the_deleted_marks() -> None:
    assert len(DELETED) == 31 + 82
    assert set(string.punctuation) - DELETED == {"'"}
    assert set("’‘“”„…·，。、！？；：（）《》「」【】—–～＇\u3000") <= DELETED
    assert not DELETED & set("々ー'′‐‑€°«»‹›¿¡")


@given(text=st.text(max_size=40))
def test_the_only_marks_left_are_outside_the_set(text: str) -> None:
    for language in ("en", "zh"):
        assert not set("".join(official_units(text, language))) & DELETED
