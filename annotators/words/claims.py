"""Find what a text says of a voice: phrases of the lexicons, and whether they are denied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from annotators.words.lexicon import VERBS, Entry, Lexicon, lexicon
from catalogs.vocabulary.voices import THREE

_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s-]")
_DEGREES = frozenset([
    "rather", "quite", "fairly", "relatively", "pretty", "somewhat", "slightly", "notably", "noticeably", "generally",
    "consistently", "mostly", "a", "bit", "too", "about", "roughly", "well", "really", "always", "still", "remarkably", "also",
    "distinctly", "decidedly", "kept", "clearly", "unusually", "surprisingly", "just", "moderately", "all",
    "both",
])  # fmt: skip
_DENIALS = frozenset(["not", "never", "hardly", "barely", "scarcely", "neither"])
_LINKS = frozenset([",", "and", "but", "yet", "or", "/", "&", "then"])
_ENDS = frozenset([".", ",", ";", ":", "!", "?", "—", "–", "and", "but", "with", "while", "yet", "throughout", "/"])
_ADJECTIVE = re.compile(r"\w+(?:y|ed|ing|ous|ful|less|al|ive|ish|like|ent|ant|ic|ly|en|ary|some|able|ible)$")
_MOST_BETWEEN = 6
"""Words between a modifier and its head ("a low, warm, and slightly husky voice")."""
_TOWARDS = frozenset(["to", "about", "at", "against", "toward", "towards"])
_WITH = frozenset(
    [
        "talk",
        "talks",
        "talking",
        "chat",
        "chats",
        "chatting",
        "speak",
        "speaks",
        "speaking",
        "arguing",
        "argues",
        "flirting",
    ]
)
_POSSESSIVES = frozenset(["his", "her", "their", "my", "our"])
_COUNTS = frozenset(["two", "three", "four", "five", "own", "few", "many", "all", "both"])
_ARTICLES = _POSSESSIVES | {"a", "an", "the", "some", "another", "your", "this", "that", "its"}
_SPEAKS_OF = frozenset(
    [
        "belongs",
        "belonging",
        "listen",
        "listening",
        "listens",
        "similar",
        "close",
        "attributed",
        "comes",
        "come",
        "coming",
    ]
)

_BETWEEN_ZH = re.compile(
    "[:：]?(?:显得|比较|稍微|稍|略显|较为|始终|保持|都|也|一直|听起来|听上去|听着|相对|并不是|并不|并没有|没有|不算|不太|不怎么|不是很|不是|不|并非|未|太|特别"
    "|那么|是|有些|有点儿?|的确|确实|非常地|整体|总体|却|倒|要|虽|虽然|倒是|挺|真|够|蛮|可|很|超|好|老|偏|略|还|算|属|属于|属于较|放得|压得|说得|拖得|念得|提得|绷得|放|压"
    "|大体上?|基本上?|几乎|通篇|全程|变得|显|明显|控制得|控制在|处于|维持|而且|又|十分|非常|绝对|谈不上|称不上|一点(?:儿)?也不|一点(?:儿)?都不|毫不|绝不|算是"
    "|比[^，。、；]{1,5}?(?:要|还|更)?)*"
)
_OTHER_ZH = re.compile(
    "(?:跟|给|对|向|与|同|哄|思念|想念|思念着|面对|报告|写给|讲给|念给|说给|找|等)(?:自己的?|他的?|她的?|我的?|一?[位名个只群]|老|小|那位|这位|年轻的?|年幼的?|年迈的?|心爱的?)*$"
)
_SPOKEN_TO_ZH = re.compile("(?:跟|给|对|向|与|同|哄)[^，。、；：]{0,8}$")
_SPEAKS_ZH = re.compile("们?(?:讲|说|读|聊|谈|唱|念|解释|道)")
_KIN_ZH = re.compile("(?:他|她|我|自己)的?(?:[一两三几][个位])?[小大]?$")


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
        sentence = _sentence(tokens, at, words) or (None if length else _apart(tokens, at, words, found))
        if sentence and sentence[0] - at > length:
            (end, entries, denied), length = sentence, sentence[0] - at
        entries = _of_the_speaker(tokens, at, entries, words)
        if length:
            found.append((at, at + length, entries, denied))
        at += length or 1
    owner = {token: n for n, (start, end, _, _) in enumerate(found) for token in range(start, end)}
    result: list[Match] = []
    denials: list[bool] = []
    for start, end, entries, denied in found:
        if end - start > 1 or (tokens[start],) not in words.pronouns:
            # "nor does he hurry" says that it is a man.
            denied = denied or _denied(tokens, start, owner, denials, words)
        denials.append(denied)
        result.append(Match(spans[start][0], spans[end - 1][1], entries, denied))
        if end - start > 1 and entries and all(entry.attribute != "gender" for entry in entries):
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
        if attributes and verb + 2 < len(tokens) and tokens[verb] == "of" and tokens[verb + 1] in _ARTICLES:
            # "the volume of his voice is low"
            verb += 3
        if not attributes or verb >= len(tokens):
            continue
        denied = tokens[verb].endswith("n't")
        bare = not denied and tokens[verb] not in VERBS
        place = verb if bare else verb + 1
        if bare and tokens[verb] in (":", "=", "that", "which"):
            place += 1 + (tokens[verb] in ("that", "which") and tokens[min(verb + 1, len(tokens) - 1)] in VERBS)
        while place < len(tokens) and (
            tokens[place] in _DEGREES or tokens[place] in _DENIALS or tokens[place] == "particularly"
        ):
            if any((a, tuple(tokens[place : place + many])) in words.mods for a in attributes for many in (3, 2)):
                break
            denied = denied or tokens[place] in _DENIALS
            place += 1
        for many in (3, 2, 1):
            mod = tuple(tokens[place : place + many])
            values = {a: words.mods[a, mod] for a in attributes if len(mod) == many and (a, mod) in words.mods}
            # Without a verb ("volume low"), nothing else may follow that it could belong to.
            if bare and place + many < len(tokens) and tokens[place + many] not in _ENDS:
                continue
            if len(values) == 1:
                [(attribute, value)] = values.items()
                entry = Entry(attribute, value, "mod", pre=" ".join(tokens[at:place]) + " ")
                return place + many, (entry,), denied
    return None


def _apart(
    tokens: Sequence[str], at: int, words: Lexicon, found: Sequence[tuple[int, int, tuple[Entry, ...], bool]]
) -> tuple[int, tuple[Entry, ...], bool] | None:
    """Return (end, what it says, False) of a modifier whose head comes later ("a low, warm, slightly husky voice"), or of a low
    or high that is joined to other words for a voice ("gravelly and low")."""
    for many in (2, 1):
        place = at + many
        values = words.modifiers.get(tuple(tokens[at:place])) if place < len(tokens) else None
        if values is None:
            continue
        for _ in range(_MOST_BETWEEN):
            for length in (3, 2, 1):
                heads = words.heads.get(tuple(tokens[place : place + length]), ())
                said = [(attribute, values[attribute]) for attribute in heads if attribute in values]
                if len(said) == 1:
                    return at + many, (Entry(*said[0], "mod"),), False
            step = _longest(tokens, place, words)
            if step and any(
                entry.cls not in ("adj", "mod") for entry in words.index[tuple(tokens[place : place + step])]
            ):
                break
            if place < len(tokens) and (
                tokens[place] in _LINKS or tokens[place] in _DEGREES or _ADJECTIVE.match(tokens[place])
            ):
                step = max(step, 1)
            if not step or place + step >= len(tokens):
                break
            place += step
    joined = at >= 2 and tokens[at - 1] in _LINKS and found and found[-1][1] in (at - 1, at - 2)
    if joined and tokens[at] in ("low", "high") and (at + 1 == len(tokens) or tokens[at + 1] in _ENDS):
        return at + 1, (Entry("pitch", tokens[at], "mod"),), False
    return None


def _of_the_speaker(tokens: Sequence[str], at: int, entries: tuple[Entry, ...], words: Lexicon) -> tuple[Entry, ...]:
    """Return the entries without gender and age if they are of somebody else ("reads to a little boy", "misses his wife")."""
    if not any(entry.attribute in ("gender", "age") for entry in entries):
        return entries
    if tokens[at] in _POSSESSIVES or tokens[at] in ("he", "she", "him", "himself", "herself"):
        return entries
    place = at - 1
    while (
        place >= 0
        and tokens[place] not in _ARTICLES
        and (tokens[place] in _COUNTS or (tokens[place],) in words.index or _ADJECTIVE.match(tokens[place]))
    ):
        place -= 1
    if place < 0 or tokens[place] not in _ARTICLES:
        return entries
    own = tokens[place] in _POSSESSIVES and any((token,) in words.kin for token in tokens[at : at + 2])
    before = tokens[place - 1] if place else ""
    verb = tokens[place - 2] if place > 1 else ""
    other = (before in _TOWARDS and verb not in _SPEAKS_OF) or (before == "with" and verb in _WITH)
    if own or other or (before == "for" and tokens[place] == "the"):
        return tuple(entry for entry in entries if entry.attribute not in ("gender", "age"))
    return entries


def _denied(tokens: Sequence[str], start: int, owner: dict[int, int], denials: list[bool], words: Lexicon) -> bool:
    """Return True if a negation stands before the phrase that begins at a token, in the same clause."""
    rules = words.negation
    before, breaks = _keys(tuple(rules["before"])), rules["breaks"]
    if start >= 2 and tokens[start - 1] in rules["joins"] and start - 2 in owner and denials[owner[start - 2]]:
        return True
    for place in range(start - 1, max(start - 2 - rules["reach"], -1), -1):
        if place in owner and (tokens[place],) in words.pronouns:
            continue  # "nobody would call her voice deep"
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


@cache
def _keys(phrases: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """Return phrases as tuples of words."""
    return frozenset(tuple(phrase.split()) for phrase in phrases)


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
            if any(entry.attribute in ("gender", "age") for entry in entries) and _of_another_zh(
                text, at, at + length, words
            ):
                entries = tuple(entry for entry in entries if entry.attribute not in ("gender", "age"))
            result.append(Match(at, at + length, entries, _denied_zh(text, at, result, words)))
        at += length or 1
    return result


def _of_another_zh(text: str, start: int, end: int, words: Lexicon) -> bool:
    """Return True if a person is spoken to or of ("给小男孩读故事", "她的两个儿子"), and is not the speaker."""
    before = text[max(start - 12, 0) : start]
    if text.startswith(("来说", "而言", "来讲"), end) or text[end - 1] in "声嗓音":
        return False
    if tuple(text[start:end]) in words.kin and _KIN_ZH.search(before):
        return True
    return bool(_OTHER_ZH.search(before) or (_SPOKEN_TO_ZH.search(before) and _SPEAKS_ZH.match(text, end)))


def _sentence_zh(text: str, at: int, words: Lexicon) -> tuple[int, tuple[Entry, ...], bool] | None:
    """Return (end, what it says, whether it is denied) of head, degrees or a negation, and mod, e.g. "音量并不高"."""
    for length in (5, 4, 3, 2, 1):
        attributes = words.heads.get(tuple(text[at : at + length]))
        between = _BETWEEN_ZH.match(text, at + length) if attributes else None
        if not attributes or not between:
            continue
        # The earliest first: in "也不大", "不大" is soft, and not a denial of loud.
        for place in range(at + length, between.end() + 1):
            if not _BETWEEN_ZH.fullmatch(text, at + length, place):
                continue
            for many in (7, 6, 5, 4, 3, 2, 1):
                mod = tuple(text[place : place + many])
                values = {a: words.mods[a, mod] for a in attributes if len(mod) == many and (a, mod) in words.mods}
                if len(values) == 1:
                    [(attribute, value)] = values.items()
                    denied = any(sign in text[at + length : place] for sign in "不没未非")
                    # "不是很快" denies "快", not only "很快".
                    value = THREE.get(attribute, {}).get(value, value) if denied else value
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
