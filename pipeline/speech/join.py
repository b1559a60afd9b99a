"""Joining neighboring segments into one longer clip, with all that is known of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from catalogs.vocabulary.languages import text_unit
from pipeline.records import Segment, Word
from pipeline.text.counts import count_characters, count_syllables

#: Notes that do not speak against a clip: what was done with a transcript that came with it, and where its file ends.
_HARMLESS = frozenset({"given_trimmed", "given_completed", "file_head", "file_tail"})


def is_sound(segment: Segment, least_logprob: float) -> bool:
    """Whether a segment may be part of a longer clip: with text that nothing speaks against, and a voice that is known."""
    if segment.hard_reasons or segment.failures or not (segment.text or "").strip() or segment.speaker is None:
        return False
    return not set(segment.flags) - _HARMLESS and (segment.asr_logprob is None or segment.asr_logprob >= least_logprob)


def fit_together(first: Segment, second: Segment, pause_s: float, cut_off: float) -> bool:
    """Whether two sound neighbors may be one clip: one voice, one language, one kind of text, a short pause between, and
    no word cut off where they meet. Edges: see `pipeline.quality.edges.measure_edges`."""
    same = ("source_id", "speaker", "language", "text_source", "separated")
    if any(getattr(first, name) != getattr(second, name) for name in same):
        return False
    if not -1e-9 <= second.start_s - first.end_s <= pause_s:
        return False
    return max(first.tail_edge or 0.0, second.head_edge or 0.0) <= cut_off


def joined(parts: Sequence[Segment]) -> Segment:
    """One segment from the start of the first to the end of the last, what is between included.

    Word times count from the new start. Probabilities are means by the number of words, what is a sign of a fault is the
    worst of the parts', and rates are recomputed over all words. `seq` and `segment_id` are the first one's: whoever joins
    gives new ones. Raises ValueError for fewer than two parts.
    """
    if len(parts) < 2:
        raise ValueError(f"joining needs two segments or more, not {len(parts)}")
    first, last = parts[0], parts[-1]
    space = " " if text_unit(first.language, first.text or "") == "word" else ""
    text = space.join((part.text or "").strip() for part in parts)
    words = [
        Word(word.word, word.start + shift, word.end + shift, word.p)
        for part in parts
        for shift in (part.start_s - first.start_s,)
        for word in part.words
    ]
    spoken = max(words[-1].end - words[0].start, 0.2) if words else last.end_s - first.start_s
    others = [part.other_text for part in parts]

    def mean(value: Callable[[Segment], float | None]) -> float | None:
        known = [(value(part), max(len(part.words), 1)) for part in parts]
        return _average([(number, weight) for number, weight in known if number is not None])

    def worst(value: Callable[[Segment], float | None]) -> float | None:
        return max((number for part in parts if (number := value(part)) is not None), default=None)

    embedding, purity = _voice(parts)
    return dataclasses.replace(
        first,
        end_s=last.end_s,
        language_p=mean(lambda s: s.language_p),
        text=text,
        words=words,
        asr_logprob=mean(lambda s: s.asr_logprob),
        no_speech_p=worst(lambda s: s.no_speech_p),
        compression_ratio=worst(lambda s: s.compression_ratio),
        agreement_cer=worst(lambda s: s.agreement_cer),
        other_text=space.join(t for t in others if t) or None,
        given_cer=mean(lambda s: s.given_cer),
        given_gain=mean(lambda s: s.given_gain),
        flags=list(dict.fromkeys(flag for part in parts for flag in part.flags)),
        chars_per_s=count_characters(text) / spoken,
        rate_sps=count_syllables(text) / spoken,
        embedding=embedding,
        speaker_purity=purity,
        tail_edge=last.tail_edge,
        clicks_per_s=_average([(s.clicks_per_s, s.duration_s) for s in parts if s.clicks_per_s is not None]),
    )


def _average(found: Sequence[tuple[float, float]]) -> float | None:
    return float(np.average([n for n, _ in found], weights=[w for _, w in found])) if found else None


def _voice(parts: Sequence[Segment]) -> tuple[np.ndarray | None, float | None]:
    """Print and purity: the mean by duration, and the smallest of the parts' purities.

    That the parts are of one voice is what their common speaker says: the short ones among them have prints too unsure to
    hold against the others.
    """
    prints = [(np.asarray(part.embedding), part) for part in parts if part.embedding is not None]
    if not prints:
        return None, None
    mean = np.sum([own * part.duration_s for own, part in prints], axis=0)
    mean = (mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32)
    return mean, min((part.speaker_purity for part in parts if part.speaker_purity is not None), default=None)
