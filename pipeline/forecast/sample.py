"""Excerpts of recordings, cut in pauses: a few minutes that represent many hours."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catalogs.files import has_no_space, is_full_disk
from catalogs.urls import is_location
from pipeline.audio.open import AudioFileError, probe, read_chunks
from pipeline.audio.probe import AudioInfo
from pipeline.inputs.spool import fetch
from pipeline.records import Source
from pipeline.speech.quiet import quietest

EXCERPT_S = 40.0
_LONGEST_SKIP_S = 1800.0
"""Excerpts come from the first half hour of a file that can only be read from its beginning."""
_MARGIN_S, _PAUSE_S = 4.0, 0.25
"""Seconds around an excerpt in which its cuts are searched, and seconds of pause that a cut should have. If words were cut,
the pieces at the ends would be additional segments of worse quality, which the recognizer would process twice because of
its doubts."""
_STRETCHES, _STRETCH_S = 4, 10.0
"""Number and seconds of the stretches by which a recording is surveyed: as many as windows vote for its language."""


@dataclass(frozen=True)
class Excerpt:
    """A part of a recording, in seconds."""

    source: Source
    start_s: float
    length_s: float


def draw_excerpts(
    recordings: Sequence[tuple[Source, float]], sample_s: float, dice: random.Random
) -> list[list[Excerpt]]:
    """Draw excerpts of about 40 s from recordings with their lengths; short recordings are put together into one excerpt.

    Places are spread evenly, at a random phase, over all recordings laid end to end, with those of one stratum (folder,
    ending) side by side. Each stratum gets its share of the seconds to within one excerpt. One that is too small for an
    excerpt gets it with a probability in proportion to its size.
    """
    strata: dict[tuple[str, str], list[tuple[Source, float]]] = defaultdict(list)
    for source, length in recordings:
        name = Path(source.relative_path)
        strata[(name.parts[0] if len(name.parts) > 1 else "", name.suffix.lower())].append((source, length))
    total = sum(length for _, length in recordings)
    count = max(3, round(min(sample_s, total) / EXCERPT_S))
    phase = dice.random()
    places = [(index + phase) * total / count for index in range(count)]
    excerpts, before = [], 0.0
    for key in sorted(strata):
        items = sorted(strata[key], key=lambda item: dice.random())
        length = sum(seconds for _, seconds in items)
        excerpts += [_excerpt_at(items, at - before) for at in places if before <= at < before + length]
        before += length
    return excerpts


def _excerpt_at(items: Sequence[tuple[Source, float]], at: float) -> list[Excerpt]:
    """Return the excerpt from `at` seconds of the recordings laid end to end."""
    index = 0
    while index < len(items) - 1 and at >= items[index][1]:
        at -= items[index][1]
        index += 1
    source, seconds = items[index]
    if seconds >= EXCERPT_S:
        # It must not extend past the end, otherwise the ends would be sampled too rarely.
        return [Excerpt(source, max(0.0, min(at, seconds - EXCERPT_S)), EXCERPT_S)]
    pieces: list[Excerpt] = []
    for source, seconds in [*items[index:], *items[:index]]:
        have = sum(piece.length_s for piece in pieces)
        if have >= EXCERPT_S:
            break
        if have + seconds <= 1.25 * EXCERPT_S:
            pieces.append(Excerpt(source, 0.0, seconds))
    return pieces


def write_piece(piece: Excerpt, path: Path, scratch: Path) -> float:
    """Write a piece as a WAV with the rate and channels of its file, with its ends moved into pauses. Return its length in
    seconds, 0 if it cannot be read."""
    import soundfile

    try:
        file, info = _open(piece.source, scratch)
        rate = info.sample_rate
        start_s = _within(piece, _reach_s(info))
        lead_s = min(start_s, _MARGIN_S)
        (audio,) = _read(file, info, [(start_s - lead_s, start_s + piece.length_s + _MARGIN_S)])
        lead = round(lead_s * rate)
        if len(audio) <= lead:
            return 0.0
        mono = audio.mean(axis=1)
        first = quietest(mono[:lead], round(_PAUSE_S * rate)) if lead else 0
        end = lead + round(piece.length_s * rate)
        last = end + quietest(mono[end:], round(_PAUSE_S * rate)) if len(mono) - end > _PAUSE_S * rate else len(mono)
        soundfile.write(path, np.clip(audio[first:last], -1.0, 1.0), rate, subtype="PCM_16")
    except (AudioFileError, OSError, RuntimeError) as error:
        _refuse_full_disk(error, path.parent)
        return 0.0
    return (last - first) / rate


def write_survey(source: Source, length_s: float, path: Path, scratch: Path) -> bool:
    """Write four stretches from the whole of a recording of `length_s` seconds as one WAV. Return False if they cannot be
    read."""
    import soundfile

    try:
        file, info = _open(source, scratch)
        step_s = min(length_s, _reach_s(info)) / _STRETCHES
        starts = [max(0.0, (index + 0.5) * step_s - _STRETCH_S / 2) for index in range(_STRETCHES)]
        audio = np.concatenate(_read(file, info, [(start, start + min(step_s, _STRETCH_S)) for start in starts]))
        soundfile.write(path, np.clip(audio, -1.0, 1.0), info.sample_rate, subtype="PCM_16")
    except (AudioFileError, OSError, RuntimeError) as error:
        _refuse_full_disk(error, path.parent)
        return False
    return len(audio) > 0


def _refuse_full_disk(error: Exception, folder: Path) -> None:
    """Raise ValueError if the disk is full: then the recording is not at fault."""
    if is_full_disk(error) or has_no_space(folder):
        raise ValueError(f"no space left in {folder} for excerpts: set TMPDIR to a folder with some") from None


def _within(piece: Excerpt, reach_s: float) -> float:
    """Return where a piece is read from, in seconds. Places beyond `reach_s` are folded back, so that they stay apart."""
    room_s = max(0.0, reach_s - piece.length_s)
    return piece.start_s if piece.start_s <= room_s else piece.start_s % room_s if room_s > 0 else 0.0


def _open(source: Source, scratch: Path) -> tuple[str, AudioInfo]:
    file = str(fetch(source, scratch)) if is_location(source.path) else source.path
    return file, probe(file)


def _reach_s(info: AudioInfo) -> float:
    """Return how far into a file it is worth reading, in seconds."""
    return info.duration_s if info.reader == "soundfile" else _LONGEST_SKIP_S


def _read(file: str, info: AudioInfo, spans: Sequence[tuple[float, float]]) -> list[np.ndarray]:
    """Return float32 [S, C] of each span, (start, end) in seconds in the order of their starts; a span may end with the
    file."""
    import soundfile

    places = [(round(start * info.sample_rate), round(end * info.sample_rate)) for start, end in spans]
    if info.reader == "soundfile":
        with soundfile.SoundFile(file) as sound:
            found = []
            for first, last in places:
                sound.seek(min(first, sound.frames))
                found.append(sound.read(last - first, dtype="float32", always_2d=True))
            return found
    parts: list[list[np.ndarray]] = [[np.zeros((0, info.channels), np.float32)] for _ in places]
    have = 0
    for chunk in read_chunks(file, info):
        for part, (first, last) in zip(parts, places, strict=True):
            part.append(chunk[max(0, first - have) : max(0, last - have)])
        have += len(chunk)
        if have >= places[-1][1]:
            break
    return [np.concatenate(part) for part in parts]
