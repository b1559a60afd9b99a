"""Pieces of text and their comparable letters: two texts are aligned by letters and mapped back to words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from catalogs.vocabulary.languages import text_unit
from pipeline.text.compare import comparable


class Letters:
    """The comparable letters of pieces of text (words with the space after them), and the piece that each belongs to."""

    def __init__(self, pieces: Sequence[str], language: str | None) -> None:
        self.pieces = list(pieces)
        bare = [comparable(piece, language).replace(" ", "") for piece in pieces]
        self.letters = "".join(bare)
        self.owner = np.repeat(np.arange(len(bare)), [len(piece) for piece in bare])

    def within(self, span: tuple[int, int]) -> list[int]:
        """Return the pieces that have more than half of their letters within a stretch of letters."""
        inside = np.bincount(self.owner[span[0] : span[1]], minlength=len(self.pieces))
        whole = np.bincount(self.owner, minlength=len(self.pieces))
        return [int(i) for i in np.flatnonzero(inside * 2 > whole)]


def split_pieces(text: str, language: str | None) -> list[str]:
    """Return words with the space after them; in languages written without spaces, single characters with their marks and
    the punctuation that follows. Together they are the text."""
    text = text.strip()
    if text_unit(language, text) == "word":
        return re.findall(r"\S+\s*", text)
    pieces: list[str] = []
    for character in text:
        if not pieces or (unicodedata.category(character)[0] in "LN" and _has_letter(pieces[-1])):
            pieces.append(character)
        else:
            pieces[-1] += character
    return pieces


def _has_letter(piece: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in piece)
