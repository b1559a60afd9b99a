"""Repetitions of the same words by the same voice, by the text and the voiceprints."""

from __future__ import annotations

import numpy as np

_LETTERS = 12
"""Minimum number of letters (of an alphabet) for a repeated text to count; "yes, of course" has fewer."""
_SIGNS = 5
"""The same for scripts whose signs are syllables or words."""
_WIDE = ((0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


def text_key(text: str | None) -> str | None:
    """Return a text without case, spaces and punctuation; None if it is too short for a repetition to mean anything."""
    letters = "".join(filter(str.isalnum, (text or "").casefold()))
    if len(letters) >= _LETTERS:
        return letters
    weight = sum(_LETTERS / _SIGNS if any(low <= ord(c) <= high for low, high in _WIDE) else 1.0 for c in letters)
    return letters if weight >= _LETTERS else None


class VoiceGroups:
    """The voices that have said one text: each segment is compared with the first one of every voice found so far."""

    def __init__(self, threshold: float) -> None:
        """threshold: minimum cosine of two voiceprints of one voice."""
        self._threshold = threshold
        self._firsts: list[int] = []
        self._prints = np.zeros((0, 0), dtype=np.float32)

    def first_of(self, segment: int, own: np.ndarray) -> int | None:
        """Return the first segment of the voice of `own`, a voiceprint of unit length; None if `segment` is the first."""
        count = len(self._firsts)
        if count:
            cosine = self._prints[:count] @ own
            best = int(cosine.argmax())
            if cosine[best] >= self._threshold:
                return self._firsts[best]
        if count == len(self._prints):
            wider = np.zeros((max(4, 2 * count), len(own)), dtype=np.float32)
            if count:
                wider[:count] = self._prints
            self._prints = wider
        self._prints[count] = own
        self._firsts.append(segment)
        return None
