"""The sentence of a consent, in the speaker's language, with four random words that nobody could have recorded before."""

from __future__ import annotations

import functools
import secrets
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from catalogs.vocabulary.languages import is_chinese
from catalogs.vocabulary.languages import language as known_language

WORDS = 4
"""Random words of a sentence: of a list of 200 they are one of 1.6 billion."""
DEFAULT_PURPOSES = ("cloning",)
FALLBACK = "en"
_FOLDER = Path(__file__).parent / "languages"


@dataclass(frozen=True)
class Wording:
    """How a language says it: `languages/<code>.toml`."""

    code: str
    template: str  #: with {speaker}, {recipient}, {purposes}, {date} and {words}
    day: str  #: a date: with {day}, {month}, {number} (of the month) and {year}
    words: tuple[str, ...]
    purposes: dict[str, str]  #: the words for each purpose that has a name
    months: tuple[str, ...] = ()
    first_day: str = "1"
    joint: str = " and "  #: between the last two purposes
    separator: str = ", "

    def sentence(self, speaker: str, recipient: str, purposes: Sequence[str], on: date, words: Sequence[str]) -> str:
        """Return the sentence to read. A purpose that has no name in this language stands as it is."""
        month = self.months[on.month - 1] if self.months else ""
        said = [self.purposes.get(purpose, purpose) for purpose in purposes]
        return self.template.format(
            speaker=speaker,
            recipient=recipient,
            purposes=self.joint.join([*([self.separator.join(said[:-1])] if said[1:] else []), said[-1]]),
            date=self.day.format(
                day=self.first_day if on.day == 1 else on.day, month=month, number=on.month, year=on.year
            ),
            words=self.separator.join(words),
        )

    def draw(self, count: int = WORDS) -> tuple[str, ...]:
        """Return different random words of the list, from the system's source of randomness."""
        return tuple(secrets.SystemRandom().sample(self.words, count))


@functools.cache
def wordings() -> dict[str, Wording]:
    """Return the languages that have a sentence, by ISO 639-1 code."""
    return {path.stem: _read(path) for path in sorted(_FOLDER.glob("*.toml"))}


def wording(language: str) -> Wording:
    """Return the wording of a language, ignoring its region; that of English if it has none."""
    known = known_language(language)
    code = "zh" if is_chinese(language) else known.code if known else language.lower()
    return wordings().get(code) or wordings()[FALLBACK]


def _read(path: Path) -> Wording:
    entry = tomllib.loads(path.read_text(encoding="utf-8"))
    return Wording(
        code=path.stem,
        template=entry["sentence"],
        day=entry["date"],
        words=tuple(entry["words"].split()),
        purposes=entry["purposes"],
        months=tuple(entry.get("months", ())),
        first_day=entry.get("first_day", "1"),
        joint=entry["and"],
        separator=entry.get("separator", ", "),
    )
