"""Items with clips of the golden set, for systems that clone."""

from __future__ import annotations

from pathlib import Path

import soundfile
from safetensors.torch import load_file

from evaluation.items import Item

WORDS = "It was the best of times,"


def golden_items(golden: Path, folder: Path) -> list[Item]:
    """Write the clips of the golden set and return two items: with everything, and with a text alone."""
    stored = load_file(golden / "generation.safetensors")
    clip = folder / "prompt.wav"
    soundfile.write(clip, stored["prompt_wav_16k"].numpy(), 16_000, subtype="FLOAT")
    whole = Item("Hello world", "en", reference=clip, reference_text=WORDS, instruction="a (calm)\nold man")
    return [whole, Item("Hi", "en")]
