"""Whisper's transcript of a clip, and GE2E's similarity of two voices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jiwer
import numpy as np

from catalogs.vocabulary.comparable_text import compared_units
from catalogs.weights.registry import resolve
from overfit.speaking import RATE, at_16k
from pipeline.voice.ge2e import Ge2e


class Ears:
    """Whisper (of the profile small) and GE2E; each is loaded when first used."""

    def __init__(self, whisper: str = "whisper-base") -> None:
        self._name = whisper

    @cached_property
    def _whisper(self) -> Any:
        from faster_whisper import WhisperModel

        folder = str(resolve(self._name))
        return WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)

    @cached_property
    def _ge2e(self) -> Ge2e:
        return Ge2e(resolve("ge2e"))

    def read(self, samples: np.ndarray, rate: int) -> str:
        """English words of float32 samples [S]: the settings of the stage `transcribe`, half a second of silence around."""
        heard = at_16k(samples, rate)
        silence = np.zeros(RATE // 2, dtype=np.float32)
        pieces = self._whisper.transcribe(
            np.concatenate((silence, heard, silence)),
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            max_new_tokens=40,
        )[0]
        return "".join(piece.text for piece in pieces).strip()

    def voice(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """The voiceprint of samples [S]: float32 [256] of length 1, the mean over windows as in `embed_speaker`."""
        mean = self._ge2e.partials([at_16k(samples, rate)])[0].mean(axis=0)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), dtype=np.float32)


def word_errors(wanted: Sequence[str], heard: Sequence[str]) -> float:
    """WER over all texts together, compared as voxmill's own tables compare them."""
    pairs = [
        (" ".join(compared_units(a, "en")), " ".join(compared_units(b, "en")))
        for a, b in zip(wanted, heard, strict=True)
    ]
    return float(jiwer.wer([a for a, _ in pairs], [b for _, b in pairs]))
