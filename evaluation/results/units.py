"""Units: which error rate a language is known by, and what stands in a table's cell."""

from __future__ import annotations

from typing import Literal

from catalogs.vocabulary.languages import language as known_language
from evaluation.metrics.base import Value

ErrorRate = Literal["WER", "CER"]

CER_LANGUAGES = frozenset({"ar", "he", "hi", "ja", "km", "ko", "lo", "my", "sw", "th", "zh"})
"""Languages whose published error rates are of characters, `zh` with its dialects. Those of the others are of words."""


def paper_unit(language: str) -> ErrorRate:
    """Return the error rate that VoxCPM2's report gives for a language, by any of its codes, such as `zh`, `cmn` or `zh-CN`."""
    known = known_language(language)
    return "CER" if known is not None and known.code in CER_LANGUAGES else "WER"


def error_rate(value: Value) -> ErrorRate | None:
    """Return which error rate a value is, by the words of its column; None: it is another figure."""
    parts = value.column.lower().split("_")
    return "WER" if "wer" in parts else "CER" if "cer" in parts else None


def cell_unit(value: Value, language: str = "") -> str:
    """Return the unit of a cell: that of the value, and the error rate that it is, as in `% WER`."""
    rate = error_rate(value) or (paper_unit(language) if value.column == HEADLINE and language else None)
    return " ".join(part for part in (value.unit, rate) if part)


def is_headline(value: Value, language: str) -> bool:
    """Return False for the error rate that a language is not known by."""
    rate = error_rate(value)
    return rate is None or not language or rate == paper_unit(language)


HEADLINE = "error"
"""Column of the derived value that is WER or CER, depending on the language."""
