"""The demo's recordings: studio prompts of Debian's Asterisk packages, joined into sessions whose every word is known."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000
LANGUAGES = ("en", "es", "fr", "it", "ru")

#: Two recordings a language, each in another container: (ending, soundfile subtype or PyAV codec).
_FORMATS = {
    "en": (("wav", "PCM_16"), ("flac", "PCM_16")),
    "es": (("m4a", "aac"), ("wav", "PCM_24")),
    "fr": (("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III")),
    "it": (("mka", "libopus"), ("flac", "PCM_16")),
    "ru": (("aiff", "PCM_16"), ("mp4", "aac")),
}
_AV_RATES = {"libopus": 48_000}


class DemoRecordingsUnavailable(RuntimeError):  # noqa: N818 - a state of the machine, not a fault
    """The packages cannot be had here; the message says what to put in the folder instead."""


@dataclass(frozen=True)
class Prompt:
    """One prompt within a recording: where (seconds) and what is said."""

    path: str
    language: str
    start_s: float
    end_s: float
    text: str
    name: str


@dataclass(frozen=True)
class DemoSet:
    """What was made. `gold` is empty where the folder held recordings of somebody's own."""

    folder: Path
    gold: tuple[Prompt, ...]
    broken: tuple[Path, ...]
    music: tuple[Path, ...]


def make_demo_recordings(
    folder: Path, minutes_per_language: float = 2.5, seed: int = 7, say: Callable[[str], None] = print
) -> DemoSet:
    """Join prompts with varied pauses into one session a language, and add two broken files and one of music.

    Writes `folder` and `gold.jsonl` beside it; a folder that is complete already is used as it is. Raises
    DemoRecordingsUnavailable where the packages can be had neither from the cache nor from apt.
    """
    gold_file = folder.parent / "gold.jsonl"
    if gold_file.is_file():
        return _read(folder, gold_file)
    if folder.is_dir() and any(folder.iterdir()):
        say(f"using the recordings that are in {folder}")
        return DemoSet(folder, (), (), ())
    root = _packages(say)
    gold: list[Prompt] = []
    for language in LANGUAGES:
        prompts = _choose(root, language, minutes_per_language * 60, random.Random(f"{seed}{language}"))
        say(f"  {language}: {len(prompts)} prompts, {sum(len(a) for _, _, a in prompts) / RATE / 60:.1f} minutes")
        for part, (ending, kind) in enumerate(_FORMATS[language]):
            half = prompts[part :: len(_FORMATS[language])]
            samples, placed = _join(half, random.Random(f"{seed}{language}{part}"))
            path = folder / language / f"part{part + 1}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, samples, kind)
            relative = path.relative_to(folder).as_posix()
            gold += [Prompt(relative, language, start, end, text, name) for start, end, text, name in placed]
    broken, music = _odds(folder, seed)
    lines = [json.dumps(vars(prompt), ensure_ascii=False) for prompt in gold]
    lines.append(json.dumps({"broken": [str(p.relative_to(folder)) for p in broken]}))
    lines.append(json.dumps({"music": [str(p.relative_to(folder)) for p in music]}))
    # Last: a folder without it is one that was not finished.
    temporary = gold_file.with_suffix(".tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(gold_file)
    return DemoSet(folder, tuple(gold), tuple(broken), tuple(music))


def _read(folder: Path, gold_file: Path) -> DemoSet:
    gold: list[Prompt] = []
    odds: dict[str, tuple[Path, ...]] = {"broken": (), "music": ()}
    for line in gold_file.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        if "text" in row:
            gold.append(Prompt(**row))
        else:
            odds |= {key: tuple(folder / name for name in names) for key, names in row.items()}
    return DemoSet(folder, tuple(gold), odds["broken"], odds["music"])


def _packages(say: Callable[[str], None]) -> Path:
    """The unpacked packages, from the cache or with `apt-get download` (which needs no root)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxmill" / "debian"
    unpacked = cache / "unpacked"
    if (unpacked / ".complete").is_file():
        return unpacked
    instead = (
        "put recordings of your own into the folder (any audio or video, one folder a session) and run it again:"
        " voxmill demo DIR uses DIR/recordings when it is not empty"
    )
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise DemoRecordingsUnavailable(
            f"the demo's recordings are Debian packages and there is no apt here; {instead}"
        )
    cache.mkdir(parents=True, exist_ok=True)
    names = [
        name for code in LANGUAGES for name in (f"asterisk-core-sounds-{code}", f"asterisk-core-sounds-{code}-g722")
    ]
    say("  fetching asterisk-core-sounds (55 MB, CC-BY-SA-3.0) from Debian")
    done = _run(["apt-get", "download", *names], cache)
    if done.returncode and os.geteuid() == 0:
        # A new machine has no lists of packages yet.
        _run(["apt-get", "update"], cache)
        done = _run(["apt-get", "download", *names], cache)
    archives = sorted(cache.glob("*.deb"))
    if done.returncode or len(archives) < len(names):
        why = " ".join(done.stderr.split())[-160:]
        raise DemoRecordingsUnavailable(f"apt-get cannot download the demo's recordings ({why}); {instead}")
    for archive in archives:
        subprocess.run(["dpkg", "-x", str(archive), str(unpacked)], check=True, capture_output=True)
        archive.unlink()
    (unpacked / ".complete").touch()
    return unpacked


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def _choose(root: Path, language: str, seconds: float, dice: random.Random) -> list[tuple[str, str, np.ndarray]]:
    """(name, text, float32 samples) of prompts with a clean transcript: mostly longer than 2 s, one in eight shorter."""
    listing = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    texts = {}
    for line in gzip.decompress(listing.read_bytes()).decode("utf-8", errors="replace").splitlines():
        name, separator, text = line.partition(":")
        # Brackets and parentheses mark tones and remarks, angle brackets silence: nothing that is said.
        if separator and text.strip() and not set("[]()<>\ufffd") & set(text):
            texts[name.strip()] = " ".join(text.split())
    voice = next(p for p in sorted((root / "usr/share/asterisk/sounds").iterdir()) if p.name.startswith(f"{language}_"))
    names = [name for name in sorted(texts) if (voice / f"{name}.g722").is_file()]
    dice.shuffle(names)
    long_s, short_s = seconds * 0.95, seconds * 0.05
    chosen = []
    for name in names:
        samples = _g722(voice / f"{name}.g722")
        length = len(samples) / RATE
        if length > 2.0 and long_s > 0 and length < 15:
            long_s -= length
        elif 0.7 < length <= 2.0 and short_s > 0:
            short_s -= length
        else:
            continue
        chosen.append((name, texts[name], samples))
        if long_s <= 0 and short_s <= 0:
            break
    dice.shuffle(chosen)
    return chosen


def _g722(path: Path) -> np.ndarray:
    """float32 [S] at 16 kHz of a raw G.722 file."""
    import av

    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(container.streams.audio[0])]
    return np.concatenate(frames).astype(np.float32) / 32768.0


def _join(
    prompts: list[tuple[str, str, np.ndarray]], dice: random.Random
) -> tuple[np.ndarray, list[tuple[float, float, str, str]]]:
    """One recording of prompts with pauses of 0.25 to 2.5 s and a faint room noise throughout; where each prompt is."""
    noise = np.random.default_rng(dice.randrange(2**32))
    parts = [np.zeros(round(dice.uniform(0.3, 1.0) * RATE), dtype=np.float32)]
    placed = []
    position = len(parts[0])
    for name, text, samples in prompts:
        placed.append((position / RATE, (position + len(samples)) / RATE, text, name))
        pause = np.zeros(round(dice.uniform(0.25, 2.5) * RATE), dtype=np.float32)
        parts += [samples, pause]
        position += len(samples) + len(pause)
    joined = np.concatenate(parts)
    joined += noise.normal(0, 10 ** (-66 / 20), len(joined)).astype(np.float32)
    return np.clip(joined, -1, 1), placed


def _write(path: Path, samples: np.ndarray, kind: str) -> None:
    import soundfile

    if kind.isupper() or "_" in kind:
        soundfile.write(path, samples, RATE, subtype=kind)
        return
    import av

    rate = _AV_RATES.get(kind, RATE)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(kind, rate=rate, layout="mono")
        stream.bit_rate = 96_000
        frame = av.AudioFrame.from_ndarray(np.rint(samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for resampled in av.AudioResampler(
            format=stream.codec_context.format or "fltp", layout="mono", rate=rate
        ).resample(frame):
            container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))


def _odds(folder: Path, seed: int) -> tuple[list[Path], list[Path]]:
    """Two broken files and one of music."""
    import soundfile

    odds = folder / "odds"
    odds.mkdir(parents=True, exist_ok=True)
    cut_off = odds / "cut_off.m4a"
    whole = (folder / "es" / "part1.m4a").read_bytes()
    cut_off.write_bytes(whole[: len(whole) // 3])
    notes = odds / "notes.wav"
    notes.write_text("These are the notes of the meeting; somebody saved them under the wrong name.\n")
    music = odds / "tune.flac"
    soundfile.write(music, _tune(seed), 44_100, subtype="PCM_16")
    return [cut_off, notes], [music]


def _tune(seed: int) -> np.ndarray:
    """Twenty seconds of chords and a beat: float32 [S] at 44.1 kHz."""
    rate, dice = 44_100, np.random.default_rng(seed)
    time = np.arange(20 * rate) / rate
    tune = np.zeros(len(time))
    chords = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7), (164.8, 196.0, 246.9))
    for beat in range(40):
        at = time - beat * 0.5
        for tone in chords[beat // 4 % 4]:
            for overtone in (1, 2, 3):
                tune += (
                    np.where(at >= 0, np.exp(-3 * np.maximum(at, 0)), 0)
                    * np.sin(2 * np.pi * tone * overtone * at)
                    / overtone
                )
        hit = dice.normal(size=len(time)) * np.where(at >= 0, np.exp(-60 * np.maximum(at, 0)), 0)
        tune += hit * (1.0 if beat % 2 else 0.4)
    return (0.3 * tune / np.abs(tune).max()).astype(np.float32)
