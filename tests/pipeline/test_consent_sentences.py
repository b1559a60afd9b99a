"""The sentence of a consent and its challenge: every language, any name and day, and what a transcript may differ in."""

from __future__ import annotations

import json
import random
import threading
import unicodedata
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("whisper_normalizer", reason="the extra pipeline is not installed")
pytest.importorskip("num2words", reason="the extra pipeline is not installed")

from catalogs.vocabulary.comparable_text import normalize
from pipeline.text.compare import edit_distance
from pipeline.voice.consent.challenge import Challenge, new_challenge
from pipeline.voice.consent.sentences import WORDS, Wording, wording, wordings
from pipeline.voice.consent.spoken_words import MOST_MISSING, compare_sentence, missing_words
from pipeline.voice.consent.store import ConsentStore

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
LANGUAGES = sorted(wordings())
days = st.dates(date(2000, 1, 1), date(2099, 12, 31))
names = st.sampled_from(
    ["Anna Weber", "Zoë O'Brien-Smith", "José Ñáñez", "Łukasz Żółć", "Søren Ångström", "Dr. Ì. d’Été", "Müller & Söhne"]
)


def sentence_of(spoken: Wording, speaker: str, day: date, dice: random.Random) -> tuple[str, list[str]]:
    words = dice.sample(spoken.words, WORDS)
    return spoken.sentence(speaker, "Example Studio", ("cloning", "research"), day, words), words


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_all_its_words(language: str) -> None:
    spoken = wordings()[language]
    assert len(spoken.words) >= 200 and set(spoken.purposes) == {"cloning", "tts-training", "research", "commercial"}
    assert len(spoken.months) == (12 if "{month}" in spoken.day else 0)
    letters = [normalize(word, language).replace(" ", "") for word in spoken.words]
    assert len(set(letters)) == len(letters) and min(map(len, letters)) >= (2 if language in ("ja", "ko", "zh") else 4)
    if language not in ("ja", "ko", "zh"):
        close = [
            (a, b) for i, a in enumerate(letters) for b in letters[:i] if a[:1] == b[:1] and edit_distance(a, b) < 2
        ]
        assert not close


def test_regions_dialects_and_other_languages() -> None:
    assert [wording(code).code for code in ("de-AT", "pt-BR", "zh-CN", "yue", "EN", "sv", "nonsense", "")] == [
        "de", "pt", "zh", "zh", "en", "en", "en", "en",
    ]  # fmt: skip


@settings(max_examples=30)
@given(st.sampled_from(LANGUAGES), names, days, st.randoms(use_true_random=False))
def test_case_and_punctuation_do_not_count(language: str, speaker: str, day: date, dice: random.Random) -> None:
    sentence, words = sentence_of(wordings()[language], speaker, day, dice)
    bare = "".join(c if unicodedata.category(c)[0] in "LNM" or c in "'’-&." else " " for c in sentence)
    for heard in (sentence, sentence.upper() if language == "en" else sentence, bare, f"  {sentence}\n"):
        found = compare_sentence(heard, sentence, words, language)
        assert not found.missing and found.cer < 0.1


@settings(max_examples=30)
@given(st.sampled_from([code for code in LANGUAGES if code not in ("ja", "ko", "zh")]), days)
def test_numbers_may_be_heard_as_words(language: str, day: date) -> None:
    from num2words import num2words

    spoken = wordings()[language]
    sentence, words = sentence_of(spoken, "Anna Weber", day, random.Random(day.toordinal()))
    heard = sentence.replace(str(day.year), num2words(day.year, lang=language), 1)
    heard = heard.replace(f" {day.day}", f" {num2words(day.day, lang=language)}", 1)
    found = compare_sentence(heard, sentence, words, language)
    assert len(found.missing) <= MOST_MISSING and found.cer < 0.1, (heard, found)


@settings(max_examples=30)
@given(st.sampled_from(LANGUAGES), st.integers(0, WORDS), st.randoms(use_true_random=False))
def test_missing_words_are_named(language: str, gone: int, dice: random.Random) -> None:
    spoken = wordings()[language]
    words = dice.sample(spoken.words, WORDS)
    said = sorted(dice.sample(range(WORDS), WORDS - gone))
    found = missing_words(", ".join(words[i] for i in said), words, language)
    # Not always as many: a long word may be found in a similar one.
    assert len(found) <= gone and set(found) <= set(words)
    assert missing_words("apple, then the ribbon and a doctor", ("apple", "candle", "ribbon", "doctor"), "en") == (
        "candle",
    )
    assert missing_words("aple ribon docter", ("apple", "ribbon", "doctor"), "en") == ()


@settings(max_examples=30)
@given(st.sampled_from(LANGUAGES), st.randoms(use_true_random=False))
def test_other_words_or_another_order_are_not_right(language: str, dice: random.Random) -> None:
    spoken = wordings()[language]
    drawn = dice.sample(spoken.words, 2 * WORDS)
    words, others = drawn[:WORDS], drawn[WORDS:]
    assert len(missing_words(" ".join(others), words, language)) > MOST_MISSING
    assert len(missing_words(", ".join(reversed(words)), words, language)) > MOST_MISSING
    assert missing_words("", words, language) == tuple(words)


def test_a_challenge_is_random_short_lived_and_of_one_line() -> None:
    made = [new_challenge("Anna Weber", "Example Studio", "de", now=NOON) for _ in range(20)]
    assert len({one.id for one in made}) == len({one.words for one in made}) == 20
    one = made[0]
    assert one.sentence.startswith("Ich, Anna Weber, erlaube Example Studio am 30. November 2026, ")
    assert all(word in one.sentence for word in one.words) and one.statement_sha256 is None
    assert not one.is_stale(NOON + timedelta(hours=24)) and one.is_stale(NOON + timedelta(hours=24, seconds=1))
    assert new_challenge("A\x00na\n{words}", "x{", "en", ("a", "b", "c")).sentence.startswith(
        "I, A na {words}, agree on "
    )
    assert "for a, b and c." in new_challenge("Ana", "Bo", "en", ("a", "b", "c")).sentence


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"speaker": " .,- "}, "the speaker is empty"),
        ({"recipient": "x" * 121}, "121 characters"),
        ({"purposes": ()}, "0 purposes"),
        ({"purposes": ("\x07",)}, "a purpose is empty"),
        ({"hours": 0}, "0 hours"),
        ({"hours": float("nan")}, "hours"),
        ({"consent_expires": date(2026, 11, 29)}, "which is past"),
    ],
)
def test_what_cannot_be_asked(fields: dict[str, object], words: str) -> None:
    asked = {"speaker": "Anna", "recipient": "Bo", "language": "en", "now": NOON} | fields
    with pytest.raises(ValueError, match=words):
        new_challenge(**asked)  # type: ignore[arg-type]


def stored(folder: Path, **fields: object) -> tuple[ConsentStore, Challenge]:
    store, made = ConsentStore(folder), replace(new_challenge("Anna", "Bo", "en", now=NOON), **fields)  # type: ignore[arg-type]
    store.add_challenge(made)
    return store, made


def test_a_challenge_is_used_by_one_recording(tmp_path: Path) -> None:
    store, made = stored(tmp_path / "consent")
    assert store.challenge(made.id) == made == store.only_open(NOON)
    won: list[str] = []
    threads = [
        threading.Thread(target=lambda d=f"{n:064x}": won.append(d) if store.claim(made.id, d) else None)
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and store.challenge(made.id).statement_sha256 == won[0]
    assert store.claim(made.id, won[0]) and not store.claim(made.id, "f" * 64)
    assert (tmp_path / "consent").stat().st_mode & 0o077 == 0


def test_the_sentence_that_waits(tmp_path: Path) -> None:
    store, first = stored(tmp_path)
    later = NOON + timedelta(days=2)
    # Of one that is stale, the check says so.
    assert store.only_open(later).id == first.id
    _, second = stored(tmp_path, expires=(later + timedelta(hours=1)).isoformat())
    assert store.only_open(later).id == second.id
    with pytest.raises(ValueError, match=f"several sentences wait .*{second.id}"):
        store.only_open(NOON)
    for made in (first, second):
        store.claim(made.id, "0" * 64)
    with pytest.raises(ValueError, match="no sentence waits"):
        store.only_open(NOON)


def test_files_of_a_store_are_not_trusted(tmp_path: Path) -> None:
    store, made = stored(tmp_path / "consent")
    (tmp_path / "evil.json").write_text(json.dumps({"id": "x"}))
    for name in ("../evil", "../../evil", "", made.id.upper() + "0", "0" * 16):
        with pytest.raises(ValueError, match="no challenge"):
            store.challenge(name)
    (tmp_path / "consent" / f"{'a' * 16}.json").write_text("[1]")
    with pytest.raises(ValueError, match="is damaged"):
        store.records()
