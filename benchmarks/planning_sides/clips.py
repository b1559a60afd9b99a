"""Synthetic clips for the planning benchmark, the same for both sides: no audio, lengths and texts as in read speech."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

PATCH_SAMPLES = 2560
LANGUAGES = ("en", "de", "zh", "yo")
_SYLLABLES = ["ka", "lo", "mi", "ter", "en", "ver", "shi", "on", "ra", "su", "pel", "di", "no", "ga", "the", "re"]


def words(dice: np.random.Generator, count: int) -> str:
    """Make random words of about six characters each."""
    return " ".join("".join(dice.choice(_SYLLABLES, 1 + int(dice.integers(3)))) for _ in range(count))


def synthetic_clips(count: int) -> Iterator[tuple[Any, ...]]:
    """(id, language, text, seconds, description, references, brief) of clips of 1 to 30 s, half of them described."""
    dice = np.random.default_rng(1)
    texts = [words(dice, 3 + number % 20) for number in range(500)]
    seconds = dice.lognormal(np.log(10.5), 0.6, count).clip(1, 30).round(4)
    for number in range(count):
        described = number % 2 == 0
        references = tuple((f"{(number + n) % count:016x}", float(seconds[(number + n) % count])) for n in range(2, 6))
        yield (
            f"{number:016x}", LANGUAGES[min(3, number % 10 // 3)], texts[number % 500], float(seconds[number]),
            texts[(number + 7) % 500] if described else None, references, "calm" if described else None,
        )  # fmt: skip


def phase_settings(rows: int) -> dict[str, Any]:
    """Rows of 4,096 positions, all layouts: about 29 samples each."""
    return {"steps": 1_000_000, "rows": rows, "max_positions": 4096, "language_temperature": 0.5, "max_seconds": 60}
