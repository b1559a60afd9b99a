"""Which language is spoken in a recording, and where a segment of it is in another."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from catalogs.nearest import nearest
from catalogs.vocabulary.languages import dialect, dialects, languages
from catalogs.vocabulary.languages import language as known_language
from pipeline.records import PCM_RATE, Segment, Session

#: Below this a clip says too little about its language to speak against its recording.
LEAST_S = 1.5
_WINDOW_S, _FULL_S = 30, 8
#: A code outside the catalog: ISO 639 with whatever parts BCP 47 lets follow.
_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")


@dataclass(frozen=True)
class DetectedLanguage:
    """A language with its probability. `given`: a person said so. `mixed`: windows of the recording disagree."""

    language: str
    p: float
    given: bool = False
    mixed: bool = False


def catalog_code(code: str) -> str:
    """A recognizer's code as the catalog has it: one of the 30 by its own code, dialects and all others as they are."""
    known = known_language(code)
    return known.code if known and dialect(code) is None else code


def language_code(name: str | None) -> str | None:
    """What a person wrote for a language as a code: codes as they are, English names and the tags of dialects
    (`Spanish`, `四川话`, `Sichuanese`) by the catalog. None for a word that names no language the catalog knows."""
    plain = (name or "").strip()
    named = dialect(plain)
    if named and plain.casefold() == named.key:
        return named.codes[0]
    if not plain or named or known_language(plain):
        return plain or None
    for code, one in languages().items():
        if plain.casefold() == one.name.casefold():
            return code
    for other in dialects().values():
        if plain == other.tag or plain.casefold() == other.name.casefold():
            return other.codes[0]
    return plain if _CODE.fullmatch(plain) else None


def nearest_language(name: str) -> str | None:
    """The known language with the name or code most like a word, as `German (de)`; None where none is like it."""
    codes = {one.name.casefold(): f"{one.name} ({code})" for code, one in languages().items()}
    codes |= {code.casefold(): f"{one.name} ({code})" for code, one in languages().items()}
    near = nearest(name.strip(), codes)
    return codes[near] if near else None


def vote(windows: Sequence[np.ndarray], detect: Callable[[np.ndarray], dict[str, float]]) -> DetectedLanguage | None:
    """The language of a recording by the mean probability over windows of its speech; None without any."""
    if not windows:
        return None
    votes: dict[str, float] = defaultdict(float)
    winners = set()
    for window in windows:
        found: dict[str, float] = defaultdict(float)
        for code, p in detect(window).items():
            found[catalog_code(code)] += p
        best = max(found, key=lambda code: found[code])
        if found[best] >= 0.5:
            winners.add(best)
        for code, p in found.items():
            votes[code] += p / len(windows)
    language = max(votes, key=lambda code: votes[code])
    return DetectedLanguage(language, votes[language], mixed=len(winners) > 1)


def of_segment(spoken: DetectedLanguage, detected: dict[str, float], least_p: float) -> DetectedLanguage:
    """The language of one segment: that of its recording, unless the segment alone says another with at least `least_p`."""
    found: dict[str, float] = defaultdict(float)
    for code, p in detected.items():
        found[catalog_code(code)] += p
    best = max(found, key=lambda code: found[code])
    if best == spoken.language or found[best] < least_p:
        return spoken
    return DetectedLanguage(best, found[best])


def speech_windows(session: Session, source_id: str, count: int) -> list[np.ndarray]:
    """Up to `count` windows of at most 30 s of a recording's speech, evenly spread: float32 [S] at 16 kHz."""
    segments = [segment for segment in session.alive() if segment.source_id == source_id]
    if not segments:
        return []
    chosen = sorted({round(i) for i in np.linspace(0, len(segments) - 1, min(count, len(segments)))})
    return [_window(session, segments[index:]) for index in chosen]


def _window(session: Session, segments: Sequence[Segment]) -> np.ndarray:
    parts: list[np.ndarray] = []
    length = 0
    # A short segment says little about its language: what follows it is added.
    for segment in segments:
        if length >= _FULL_S * PCM_RATE:
            break
        parts.append(session.audio(segment))
        length += len(parts[-1])
    return np.concatenate(parts)[: _WINDOW_S * PCM_RATE]
