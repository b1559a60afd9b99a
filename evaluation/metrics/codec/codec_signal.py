"""What a codec does to the signal: waveform, spectrum, pitch and bandwidth. Needs no weights and no further package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from evaluation.metrics.base import Plain, Take, Value
from evaluation.metrics.codec.pairs import pair_of
from evaluation.metrics.codec.spectra import stft_distance
from evaluation.metrics.codec.waveforms import pitch_difference, roll_off_ratio, si_sdr
from pipeline.quality.bandwidth import bandwidth_hz


class CodecSignal(Plain):
    """SI-SDR and pitch at 16 kHz, spectra and bandwidth at 48 kHz, of a reconstruction beside the recording."""

    name = "codec_signal"
    version = 1
    values = (
        Value("si_sdr", "SI-SDR", "dB", "higher", smallest=0.5),
        Value("stft", "STFT distance", "log10", "lower", digits=3, smallest=0.05),
        Value("f0_cents", "F0 RMSE", "cents", "lower", digits=0, smallest=5.0),
        Value("voicing_error", "Voicing error", "%", "lower", scale=100.0, smallest=0.5),
        Value("roll_off_kept", "Roll-off kept", "%", "higher", scale=100.0, digits=1, smallest=2.0),
        Value("bandwidth_kept", "Bandwidth kept", "%", "higher", scale=100.0, digits=1, smallest=2.0),
    )
    schema = pa.schema([*((value.column, pa.float64()) for value in values), ("lag_ms", pa.float64())])
    needs = frozenset({"audio", "human"})

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`."""
        return [_row(take) for take in takes]


def _row(take: Take) -> dict[str, Any] | None:
    pair = pair_of(take)
    if pair is None:
        return None
    low = pair.at(16_000)
    cents, voicing = pitch_difference(*low)
    wanted_hz, made_hz = (bandwidth_hz(x, 48_000) for x in (pair.wanted, pair.made))
    return {
        "si_sdr": si_sdr(*low),
        "stft": stft_distance(pair.wanted, pair.made),
        "f0_cents": cents,
        "voicing_error": voicing,
        "roll_off_kept": roll_off_ratio(pair.wanted, pair.made),
        "bandwidth_kept": made_hz / wanted_hz if wanted_hz else None,
        "lag_ms": pair.lag_ms,
    }
