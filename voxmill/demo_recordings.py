"""The demo's recordings: prompts joined into sessions with known words and cut points, two broken files, and one of music."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.durations import duration_text
from voxmill.demo_prompts import (
    LANGUAGES,
    RATE,
    DemoRecordingsUnavailable,
    SpokenPrompt,
    choose_prompts,
    unpack_packages,
)

__all__ = ["DemoRecordingsUnavailable", "DemoSet", "Prompt", "make_demo_recordings"]

#: Two recordings per language, each in another format: (ending, libsndfile's PCM subtype or FFmpeg's encoder).
_FORMATS = {
    "en": (("wav", "PCM_16"), ("flac", "PCM_16")),
    "es": (("m4a", "aac"), ("wav", "PCM_24")),
    "fr": (("ogg", "libopus"), ("mp3", "libmp3lame")),
    "it": (("mka", "libopus"), ("g722", "g722")),
    "ru": (("aiff", "PCM_16"), ("mp4", "aac")),
}
#: Sample rates (Hz) that differ from that of the prompts, and bit rates (bit/s) high enough not to cause recognition errors.
_ENCODER_RATES = {"libopus": 48_000}
_BIT_RATES = {"aac": 96_000, "libopus": 96_000, "libmp3lame": 128_000, "g722": 64_000}

_PAUSE_S = (0.25, 2.5)
_ROOM_NOISE_DB = -66.0
_SETTINGS = "made_with"


@dataclass(frozen=True)
class Prompt:
    """One prompt within a recording: its times in seconds and its text."""

    path: str
    language: str
    start_s: float
    end_s: float
    text: str
    name: str


@dataclass(frozen=True)
class DemoSet:
    """The demo's recordings. `gold`, the reference transcripts, is empty if the folder held the user's recordings."""

    folder: Path
    gold: tuple[Prompt, ...]
    broken: tuple[Path, ...]
    music: tuple[Path, ...]

    @property
    def gold_file(self) -> Path:
        """The list of prompts. It is beside the folder, so that it is not mistaken for a recording's transcript."""
        return self.folder.parent / "gold.jsonl"


def make_demo_recordings(
    folder: Path,
    minutes_per_language: float = 2.5,
    seed: int = 7,
    say: Callable[[str], None] = print,
    languages: Sequence[str] = LANGUAGES,
) -> DemoSet:
    """Join prompts with varied pauses into one session per language, and add two broken files and one of music.

    Writes `folder` and, beside it, `gold.jsonl`; the same minutes and seed give the same files. A folder that has files is used as
    it is: with reference transcripts if this function made it, without if the recordings are the user's. Raises ValueError for
    minutes out of range, and DemoRecordingsUnavailable if neither the cache nor apt has the packages.
    """
    if not 0 < minutes_per_language < 1000:
        raise ValueError(f"minutes per language must be above 0 and below 1000, not {minutes_per_language}")
    if unknown := [language for language in languages if language not in LANGUAGES]:
        raise ValueError(f"no prompts in {', '.join(unknown)}; languages: {', '.join(LANGUAGES)}")
    settings = {"minutes_per_language": minutes_per_language, "seed": seed}
    gold_file = folder.parent / "gold.jsonl"
    if folder.is_dir() and any(folder.iterdir()):
        return _use(folder, gold_file, settings, say)
    root = unpack_packages(say)
    # Made beside its place and renamed last: an existing folder is complete, and never mistaken for the user's recordings.
    making = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    gold: list[Prompt] = []
    for language in languages:
        prompts = choose_prompts(root, language, minutes_per_language * 60, random.Random(f"{seed}{language}"))
        say(f"  {language}: {len(prompts)} prompts, {duration_text(sum(p.duration_s for p in prompts))}")
        for part, (ending, encoder) in enumerate(_FORMATS[language]):
            half = prompts[part :: len(_FORMATS[language])]
            samples, starts = _join(half, random.Random(f"{seed}{language}{part}"))
            relative = f"{language}/part{part + 1}.{ending}"
            _write(making / relative, samples, encoder)
            gold += [
                Prompt(relative, language, start, start + prompt.duration_s, prompt.text, prompt.name)
                for prompt, start in zip(half, starts, strict=True)
            ]
    broken, music = _add_odds(making, seed)
    lines: list[dict[str, Any]] = [
        *(vars(prompt) for prompt in gold),
        {"broken": broken},
        {"music": music},
        {_SETTINGS: settings},
    ]
    temporary = gold_file.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    temporary.replace(gold_file)
    making.replace(folder)
    return DemoSet(folder, tuple(gold), tuple(folder / name for name in broken), tuple(folder / name for name in music))


def _use(folder: Path, gold_file: Path, settings: dict[str, Any], say: Callable[[str], None]) -> DemoSet:
    """Return the recordings in the folder, with what `gold.jsonl` has about the files that still exist."""
    gold: list[Prompt] = []
    odds: dict[str, tuple[Path, ...]] = {"broken": (), "music": ()}
    made_with = settings
    lines = gold_file.read_text(encoding="utf-8").splitlines() if gold_file.is_file() else []
    for line in lines:
        row: dict[str, Any] = json.loads(line)
        if "text" in row:
            gold.append(Prompt(**row))
        elif _SETTINGS in row:
            made_with = row[_SETTINGS]
        else:
            odds |= {kind: tuple(folder / name for name in names) for kind, names in row.items()}
    known = {prompt.path for prompt in gold}
    gone = {path for path in known if not (folder / path).is_file()}
    if known == gone:
        say(f"using the recordings that are in {folder}")
        return DemoSet(folder, (), (), ())
    if gone:
        say(f"  {len(gone)} of the demo's recordings are missing from {folder}: they are left out")
    if made_with != settings:
        had = " and ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in made_with.items())
        say(f"  {folder} was made with {had} and is used as it is; remove it to have another")
    return DemoSet(
        folder,
        tuple(prompt for prompt in gold if prompt.path not in gone),
        tuple(path for path in odds["broken"] if path.is_file()),
        tuple(path for path in odds["music"] if path.is_file()),
    )


def _join(prompts: Sequence[SpokenPrompt], dice: random.Random) -> tuple[np.ndarray, list[float]]:
    """Join prompts with pauses of 0.25 to 2.5 s and faint room noise; return samples `[S] float32` and the start of each in s."""
    noise = np.random.default_rng(dice.randrange(2**32))
    parts = [np.zeros(round(dice.uniform(0.3, 1.0) * RATE), dtype=np.float32)]
    starts = []
    position = len(parts[0])
    for prompt in prompts:
        starts.append(position / RATE)
        pause = np.zeros(round(dice.uniform(*_PAUSE_S) * RATE), dtype=np.float32)
        parts += [prompt.samples, pause]
        position += len(prompt.samples) + len(pause)
    joined = np.concatenate(parts)
    # The noise is everywhere, not only in the pauses: real room noise does not stop while somebody speaks.
    joined += noise.normal(0, 10 ** (_ROOM_NOISE_DB / 20), len(joined)).astype(np.float32)
    return np.clip(joined, -1, 1), starts


def _write(path: Path, samples: np.ndarray, encoder: str) -> None:
    """Write mono 16 kHz samples `[S] float32` in the format that the ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if encoder.startswith("PCM_"):
        import soundfile

        soundfile.write(path, samples, RATE, subtype=encoder)
        return
    import av

    rate = _ENCODER_RATES.get(encoder, RATE)
    # Without bitexact the containers hold random serial numbers, so the same seed would give other files.
    with av.open(str(path), "w", options={"fflags": "bitexact"}) as container:
        stream: Any = container.add_stream(encoder, rate=rate, layout="mono")
        stream.bit_rate = _BIT_RATES[encoder]
        resampler = av.AudioResampler(format=stream.codec_context.format or "fltp", layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(np.rint(samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        # Without timestamps, MP4 gets no edit list, which removes the encoder's delay (64 ms).
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))


def _add_odds(folder: Path, seed: int) -> tuple[list[str], list[str]]:
    """Write broken files (two if there is Spanish) and one of music; return their paths within the folder."""
    import soundfile

    broken, music = ["odds/notes.wav"], ["odds/tune.flac"]
    (folder / "odds").mkdir(parents=True, exist_ok=True)
    m4a = folder / "es" / "part1.m4a"
    if m4a.is_file():
        # The index of an MP4 is at its end, so a truncated copy cannot be read.
        broken.insert(0, "odds/cut_off.m4a")
        whole = m4a.read_bytes()
        (folder / broken[0]).write_bytes(whole[: len(whole) // 3])
    (folder / broken[-1]).write_text("These are the notes of the meeting; somebody saved them under the wrong name.\n")
    soundfile.write(folder / music[0], _tune(seed), 44_100, subtype="PCM_16")
    return broken, music


def _tune(seed: int) -> np.ndarray:
    """Return twenty seconds of chords and a beat, `[S] float32` at 44.1 kHz."""
    rate, dice = 44_100, np.random.default_rng(seed)
    time = np.arange(20 * rate) / rate
    tune = np.zeros(len(time))
    chords = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7), (164.8, 196.0, 246.9))
    struck = [np.zeros(len(time)) for _ in chords]
    for sound, chord in zip(struck, chords, strict=True):
        for tone in chord:
            for overtone in (1, 2, 3):
                sound += np.exp(-3 * time) * np.sin(2 * np.pi * tone * overtone * time) / overtone
    click = np.exp(-60 * time)
    for beat in range(40):
        left = len(time) - round(beat * 0.5 * rate)
        noise = dice.normal(size=left) * click[:left] * (1.0 if beat % 2 else 0.4)
        tune[len(time) - left :] += struck[beat // 4 % 4][:left] + noise
    return (0.3 * tune / np.abs(tune).max()).astype(np.float32)
