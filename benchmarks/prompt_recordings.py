"""Recordings for the benchmarks: prompts of five languages, joined with pauses, two minutes per file."""

from __future__ import annotations

import random
from pathlib import Path

import soundfile

from voxmill.demo_prompts import LANGUAGES, RATE, choose_prompts, unpack_packages
from voxmill.demo_recordings import _join


def make_recordings(folder: Path, minutes: float) -> list[Path]:
    """Make two-minute recordings, languages in turn, each in a separate session."""
    folder.mkdir(parents=True)
    root = unpack_packages(lambda line: None)
    files: list[Path] = []
    made = 0.0
    waiting = {}
    for language in LANGUAGES:
        waiting[language] = list(choose_prompts(root, language, minutes * 60 / len(LANGUAGES), random.Random(language)))
    while made < minutes * 60 and any(waiting.values()):
        for language, prompts in waiting.items():
            some, length = [], 0.0
            while prompts and length < 120:
                some.append(prompts.pop())
                length += some[-1].duration_s + 1.4
            if some:
                samples, _ = _join(some, random.Random(f"{language}{made}"))
                path = folder / f"{language}{len(files):02d}.wav"
                soundfile.write(path, samples, RATE, subtype="PCM_16")
                files.append(path)
                made += len(samples) / RATE
    return files
