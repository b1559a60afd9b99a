"""The spoken text: counts, comparison of two texts, alignment of a given transcript, and signs of invented text."""

from pipeline.text.align import share_out, share_spans
from pipeline.text.compare import comparable, error_rate, word_error_rate
from pipeline.text.counts import count_characters, count_syllables, rate_is_unusual

__all__ = [
    "comparable",
    "count_characters",
    "count_syllables",
    "error_rate",
    "rate_is_unusual",
    "share_out",
    "share_spans",
    "word_error_rate",
]
