"""The clips of a test: coded, behind random ids, with a key row each."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.listen.material import Clip
from evaluation.listen.settings import ListenSettings
from evaluation.listen.sound import RATE, encoded, leveled
from evaluation.metrics.base import read_clip

TYPES = {"opus": ("audio/ogg", ".ogg"), "flac": ("audio/flac", ".flac")}
"""Media type and ending of a coding."""


@dataclass
class ClipStore:
    """Coded clips and what the key says about them, by id."""

    settings: ListenSettings
    rng: random.Random
    files: dict[str, bytes] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _ids: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def new_id(self) -> str:
        """Return a random id of 12 hex digits."""
        return f"{self.rng.getrandbits(48):012x}"

    def take(self, clip: Clip, use: str, change: Any = None) -> str:
        """Return the id of a clip, made at the first call.

        use: `system`, `anchor-3500` and so on; a file has one id, and other bytes, per use. change: of the float32 [S].
        Raises EvaluationError for audio that cannot be read.
        """
        known = (clip.path, clip.system, clip.item.id, clip.seed, use)
        if known not in self._ids:
            samples = read_clip(clip.path, RATE)
            if not len(samples):
                raise EvaluationError(f"{clip.path} has no samples; generate the run again")
            row = {"system": clip.system, "item": clip.item.id, "seed": clip.seed, "use": use}
            self._ids[known] = self.add(samples if change is None else change(samples), row, use != "system")
        return self._ids[known]

    def add(self, samples: np.ndarray, row: dict[str, Any], dither: bool = False) -> str:
        """Level and code float32 [S] at `RATE`; return its id. dither: noise in the last bit, so that copies differ."""
        samples, gain, reached = leveled(samples, self.settings.lufs, self.settings.peak_dbfs)
        data = encoded(samples, self.settings.coding, dither=self.rng.getrandbits(32) if dither else None)
        return self._keep(
            data,
            {
                **row,
                "gain_db": round(gain, 2),
                "lufs": None if reached is None else round(reached, 2),
                "limited": reached is not None and reached < self.settings.lufs - 0.05,
                "seconds": round(len(samples) / RATE, 3),
                "coding": self.settings.coding,
            },
        )

    def add_exact(self, samples: np.ndarray, rate: int, row: dict[str, Any]) -> str:
        """Code float32 [S] or [S, C] without a loss and without a gain; return its id."""
        return self._keep(encoded(samples, "flac", rate), {**row, "seconds": len(samples) / rate, "coding": "flac"})

    def _keep(self, data: bytes, row: dict[str, Any]) -> str:
        name = self.new_id()
        self.files[name] = data
        self.rows[name] = {**row, "sha256": hashlib.sha256(data).hexdigest()}
        return name
