"""Captions from attributes: their form, what they state, and that they state nothing else."""

from __future__ import annotations

import re
from typing import Any

from attribute_strategies import attributes, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.schema import Attributes
from annotators.words.claims import Claim, claims
from annotators.words.frames.english import THEY
from annotators.words.lexicon import lexicon
from annotators.words.render import render
from catalogs.vocabulary.voices import CAPTION_LANGUAGES, IDENTITY, LISTS, REGISTERS, UNSURE

STATED = ("gender", "pitch", "rate", "energy", "emotion")


def holds(found: Attributes, claim: Claim) -> bool:
    """Whether a claim is true of attributes."""
    value: Any = getattr(found, claim.attribute)
    return claim.value in value if claim.attribute in LISTS else claim.value == value


@settings(max_examples=60, deadline=None)
@given(attributes(), seeds, st.one_of(st.none(), seeds))
def test_a_caption_claims_only_what_the_attributes_hold(found: Attributes, seed: str, voice: str | None) -> None:
    captions = render(found, seed, voice=voice)
    assert len({(caption.register, caption.language) for caption in captions}) == len(captions)
    for caption in captions:
        claimed = claims(caption.text, caption.language)
        assert not [claim for claim in claimed if claim.negated], caption.text
        assert not [claim for claim in claimed if not holds(found, claim)], caption.text
        assert "xylophone" not in caption.text and "quagmire" not in caption.text


@settings(max_examples=40, deadline=None)
@given(attributes(), seeds)
def test_a_full_caption_states_the_main_attributes(found: Attributes, seed: str) -> None:
    for caption in render(found, seed, ("full",)):
        stated = {claim.attribute for claim in claims(caption.text, caption.language)}
        sure = {name for name in STATED if getattr(found, name) != UNSURE}
        # Of a child, Chinese and English nouns name the gender as well.
        assert sure <= stated, (caption.text, sure - stated)


@settings(max_examples=40, deadline=None)
@given(attributes(), seeds)
def test_a_style_caption_has_no_identity(found: Attributes, seed: str) -> None:
    for caption in render(found, seed, ("style",)):
        assert not {claim.attribute for claim in claims(caption.text, caption.language)} & set(IDENTITY), caption.text


@settings(max_examples=60, deadline=None)
@given(attributes(), seeds)
def test_captions_keep_the_form_of_their_register(found: Attributes, seed: str) -> None:
    for caption in render(found, seed):
        words, text = caption.text.split(), caption.text
        assert not re.search(r"[{}~]|  |\s[,.;]|,,|，，|。。|\.\.", text) and text == text.strip(), text
        if caption.language == "en":
            assert text[0].isupper() and text.isascii(), text
            # An article fits the word after it.
            assert not re.search(r"\b[Aa] (?!uni|one|use|eu)[aeiou]", text) and not re.search(
                r"\b[Aa]n [^aeiouhAEIOU]", text
            ), text
            assert not re.search(r"\b(\w+) \1\b", text), text
            bounds = {"brief": (1, 8), "style": (1, 30), "full": (10, 40), "persona": (2, 25)}[caption.register]
            assert bounds[0] <= len(words) <= bounds[1], text
            assert text.endswith(".") != (caption.register == "brief"), text
        else:
            assert re.fullmatch(r"[\u4e00-\u9fff，、。：]+", text), text
            bounds = {"brief": (1, 36), "style": (3, 60), "full": (10, 90), "persona": (4, 50)}[caption.register]
            assert bounds[0] <= len(text) <= bounds[1], text
            assert text.endswith("。") != (caption.register == "brief"), text


def test_nothing_is_said_of_a_voice_that_nothing_is_known_of() -> None:
    assert render(Attributes(evidence="a voice"), "seed") == ()


def test_every_register_is_written_in_both_languages() -> None:
    known = Attributes(gender="male", pitch="low", rate="fast", energy="soft", emotion="sad")
    assert {(c.register, c.language) for c in render(known, "s")} == {
        (r, g) for r in REGISTERS for g in CAPTION_LANGUAGES
    }
    assert [c.register for c in render(known, "s", ("persona", "brief"), ("zh",))] == ["persona", "brief"]


@settings(max_examples=15, deadline=None)
@given(attributes(), seeds, seeds)
def test_the_seed_decides_and_the_voice_decides_identity(found: Attributes, seed: str, voice: str) -> None:
    assert render(found, seed, voice=voice) == render(found, seed, voice=voice)
    identity = {
        (
            c.language,
            tuple(
                sorted({(k.attribute, k.phrase.lower()) for k in claims(c.text, c.language) if k.attribute == "pitch"})
            ),
        )
        for n in range(8)
        for c in render(found, f"{seed}{n}", ("brief",), voice=voice)
    }
    assert len(identity) == len({language for language, _ in identity})


def test_every_wording_of_the_renderer_is_recognized_as_what_it_says() -> None:
    for language in CAPTION_LANGUAGES:
        words = lexicon(language)
        assert words is not None
        for (attribute, value, cls), phrases in words.say.items():
            if cls in ("role", "mod", "np") and attribute != "events":
                continue
            for phrase in phrases:
                text = re.sub(r"\{\w+\}", lambda place: THEY[place[0]], phrase).lstrip("~")
                found = {(c.attribute, c.value) for c in claims(text, language)}
                if cls.startswith("noun_"):
                    found -= {("gender", cls.removeprefix("noun_"))}
                assert found == {(attribute, value)} or (cls == "who" and (attribute, value) in found), (text, found)
