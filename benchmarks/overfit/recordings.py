"""The recordings of the experiment: a few real utterances, one folder per voice, with their transcripts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyloudnorm
import soundfile

from voxmill.demo_prompts import RATE, read_g722, read_transcripts, unpack_packages

#: The two sentences of RAVDESS, by the number in its file names.
SENTENCES = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
#: Voices that say the same words, so that only a reference determines the voice. Odd numbers are men.
ACTORS = ("01", "02", "03", "04")
#: Emotion and intensity, as in the file names: neutral, calm (both) and sad. Loud emotions would be like more sentences to learn.
READINGS = ("01-01", "02-01", "02-02", "04-01")
#: Prompts of Debian's asterisk-core-sounds-en, all of one voice.
PROMPTS = (
    "all-circuits-busy-now",
    "check-number-dial-again",
    "please-try-call-later",
    "queue-thankyou",
    "tt-monkeysintro",
    "tt-weasels",
    "vm-passchanged",
    "vm-tooshort",
)


LOUDNESS_LUFS = -20.0
"""Every recording is scaled to this level. RAVDESS is 25 dB quieter than the prompts, and the model need not learn the level."""


@dataclass(frozen=True)
class Line:
    """One utterance: its file within the folder, its voice (the folder's name) and its words."""

    path: str
    voice: str
    text: str


def make_recordings(folder: Path, shared: Path) -> list[Line]:
    """Write the recordings into `folder`/VOICE and their list into lines.jsonl.

    shared: the folder with corpora/ravdess. Raises FileNotFoundError if a recording is missing.
    """
    lines: list[Line] = []
    for actor in ACTORS:
        for source in sorted((shared / "corpora" / "ravdess" / f"actor_{actor}").glob("*.flac")):
            _, _, emotion, intensity, sentence, *_ = source.stem.split("-")
            if f"{emotion}-{intensity}" in READINGS:
                lines.append(Line(f"actor_{actor}/{source.name}", f"actor_{actor}", SENTENCES[sentence]))
                samples, rate = soundfile.read(source, dtype="float32")
                _write(folder / lines[-1].path, samples, rate)
    if not lines:
        raise FileNotFoundError(f"{shared}/corpora/ravdess holds none of the recordings that are to be learned")
    root = unpack_packages(print)
    texts = read_transcripts(root, "en")
    for name in PROMPTS:
        source = root / "usr/share/asterisk/sounds/en_US_f_Allison" / f"{name}.g722"
        text = texts[name][0].upper() + texts[name][1:].rstrip(".") + "."
        lines.append(Line(f"allison/{name}.wav", "allison", text))
        _write(folder / lines[-1].path, read_g722(source), RATE)
    listing = [json.dumps({"path": x.path, "session": x.voice, "language": "en", "text": x.text}) for x in lines]
    (folder / "lines.jsonl").write_text("".join(f"{line}\n" for line in listing), encoding="utf-8")
    return lines


def _write(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write samples at the common loudness, peaks below full scale."""
    gain = 10 ** ((LOUDNESS_LUFS - pyloudnorm.Meter(rate).integrated_loudness(samples.astype(np.float64))) / 20)
    gain = min(gain, 0.97 / float(np.abs(samples).max()))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples * gain, rate, subtype="PCM_16")
