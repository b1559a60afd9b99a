"""STOI and PESQ: intelligibility and quality of a reconstruction, as the packages pystoi and pesq compute them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.metrics.base import Plain, Take, Value
from evaluation.metrics.codec.pairs import pair_of

RATE = 16_000
LONGEST_S = 20.0
"""Seconds of a clip that PESQ hears: it was made for sentences, and holds 50 utterances at most."""


class StoiPesq(Plain):
    """STOI (not extended) and wide-band PESQ (P.862.2 without Corrigendum 2) at 16 kHz."""

    name = "stoi_pesq"
    version = 1
    values = (
        Value("stoi", "STOI", "0-1", "higher", digits=3, smallest=0.01),
        Value("pesq_wb", "PESQ wide-band", "MOS-LQO", "higher", smallest=0.05),
    )
    schema = pa.schema([(value.column, pa.float64()) for value in values])
    needs = frozenset({"audio", "human"})
    packages = ("pystoi", "pesq")

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"stoi": "pystoi, not extended", "pesq": "P.862.2 without Corrigendum 2", "pesq_longest_s": LONGEST_S}

    def load(self) -> None:
        """See `Metric`."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise ModuleNotFoundError(f"STOI and PESQ need {' and '.join(missing)}: pip install 'voxmill[codec]'")

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`."""
        pairs = [pair_of(take) for take in takes]
        return [None if pair is None else stoi_and_pesq(*pair.at(RATE)) for pair in pairs]


def stoi_and_pesq(wanted: np.ndarray, made: np.ndarray) -> dict[str, float | None]:
    """Return `stoi` and `pesq_wb` of aligned clips, float32 [S] at 16 kHz; None where there is too little speech."""
    from pesq import PesqError, pesq

    heard = round(LONGEST_S * RATE)
    if not wanted.any() or not made.any():
        return {"stoi": None, "pesq_wb": None}
    quality = float(pesq(RATE, wanted[:heard], made[:heard], "wb", on_error=PesqError.RETURN_VALUES))
    return {"stoi": _stoi(wanted, made), "pesq_wb": quality if quality > 0 else None}


def _stoi(wanted: np.ndarray, made: np.ndarray) -> float | None:
    import warnings

    from pystoi import stoi

    with warnings.catch_warnings():
        # With less than 30 frames of speech, it warns and returns 1e-5; with less than one, it raises ValueError.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(wanted, made, RATE, extended=False))
        except (RuntimeWarning, ValueError):
            return None
