"""Numbers, markdown and phonemes."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxcpm.inference.normalize_text import chinese_number, english_number, normalise_text, strip_markdown


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (21, "twenty-one"),
        (100, "one hundred"),
        (1999, "one thousand nine hundred ninety-nine"),
        (1_000_001, "one million one"),
    ],
)
def test_english_numbers(number: int, words: str) -> None:
    assert english_number(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "零"), (10, "十"), (15, "十五"), (105, "一百零五"), (110, "一百一十"), (2026, "二千零二十六"), (100_005, "十万零五"),
     (12_345_678, "一千二百三十四万五千六百七十八"), (100_000_001, "一亿零一")],
)  # fmt: skip
def test_chinese_numbers(number: int, words: str) -> None:
    assert chinese_number(number) == words


@given(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1))
def test_numbers_are_told_apart(a: int, b: int) -> None:
    assert (english_number(a) == english_number(b)) == (chinese_number(a) == chinese_number(b)) == (a == b)


def test_texts() -> None:
    assert normalise_text("It costs 3.5 or 1,200 and 50%.") == (
        "It costs three point five or one thousand two hundred and fifty percent."
    )
    assert normalise_text("2026年有365天") == "二零二六年有三百六十五天"
    assert normalise_text("Es sind 12 Äpfel") == "Es sind 12 Äpfel"
    assert normalise_text("say {HH AH0 L OW1} 2") == "say {HH AH0 L OW1} two"
    assert normalise_text("{ni3}{hao3}") == "{ni3}{hao3}"


def test_markdown() -> None:
    assert strip_markdown("# Title\n- a **bold** [link](http://x.y) and `code`") == "Title\na bold link and code"
    assert strip_markdown("snake_case stays, 2 * 3 too") == "snake_case stays, 2 * 3 too"


def test_unfinished_markdown_stays() -> None:
    for text in ("a [b", "a [b](c", "[[b] (c)", " *a *b", "*a and _b", "a\n\n\nb", "``a"):
        assert strip_markdown(text) == text
    assert strip_markdown("[a [b](c) d [e](f)") == "a [b d e"
    assert strip_markdown("\n \n- a\n\n  1. b *c\nd *e* f *g") == "a\nb *c\nd e f *g"


SIGNS = "a1 \n.*_[]()!`#-{}%,。你"
PARTS = [
    *map("".join, itertools.product(SIGNS, repeat=2)),
    " *a",
    "-_a",
    "[a](",
    "![](",
    "\n- ",
    "\n1.",
    "1,111,",
    " \n\n",
]


@pytest.mark.parametrize("first", sorted({part[0] for part in PARTS}))
def test_the_time_grows_with_the_length_and_not_faster(first: str) -> None:
    """A part repeated to 20,000 characters took up to 30 s; now it takes 0.05 s."""
    for part in (part for part in PARTS if part[0] == first):
        for text in (part * (20_000 // len(part)), "a" + part * (20_000 // len(part)) + "b"):
            start = time.process_time()
            normalise_text(text)
            assert time.process_time() - start < 1.0, repr(part)
