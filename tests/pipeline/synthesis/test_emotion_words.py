"""Emotion words: the lists are sane, and a text speaks of what it names, denied or not."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogs.vocabulary.comparable_text import normalize
from catalogs.vocabulary.languages import languages
from catalogs.vocabulary.voices import EMOTIONS
from pipeline.synthesis.texts.emotion_words import FAMILIES, WHOLE_WORDS, emotions_in, family, lexicons, speaks_of

MAIN = ("happy", "sad", "angry", "fearful", "disgusted", "surprised")


@pytest.mark.parametrize("code", lexicons())
def test_the_lists_of_a_language_are_sane(code: str) -> None:
    lists = lexicons()[code]
    assert code in languages()
    assert list(lists) == [emotion for emotion in EMOTIONS if emotion != "neutral"]
    counts = Counter(word for words in lists.values() for word in words)
    assert not [word for word, count in counts.items() if count > 1]
    assert all(len(lists[emotion]) >= 12 for emotion in MAIN)
    for word in counts:
        core = word.removesuffix("*")
        assert normalize(core, code) == core, word
        assert code in WHOLE_WORDS or word == core, f"{word}: words of {code} are found anywhere, without *"
        assert word == core or len(core) >= 3, f"{word}: so short a beginning is found in other words"


@pytest.mark.parametrize("code", lexicons())
def test_every_word_is_found_in_a_text(code: str) -> None:
    for emotion, words in lexicons()[code].items():
        for word in words:
            assert emotion in (emotions_in(f"{word.removesuffix('*')}!", code) or ()), word


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("en", "I'm not afraid of you.", {"fearful"}),
        ("en", "Ugh, that is gross", {"disgusted"}),
        ("en", "Amazon ships saddles to Joyce", set()),
        ("de", "Der Lachs im Supermarkt war sorgfältig verpackt", set()),
        ("es", "El tema de la temporada no tiene riesgo para la reina", set()),
        ("pt", "Ele tem um animal e uma perna", set()),
        ("ru", "Дорога к сердцу довольно длинная", set()),
        ("pl", "Pogoda była ładna, a czułem się dobrze", set()),
        ("ja", "えっと、そればかりだ", set()),
        ("ko", "어머니는 서울고등학교에 있다", set()),
        ("zh", "我真的好开心", {"happy"}),
        ("ja", "本当に嬉しいです", {"happy"}),
    ],
)
def test_words_are_found_and_others_are_not(language: str, text: str, found: set[str]) -> None:
    assert emotions_in(text, language) == frozenset(found)


def test_families_stand_for_each_other() -> None:
    assert speaks_of("I can't wait, I'm so excited", "en", "happy")
    assert not speaks_of("I can't wait, I'm so excited", "en", "angry")
    assert not family("neutral") and not family("unsure") and family("tired") == {"tired"}
    assert sum(map(len, FAMILIES)) == len(frozenset().union(*FAMILIES)) and frozenset().union(*FAMILIES) <= set(
        EMOTIONS
    )


def test_a_language_without_lists_is_not_known() -> None:
    assert emotions_in("habari njema", "sw") is None and emotions_in("happy", None) is None
    assert speaks_of("habari njema", "sw", "happy") is None


@given(text=st.text(max_size=60), language=st.sampled_from([*languages(), "tlh", None]))
def test_any_text_can_be_asked(text: str, language: str | None) -> None:
    assert (emotions_in(text, language) or frozenset()) <= set(EMOTIONS)
