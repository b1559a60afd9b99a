"""The mel distance of codec papers (MelD), at 48 kHz and at 16 kHz."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from evaluation.metrics.base import Plain, Take, Value
from evaluation.metrics.codec.pairs import pair_of
from evaluation.metrics.codec.spectra import mel_distance


class MelDac(Plain):
    """DAC's mel distance between a recording and its reconstruction, at the level of the recording."""

    name = "mel_dac"
    version = 1
    values = (
        Value("mel_dac_48k", "MelD 48 kHz", "log10, 7 scales", "lower", digits=3, smallest=0.05),
        Value("mel_dac_16k", "MelD 16 kHz", "log10, 7 scales", "lower", digits=3, smallest=0.05),
    )
    schema = pa.schema([(name, pa.float64()) for name in ("mel_dac_48k", "mel_dac_16k", "lag_ms", "correlation")])
    needs = frozenset({"audio", "human"})

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`."""
        return [_row(take) for take in takes]


def _row(take: Take) -> dict[str, Any] | None:
    pair = pair_of(take)
    if pair is None:
        return None
    return {
        "mel_dac_48k": mel_distance(*pair.at(48_000), 48_000),
        "mel_dac_16k": mel_distance(*pair.at(16_000), 16_000),
        "lag_ms": pair.lag_ms,
        "correlation": pair.correlation,
    }
