"""The identity of a voice in English. Its words are chosen by the voice, so that all its captions agree."""

from __future__ import annotations

from annotators.schema import Attributes
from annotators.words.frames.picker import Picker
from annotators.words.lexicon import Lexicon, with_article
from catalogs.vocabulary.voices import UNSURE

_NOUNS = {"male": ("man", "male speaker"), "female": ("woman", "female speaker"), UNSURE: ("speaker", "person")}
_SHORT = {"male": "man", "female": "woman", UNSURE: "person"}
_TEENS = {"male": "teenage boy", "female": "teenage girl", UNSURE: "teenager"}


class Voice:
    """Names of a voice: as a person ("a man with a deep voice"), as a sound ("a deep male voice") and as a tag."""

    def __init__(self, attributes: Attributes, words: Lexicon, pick: Picker) -> None:
        self._attributes, self._words = attributes, words
        gender, pitch = attributes.gender, attributes.pitch
        self._noun = pick(_NOUNS[gender])
        self._age = pick(words.words("age", attributes.age, "adj") or ("",)) if attributes.age in _AGES else ""
        child = words.words("age", "child", f"noun_{gender}") or words.words("age", "child", "noun")
        if attributes.age == "child":
            self._noun = pick(child)
        elif attributes.age == "teen":
            self._noun = _TEENS[gender]
        self._textures = [pick(words.words("texture", value, "adj")) for value in attributes.texture]
        self._adj = pick(words.words("pitch", pitch, "adj") or ("",))
        self._mod = pick(words.words("pitch", pitch, "mod") or ("",))
        self._person = pick(words.words("pitch", pitch, "person") or ("",))
        self._of = pick(words.words("pitch", pitch, "of") or ("",))
        self._accent = words.accents.get(attributes.accent, "")
        shape = pick.below(5)
        self.person = self._as_person(shape, self._noun)
        """With its article."""
        self.character = self._as_person(shape, self._short_noun())
        """The same before "who speaks"."""
        self.relative = " and who" if " whose " in self.person else " who"
        """What joins a clause to `person`."""
        self.sound = self._as_sound()
        self._tag_shape = pick.below(2)

    def tag(self) -> str:
        """Return a tag of at most four words, "" if nothing is sure."""
        a = self._attributes
        low = self._adj or (self._of and "varying pitch") or ""
        if a.age == "child" or (a.age == "teen" and a.gender == UNSURE):
            return f"{self._person or self._adj.replace('deep', 'low-pitched')} {self._noun}".strip()
        if a.gender == UNSURE:
            said = f"{low} voice" if self._adj else "voice of varying pitch" if self._of else ""
            if self._age:
                return f"{self._adj} {self._age} voice".strip() if not self._of else f"{self._age} voice"
            return said or (f"{self._textures[0]} voice" if self._textures else "")
        person = self._person or (self._adj if self._adj.endswith("-pitched") else "")
        if self._tag_shape and person:
            return f"{person} {self._age} {self._short_noun()}".replace("  ", " ")
        if self._of:
            return f"{self._age} {a.gender} voice of varying pitch".strip()
        age = "teenage" if a.age == "teen" else self._age
        return " ".join(filter(None, [self._adj, age, a.gender, "voice"]))

    def _short_noun(self) -> str:
        if self._attributes.age in ("child", "teen"):
            return self._noun
        return _SHORT[self._attributes.gender]

    def _voice(self) -> str:
        """Return "deep, hoarse voice", or "" if neither pitch nor texture is sure."""
        if self._of:
            return f"{', '.join(self._textures)} voice {self._of}".strip()
        if not self._textures:
            return f"{self._mod or self._adj} voice" if self._mod or self._adj else ""
        return f"{', '.join(filter(None, [self._adj, *self._textures]))} voice"

    def _as_person(self, shape: int, noun: str) -> str:
        noun = f"{self._age} {noun}".strip()
        accent = with_article(f"{self._accent} accent") if self._accent else ""
        if self._person and not self._textures and shape >= 3:
            name = with_article(f"{self._person} {noun}")
            return f"{name} with {accent}" if accent else name
        voice = self._voice()
        if shape == 2 and self._adj and not accent:
            adjectives = [self._adj, *self._textures]
            last = f"{', '.join(adjectives[:-1])}{',' if len(adjectives) > 2 else ''} and {adjectives[-1]}"
            return f"{with_article(noun)} whose voice is {last if len(adjectives) > 1 else adjectives[0]}"
        parts = [part for part in (with_article(voice) if voice else "", accent) if part]
        return with_article(noun) + (f" with {' and '.join(parts)}" if parts else "")

    def _as_sound(self) -> str:
        if self._attributes.age == "child" or (self._attributes.age == "teen" and self._attributes.gender == UNSURE):
            return self.person
        age = "teenage" if self._attributes.age == "teen" else self._age
        gender = "" if self._attributes.gender == UNSURE else self._attributes.gender
        adjectives = ", ".join(filter(None, [self._adj, *self._textures]))
        name = with_article(" ".join(filter(None, [adjectives, age, gender, "voice"])))
        name += f" {self._of}" if self._of else ""
        return f"{name} with {with_article(f'{self._accent} accent')}" if self._accent else name


_AGES = ("young", "middle", "senior")
