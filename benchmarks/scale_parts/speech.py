"""What is said and heard in the clips of a block: words, texts, fingerprints, voiceprints and audio."""

from __future__ import annotations

import io
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.corpus.columns import WORD
from catalogs.corpus.schema import SEGMENTS
from pipeline.duplicates.audio_print import HOP, WIDTH
from pipeline.records import PCM_RATE

LANGUAGES = ("en", "zh", "de", "es", "fr", "ja", "pt", "ru", "ko", "it")
LINES = 40
"""Lines in each language that many clips speak, e.g. the greeting of a show."""
_WORDS = 3_000
_CLIPS = 32
_VOICEPRINT = 256
"""Numbers of a voiceprint."""


@cache
def _vocabulary() -> tuple[pa.Array, pa.Array]:
    """Return (the words of all languages, one language after the other; what stands between the words of each language)."""
    rng = np.random.default_rng(7)
    sounds = [a + b for a in "bdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    found: list[str] = []
    for language in LANGUAGES:
        if language in ("zh", "ja"):
            found += ["".join(map(chr, rng.integers(0x4E00, 0x5E00, 2))) for _ in range(_WORDS)]
        else:
            ends = np.cumsum(rng.integers(1, 4, _WORDS))
            drawn = rng.choice(sounds, int(ends[-1])).tolist()
            found += ["".join(drawn[a:b]) for a, b in pairwise([0, *ends.tolist()])]
    between = pa.array(["" if language in ("zh", "ja") else " " for language in LANGUAGES])
    return pa.array(found), between


def texts(
    rng: np.random.Generator, seconds: np.ndarray, language: np.ndarray, text_of: np.ndarray, hard: np.ndarray
) -> tuple[pa.Array, pa.Array]:
    """Return (WORD lists, texts) of the segments. text_of: the row whose words each speaks; beyond the rows: the common lines."""
    vocabulary, between = _vocabulary()
    lines = np.random.default_rng(11).integers(4, 9, len(LANGUAGES) * LINES)
    counts = np.concatenate(
        [np.maximum(1, np.rint(seconds * rng.normal(2.6, 0.4, len(seconds)))).astype(np.int64), lines]
    )
    spoken = np.concatenate([language, np.repeat(np.arange(len(LANGUAGES)), LINES)])
    ends = np.concatenate([[0], np.cumsum(counts)])
    drawn = np.floor(_WORDS * rng.random(int(ends[-1])) ** 3).astype(np.int64)
    fixed = int(ends[len(seconds)])
    drawn[fixed:] = np.floor(_WORDS * np.random.default_rng(13).random(len(drawn) - fixed) ** 3)
    flat = vocabulary.take(pa.array(drawn + np.repeat(spoken, counts) * _WORDS))
    said = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat).take(pa.array(text_of))
    text = pc.binary_join(said, between.take(pa.array(spoken[text_of])))
    number = pc.list_value_length(said).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(number)])
    row = np.repeat(np.arange(len(seconds)), number)
    step = (seconds / number)[row]
    begin = (np.arange(len(row)) - offsets[row]) * step
    values = pa.StructArray.from_arrays(
        [
            pc.list_flatten(said),
            _floats(begin),
            _floats(begin + 0.9 * step),
            _floats(rng.beta(8, 1, len(row))),
        ],
        fields=list(WORD),
    )
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values), masked(text, hard)


def audio_prints(
    rng: np.random.Generator, seconds: np.ndarray, copied: np.ndarray, hard: np.ndarray
) -> tuple[pa.Array, np.ndarray]:
    """Return (fingerprints, the row whose samples each clip has). Of the copies, half are exact, half went through a codec."""
    counts = np.where(hard, 0, np.maximum(0, (seconds * PCM_RATE).astype(np.int64) - WIDTH) // HOP - 2).clip(0)
    ends = np.concatenate([[0], np.cumsum(counts)])
    words = rng.integers(1, 1 << 16, int(ends[-1]), dtype=np.uint16)
    exact = np.arange(len(seconds))
    for place in np.flatnonzero(copied != exact).tolist():
        own = slice(ends[place], ends[place + 1])
        first = int(ends[copied[place]])
        words[own] = words[first : first + int(counts[place])]
        if rng.random() < 0.5:
            exact[place] = copied[place]
        else:
            words[own] ^= (1 << rng.integers(0, 16, int(counts[place]))).astype(np.uint16)
    found = pa.Array.from_buffers(
        pa.binary(), len(seconds), [None, pa.py_buffer((2 * ends).astype("<i4")), pa.py_buffer(words)]
    )
    return masked(found, hard), exact


def heavy_columns(
    rng: np.random.Generator, ids: list[str], words: pa.Array, prints: pa.Array, voice: np.ndarray, hard: np.ndarray
) -> pa.Table:
    """Return the columns of a shard that an index lacks. A voice has clips around one voiceprint."""
    centers = rng.normal(0, 1, (int(voice.max()) + 1, _VOICEPRINT)).astype(np.float32)
    vectors = centers[voice] + 0.35 * rng.normal(0, 1, (len(ids), _VOICEPRINT)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ends = pa.array(np.arange(len(ids) + 1) * _VOICEPRINT, pa.int32())
    flac = _clips().take(pa.array(rng.integers(0, _CLIPS, len(ids))))
    names = pc.binary_join_element_wise(pa.array(ids), ".flac", "")
    audio = pa.StructArray.from_arrays([flac, names], names=["bytes", "path"], mask=pa.array(hard))
    columns = {
        "words": words,
        "embedding": pa.ListArray.from_arrays(ends, pa.array(vectors.ravel())),
        "audio_print": prints,
        "audio": audio,
    }
    return pa.table({name: values.cast(SEGMENTS.field(name).type) for name, values in columns.items()})


@cache
def _clips() -> pa.Array:
    """Return short FLAC clips, the same for all segments: 0.2 s instead of the seconds that a row says."""
    import soundfile

    rng = np.random.default_rng(3)
    times = np.arange(PCM_RATE // 5) / PCM_RATE
    found = []
    for pitch in np.linspace(90, 300, _CLIPS):
        samples = 0.3 * np.sin(2 * np.pi * pitch * times) + rng.normal(0, 0.003, len(times))
        sink = io.BytesIO()
        soundfile.write(sink, samples, PCM_RATE, format="FLAC", subtype="PCM_16")
        found.append(sink.getvalue())
    return pa.array(found, pa.binary())


def masked(values: pa.Array, out: np.ndarray) -> pa.Array:
    """Return values that are null where `out` is true."""
    return pc.if_else(pa.array(~out), values, pa.scalar(None, values.type))


def _floats(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(np.float32))
