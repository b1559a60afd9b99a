"""What is a difference between two texts and what is not: letters, marks, numbers in digits and in words, and the rates."""

from __future__ import annotations

import pytest

from pipeline.text.compare import comparable, edit_distance, error_rate, word_error_rate


@pytest.mark.parametrize(
    ("text", "language", "same_as"),
    [
        ("Don't STOP — now!", "en", "dont stop now"), ("rock 'n' roll", "en", "rock n roll"),
        ("Peut-être un café", "fr", "peut etre un cafe"), ("Café, naïve", "en", "café naïve"),
        ("Café", None, "café"), ("Café", "xx", "café"), ("Größe", "de", "grösse"),
        ("œuvre æon Kapı", "en", "oeuvre aeon kapi"), ("Ещё ёлка", "ru", "еще елка"),
        ("أإآٱ ىة ؤئ", "ar", "اااا يه وى"), ("مَرْحَبًا", "ar", "مرحبا"), ("مــرحبا", "ar", "مرحبا"),
        ("שָׁלוֹם", "he", "שלום"), ("ＡＢ１２", "en", "ab12"), ("  a\t b ", "en", "a b"), ("...", "en", ""),
    ],
)  # fmt: skip
def test_what_a_writer_may_leave_out_is_no_difference(text: str, language: str | None, same_as: str) -> None:
    assert comparable(text, language) == same_as


def words(count: int) -> str:
    return " ".join(f"w{chr(97 + n)}" for n in range(count))


@pytest.mark.parametrize(
    ("number", "most"),
    [("1", 4), ("19", 7), ("123", 8), ("123456", 8), ("19th", 7), ("12 34", 13), ("123 456 789", 24)],
)
def test_a_number_in_digits_stands_for_a_few_words(number: str, most: int) -> None:
    """Three words a digit and one more, eight words a number at the most."""
    for wrap in ("", "so "):
        assert word_error_rate(wrap + number, wrap + words(most)) == 0.0
        assert word_error_rate(wrap + words(most), wrap + number) == 0.0
        assert word_error_rate(wrap + number, wrap + words(most + 1)) > 0.5
        assert word_error_rate(wrap + words(most + 1), wrap + number) > 0.5


@pytest.mark.parametrize(
    ("text", "wanted", "rate"),
    [
        ("i am 19 today", "i am nineteen today", 0.0), ("19 big cats", "nineteen big dogs", 1 / 2),
        ("19 and 20", "nineteen and twenty", 0.0), ("19", "20", 1.0), ("about 19", "at nineteen", 1.0),
        ("a 5 b", "a b", 1 / 2), ("a b", "a 5 b", 1 / 3), ("a b c", "a x c", 1 / 3), ("a", "", 1.0), ("", "", 0.0),
        ("", "a b", 1.0), ("a b c d", "a", 3.0), ("la " * 220 + "19", "la " * 220 + "nineteen", 0.0),
    ],
)  # fmt: skip
def test_words_are_counted_beside_numbers(text: str, wanted: str, rate: float) -> None:
    assert word_error_rate(text, wanted, "en") == pytest.approx(rate)


def test_rates_are_over_what_is_wanted() -> None:
    assert error_rate("abd", "abc") == pytest.approx(1 / 3) and error_rate("a b", "ab") == 0.0
    assert error_rate("x", "") == 1.0 and error_rate("", "") == 0.0 and error_rate("", "ab") == 1.0
    assert error_rate("i am 19", "I am nineteen.") == 0.0
    assert word_error_rate("你好世", "你好界", "zh") == pytest.approx(1 / 3)


def test_edits_to_nothing_and_from_nothing() -> None:
    assert [edit_distance(*pair) for pair in (("", ""), ("abc", ""), ("", "ab"), ("kitten", "sitting"))] == [0, 3, 2, 3]
