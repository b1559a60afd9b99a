"""Content words: what of a text can be compared, in languages with and without spaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs.vocabulary.languages import languages
from pipeline.synthesis.texts.content_words import STEMMERS, content_words, stop_words

CODES = [*languages(), "en-US", "yue", "tlh", None]


@given(text=st.text(max_size=60), language=st.sampled_from(CODES))
def test_any_text_has_words_in_any_language(text: str, language: str | None) -> None:
    words = content_words(text, language)
    assert all(word and not word.isspace() for word in words)
    assert content_words(text, language) == words


@pytest.mark.parametrize(
    ("language", "first", "second", "shared"),
    [
        ("en", "The monkeys were running!", "A monkey ran, and it runs.", {"monkey", "run"}),
        ("de", "Wir laufen mit den Hunden", "Ich lief, du wirst laufen, Hunde auch", {"lauf", "hund"}),
        ("es", "Los pájaros están cantando", "Un pájaro canta", {"pajar", "cant"}),
        ("zh", "我今天在超市买了苹果", "超市的苹果很好", {"超市", "苹果"}),
        ("ja", "映画館でポップコーンを食べた", "ポップコーンは映画で", {"ポップコーン", "映画"}),
        ("ko", "친구가 왔어요", "친구를 만났다", {"친구"}),
        (None, "the giraffe sleeps", "a giraffe", {"giraffe"}),
        ("tlh", "giraffe vImuSHa", "qaStaH giraffe", {"giraffe"}),
    ],
)
def test_forms_of_a_word_are_one(language: str | None, first: str, second: str, shared: set[str]) -> None:
    assert content_words(first, language) & content_words(second, language) == shared


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "Well, it isn't what you were like."), ("zh", "我们都是这样的吗？"), ("de", "Aber das ist es doch nicht.")],
)
def test_function_words_are_not_content(language: str, text: str) -> None:
    assert not content_words(text, language)


def test_a_clause_does_not_make_words_with_the_next() -> None:
    assert "果香" not in content_words("我买苹果，香蕉没买", "zh")


def test_a_dialect_and_a_region_have_the_words_of_their_language() -> None:
    assert content_words("超市的苹果", "yue") == content_words("超市的苹果", "zh-CN")
    assert content_words("The dogs bark", "en_US") == content_words("the DOG barks", "en")


def test_unknown_languages_are_split_by_their_script() -> None:
    assert content_words("超市的苹果", None) == {"超市", "苹果"}


def test_stemmers_are_of_known_languages() -> None:
    assert set(STEMMERS) <= set(languages())
    assert "the" in stop_words("en") and not stop_words("km")
