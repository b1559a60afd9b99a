"""Codes of languages in lists: a code, an alias or an English name becomes the code that tables and recognizers know."""

from __future__ import annotations

import re

from catalogs.nearest import nearest
from catalogs.vocabulary.languages import dialect, language, languages
from evaluation.errors import EvaluationError

MORE_LANGUAGES = {"cantonese": "yue", "czech": "cs", "romanian": "ro", "ukrainian": "uk", "filipino": "tl"}
"""Names of languages that public lists use, besides those of catalogs.vocabulary.languages."""


def language_code(name: str) -> str:
    """Return the code of a language from a code or an English name: `German`, `de-DE` and `de` give `de`, `cantonese` gives `yue`.

    A code of two or three letters outside VoxCPM2's languages is returned as it is. Raises EvaluationError for other text.
    """
    plain = name.strip().lower().replace("_", "-")
    names = {one.name.lower(): code for code, one in languages().items()} | MORE_LANGUAGES
    if plain in names:
        return names[plain]
    if dialect(plain):
        return plain
    if known := language(plain):
        return known.code
    base = plain.split("-")[0]
    if re.fullmatch(r"[a-z]{2,3}", base):
        return base
    near = nearest(plain, names)
    raise EvaluationError(f"no language {name!r}; " + (f"did you mean {near}?" if near else "give a code such as de"))


def canonical_language(given: str) -> str:
    """Return the code of a language as `language_code` does; a text that names none stays as it is."""
    try:
        return language_code(given)
    except EvaluationError:
        return given
