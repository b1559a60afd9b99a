"""Repetitions of the same words by the same voice: links of segments by their text and their voiceprints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from pipeline.duplicates.groups import Link

_LETTERS = 12
"""Minimum number of letters (of an alphabet) for a repeated text to count; "yes, of course" has fewer."""
_SIGNS = 5
"""The same for scripts whose signs are syllables or words."""
_WIDE = ((0x2E80, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


def text_key(text: str | None) -> str | None:
    """Return a text without case, spaces and punctuation; None if it is too short for a repetition to mean anything."""
    letters = "".join(c for c in (text or "").casefold() if c.isalnum())
    weight = sum(_LETTERS / _SIGNS if any(low <= ord(c) <= high for low, high in _WIDE) else 1.0 for c in letters)
    return letters if weight >= _LETTERS else None


def same_text_links(
    texts: Sequence[str | None], voice: Callable[[list[int]], list[np.ndarray | None]], threshold: float
) -> list[Link]:
    """Return links between segments of one text whose voiceprints have a cosine of `threshold` or more.

    `voice` returns the unit-length voiceprints of segments (by position); it is called only for texts that occur more than
    once. Each segment is compared with the first one of every voice found so far for its text.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        if (key := text_key(text)) is not None:
            places[key].append(place)
    links = []
    for found in places.values():
        if len(found) < 2:
            continue
        firsts: list[int] = []
        prints: list[np.ndarray] = []
        for place, own in zip(found, voice(found), strict=True):
            if own is None:
                continue
            if prints:
                cosine = np.stack(prints) @ own
                best = int(cosine.argmax())
                if cosine[best] >= threshold:
                    links.append(Link(firsts[best], place, "same_text"))
                    continue
            firsts.append(place)
            prints.append(own)
    return links
