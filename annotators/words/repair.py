"""Correct one claim of a text by another phrase of the same grammatical class."""

from __future__ import annotations

import re
from collections import Counter

from annotators.words.claims import Claim, Match, claims, matches
from annotators.words.frames.picker import Picker
from annotators.words.lexicon import Entry, Lexicon, lexicon, needs_an

_DEGREE = re.compile(
    r"\b(very|fairly|rather|quite|so|too|extremely|pretty|really|somewhat|slightly|more|less|most|relatively)\s+$", re.I
)
_ARTICLE = re.compile(r"\b([Aa])(n?)( +)$")
_STRONG = ("very ", "strikingly ", "remarkably ")
_OBJECT = {
    "and",
    "or",
    "with",
    "in",
    "at",
    "as",
    "to",
    "but",
    "who",
    "when",
    "while",
    "speaking",
    "speak",
    "talk",
    "is",
    "for",
    "on",
}


_DOUBLED = re.compile(r"\b(\w+)[\s-]+\1\b", re.I)
_DANGLING = re.compile(r"\b(?:at|in|with) an? (?:\w+ )?\w+-\w+(?=\s*(?:[,.;:]|$|and\b|but\b|with\b|in\b|at\b))", re.I)
"""An adjective with a hyphen where a noun is due: "at a low-volume and"."""
_JOINED = re.compile(r",?\s+(?:and|but)\s+(?:with|at|in)\b", re.I)
"""A second adverbial: what precedes it has to end with one, too ("speaks at a low volume and with")."""
_ADVERBIAL = re.compile(r"\b(?:at|in|with)\b")


def repair_phrase(text: str, claim: Claim, value: str, language: str, seed: str) -> str | None:
    """Return the text with `value` in the place of a claim's value, or None if no phrase fits one to one.

    Every phrase with the same claim is replaced. All other claims of the text stay as they are, and the old value is not claimed
    any more. A change of gender turns nouns and pronouns, too.
    """
    words = lexicon(language)
    if words is None or claim.negated or value == claim.value:
        return None
    if claim.attribute == "gender":
        return _other_gender(text, claim.value, value, language, words)
    places = [
        (match, entry)
        for match in matches(text, language)
        for entry in match.entries
        if not match.negated and (entry.attribute, entry.value) == (claim.attribute, claim.value)
    ]
    choices = [_choices(text, match, entry, value, words, language) for match, entry in places]
    if not choices or not all(choices):
        return None
    pick = Picker(f"{seed}/{text}")
    starts = [pick.below(len(found)) for found in choices]
    for step in range(max(map(len, choices))):
        changed = text
        for (match, _), found, start in reversed(list(zip(places, choices, starts, strict=True))):
            changed = _put(changed, match, found[(start + step) % len(found)], language)
        if _is_right(text, changed, claim, value, language):
            return changed
    return None


def _choices(text: str, match: Match, entry: Entry, value: str, words: Lexicon, language: str) -> list[str]:
    """Return phrases of the entry's class with the other value."""
    phrases = words.plain.get((entry.attribute, value, entry.cls), ())
    before = text[: match.start]
    if language == "zh":
        return [f"{entry.pre}{phrase}{entry.post}" for phrase in phrases]
    if _JOINED.match(text[match.end :]) and entry.cls in ("who", "clause"):
        built = words.words(entry.attribute, value, entry.cls)
        phrases = tuple(phrase for phrase in built if _ADVERBIAL.search(phrase))
    if _DEGREE.search(before):
        phrases = tuple(phrase for phrase in phrases if not phrase.startswith(_STRONG))
    if _ARTICLE.search(before):
        phrases = tuple(phrase for phrase in phrases if not phrase.startswith("~"))
    gender = next((c.value for c in claims(text, "en") if c.attribute == "gender" and not c.negated), None)
    his = {"male": "his", "female": "her"}.get(gender or "", "their")
    him = {"male": "himself", "female": "herself"}.get(gender or "", "themselves")
    filled = [phrase.lstrip("~").replace("{his}", his).replace("{himself}", him) for phrase in phrases]
    filled = [phrase for phrase in filled if "{" not in phrase]
    said = text[match.start : match.end]
    if entry.cls in ("adj", "tag") and " " in said and "-" not in said and said.lower() not in _written(words, entry):
        # "a low volume" is a noun phrase, though its words are those of the adjective "low-volume".
        filled = [
            phrase.replace("-", " ") for phrase in filled if phrase.rpartition("-")[2] == said.split()[-1].lower()
        ]
    if entry.post.lstrip(" -").startswith("pitched"):
        filled = [phrase for phrase in filled if phrase.isalpha()]
    # A phrase of head and mod keeps all but its mod, with its own spelling of the rest.
    head = said[: len(entry.pre)]
    tail = said[len(said) - len(entry.post) :] if entry.post else ""
    return [f"{head}{phrase}{tail}" for phrase in filled]


def _written(words: Lexicon, entry: Entry) -> tuple[str, ...]:
    return words.plain.get((entry.attribute, entry.value, entry.cls), ())


def _put(text: str, match: Match, phrase: str, language: str) -> str:
    """Return the text with a phrase in the place of a match; capitals and articles fit."""
    before, said = text[: match.start], text[match.start : match.end]
    if language == "en":
        if said[:1].isupper():
            phrase = phrase[:1].upper() + phrase[1:]
        article = _ARTICLE.search(before)
        if article:
            before = before[: article.start()] + article[1] + ("n" if needs_an(phrase) else "") + article[3]
    return before + phrase + text[match.end :]


def _is_right(old: str, new: str, claim: Claim, value: str, language: str) -> bool:
    """Return True if only the claim's value changed, and the grammar stayed."""

    def others(text: str) -> Counter[tuple[str, str, bool]]:
        return Counter(
            (c.attribute, c.value, c.negated) for c in claims(text, language) if c.attribute != claim.attribute
        )

    if language == "en" and any(len(wrong.findall(new)) > len(wrong.findall(old)) for wrong in (_DOUBLED, _DANGLING)):
        return False
    now = {c.value for c in claims(new, language) if c.attribute == claim.attribute and not c.negated}
    return claim.value not in now and value in now and others(old) == others(new)


def _other_gender(text: str, old: str, new: str, language: str, words: Lexicon) -> str | None:
    """Return the text with all words of one gender turned into the other's, or None if some have no counterpart."""
    if any(c.attribute == "gender" and c.negated for c in claims(text, language)) or new not in ("male", "female"):
        return None
    side = 0 if old == "male" else 1
    turned: dict[str, str] = {}
    for pair in words.pairs:
        turned.setdefault(pair[side], pair[1 - side])
    known = sorted(turned, key=len, reverse=True)
    if language == "zh":
        kept = ["".join(key) for key in words.ignored]
        pattern = "|".join(re.escape(word) for word in sorted([*known, *kept], key=len, reverse=True))
        changed = re.sub(pattern, lambda found: turned.get(found[0], found[0]), text)
    else:
        pattern = rf"\b(?:{'|'.join(re.escape(word) for word in known)})\b"
        changed = re.sub(pattern, lambda found: _turned(text, found, turned), text, flags=re.IGNORECASE)
        changed = re.sub(r"\b([Aa])n? (male|man|female|woman)\b", r"\1 \2", changed)
    values = {c.value for c in claims(changed, language) if c.attribute == "gender"}
    return changed if old not in values and new in values else None


def _turned(text: str, found: re.Match[str], turned: dict[str, str]) -> str:
    word = found[0].lower()
    result = turned[word]
    following = re.match(r"\s+([a-z]+)", text[found.end() :])
    before_noun = following is not None and following[1] not in _OBJECT
    if word == "her":
        result = "his" if before_noun else "him"
    elif word == "his":
        result = "her" if before_noun else "hers"
    return result.capitalize() if found[0][0].isupper() else result
