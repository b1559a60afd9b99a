"""Diversity: how much the takes of one item differ between seeds. More is not better: a system should vary as people do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.metrics.base import Plain, Take, Value
from evaluation.metrics.voice_measures import RATE, measure, semitones

_COLUMNS = ("pitch_spread", "range_spread", "rate_spread", "duration_spread", "level_spread")


class Diversity(Plain):
    """Columns, the same in all takes of an item:

    `pitch_spread`, `range_spread` (semitones), `level_spread` (dB): standard deviation over the seeds, of the median pitch, of the
    pitch range and of the loudness. `rate_spread`, `duration_spread`: the same in percent of the mean. `takes`: number of seeds.
    An item needs two takes that did not fail. All rows of an item are written again when seeds are added.
    """

    name = "diversity"
    version = 1
    schema = pa.schema([*(pa.field(name, pa.float64()) for name in _COLUMNS), pa.field("takes", pa.int32())])
    values: tuple[Value, ...] = (
        Value("pitch_spread", "spread of pitch over seeds", "st", "none"),
        Value("range_spread", "spread of the pitch range", "st", "none"),
        Value("rate_spread", "spread of rate", "%", "none", digits=1),
        Value("duration_spread", "spread of duration", "%", "none", digits=1),
    )

    def group(self, take: Take) -> str | None:
        """The takes of an item."""
        return take.item.id

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. None for an item with one take."""
        if len(takes) < 2:
            return [None] * len(takes)
        found = [measure(take.audio(RATE), take.item.text) for take in takes]
        pitch = [semitones(one.pitch_hz, 100.0) for one in found if one.pitch_hz is not None]
        row = {
            "pitch_spread": spread(pitch),
            "range_spread": spread([one.range_st for one in found]),
            "rate_spread": spread([one.rate for one in found], relative=True),
            "duration_spread": spread([take.seconds for take in takes], relative=True),
            "level_spread": spread([one.level_lufs for one in found]),
            "takes": len(takes),
        }
        return [row] * len(takes)


def spread(values: Sequence[float | None], relative: bool = False) -> float | None:
    """Return the sample standard deviation, or its percentage of the mean; None with fewer than two values."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) < 2:
        return None
    deviation = float(known.std(ddof=1))
    return 100 * deviation / float(known.mean()) if relative else deviation
