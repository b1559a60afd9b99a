"""Find what a text says of a voice: phrases of the lexicons, and whether they are denied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from annotators.lexicon import VERBS, Entry, Lexicon, lexicon

_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s-]")
_DEGREES = frozenset([
    "rather", "quite", "fairly", "relatively", "pretty", "somewhat", "slightly", "notably", "noticeably", "generally",
    "consistently", "mostly", "a", "bit", "too",
])  # fmt: skip


_BETWEEN_ZH = re.compile(
    "(?:显得|比较|稍微|稍|略显|较为|始终|保持|都|也|一直|听起来|相对|并不是|并不|并没有|没有|不算|不太|不怎么|不是很|不是|不|并非|未|太|特别|那么"
    "|是|有些|有点|的确|确实|非常地|整体|总体)*"
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A phrase that says something of the voice."""

    attribute: str
    value: str
    phrase: str
    start: int
    """Place of the phrase in the text, in characters."""
    end: int
    negated: bool
    """The text denies it ("not fast"). It is not a claim of the value, nor of any other."""


@dataclass(frozen=True, slots=True)
class Match:
    """A phrase of the lexicon in a text, and what it says (several things, or nothing for sure)."""

    start: int
    end: int
    entries: tuple[Entry, ...]
    negated: bool


def claims(text: str, language: str) -> list[Claim]:
    """Return the claims of a text in order. A language without a lexicon has none.

    The longest phrase wins where several begin. English phrases end at words' boundaries; hyphens are blanks.
    """
    return [
        Claim(entry.attribute, entry.value, text[match.start : match.end], match.start, match.end, match.negated)
        for match in matches(text, language)
        for entry in match.entries
    ]


def matches(text: str, language: str) -> list[Match]:
    """Return the phrases of the lexicon in a text, in order."""
    words = lexicon(language)
    if words is None:
        return []
    return _chinese(text, words) if language == "zh" else _english(text, words)


# ---- English


def _english(text: str, words: Lexicon) -> list[Match]:
    spans = [found.span() for found in _TOKEN.finditer(text)]
    tokens = [text[start:end].lower().replace("’", "'") for start, end in spans]
    found: list[tuple[int, int, tuple[Entry, ...], bool]] = []
    at = 0
    while at < len(tokens):
        length = _longest(tokens, at, words)
        entries = words.index[tuple(tokens[at : at + length])] if length else ()
        denied = False
        sentence = _sentence(tokens, at, words)
        if sentence and sentence[0] - at > length:
            (end, entries, denied), length = sentence, sentence[0] - at
        if length:
            found.append((at, at + length, entries, denied))
        at += length or 1
    owner = {token: n for n, (start, end, _, _) in enumerate(found) for token in range(start, end)}
    result: list[Match] = []
    denials: list[bool] = []
    for _n, (start, end, entries, denied) in enumerate(found):
        denied = denied or _denied(tokens, start, owner, denials, words)
        denials.append(denied)
        result.append(Match(spans[start][0], spans[end - 1][1], entries, denied))
        if end - start > 1 and all(entry.attribute != "gender" for entry in entries):
            # "takes his time" is one phrase, and its pronoun says something, too.
            for token in range(start, end):
                inner = words.index.get((tokens[token],), ())
                if inner and all(entry.attribute == "gender" for entry in inner):
                    result.append(Match(*spans[token], inner, False))
    return result


def _longest(tokens: Sequence[str], at: int, words: Lexicon) -> int:
    """Return the number of tokens of the longest phrase that begins at a token, 0 if none does."""
    for length in range(min(words.longest.get(tokens[at], 0), len(tokens) - at), 0, -1):
        if tuple(tokens[at : at + length]) in words.index:
            return length
    return 0


def _sentence(tokens: Sequence[str], at: int, words: Lexicon) -> tuple[int, tuple[Entry, ...], bool] | None:
    """Return (end, what it says, whether it is denied) of "HEAD is [not] [rather] MOD" at a token."""
    for length in (3, 2, 1):
        attributes = words.heads.get(tuple(tokens[at : at + length]))
        verb = at + length
        if not attributes or verb >= len(tokens):
            continue
        denied = tokens[verb].endswith("n't")
        if not denied and tokens[verb] not in VERBS:
            continue
        place = verb + 1
        while place < len(tokens) and (tokens[place] in _DEGREES or tokens[place] in ("not", "never", "particularly")):
            denied = denied or tokens[place] in ("not", "never")
            place += 1
        for many in (3, 2, 1):
            mod = tuple(tokens[place : place + many])
            values = {a: words.mods[a, mod] for a in attributes if len(mod) == many and (a, mod) in words.mods}
            if len(values) == 1:
                [(attribute, value)] = values.items()
                entry = Entry(attribute, value, "mod", pre=" ".join(tokens[at:place]) + " ")
                return place + many, (entry,), denied
    return None


def _denied(tokens: Sequence[str], start: int, owner: dict[int, int], denials: list[bool], words: Lexicon) -> bool:
    """Return True if a negation stands before the phrase that begins at a token, in the same clause."""
    rules = words.negation
    before, breaks = _keys(tuple(rules["before"])), rules["breaks"]
    if start >= 2 and tokens[start - 1] in rules["joins"] and start - 2 in owner and denials[owner[start - 2]]:
        return True
    for place in range(start - 1, max(start - 2 - rules["reach"], -1), -1):
        if place in owner or not tokens[place][0].isalnum():
            return False
        for length in (3, 2, 1):
            key = tuple(tokens[max(place + 1 - length, 0) : place + 1])
            if len(key) == length and (key in before or (length == 1 and key[0].endswith("n't"))):
                return not _excepted(tokens, place + 1 - length, tuple(rules["except"]))
        if tokens[place] in breaks:
            return False
    return False


def _excepted(tokens: Sequence[str], negator: int, exceptions: tuple[str, ...]) -> bool:
    """Return True if the negation at a token is none, e.g. "not only"."""
    for key in _keys(exceptions):
        for start in range(max(negator - len(key) + 1, 0), negator + 1):
            if tuple(tokens[start : start + len(key)]) == key:
                return True
    return False


_KEYS: dict[tuple[str, ...], frozenset[tuple[str, ...]]] = {}


def _keys(phrases: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    if phrases not in _KEYS:
        _KEYS[phrases] = frozenset(tuple(phrase.split()) for phrase in phrases)
    return _KEYS[phrases]


# ---- Chinese


def _chinese(text: str, words: Lexicon) -> list[Match]:
    result: list[Match] = []
    at = 0
    while at < len(text):
        length = _longest(text, at, words)
        entries = words.index[tuple(text[at : at + length])] if length else ()
        sentence = _sentence_zh(text, at, words)
        if sentence and sentence[0] - at > length:
            end, entries, denied = sentence
            result.append(Match(at, end, entries, denied))
            at = end
            continue
        if length:
            result.append(Match(at, at + length, entries, _denied_zh(text, at, result, words)))
        at += length or 1
    return result


def _sentence_zh(text: str, at: int, words: Lexicon) -> tuple[int, tuple[Entry, ...], bool] | None:
    """Return (end, what it says, whether it is denied) of head, degrees or a negation, and mod, e.g. "音量并不高"."""
    for length in (5, 4, 3, 2, 1):
        attributes = words.heads.get(tuple(text[at : at + length]))
        between = _BETWEEN_ZH.match(text, at + length) if attributes else None
        if not attributes or not between:
            continue
        place = between.end()
        for many in (5, 4, 3, 2, 1):
            mod = tuple(text[place : place + many])
            values = {a: words.mods[a, mod] for a in attributes if len(mod) == many and (a, mod) in words.mods}
            if len(values) == 1:
                [(attribute, value)] = values.items()
                denied = any(sign in between[0] for sign in "不没未非")
                return place + many, (Entry(attribute, value, "mod", pre=text[at:place]),), denied
    return None


def _denied_zh(text: str, start: int, earlier: Sequence[Match], words: Lexicon) -> bool:
    rules = words.negation
    if earlier and earlier[-1].negated and text[earlier[-1].end : start] in rules["joins"]:
        return True
    left = earlier[-1].end if earlier else 0
    clause = re.split(f"[{re.escape(rules['breaks'])}]", text[left:start])[-1]
    while True:
        # In "不仅" and "特别" the sign of a negation denies nothing.
        excepted = any(clause.endswith(word) for word in rules["except"])
        if not excepted and any(clause.endswith(word) for word in rules["before"]):
            return True
        filler = max((word for word in rules["fill"] if clause.endswith(word)), key=len, default="")
        if not filler:
            return False
        clause = clause[: -len(filler)]
