"""Speak training sentences with a checkpoint, with and without reference clips, into files. Needs no Whisper or GE2E."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from catalogs.corpus.reader import Corpus
from voxcpm import VoxCPM
from voxcpm.inference.utterance import Utterance

RATE = 16_000
#: Solver steps and guidance of all measured speech; the defaults of the API.
SPEECH: dict[str, Any] = {"inference_timesteps": 10, "cfg_value": 2.0, "retry_badcase": False}


@dataclass(frozen=True)
class Clip:
    """A training utterance from the corpus: 16 kHz samples [S]."""

    segment: str
    voice: str
    text: str
    samples: np.ndarray


def training_clips(corpus: Path) -> list[Clip]:
    """Read the kept segments; a voice is the folder of its recordings."""
    root = Corpus(corpus)
    voices = {row["source_id"]: Path(row["path"]).parent.name for row in root.table("recordings").to_pylist()}
    clips = []
    for row in sorted(
        root.kept().to_pylist(), key=lambda row: (voices[row["source_id"]], row["text"], row["segment_id"])
    ):
        samples, rate = root.read_audio(row["segment_id"])
        clips.append(Clip(row["segment_id"], voices[row["source_id"]], row["text"], at_16k(samples, rate)))
    return clips


def every_pairing(clips: Sequence[Clip]) -> list[tuple[str, str | None]]:
    """Return (text, reference voice): every text without a reference and with a clip of every voice."""
    voices = sorted({clip.voice for clip in clips})
    return [(text, voice) for text in sorted({clip.text for clip in clips}) for voice in (None, *voices)]


def learnt_pairing(clips: Sequence[Clip]) -> list[tuple[str, str | None]]:
    """Return (text, reference voice) of the training data: every text with the voices that said it."""
    return sorted({(clip.text, clip.voice) for clip in clips})


def say(checkpoint: Path, clips: Sequence[Clip], pairs: Sequence[tuple[str, str | None]], folder: Path) -> None:
    """Speak each text with the voice's reference (if possible, its longest clip of another text).

    Writes FLAC files into `folder`, and last said.json with their content.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = VoxCPM.from_pretrained(checkpoint, load_denoiser=False, optimize=False)
    rate = model.tts_model.sample_rate
    items = []
    for text, voice in pairs:
        path = None if voice is None else _reference(clips, text, voice, folder)
        # Twice the slowest rate in the corpus: speech that has not stopped by then has not learned to stop.
        items.append(Utterance(text, reference_wav_path=path, seed=1, max_len=max(12, 2 * len(text.split()) + 14)))
    files = []
    for (text, voice), wave in zip(pairs, model.generate_batch(items, **SPEECH), strict=True):
        name = f"{_slug(text)}__{voice or 'alone'}.flac"
        soundfile.write(folder / name, wave, rate, subtype="PCM_16")
        files.append({"text": text, "voice": voice, "file": name})
    (folder / "said.json").write_text(json.dumps(files, indent=1), encoding="utf-8")


def at_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """float32 [S] at 16 kHz."""
    return np.asarray(samples if rate == RATE else soxr.resample(samples, rate, RATE), dtype=np.float32)


def _reference(clips: Sequence[Clip], text: str, voice: str, folder: Path) -> Path:
    own = [clip for clip in clips if clip.voice == voice]
    other = [clip for clip in own if clip.text != text] or own
    chosen = max(other, key=lambda clip: len(clip.samples))
    path = folder / f"reference_{chosen.segment}.wav"
    if not path.is_file():
        soundfile.write(path, chosen.samples, RATE, subtype="FLOAT")
    return path


def _slug(text: str) -> str:
    return "_".join("".join(c for c in word if c.isalnum()) for word in text.lower().split())
