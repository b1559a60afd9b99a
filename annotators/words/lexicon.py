"""Words for attributes, from lexicons/*.toml: what the renderer writes and what is found in prose, from one file per language."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from catalogs.vocabulary.voices import ACCENTS, CLOSED, LISTS

ATTRIBUTES = (*CLOSED, *LISTS)
VERBS = (
    "is", "stays", "remains", "seems", "sounds", "feels", "was", "appears", "sits", "lies", "runs", "goes", "hovers", "tends",
    "keeps", "are", "gets", "comes", "being", "staying", "remaining", "ranges", "rests", "falls", "becomes", "looks", "stayed",
    "moves", "'s", "holds", "reads",
)  # fmt: skip
_GROUP = re.compile(r"\(([^()]*)\)")
_PRONOUNS = ("his|her|their", "he|she|they", "him|her|them", "himself|herself|themselves")
_PLACES = {"{his}": _PRONOUNS[0], "{he}": _PRONOUNS[1], "{him}": _PRONOUNS[2], "{himself}": _PRONOUNS[3]}
_VOWELS = "aeiou"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a phrase says: a value of an attribute. cls: its grammatical class; pre and post: the parts of the phrase around a
    `mod`, e.g. " pace"."""

    attribute: str
    value: str
    cls: str
    pre: str = ""
    post: str = ""


@dataclass(frozen=True)
class Lexicon:
    """The words of one language. Phrases are keys of `index`: tuples of words, or of characters in Chinese."""

    language: str
    say: dict[tuple[str, str, str], tuple[str, ...]]
    """Wordings by (attribute, value, class): those of the file and those built from [forms]."""
    plain: dict[tuple[str, str, str], tuple[str, ...]]
    """Wordings of the file only."""
    index: dict[tuple[str, ...], tuple[Entry, ...]]
    longest: dict[str, int]
    """Number of units of the longest phrase that begins with a unit."""
    heads: dict[tuple[str, ...], tuple[str, ...]]
    """Attributes of "the HEAD is ..."."""
    mods: dict[tuple[str, tuple[str, ...]], str]
    """Value of an attribute by a word that may follow its head."""
    modifiers: dict[tuple[str, ...], dict[str, str]]
    """Value by attribute of a word that may stand before a head."""
    pairs: tuple[tuple[str, str], ...]
    """(male, female) words."""
    kin: frozenset[tuple[str, ...]]
    """Words that name somebody else after "his" or "her"."""
    pronouns: frozenset[tuple[str, ...]]
    negation: Mapping[str, Any]
    ignored: frozenset[tuple[str, ...]]
    accents: dict[str, str]
    """Wording of each accent's name."""

    def words(self, attribute: str, value: str, cls: str) -> tuple[str, ...]:
        """Return the renderer's wordings, or ()."""
        return self.say.get((attribute, value, cls), ())


def with_article(phrase: str) -> str:
    """Return an English noun phrase with "a" or "an"; "~" before it stands for none."""
    if phrase.startswith("~"):
        return phrase[1:]
    return f"{'an' if needs_an(phrase) else 'a'} {phrase}"


def needs_an(phrase: str) -> bool:
    """Return True if the phrase takes "an"."""
    first = phrase.lower()
    if first.startswith(("uni", "eu", "one", "use", "yo")):
        return first.startswith(("unim", "unin"))
    return first[:1] in _VOWELS or first.startswith(("hour", "honest"))


def expand(pattern: str) -> list[str]:
    """Return the phrases that a pattern with "(a|b|)" stands for. Groups may hold groups."""
    parts = _GROUP.split(pattern)
    if len(parts) == 1:
        return [" ".join(pattern.split())]
    choices = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
    nested = any(sign in part for part in parts[::2] for sign in "()")
    made = ["".join(chosen) for chosen in product(*choices)]
    if not nested:
        return [" ".join(phrase.split()) for phrase in made]
    return list(dict.fromkeys(phrase for outer in made for phrase in expand(outer)))


def units(phrase: str, language: str) -> tuple[str, ...]:
    """Return a phrase as a key: its words without hyphens, or its characters."""
    return tuple(phrase) if language == "zh" else tuple(re.findall(r"[^\W_]+(?:'[^\W_]+)*", phrase.lower()))


@cache
def lexicon(language: str) -> Lexicon | None:
    """Return the lexicon of a language, or None if it has none."""
    path = Path(__file__).parent / "lexicons" / f"{language}.toml"
    if language not in ("en", "zh"):
        return None
    return _Builder(language, tomllib.loads(path.read_text(encoding="utf-8"))).build()


class _Builder:
    def __init__(self, language: str, table: dict[str, Any]) -> None:
        self.language, self.table = language, table
        self.found: dict[tuple[str, ...], dict[Entry, int]] = {}
        self.plain: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self.say: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self.heads: dict[tuple[str, ...], set[str]] = {}
        self.mods: dict[tuple[str, tuple[str, ...]], str] = {}

    def build(self) -> Lexicon:
        pairs = tuple((male, female) for male, female in self.table["gender"]["pairs"])
        for male, female in pairs:
            for value, word in (("male", male), ("female", female)):
                if word not in self.table["gender"]["neither"]:
                    self._add(word, Entry("gender", value, "noun"), 0)
        for attribute in ATTRIBUTES:
            if attribute != "gender":
                forms = self.table["forms"].get(attribute, {})
                for value, words in self.table.get(attribute, {}).items():
                    self._value(attribute, value, forms, words)
        accents = self._accents()
        ignored = frozenset(
            units(form, self.language) for phrase in self.table["ignore"]["phrases"] for form in expand(phrase)
        )
        index = {key: _chosen(entries) for key, entries in self.found.items()}
        index.update(dict.fromkeys(ignored, ()))
        longest: dict[str, int] = {}
        for key in index:
            longest[key[0]] = max(longest.get(key[0], 0), len(key))
        return Lexicon(
            self.language,
            self.say,
            self.plain,
            index,
            longest,
            {head: tuple(sorted(attributes)) for head, attributes in self.heads.items()},
            self.mods,
            self._modifiers(),
            pairs,
            frozenset(units(word, self.language) for word in self.table["gender"].get("kin", ())),
            frozenset(units(word, self.language) for word in self.table["gender"].get("pronouns", ())),
            self.table["negation"],
            ignored,
            accents,
        )

    def _add(self, phrase: str, entry: Entry, rank: int) -> None:
        """Make a phrase known. rank: 0 for what the renderer writes, 1 for other phrases, 2 and 3 for the same of mod and head."""
        for place, pronouns in _PLACES.items():
            phrase = phrase.replace(place, f"({pronouns})")
        for form in expand(phrase):
            key = units(form, self.language)
            if key:
                entries = self.found.setdefault(key, {})
                entries[entry] = min(rank, entries.get(entry, rank))

    def _value(self, attribute: str, value: str, forms: Mapping[str, Any], words: Mapping[str, Any]) -> None:
        heads = [head.lstrip("~") for head in (*forms.get("heads", ()), *forms.get("also_heads", ()))]
        base = "attr" if self.language == "zh" else "adj"
        for rank, kind in enumerate(("say", "also")):
            for cls, phrases in words.get(kind, {}).items():
                for phrase in phrases:
                    entry = Entry(attribute, value, cls)
                    if cls == "mod":
                        self._mod(entry, phrase, heads, rank + 2, bool(forms.get("also_verbs")))
                    else:
                        self._add(phrase, entry, rank)
                    if cls.startswith("noun_"):
                        self._add(phrase, Entry("gender", cls.removeprefix("noun_"), "noun"), rank)
        said: dict[str, list[str]] = {cls: list(phrases) for cls, phrases in words.get("say", {}).items()}
        for cls, phrases in said.items():
            self.plain[attribute, value, cls] = tuple(phrases)
        mods = said.get(base, []) if forms.get("adj_is_mod") or (self.language == "zh" and "mod" not in said) else []
        for cls, phrases in _derived(forms, said.get("mod", []) or mods, said.get(base, [])).items():
            said[cls] = [*said.get(cls, ()), *(p for p in phrases if p not in said.get(cls, ()))]
        for cls, phrases in said.items():
            self.say[attribute, value, cls] = tuple(phrases)

    def _mod(self, entry: Entry, phrase: str, heads: Sequence[str], rank: int, verbs: bool) -> None:
        """Make a modifier known before and after every head."""
        for mod in expand(phrase):
            for head in heads:
                if self.language == "zh":
                    self._add(head + mod, Entry(entry.attribute, entry.value, "mod", pre=head), rank)
                    self._add(f"{mod}的{head}", Entry(entry.attribute, entry.value, "mod", post=f"的{head}"), rank)
                else:
                    self._add(f"{mod} {head}", Entry(entry.attribute, entry.value, "mod", post=f" {head}"), rank)
                if verbs or self.language == "zh":
                    self.heads.setdefault(units(head, self.language), set()).add(entry.attribute)
            self.mods.setdefault((entry.attribute, units(mod, self.language)), entry.value)

    def _modifiers(self) -> dict[tuple[str, ...], dict[str, str]]:
        found: dict[tuple[str, ...], dict[str, str]] = {}
        for (attribute, mod), value in self.mods.items():
            found.setdefault(mod, {})[attribute] = value
        return found

    def _accents(self) -> dict[str, str]:
        table = self.table["accent"]
        if self.language == "zh":
            names = dict(table["names"])
        else:
            every = {name for known in ACCENTS.values() for name in known} | set(table["also"])
            names = {name: _capitalized(name, table["lower"]) for name in sorted(every)}
        space = "" if self.language == "zh" else " "
        for name, wording in names.items():
            for head in (*table["heads"], *table["also_heads"]):
                self._add(f"{wording}{space}{head}", Entry("accent", name, "accent"), 0)
        return names


def _derived(forms: Mapping[str, Any], mods: Sequence[str], bases: Sequence[str]) -> dict[str, list[str]]:
    """Return the wordings by class that the templates of an attribute make."""
    heads, made = forms.get("heads", []), {}
    nps = [np for form in forms.get("np", ()) for np in _filled(form, heads, mods)]
    for cls in ("np", "clause", "adv", "who"):
        phrases: list[str] = []
        for form in forms.get(cls, ()):
            if cls != "np" and "{np}" in form:
                phrases += [form.replace("{a} {np}", with_article(np)).replace("{np}", np.lstrip("~")) for np in nps]
            elif "{adj}" in form:
                phrases += [form.replace("{a} {adj}", with_article(adj)).replace("{adj}", adj) for adj in bases]
            elif "{attr}" in form:
                phrases += [
                    form.replace("{attr}", attr).replace("{head}", head) for head in heads or [""] for attr in bases
                ]
            else:
                phrases += _filled(form, heads, mods)
        made[cls] = list(dict.fromkeys(phrases))
    return made


def _filled(form: str, heads: Sequence[str], mods: Sequence[str]) -> Iterator[str]:
    if "{np}" in form:
        return
    for head in heads:
        for mod in mods:
            filled = form.replace("{head}", head.lstrip("~")).replace("{mod}", mod)
            yield f"~{filled}" if head.startswith("~") and form.startswith("{mod}") else filled


def _chosen(entries: Mapping[Entry, int]) -> tuple[Entry, ...]:
    """Return what a phrase says. Phrases of the file may say several things, e.g. "baritone"; of those made of mod and head the
    renderer's come first, and one that fits two attributes ("声音低") says nothing for sure."""
    best = min(entries.values())
    if best < 2:
        # One entry for a value, whatever the class.
        values = {(e.attribute, e.value): e for e, rank in reversed(list(entries.items())) if rank < 2}
        return tuple(values.values())
    kept = [entry for entry, rank in entries.items() if rank == best]
    return (kept[0],) if len({(entry.attribute, entry.value) for entry in kept}) == 1 else ()


def _capitalized(name: str, lower: Sequence[str]) -> str:
    return " ".join(word if word in lower else word.capitalize() for word in name.split())
