"""The lineage beside a codec: the recordings whose clips its training drew from.

Each crop is of a random clip, so every clip that may be drawn counts once, as `in_codec`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogs.lineage.files import write_lineage
from catalogs.lineage.record import COLUMNS, Lineage
from catalogs.lineage.rows import license_shares
from catalogs.lineage.source import source_commit, voxmill_version
from catalogs.weights.checkpoint_files import checkpoint_digest
from trainer.codec.config import CodecConfig
from trainer.data.ancestry import Brought, ancestor_of, corpora_entries, tombstones
from trainer.data.corpora import Corpora
from trainer.data.drawn import DrawnCounts, drawn_rows
from trainer.data.holdout import ORDER_VERSION


class CodecLineage:
    """What a run of `train_codec` is trained on; it does not depend on the step."""

    def __init__(self, config: CodecConfig, corpora: Corpora, training: Sequence[str], held: Sequence[str]) -> None:
        """training, held: ids of the segments whose crops are drawn, and of those that it is measured by."""
        counts = DrawnCounts(corpora.table)
        counts.teach_codec(_rows(corpora, training))
        brought = Brought((), COLUMNS.empty_table()) if config.start is None else ancestor_of("codec", config.start)
        entries = corpora_entries(corpora)
        held_out = counts.hold(_rows(corpora, held))
        rows = drawn_rows(corpora.table, counts.columns(), [one.name for one in entries])
        self._rows = pa.concat_tables([rows, brought.rows])
        self._lineage = Lineage(
            digest=None,
            kind="codec",
            step=0,
            ancestors=brought.ancestors,
            corpora=entries,
            data_key="",
            order_version=ORDER_VERSION,
            seed=config.seed,
            positions=(),
            licenses=license_shares(self._rows),
            held_out=held_out,
            tombstones=tombstones(corpora),
            gaps=brought.gaps,
            notes=("crops are of random clips: every clip that may be drawn counts once",),
            unnamed_draws=0,
            voxmill=voxmill_version(),
            commit=source_commit(),
            table_rows=0,
            table_sha256="",
        )

    def write(self, folder: Path, step: int) -> None:
        """Write it beside a codec. After a kill between the two, the earlier one does not fit the codec, which readers notice."""
        write_lineage(
            folder, dataclasses.replace(self._lineage, digest=checkpoint_digest(folder), step=step), self._rows
        )


def _rows(corpora: Corpora, segments: Sequence[str]) -> np.ndarray:
    return np.array([corpora.table.find(segment) for segment in segments], dtype=np.int64)
