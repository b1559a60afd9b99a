"""Speed of generation, from the rows of generation: no audio is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from evaluation.metrics.base import Need, Plain, Take, Value


class Speed(Plain):
    """Real-time factor (RTF), seconds to the first audio, and attempts. Of a failed take with audio as well."""

    name = "speed"
    version = 1
    needs: frozenset[Need] = frozenset()
    schema = pa.schema(
        [
            pa.field("rtf", pa.float64()),
            pa.field("first_audio_s", pa.float64()),
            pa.field("attempts", pa.int32()),
            pa.field("wall_s", pa.float64()),
            pa.field("audio_s", pa.float64()),
        ]
    )
    values = (
        Value("rtf", "RTF", "s/s", "lower", None, ("wall_s", "audio_s"), digits=3),
        Value("first_audio_s", "first audio", "s", "lower", digits=3),
        Value("attempts", "attempts", "", "lower"),
    )

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. None for a take that was not timed, such as a recording."""
        return [_row(take) for take in takes]


def _row(take: Take) -> dict[str, Any] | None:
    wall_s = take.row.get("wall_s")
    if wall_s is None:
        return None
    return {
        "rtf": wall_s / take.seconds if take.seconds else None,
        "first_audio_s": take.row.get("first_audio_s"),
        "attempts": take.row.get("attempts"),
        "wall_s": wall_s,
        "audio_s": take.seconds,
    }
