"""Words of the clip in its caption: found whatever the script, and not confused with the words of voices."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from annotators.schema import Attributes, Caption
from annotators.verification.leak import Rarity, leaked, normalized, retrieval
from annotators.words.render import render
from catalogs.vocabulary.voices import AGES, EMOTIONS, ENERGIES, GENDERS, PITCHES, RATES, TEXTURES


def caption(text: str, language: str = "en") -> Caption:
    return Caption("full", language, text)


def everything_rare(unit: str) -> bool:
    return True


def leak(text: str, transcript: str, language: str = "en") -> str | None:
    return leaked(caption(text, language), transcript, everything_rare)


@pytest.mark.parametrize(
    ("text", "transcript", "language"),
    [
        ("A woman says sadly that the train leaves tonight.", "I told you the train leaves tonight at nine.", "en"),
        ("An old man speaks about his garden and tomatoes.", "My tomatoes died, so the garden is empty.", "en"),
        ("A man sings, as if by the xylophone.", "We stood by the xylophone.", "en"),
        ("A man talks of GARDENS, and Tomatoes.", "tomatoes and gardens everywhere", "en"),
        ("一位女士悲伤地说南洋大厦停车场到了。", "南洋大厦停车场", "zh"),
        ("A calm voice, as if at the café Müller downtown.", "Treffen wir uns im Cafe\u0301 Mu\u0308ller?", "en"),
    ],
)
def test_words_of_the_clip_are_found(text: str, transcript: str, language: str) -> None:
    assert leak(text, transcript, language) is not None


@pytest.mark.parametrize("quote", ['"', "“", "”", "„", "«", "『"])
def test_a_quotation_mark_is_a_leak(quote: str) -> None:
    sly = caption("A man speaks")
    object.__setattr__(sly, "text", f"A man says {quote}hello")
    assert leaked(sly, "", everything_rare) == quote


@pytest.mark.parametrize(
    ("text", "transcript", "language"),
    [
        ("A young woman speaks in a warm, bright voice.", "What a warm and bright day, the young woman said.", "en"),
        ("A brisk, hushed voice, almost a monotone.", "A brisk walk in the hushed monotone of the night.", "en"),
        ("A man with a low voice.", "He spoke with a low voice and left.", "en"),
        ("He speaks as if it were the end of the day.", "It was as if it were over.", "en"),
        ("一位年轻女性，语速较快，情绪激动。", "她语速较快地说着话", "zh"),
        ("A calm man speaks slowly.", "", "en"),
    ],
)
def test_words_of_voices_are_no_leak(text: str, transcript: str, language: str) -> None:
    assert leak(text, transcript, language) is None


def test_words_that_the_describer_uses_everywhere_are_no_leak() -> None:
    phrase = "A narrator tells a bedtime story by candlelight."
    transcript = "They read a story by candlelight, the narrator and I."
    rarity = Rarity()
    for number in range(400):
        rarity.propose([caption(phrase)], transcript if number == 7 else "nothing of it")
    for _ in range(400):
        rarity.count([caption(phrase)])
    assert leaked(caption(phrase), transcript, rarity.rare) is None
    fresh = Rarity()
    fresh.propose([caption(phrase)], transcript)
    fresh.count([caption(phrase)])
    for _ in range(399):
        fresh.count([caption("A man speaks.")])
    assert leaked(caption(phrase), transcript, fresh.rare) is not None


def test_rarity_holds_only_what_captions_share_with_their_transcripts() -> None:
    rarity = Rarity()
    rarity.propose([caption("A sailor hums quietly.")], "the sailor went home")
    rarity.count([caption("A sailor hums quietly.")] * 3)
    assert not rarity.rare("hums") or rarity._counts["hums"] == 0
    assert set(rarity._counts) == {"sailor"}


def attributes(chance: random.Random) -> Attributes:
    pick = chance.choice
    return Attributes(
        gender=pick(GENDERS), age=pick(AGES), pitch=pick(PITCHES), rate=pick(RATES), energy=pick(ENERGIES),
        emotion=pick(EMOTIONS), texture=tuple(chance.sample(TEXTURES, 2)),
    )  # fmt: skip


SENTENCES = (
    "the young man was very sad and spoke slowly in a low voice", "she laughed loudly and ran down the hill",
    "it is a bright and clear morning with a warm wind", "speak up, I cannot hear you when you whisper like that",
    "他的声音很低沉，语速很慢，听起来很悲伤", "一个年轻的女人用温暖的声音说话", "今天天气很好，我们一起去公园吧",
)  # fmt: skip


def test_rendered_captions_leak_in_less_than_two_of_a_hundred() -> None:
    chance = random.Random(4)
    pairs = [(made, chance.choice(SENTENCES)) for n in range(120) for made in render(attributes(chance), f"clip {n}")]
    rarity = Rarity()
    for made, said in pairs:
        rarity.propose([made], said)
    for made, _ in pairs:
        rarity.count([made])
    wrong = [(made.text, said) for made, said in pairs if leaked(made, said, rarity.rare)]
    assert len(wrong) <= 0.02 * len(pairs), wrong[:5]


def test_normalized_texts_have_no_case_width_or_punctuation() -> None:
    assert normalized("Ｈello,  WORLD! It's…") == "hello world it's"


def pairs_of(voice: str, follow: bool) -> Iterable[tuple[str, str]]:
    chance = random.Random(voice)
    words = [f"{a}{b}{c}o" for a in "bdfklmnprst" for b in "aeiou" for c in "bdgklmnprstv"]
    for _ in range(25):
        said = " ".join(chance.sample(words, 8))
        yield (
            f"A man speaks of {said.split()[3]} and {said.split()[5]}" if follow else "A man speaks calmly and slowly",
            said,
        )


def test_retrieval_finds_captions_that_follow_the_words() -> None:
    voices = {name: list(pairs_of(name, follow=True)) for name in "abc"}
    found = retrieval(voices)
    assert found.clips == 75 and found.first > 0.8 and found.leaks


def test_captions_that_do_not_are_at_chance() -> None:
    found = retrieval({name: list(pairs_of(name, follow=False)) for name in "abcd"})
    assert found.clips == 100 and found.first < found.bound and not found.leaks
    nothing = retrieval({"few": list(pairs_of("few", follow=True))[:19]})
    assert nothing.clips == 0 and not nothing.leaks
    other_script = retrieval({"zh": [("A man speaks", f"天气{n}很好") for n in range(20)]})
    assert other_script.first < 0.2 and not other_script.leaks
