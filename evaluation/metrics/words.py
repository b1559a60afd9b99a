"""Error rates of words and characters in two dialects, and the recognizer's floor. They read transcripts; none is made here.

`words_clean` compares as catalogs.vocabulary.comparable_text does, `words_official` as Seed-TTS-Eval does. Both rates are always
stored: `evaluation.results.units` says which one published tables show for a language. The character rate does not count spaces.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa

from catalogs.vocabulary import comparable_text
from evaluation.metrics import official_text
from evaluation.metrics.base import Need, Plain, Take, Value

Unit = Literal["wer", "cer"]
TEXT_PACKAGES = ("whisper_normalizer", "num2words")
"""What the dialect `clean` needs."""

_COUNTS = ("word_errors", "words", "char_errors", "chars", "insertions", "deletions", "substitutions", "exact")
_COLUMNS = [
    *(pa.field(name, pa.float64()) for name in ("wer", "cer")),
    *(pa.field(name, pa.int32()) for name in _COUNTS),
    *(pa.field(name, pa.string()) for name in ("wanted", "heard")),
]
#: Percentage points below which a difference does not matter.
_SMALLEST = 0.5


def count_errors(wanted: Sequence[str], heard: Sequence[str]) -> dict[str, Any] | None:
    """Return the error counts of two lists of words as columns; None if no word is wanted.

    `insertions`, `deletions` and `substitutions` add up to `word_errors`. Characters are those of the words, without spaces.
    """
    import jiwer

    if not wanted:
        return None
    by_word = jiwer.process_words(" ".join(wanted), " ".join(heard))
    characters, heard_characters = "".join(wanted), "".join(heard)
    by_character = jiwer.process_words(" ".join(characters), " ".join(heard_characters))
    word_errors, char_errors = (one.insertions + one.deletions + one.substitutions for one in (by_word, by_character))
    return {
        "wer": word_errors / len(wanted),
        "cer": char_errors / len(characters),
        "word_errors": word_errors,
        "words": len(wanted),
        "char_errors": char_errors,
        "chars": len(characters),
        "insertions": by_word.insertions,
        "deletions": by_word.deletions,
        "substitutions": by_word.substitutions,
        "exact": int(word_errors == 0),
        "wanted": " ".join(wanted),
        "heard": " ".join(heard),
    }


def clean_units(text: str, language: str) -> list[str]:
    """Return the words of a text in the dialect `clean`; its characters if the language is written without spaces."""
    plain = comparable_text.normalize(text, language)
    return list(plain) if comparable_text.is_unspaced(language) else plain.split()


def _values(dialect: str) -> tuple[Value, ...]:
    def rate(column: str, title: str, ratio: tuple[str, str]) -> Value:
        return Value(column, title, "%", "lower", 1.0, ratio, 100.0, smallest=_SMALLEST)

    return (
        rate("wer", f"WER, {dialect}", ("word_errors", "words")),
        rate("cer", f"CER, {dialect}", ("char_errors", "chars")),
        Value("exact", f"exact, {dialect}", "%", "higher", 0.0, None, 100.0, 1),
    )


class WordsClean(Plain):
    """Errors with numbers, case, punctuation and optional marks in one form."""

    name = "words_clean"
    version = 2
    schema = pa.schema(_COLUMNS)
    values = _values("clean")
    uses: tuple[str, ...] = ("transcript",)

    packages: tuple[str, ...] = ("jiwer", *TEXT_PACKAGES)

    def load(self) -> None:
        """Import the libraries. Raises ModuleNotFoundError."""
        for package in self.packages:
            importlib.import_module(package)

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"dialect": "clean", **comparable_text.rules_in_use()}

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. None if nothing was recognized for lack of the language, or the text has no word."""
        return [self._row(take) for take in takes]

    def _row(self, take: Take) -> dict[str, Any] | None:
        hypothesis = take.given[self.uses[0]]["hypothesis"]
        if hypothesis is None:
            return None
        row = count_errors(*self.units(take.item.text, hypothesis, take.item.language))
        if row and comparable_text.is_unspaced(take.item.language):
            # Its units are characters already: one figure under two names would be tested twice.
            row["wer"] = None
        return row

    def units(self, text: str, hypothesis: str, language: str) -> tuple[list[str], list[str]]:
        """Return what is compared of a text and of what was heard."""
        return clean_units(text, language), clean_units(hypothesis, language)


class WordsOfficial(WordsClean):
    """Errors by the rules of Seed-TTS-Eval. Its figures come from other recognizers: see the column `model`."""

    name = "words_official"
    values = _values("official")
    packages = ("jiwer",)

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {
            "dialect": "official",
            "rules": official_text.VERSION,
            "opencc": comparable_text.rules_in_use()["opencc"],
        }

    def units(self, text: str, hypothesis: str, language: str) -> tuple[list[str], list[str]]:
        """See `WordsClean`."""
        return (
            official_text.official_units(text, language),
            official_text.official_units(hypothesis, language, heard=True),
        )


class Floor(WordsClean):
    """Errors in the recording of a person, dialect clean. The error of a take minus this is the excess error."""

    name = "floor"
    needs: frozenset[Need] = frozenset({"human"})
    uses: tuple[str, ...] = ("human_transcript",)
    schema = pa.schema([pa.field(f"floor_{column.name}", column.type) for column in _COLUMNS])
    values = tuple(
        Value(f"floor_{rate}", title, "%", "none", None, (f"floor_{errors}", f"floor_{count}"), 100.0)
        for rate, title, errors, count in (
            ("wer", "WER of the recordings", "word_errors", "words"),
            ("cer", "CER of the recordings", "char_errors", "chars"),
        )
    )

    def _row(self, take: Take) -> dict[str, Any] | None:
        row = super()._row(take)
        return row and {f"floor_{column}": value for column, value in row.items()}
