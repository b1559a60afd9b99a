"""ViSQOL: quality of a reconstruction for speech (16 kHz) and for audio of any kind (48 kHz), with the package visqol-python."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from evaluation.metrics.base import Plain, Take, Value
from evaluation.metrics.codec.pairs import Pair, pair_of

MODES = {"speech": 16_000, "audio": 48_000}
"""Modes and their sample rates."""


class Visqol(Plain):
    """ViSQOL v3 in both modes. The mode for speech uses the lattice network: the polynomial predicts 1 to 2 points more."""

    name = "visqol"
    version = 1
    values = (
        Value("visqol_speech", "ViSQOL speech", "MOS-LQO", "higher", smallest=0.05),
        Value("visqol_audio", "ViSQOL audio", "MOS-LQO", "higher", smallest=0.05),
    )
    schema = pa.schema([(value.column, pa.float64()) for value in values])
    needs = frozenset({"audio", "human"})
    packages = ("visqol", "ai_edge_litert")

    def __init__(self) -> None:
        self._nets: dict[str, Any] = {}

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"speech": "lattice"}

    def load(self) -> None:
        """See `Metric`."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise ModuleNotFoundError(f"ViSQOL needs {' and '.join(missing)}: pip install 'voxmill[visqol]'")
        from visqol import VisqolApi

        for mode in MODES:
            self._nets[mode] = VisqolApi()
            self._nets[mode].create(mode=mode, use_lattice_model=mode == "speech")

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`."""
        pairs = [pair_of(take) for take in takes]
        return [None if pair is None else self._row(pair) for pair in pairs]

    def _row(self, pair: Pair) -> dict[str, Any] | None:
        row: dict[str, Any] = {}
        for mode, rate in MODES.items():
            wanted, made = (x.astype("float64") for x in pair.at(rate))
            try:
                figure = float(self._nets[mode].measure_from_arrays(wanted, made, rate).moslqo)
            except (ValueError, IndexError):  # Too short.
                figure = math.nan
            # A silent clip gives NaN.
            row[f"visqol_{mode}"] = figure if math.isfinite(figure) else None
        return row
