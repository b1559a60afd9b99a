"""The part of a description's attributes that is put into words, the same for every language."""

from __future__ import annotations

from collections.abc import Sequence

from annotators.schema import Attributes
from annotators.words.frames.picker import Picker
from annotators.words.lexicon import Lexicon
from catalogs.vocabulary.voices import UNSURE

Trait = tuple[str, str]
"""(attribute, value)"""

MOODS = ("emotion", "strength", "arousal", "valence")
MUST = ("emotion", "rate", "energy")
"""Attributes of the delivery that a full caption states if they are sure."""


def traits(attributes: Attributes, words: Lexicon, cls: str) -> list[Trait]:
    """Return the sure traits of the delivery that have a wording of a class, the most important first. Events are apart."""
    emotional = attributes.emotion != UNSURE
    found: list[Trait] = [(name, getattr(attributes, name)) for name in (*MUST, "pitch_range")]
    if attributes.emotion != "neutral":
        found.append(("strength", attributes.strength))
    found += [("delivery", value) for value in attributes.delivery]
    found.append(("clarity", attributes.clarity))
    if not emotional:
        found += [("arousal", attributes.arousal), ("valence", attributes.valence)]
    return [trait for trait in found if trait[1] != UNSURE and words.words(*trait, cls)]


def parted(found: Sequence[Trait]) -> tuple[list[Trait], list[Trait]]:
    """Return the traits that a full caption must state, and the others."""
    return [trait for trait in found if trait[0] in MUST], [trait for trait in found if trait[0] not in MUST]


def roles(attributes: Attributes, words: Lexicon) -> list[str]:
    """Return the wordings of who speaks so, e.g. "narrator"."""
    return [role for value in attributes.delivery for role in words.words("delivery", value, "role")]


def with_identity(tags: Sequence[str], identity: str, pick: Picker) -> list[str]:
    """Return the tags in another order, with that of the voice among them unless it is "".

    It is rarely the first: the captions of one voice would all begin alike.
    """
    found = pick.shuffled(tags)
    if identity:
        found.insert(0 if not found or pick.below(12) == 0 else 1 + pick.below(len(found)), identity)
    return found


def events(attributes: Attributes, words: Lexicon, cls: str) -> list[Trait]:
    """Return the sounds beside the words that have a wording."""
    return [("events", value) for value in attributes.events if words.words("events", value, cls)]


def names_identity(attributes: Attributes) -> bool:
    """Return True if anything of the voice itself is sure."""
    sure = (attributes.gender, attributes.age, attributes.pitch, attributes.accent)
    return any(value != UNSURE for value in sure) or bool(attributes.texture)
