"""Whether a caption holds words of the clip. A describer never sees the transcript, but it hears it.

Words that many captions of a pass share are the describer's own, not the clip's: only what is rare in the pass counts.
"""

from __future__ import annotations

import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from annotators.schema import Caption
from annotators.words.claims import claims
from catalogs.vocabulary.voices import CLOSED, LISTS

_RUN = 3
"""Words in a row that are a leak if one of them is rare."""
_RARE = 0.005
"""Share of the clips of a pass in whose captions a word may be, to be rare."""
_WORDS = 2
"""Rare words that are a leak wherever they stand."""
_SIGNS = 4
"""Signs in a row that are a leak in scripts without blanks."""
_QUOTES = re.compile('["“”„«»「」『』]')
_UNSPACED = re.compile(r"[぀-ヿ㐀-鿿豈-﫿฀-๿]")
_VOCABULARY = frozenset(
    word
    for values in (*CLOSED.values(), *(known for known, _ in LISTS.values()))
    for v in values
    for word in v.split("_")
)
_OTHERS = 19
CHANCE = 0.05
"""Share of captions that find their own of 20 transcripts by chance."""


def normalized(text: str) -> str:
    """Return a text in NFKC, case folded, with blanks for punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in folded).split())


def words_of(text: str) -> list[str]:
    """Return the words of a normalized text that are written with blanks."""
    return [word for word in normalized(text).split() if not _UNSPACED.search(word)]


def signs_of(text: str) -> set[str]:
    """Return the runs of four signs in the parts of a text that are written without blanks."""
    runs = re.findall(f"(?:{_UNSPACED.pattern})+", normalized(text).replace(" ", ""))
    return {run[at : at + _SIGNS] for run in runs for at in range(len(run) - _SIGNS + 1)}


class Rarity:
    """In how many clips' captions each word, or run of four signs, occurs: of those that are also in their transcript.

    Memory grows with the number of different shared words only.
    """

    def __init__(self) -> None:
        self._clips = 0
        self._counts: Counter[str] = Counter()
        self._shared: set[str] = set()

    def propose(self, captions: Iterable[Caption], transcript: str) -> None:
        """First reading: note what a clip's captions share with its transcript."""
        self._shared |= _units(captions) & (set(words_of(transcript)) | signs_of(transcript))

    def count(self, captions: Iterable[Caption]) -> None:
        """Second reading: count in how many clips' captions the noted ones occur."""
        self._clips += 1
        self._counts.update(_units(captions) & self._shared)

    def rare(self, unit: str) -> bool:
        """Return True if at most one clip, or one in 200, has this word or run in its captions."""
        return self._counts[unit] <= max(1, _RARE * self._clips)


def _units(captions: Iterable[Caption]) -> set[str]:
    return {unit for caption in captions for unit in (*words_of(caption.text), *signs_of(caption.text))}


def leaked(caption: Caption, transcript: str, rare: Callable[[str], bool]) -> str | None:
    """Return what a caption repeats of the transcript, or None.

    A leak is a quotation mark; three words in a row or two words anywhere that are also in the transcript, if they are rare in
    the pass and no words of the vocabularies; or four signs in a row of a script without blanks. Phrases of the lexicon are
    exempt.
    """
    if quote := _QUOTES.search(caption.text):
        return quote.group()
    if not transcript.strip():
        return None
    heard, said = words_of(transcript), words_of(caption.text)
    telling = {word for word in set(said) & set(heard) if _telling(word, rare)}
    signs = {run for run in signs_of(caption.text) & signs_of(transcript) if rare(run)}
    if not telling and not signs:
        return None
    text = _without_claims(caption)
    telling &= set(words_of(text))
    runs = {tuple(heard[at : at + _RUN]) for at in range(len(heard) - _RUN + 1)}
    for at in range(len(said) - _RUN + 1):
        run = tuple(said[at : at + _RUN])
        if run in runs and telling.intersection(run):
            return " ".join(run)
    alone = sorted(word for word in telling if len(word) > 2)
    if len(alone) >= _WORDS:
        return " ".join(alone)
    signs &= signs_of(text)
    return min(signs) if signs else None


def _telling(word: str, rare: Callable[[str], bool]) -> bool:
    return word not in _VOCABULARY and word not in _COMMON and rare(word)


def _without_claims(caption: Caption) -> str:
    """Return the text with blanks for the phrases of the lexicon."""
    text = list(caption.text)
    for claim in claims(caption.text, caption.language):
        text[claim.start : claim.end] = " " * (claim.end - claim.start)
    return "".join(text)


@dataclass(frozen=True)
class Retrieval:
    """How often a caption is closest to its own transcript, among 20 of one voice. Chance is 0.05."""

    clips: int
    first: float

    @property
    def bound(self) -> float:
        """The share above which something leaks: chance and three standard deviations."""
        return CHANCE + 3 * math.sqrt(CHANCE * (1 - CHANCE) / max(self.clips, 1))

    @property
    def leaks(self) -> bool:
        """Whether captions tell which transcript is theirs."""
        return self.clips > 0 and self.first > self.bound


def retrieval(voices: Mapping[str, Sequence[tuple[str, str]]], seed: int = 0) -> Retrieval:
    """Return how often a caption finds its own transcript by character n-grams among 20 of the same voice.

    voices: (caption, transcript) pairs by voice; voices with fewer than 20 are left out. It sees what a single row cannot: that
    captions follow the words, in whatever phrases of the same script.
    """
    hits, count = 0.0, 0
    for name in sorted(voices):
        pairs = list(voices[name])
        chance = random.Random(f"{seed}/{name}")
        for own in range(len(pairs)) if len(pairs) > _OTHERS else ():
            others = chance.sample([n for n in range(len(pairs)) if n != own], _OTHERS)
            scores = _similarities(pairs[own][0], [pairs[n][1] for n in (own, *others)])
            best = max(scores)
            # Equal scores, e.g. all 0 between two scripts, share the hit.
            hits += scores.count(best) ** -1 if scores[0] == best else 0.0
            count += 1
    return Retrieval(count, hits / count if count else 0.0)


def _similarities(caption: str, transcripts: Sequence[str]) -> list[float]:
    """Return the cosines of TF-IDF vectors of character 3-grams."""
    texts = [Counter(_grams(text)) for text in (caption, *transcripts)]
    found = Counter(gram for text in texts[1:] for gram in text)
    vectors = [
        {gram: n * math.log((1 + len(transcripts)) / (1 + found[gram])) for gram, n in text.items()} for text in texts
    ]
    lengths = [math.sqrt(sum(v * v for v in vector.values())) or 1.0 for vector in vectors]
    return [
        sum(value * other.get(gram, 0.0) for gram, value in vectors[0].items()) / (lengths[0] * length)
        for other, length in zip(vectors[1:], lengths[1:], strict=True)
    ]


def _grams(text: str) -> Iterator[str]:
    plain = f" {normalized(text)} "
    return (plain[at : at + 3] for at in range(len(plain) - 2))


_COMMON = frozenset(
    """
    a an the and or but nor so if then than as at by for from in into of off on onto out over to up with without about
    after again all also always am any are aren't around be because been before being both can can't could did do does
    don't down each even ever every few get gets go goes had has have he her here hers him his how i i'm into is isn't it
    it's its just like little made make many may me more most much must my never no not now of once one only other our own
    same she should some still such that the their them there these they this those through too two under until us very
    was we were what when where which while who whose why will would yet you your voice voices speak speaks speaking
    spoken speaker say says said sound sounds sounding tone talk talks talking word words man woman male female someone
    somebody person
    """.split()  # noqa: SIM905 - a list of 250 strings is not readable
)
"""Words that say nothing of what a clip is about."""
