"""The lineage of a run's checkpoints: what its steps drew, and what it began with. Only the first rank has it.

The loop notes the numbers of the choices of each step, which are counted many at once: 1 µs per sample. A save then costs time for
the rows of the table that it writes: 4 s per million recordings. A run that resumes reads its counts from the lineage of
its checkpoint. Without one they are computed again from the positions (`trainer.data.replay`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.candidates.recordings import recordings_of
from catalogs.lineage.files import read_lineage, read_table, write_lineage
from catalogs.lineage.record import COLUMNS, Ancestor, Lineage, LineageError, Stretch
from catalogs.lineage.rows import license_shares, of_an_ancestor
from catalogs.lineage.source import source_commit, voxmill_version
from catalogs.weights.checkpoint_files import checkpoint_digest
from trainer.checkpoint.origins import Origins, origins_of
from trainer.config import TrainConfig
from trainer.data.ancestry import corpora_entries, tombstones
from trainer.data.candidates import Candidate, Candidates
from trainer.data.corpora import Corpora
from trainer.data.drawn import COUNTS, NEVER, DrawnCounts, drawn_rows
from trainer.data.holdout import ORDER_VERSION
from trainer.data.mixture import Mixture
from trainer.data.replay import replay
from trainer.data.rows import Planner

if TYPE_CHECKING:
    from trainer.checkpoint.restore import Saved
    from trainer.checkpoint.state import RunState
    from trainer.data.samples import StepRows

log = logging.getLogger(__name__)

_UNCOUNTED = 1 << 15
"""Samples that are noted before they are counted: few enough that the mixture still has their blocks."""


class LineageRecorder:
    """Counts what a run draws. Snapshots of it are written beside checkpoints."""

    def __init__(
        self,
        config: TrainConfig,
        corpora: Corpora,
        mixtures: Mapping[str, Mixture],
        held: Sequence[Candidate],
        key: str,
    ) -> None:
        """key: identity of the order of the data (`data_key`)."""
        self._config, self._corpora, self._mixtures, self._key = config, corpora, mixtures, key
        self.counts = DrawnCounts(corpora.table)
        self._held = self.counts.hold(held.rows if isinstance(held, Candidates) else np.empty(0, dtype=np.int64))
        self._corpora_entries = corpora_entries(corpora)
        self._carried = COLUMNS.empty_table()
        """Rows of ancestors, and of recordings that are not in the corpora any more."""
        self._origins = Origins()
        self._gaps: list[str] = []
        self._stretches: list[Stretch] = []
        self._noted: list[tuple[str, int, np.ndarray]] = []
        self._uncounted = 0

    def begin(self) -> None:
        """Start with what a new run begins with: its ancestors, and the clips that its codec was trained on."""
        self._origins = origins_of(self._config, self._corpora)
        self._carried, self._gaps = self._origins.rows, list(self._origins.gaps)
        self.counts.teach_codec(self._origins.codec_rows)

    def resume(self, saved: Saved, state: RunState, planner: Planner) -> None:
        """Continue from the lineage of a checkpoint, or compute it again from the run's state if it has none."""
        folder = saved.resume if saved.resume.is_dir() else saved.folder
        try:
            found = read_lineage(folder) if folder is not None else None
            rows = read_table(found) if found is not None else None
        except LineageError as error:
            log.info(f"note: {error}")
            found = rows = None
        if found is None or rows is None or found.step != state.step:
            self.begin()
            self._replay(state, planner)
            return
        self._origins = Origins(found.ancestors, found.notes)
        self._gaps, self._stretches = list(found.gaps), list(found.positions)
        self.counts.unnamed = found.unnamed_draws
        self._take(rows)

    def note(self, step: int, phase: str, rows: StepRows) -> None:
        """Note the samples of a step (from 1) that was computed, whether its update was taken or not."""
        numbers = [number for row in rows.planned for number in row.numbers]
        self._noted.append((phase, step, np.array(numbers, dtype=np.int64)))
        self._move(phase, step, step, rows.after)
        self._uncounted += len(numbers)
        if self._uncounted >= _UNCOUNTED:
            self._count()

    def snapshot(self, step: int) -> Snapshot:
        """Return a copy of everything up to this step, which may be written while the run continues."""
        self._count()
        unnamed = self.counts.unnamed
        lineage = Lineage(
            digest=None,
            kind="adapter" if self._config.model.lora is not None else "model",
            step=step,
            ancestors=self._origins.ancestors,
            corpora=self._corpora_entries,
            data_key=self._key,
            order_version=ORDER_VERSION,
            seed=self._config.seed,
            positions=tuple(self._stretches),
            licenses={},
            held_out=self._held,
            tombstones=tombstones(self._corpora),
            gaps=tuple(self._gaps),
            notes=self._origins.notes,
            unnamed_draws=unnamed,
            voxmill=voxmill_version(),
            commit=source_commit(),
            table_rows=0,
            table_sha256="",
        )
        return Snapshot(
            lineage,
            self.counts.columns(),
            self.counts.table,
            [one.name for one in self._corpora_entries],
            self._carried,
        )

    def _move(self, phase: str, first_step: int, last_step: int, after: Mapping[str, Any]) -> None:
        """Extend the last stretch by some steps to a position, or begin one with them."""
        last = self._stretches[-1] if self._stretches else None
        if last is None or last.phase != phase or last.data_key != self._key:
            first = last.end if last is not None and last.phase == phase else 0
            last = Stretch(phase, first, first, first_step, last_step, self._key)
            self._stretches.append(last)
        waiting = tuple(number for row in after["open"] for number in row)
        self._stretches[-1] = dataclasses.replace(last, end=after["next"], last_step=last_step, waiting=waiting)

    def _count(self) -> None:
        """Count the noted samples."""
        for phase in dict.fromkeys(phase for phase, _, _ in self._noted):
            mine = [(step, numbers) for name, step, numbers in self._noted if name == phase]
            steps = np.concatenate([np.full(len(numbers), step) for step, numbers in mine])
            self.counts.add(phase, self._mixtures[phase], np.concatenate([numbers for _, numbers in mine]), steps)
        self._noted.clear()
        self._uncounted = 0

    def _take(self, rows: pa.Table) -> None:
        """Take over the rows of a checkpoint's lineage. Rows of recordings that are in no corpus any more are carried along."""
        counts, table = self.counts, recordings_of(self.counts.table)
        names = pa.array([one.name for one in self._corpora_entries])
        known = _keys(names.take(table["part"].combine_chunks()), table["source_id"])
        place = pc.index_in(_keys(rows["corpus"], rows["source_id"]), value_set=known)
        own = pc.if_else(pc.equal(rows["generation"], 0), place, None)
        at = pc.fill_null(own, NEVER).to_numpy().astype(np.int64)
        values = rows.drop_columns(
            ["corpus", "source_id", "content_sha256", "session_id", "license", "consent"]
        ).to_pydict()
        own, mine = np.flatnonzero(at >= 0), at[at >= 0]
        for name in (*COUNTS, "synthetic"):
            if name != "held_out":
                getattr(counts, name)[mine] = np.array(values[name])[own]
        for name in ("first_step", "first_position"):
            filled = [NEVER if value is None else value for value in values[name]]
            getattr(counts, name)[mine] = np.array(filled, dtype=np.int64)[own]
        counts.phases = list(dict.fromkeys(name for name in values["first_phase"] if name is not None))
        codes = [NEVER if name is None else counts.phases.index(name) for name in values["first_phase"]]
        counts.first_phase[mine] = np.array(codes, dtype=np.int64)[own]
        self._carried = rows.take(pa.array(np.flatnonzero(at < 0)))

    def _replay(self, state: RunState, planner: Planner) -> None:
        """Count the steps of a run that was begun before it had a lineage."""
        if not state.step:
            return
        if state.reordered_at is not None:
            self._gaps.append(
                f"what steps 1 to {state.step} drew is not known: they were begun by another version of the order"
            )
            return
        log.info(f"note: the lineage of {state.step} steps is computed again from the order of the data")
        first, at = 0, None
        for name, phase in self._config.phases.items():
            last = state.step if state.rows.get("phase") == name else first + phase.steps
            for numbers, steps, at in replay(self._mixtures[name], planner, phase, range(first + 1, last + 1)):
                self.counts.add(name, self._mixtures[name], numbers, steps)
                self._move(name, int(steps[0]), int(steps[-1]), at)
            first = last
            if state.rows.get("phase") == name:
                break
        if at != state.rows.get("at"):
            self._gaps.append(
                f"what steps 1 to {state.step} drew is counted as if every step had had the rows that steps have now"
            )


@dataclass(frozen=True)
class Snapshot:
    """The lineage of one step, without the digest of the files that it is written beside."""

    lineage: Lineage
    columns: dict[str, np.ndarray]
    table: Any
    corpora: list[str]
    carried: pa.Table

    def write(self, folder: Path, digest: bool = True) -> None:
        """Write it into the folder of a checkpoint that is complete otherwise, and that nobody sees yet. digest: the folder holds
        the files of a model."""
        rows = self.rows()
        found = checkpoint_digest(folder) if digest else None
        write_lineage(folder, dataclasses.replace(self.lineage, digest=found, licenses=license_shares(rows)), rows)

    def write_merged(self, folder: Path, adapter: Path) -> None:
        """Write the lineage of a model into which the adapter of this run was merged. It has no draws itself."""
        own = Ancestor(1, "adapter", f"{adapter.parent.parent.name}/{adapter.name}", checkpoint_digest(adapter), True)
        rows = self.rows()
        mine = rows.filter(pc.equal(rows["generation"], 0))
        rows = pa.concat_tables([of_an_ancestor(mine), rows.filter(pc.greater(rows["generation"], 0))])
        merged = dataclasses.replace(
            self.lineage,
            kind="model",
            digest=checkpoint_digest(folder),
            ancestors=(own, *self.lineage.ancestors),
            licenses=license_shares(rows),
        )
        write_lineage(folder, merged, rows)

    def rows(self) -> pa.Table:
        """Return the rows of lineage.parquet."""
        return pa.concat_tables([drawn_rows(self.table, self.columns, self.corpora), self.carried])


def _keys(corpora: Any, sources: Any) -> pa.Array:
    """Return one string for each recording of a corpus."""
    found = pc.binary_join_element_wise(corpora, sources, "\0")
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
