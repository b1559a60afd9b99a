"""Small copies of public test sets, in their layouts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile


def sound(number: int, form: str = "WAV") -> bytes:
    """A tenth of a second of noise that differs by number."""
    sink = io.BytesIO()
    noise = np.random.default_rng(number).normal(0, 0.1, 1600).astype(np.float32)
    soundfile.write(sink, noise, 16_000, format=form)
    return sink.getvalue()


def put(path: Path, content: str | bytes) -> Path:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def seed_folder(root: Path) -> Path:
    """English with four fields and recordings in wavs/, Chinese with five fields, and hard cases."""
    for number in range(3):
        put(root / f"en/prompt-wavs/p{number}.wav", sound(number))
        put(root / f"zh/prompt-wavs/p{number}.wav", sound(10 + number))
    put(root / "en/wavs/u0.wav", sound(20))
    put(root / "zh/wavs/u0.wav", sound(21))
    put(
        root / "en/meta.lst", "u0|Words zero.|prompt-wavs/p0.wav|Say zero.\nu1|Words one.|prompt-wavs/p1.wav|Say one.\n"
    )
    put(root / "zh/meta.lst", "u0|提示。|prompt-wavs/p0.wav|你好。|wavs/u0.wav\n")
    put(root / "zh/hardcase.lst", "h0|提示。|prompt-wavs/p2.wav|四是四，十是十。\n")
    return root


def cv3_subset(folder: Path, prefix: str = "data/", texts: dict[str, str] | None = None) -> Path:
    """A subset with `texts` by id; scp paths with a double slash."""
    texts = texts or {"u1": "Plain text.", "u2": '"He said ""no"", twice."'}
    inner = str(folder).partition("/data/")[2]
    place = f"{prefix}{inner.replace('/', '//', 1)}"
    for number, key in enumerate(texts):
        put(folder / f"waveform/prompt_{key}.wav", sound(number))
    put(folder / "text", "".join(f"{key} {text}\n" for key, text in texts.items()))
    put(folder / "prompt_text", "".join(f"{key} words of {key}\n" for key in texts))
    put(folder / "prompt_wav.scp", "".join(f"{key} {place}/waveform/prompt_{key}.wav\n" for key in texts))
    return folder


def minimax_folder(root: Path) -> Path:
    """German with two voices, Cantonese with one."""
    put(root / "text/german.txt", "german_female|Guten Tag.\ngerman_male|Guten Abend.\ngerman_female|Guten Abend.\n")
    put(root / "text/cantonese.txt", "cantonese_female|早晨。\n")
    for number, (language, label) in enumerate(
        [("german", "german_female"), ("german", "german_male"), ("cantonese", "cantonese_female")]
    ):
        put(root / f"speaker/{language}/{label}/clip_{number}.mp3", sound(number, "MP3"))
    put(root / "speaker/prompt_text.txt", "clip_0.mp3|Das Wort.\nclip_1.mp3|Ein Satz.\nclip_2.mp3|講嘢。\n")
    return root
