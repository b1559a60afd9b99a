"""Join neighboring segments into one longer clip, with all that is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from catalogs.corpus.columns import Join, Measures
from catalogs.vocabulary.languages import text_unit
from pipeline.records import Segment, Word
from pipeline.text.counts import count_characters, count_syllables

#: Flags that do not exclude a clip: what was done with its given transcript, and that its file ends there.
_HARMLESS = frozenset({"given_trimmed", "given_completed", "file_head", "file_tail"})


def is_sound(segment: Segment, least_logprob: float) -> bool:
    """Return True if a segment may be part of a longer clip: it has a text without doubts, and a known speaker."""
    if segment.hard_reasons or segment.failures or not (segment.text or "").strip() or segment.speaker is None:
        return False
    return not set(segment.flags) - _HARMLESS and (segment.asr_logprob is None or segment.asr_logprob >= least_logprob)


def fit_together(first: Segment, second: Segment, pause_s: float, cut_off: float) -> bool:
    """Return True if two sound neighbors may be one clip: one voice, one language, one kind of text, a short pause between
    them, and no word cut off at the ends that meet. Edges: see `pipeline.quality.edges.measure_edges`."""
    same = (name for name, rule in Measures.joining().items() if rule is Join.SAME)
    if any(getattr(first, name) != getattr(second, name) for name in ("source_id", *same)):
        return False
    if not -1e-9 <= second.start_s - first.end_s <= pause_s:
        return False
    return max(first.tail_edge or 0.0, second.head_edge or 0.0) <= cut_off


def joined(parts: Sequence[Segment]) -> Segment:
    """Return one segment from the start of the first to the end of the last, including what is between.

    Word times count from the new start. Each measure follows the rule of its declaration (`catalogs.corpus.columns.Join`);
    `extra` has none and is empty. `seq` and `segment_id` are the first one's: the caller sets new ones. Raises ValueError
    for fewer than two parts.
    """
    if len(parts) < 2:
        raise ValueError(f"joining needs two segments or more, not {len(parts)}")
    first, last = parts[0], parts[-1]
    words = [
        Word(word.word, word.start + shift, word.end + shift, word.p)
        for part in parts
        for shift in (part.start_s - first.start_s,)
        for word in part.words
    ]
    whole = dataclasses.replace(
        first,
        end_s=last.end_s,
        words=words,
        flags=list(dict.fromkeys(flag for part in parts for flag in part.flags)),
        embedding=_voice(parts),
        extra={},
        **{name: _JOINS[rule](parts, name) for name, rule in Measures.joining().items() if rule in _JOINS},
    )
    spoken = max(words[-1].end - words[0].start, 0.2) if words else whole.duration_s
    for name in (name for name, rule in Measures.joining().items() if rule is Join.FROM_TEXT):
        setattr(whole, name, _COUNTS[name](whole.text or "") / spoken)
    return whole


def _known(parts: Sequence[Segment], name: str) -> list[float]:
    return [value for part in parts if (value := getattr(part, name)) is not None]


def _mean(parts: Sequence[Segment], name: str, weight: Callable[[Segment], float]) -> float | None:
    weights = [weight(part) for part in parts if getattr(part, name) is not None]
    return float(np.average(_known(parts, name), weights=weights)) if weights else None


def _texts(parts: Sequence[Segment], name: str) -> str | None:
    space = " " if text_unit(parts[0].language, parts[0].text or "") == "word" else ""
    return space.join(text for part in parts if (text := (getattr(part, name) or "").strip())) or None


_JOINS: dict[Join, Callable[[Sequence[Segment], str], Any]] = {
    Join.UNKNOWN: lambda parts, name: None,
    Join.LAST: lambda parts, name: getattr(parts[-1], name),
    Join.MEAN: lambda parts, name: _mean(parts, name, lambda part: max(len(part.words), 1)),
    Join.MEAN_BY_TIME: lambda parts, name: _mean(parts, name, lambda part: part.duration_s),
    Join.GREATEST: lambda parts, name: max(_known(parts, name), default=None),
    Join.LEAST: lambda parts, name: min(_known(parts, name), default=None),
    Join.TEXT: _texts,
}
_COUNTS = {"chars_per_s": count_characters, "rate_sps": count_syllables}
"""Functions that count in the joined text, for the measures that are `Join.FROM_TEXT`."""


def _voice(parts: Sequence[Segment]) -> np.ndarray | None:
    """Return the unit-length float32 mean of the voiceprints by duration; None if no part has one.

    Their common speaker shows that the parts are of one voice. The voiceprints of short parts are not reliable enough to
    contradict that.
    """
    prints = [np.asarray(part.embedding) * part.duration_s for part in parts if part.embedding is not None]
    if not prints:
        return None
    mean = np.sum(prints, axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)
