"""Guard against divergence: which losses are refused, and the record of steps that were not taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from trainer.config import GuardSettings
from trainer.data.rows import Planned

_REMEMBERED = 100


class Guard:
    """Compares each loss with the last losses that were taken. It works on the lists it is given, which are saved with the run."""

    def __init__(self, settings: GuardSettings, recent: list[float], skipped: list[dict[str, Any]]) -> None:
        self._settings, self._recent, self._skipped = settings, recent, skipped

    def accepts(self, loss: float) -> bool:
        """Return True if a step of this (finite) loss is taken. All ranks agree, since the loss is that of all ranks."""
        spike, window = self._settings.spike, self._settings.window
        return spike is None or len(self._recent) < window or loss <= spike * median(self._recent)

    def taken(self, loss: float) -> None:
        """Record the loss of a step that was taken."""
        self._recent.append(loss)
        del self._recent[: -self._settings.window]

    def refused(self, step: int, loss: float, norm: float, planned: Sequence[Sequence[Planned]]) -> str:
        """Record a step that was not taken; return the reason in words."""
        if math.isfinite(loss) and math.isfinite(norm):
            reason = (
                f"loss {loss:.3g} is {loss / median(self._recent):.1f} times the median of the last {len(self._recent)}"
            )
        else:
            reason = "loss or gradient is NaN or infinite"
        segments = [item.choice.candidate.segment_id for row in planned for item in row]
        self._skipped.append({"step": step, "reason": reason, "segments": segments})
        del self._skipped[:-_REMEMBERED]
        return reason
