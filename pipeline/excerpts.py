"""A few minutes that stand for many hours: excerpts of recordings, cut in pauses."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.audio_file import AudioFileError, probe, stream_mono
from pipeline.containers.spool import fetch
from pipeline.cuts.quiet import quietest
from pipeline.places import is_location
from pipeline.records import Source

EXCERPT_S = 40.0
_LONGEST_SKIP_S = 1800.0
"""Excerpts come from the first half hour of a file that can only be read from its beginning."""
_MARGIN_S, _PAUSE_S = 4.0, 0.25
"""How far around an excerpt its cut is looked for, and how long a pause should be there. Cut within words, the pieces at the ends
would be more segments than there are, of worse quality, and heard twice by the recogniser for its doubts."""


@dataclass(frozen=True)
class Piece:
    """A part of a recording, in seconds."""

    source: Source
    start_s: float
    length_s: float


def draw_excerpts(
    recordings: Sequence[tuple[Source, float]], sample_s: float, dice: random.Random
) -> list[list[Piece]]:
    """Excerpts of about 40 s of recordings with their lengths; short recordings make one together.

    Each stratum (folder, ending) gets its share of the seconds by largest remainder; within it the starts are spread evenly
    over its recordings laid end to end, at a random phase.
    """
    strata: dict[tuple[str, str], list[tuple[Source, float]]] = defaultdict(list)
    for source, length in recordings:
        name = Path(source.relative_path)
        strata[(name.parts[0] if len(name.parts) > 1 else "", name.suffix.lower())].append((source, length))
    total = sum(length for _, length in recordings)
    count = max(3, round(min(sample_s, total) / EXCERPT_S))
    shares = {key: count * sum(length for _, length in items) / total for key, items in strata.items()}
    given = {key: int(share) for key, share in shares.items()}
    for key in sorted(shares, key=lambda k: (given[k] - shares[k], k))[: count - sum(given.values())]:
        given[key] += 1
    excerpts = []
    for key in sorted(strata):
        items = sorted(strata[key], key=lambda item: dice.random())
        length = sum(seconds for _, seconds in items)
        phase = dice.random()
        excerpts += [_excerpt_at(items, (index + phase) * length / given[key]) for index in range(given[key])]
    return excerpts


def _excerpt_at(items: Sequence[tuple[Source, float]], at: float) -> list[Piece]:
    """The excerpt from `at` seconds of the recordings laid end to end."""
    index = 0
    while index < len(items) - 1 and at >= items[index][1]:
        at -= items[index][1]
        index += 1
    source, seconds = items[index]
    if seconds >= EXCERPT_S:
        # It may not reach over the end, or the ends would be heard too seldom.
        return [Piece(source, max(0.0, min(at, seconds - EXCERPT_S)), EXCERPT_S)]
    pieces: list[Piece] = []
    for source, seconds in [*items[index:], *items[:index]]:
        if sum(piece.length_s for piece in pieces) + seconds > 1.25 * EXCERPT_S:
            break
        pieces.append(Piece(source, 0.0, seconds))
    return pieces


def write_piece(piece: Piece, path: Path, scratch: Path) -> float:
    """Write a piece as a WAV at its native rate, its ends moved into pauses; its length in seconds, 0 where it cannot be read."""
    import soundfile

    try:
        audio, rate, lead = _read(piece, scratch)
        if not len(audio):
            return 0.0
        first = quietest(audio[:lead], round(_PAUSE_S * rate)) if lead else 0
        end = lead + round(piece.length_s * rate)
        last = end + quietest(audio[end:], round(_PAUSE_S * rate)) if len(audio) - end > _PAUSE_S * rate else len(audio)
        soundfile.write(path, np.clip(audio[first:last], -1.0, 1.0), rate, subtype="PCM_16")
    except (AudioFileError, OSError, RuntimeError):
        return 0.0
    return (last - first) / rate


def _read(piece: Piece, scratch: Path) -> tuple[np.ndarray, int, int]:
    """(the piece with margins where the recording goes on, float32 [S]; rate; samples of the margin before it)."""
    import soundfile

    file = str(fetch(piece.source, scratch)) if is_location(piece.source.path) else piece.source.path
    info = probe(file)
    rate = info.sample_rate
    if info.reader == "soundfile":
        with soundfile.SoundFile(file) as sound:
            wanted = min(round(piece.start_s * rate), max(0, sound.frames - round(piece.length_s * rate)))
            lead = min(wanted, round(_MARGIN_S * rate))
            sound.seek(wanted - lead)
            count = lead + round((piece.length_s + _MARGIN_S) * rate)
            return sound.read(count, dtype="float32", always_2d=True).mean(axis=1), rate, lead
    skip = round(min(piece.start_s, _LONGEST_SKIP_S) * rate)
    lead = min(skip, round(_MARGIN_S * rate))
    end = skip + round((piece.length_s + _MARGIN_S) * rate)
    parts, have = [np.zeros(0, np.float32)], 0
    for chunk in stream_mono(file, info):
        have += len(chunk)
        parts.append(chunk)
        if have >= end:
            break
    audio = np.concatenate(parts)[skip - lead : end]
    return (audio, rate, lead) if len(audio) > lead else (audio[:0], rate, 0)
