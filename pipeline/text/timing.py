"""Times for the words of a given transcript, from those of the words that were recognized."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

from pipeline.records import Word
from pipeline.text.letters import Letters, split_pieces


def time_words(text: str, heard: Sequence[Word], language: str | None, end_s: float) -> list[Word]:
    """Return the words (or characters) of a text with times in seconds of its segment of `end_s` seconds.

    Letters that match recognized ones have their time; the letters between share the time between. `p` is the probability
    of what was recognized, times the share of the word's letters that match it: 0 for a word without a match.
    """
    pieces = split_pieces(text, language)
    ours, theirs = Letters([word.word for word in heard], language), Letters(pieces, language)
    if not theirs.letters:
        return [Word(piece.strip(), 0.0, 0.0, 0.0) for piece in pieces]
    starts, ends, p = _letter_times(heard, ours)
    first, last = (heard[0].start, heard[-1].end) if heard else (0.0, end_s)
    # The time of a border is known where a matching letter begins or ends; the others are spread evenly between these.
    places, times, sure = [0.0], [first], np.zeros(len(theirs.letters))
    for block in SequenceMatcher(None, ours.letters, theirs.letters, autojunk=False).get_matching_blocks():
        for i, j in zip(range(block.a, block.a + block.size), range(block.b, block.b + block.size), strict=True):
            # Slightly inside the letter, so that the end of one and the start of the next may be different times.
            places += [j + 1e-6, j + 1 - 1e-6]
            times += [starts[i], ends[i]]
            sure[j] = p[i]
    places.append(float(len(theirs.letters)))
    times.append(last)
    times = list(np.clip(np.maximum.accumulate(times), 0.0, end_s))
    words, done = [], 0.0
    for index, piece in enumerate(pieces):
        mine = np.flatnonzero(theirs.owner == index)
        if len(mine):
            start = float(np.interp(mine[0] + 1e-6, places, times))
            end = float(np.interp(mine[-1] + 1 - 1e-6, places, times))
            done = max(end, done)
            words.append(Word(piece.strip(), start, end, float(sure[mine].mean())))
        else:
            words.append(Word(piece.strip(), done, done, 0.0))
    return words


def _letter_times(heard: Sequence[Word], letters: Letters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (start, end, probability) [letters] of each letter that was recognized, evenly within its word."""
    counts = np.bincount(letters.owner, minlength=len(heard)) if len(heard) else np.zeros(0, dtype=int)
    starts = [
        word.start + (word.end - word.start) * k / n for word, n in zip(heard, counts, strict=True) for k in range(n)
    ]
    lengths = [(word.end - word.start) / n for word, n in zip(heard, counts, strict=True) for _ in range(n)]
    begin = np.array(starts, dtype=float)
    return begin, begin + np.array(lengths, dtype=float), np.repeat([word.p for word in heard], counts)
