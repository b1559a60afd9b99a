"""The language of a recording, and segments of it in another language."""

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

#: Seconds below which a clip is too short to contradict the language of its recording.
LEAST_S = 1.5
_WINDOW_S, _FULL_S = 30, 8
#: A code outside the catalog: ISO 639 with the parts that BCP 47 allows after it.
_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")


@dataclass(frozen=True)
class DetectedLanguage:
    """A language with its probability. `given`: the user named it. `mixed`: windows of the recording disagree."""

    language: str
    p: float
    given: bool = False
    mixed: bool = False


def catalog_code(code: str) -> str:
    """Return a recognizer's code as the catalog has it: the catalog's code for one of the 30 languages, dialects and all
    others unchanged."""
    known = known_language(code)
    return known.code if known and dialect(code) is None else code


def language_code(name: str | None) -> str | None:
    """Return the code of a language that the user named: codes unchanged, English names and the tags of dialects
    (`Spanish`, `四川话`, `Sichuanese`) by the catalog. None for a word that is not a language of the catalog or a code."""
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
    """Return the known language whose name or code is most similar to a word, as `German (de)`; None if none is similar."""
    codes = {one.name.casefold(): f"{one.name} ({code})" for code, one in languages().items()}
    codes |= {code.casefold(): f"{one.name} ({code})" for code, one in languages().items()}
    near = nearest(name.strip(), codes)
    return codes[near] if near else None


def vote(windows: Sequence[np.ndarray], detect: Callable[[np.ndarray], dict[str, float]]) -> DetectedLanguage | None:
    """Return the language of a recording by the mean probability over windows of its speech; None without windows."""
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
    """Return the language of one segment: that of its recording, unless the segment alone has another with at least
    `least_p`."""
    found: dict[str, float] = defaultdict(float)
    for code, p in detected.items():
        found[catalog_code(code)] += p
    best = max(found, key=lambda code: found[code])
    if best == spoken.language or found[best] < least_p:
        return spoken
    return DetectedLanguage(best, found[best])


def speech_windows(session: Session, source_id: str, count: int) -> list[np.ndarray]:
    """Return up to `count` windows of at most 30 s of a recording's speech, evenly spread: float32 [S] at 16 kHz."""
    segments = [segment for segment in session.alive() if segment.source_id == source_id]
    if not segments:
        return []
    chosen = sorted({round(i) for i in np.linspace(0, len(segments) - 1, min(count, len(segments)))})
    return [_window(session, segments[index:]) for index in chosen]


def _window(session: Session, segments: Sequence[Segment]) -> np.ndarray:
    parts: list[np.ndarray] = []
    length = 0
    # A short segment is weak evidence of its language: the segments after it are added.
    for segment in segments:
        if length >= _FULL_S * PCM_RATE:
            break
        parts.append(session.audio(segment))
        length += len(parts[-1])
    return np.concatenate(parts)[: _WINDOW_S * PCM_RATE]
