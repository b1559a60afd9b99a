"""How often each recording was used by the samples of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from catalogs.candidates.recordings import recording_count, recordings_of
from catalogs.candidates.table import MADE, Table
from catalogs.lineage.record import COLUMNS, HeldOut
from trainer.data.mixture import BLOCK, Mixture

NEVER = -1
COUNTS = ("draws", "drawn_s", "as_reference", "through_decoupled", "held_out", "in_codec")
_FIRST = ("first_step", "first_position")


class DrawnCounts:
    """Counts by recording of a candidate table, all int64 [recordings] unless stated otherwise.

    A sample counts as one draw of the recording of its target, as one `as_reference` of the recording of its reference, and, if
    it is content-decoupled, as one `through_decoupled` of each recording that its target was made from: that of its timbre, of its
    description and of its text.
    """

    def __init__(self, table: Table) -> None:
        size = recording_count(table)
        self.table = table
        self.draws = np.zeros(size, dtype=np.int64)
        self.drawn_s = np.zeros(size)
        """float64 [recordings]: seconds of the targets."""
        self.as_reference = np.zeros(size, dtype=np.int64)
        self.through_decoupled = np.zeros(size, dtype=np.int64)
        self.held_out = np.zeros(size, dtype=np.int64)
        """Number of segments."""
        self.in_codec = np.zeros(size, dtype=np.int64)
        """Number of segments."""
        self.synthetic = np.zeros(size, dtype=bool)
        """bool [recordings]: True if a model spoke it."""
        self.first_step = np.full(size, NEVER)
        """The step, from 1, with the first sample that uses it; NEVER if there is none."""
        self.first_position = np.full(size, NEVER)
        """The number of that sample in its phase."""
        self.first_phase = np.full(size, NEVER)
        """The index of that phase among the names that `add` was given."""
        self.phases: list[str] = []
        self.unnamed = 0
        """Content-decoupled samples whose description is from a recording of no corpus."""

    def add(self, phase: str, mixture: Mixture, numbers: np.ndarray, steps: np.ndarray) -> None:
        """Count samples of a phase. numbers: of the choices, int64 [N]. steps: those that drew them, int64 [N], from 1.

        Steps of a later call must be later steps.
        """
        if phase not in self.phases:
            self.phases.append(phase)
        blocks = numbers // BLOCK
        used: list[tuple[np.ndarray, np.ndarray]] = []
        # In order of the choices, so that each block is drawn only once.
        for block in np.unique(blocks).tolist():
            mine = np.flatnonzero(blocks == block)
            used += [(found, mine[at]) for found, at in self._count(mixture, numbers[mine])]
        recordings = np.concatenate([found for found, _ in used]) if used else np.empty(0, dtype=np.int64)
        samples = np.concatenate([at for _, at in used]) if used else np.empty(0, dtype=np.int64)
        new = self.first_step[recordings] == NEVER
        recordings, samples = recordings[new], samples[new]
        order = np.lexsort((numbers[samples], steps[samples]))
        firsts, at = np.unique(recordings[order], return_index=True)
        first = samples[order][at]
        self.first_step[firsts], self.first_position[firsts] = steps[first], numbers[first]
        self.first_phase[firsts] = self.phases.index(phase)

    def hold(self, rows: np.ndarray) -> HeldOut:
        """Count held-out rows of the table; return their totals."""
        np.add.at(self.held_out, self.table.recording[rows], 1)
        hours = float(self.table.seconds[rows].sum()) / 3600
        return HeldOut(len(rows), int((self.held_out > 0).sum()), hours)

    def teach_codec(self, rows: np.ndarray) -> None:
        """Count rows of the table that the codec was trained on, before the first step."""
        found = self.table.recording[rows]
        np.add.at(self.in_codec, found, 1)
        self.first_step[found] = 0

    def counted(self) -> np.ndarray:
        """Return bool [recordings]: True if anything is counted of it."""
        found = self.draws + self.as_reference + self.through_decoupled + self.held_out + self.in_codec
        return np.asarray(found > 0)

    def columns(self) -> dict[str, np.ndarray]:
        """Return copies of the counts of the recordings that have any, with their numbers as `recording`."""
        chosen = np.flatnonzero(self.counted())
        found = {name: getattr(self, name)[chosen] for name in (*COUNTS, *_FIRST, "synthetic")}
        names = np.array([*self.phases, None], dtype=object)
        return found | {"recording": chosen, "first_phase": names[self.first_phase[chosen]]}

    def _count(self, mixture: Mixture, numbers: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Count the choices of one block. Yield (recordings, indices of the choices that use them) of each role."""
        table, draws = self.table, mixture.draws(int(numbers[0]))
        at = numbers - draws.first
        rows, references = draws.rows[at], draws.references[at]
        targets = table.recording[rows].astype(np.int64)
        np.add.at(self.draws, targets, 1)
        np.add.at(self.drawn_s, targets, table.seconds[rows])
        self.synthetic[targets[(table.flags[rows] & MADE) != 0]] = True
        yield targets, np.arange(len(numbers))
        has = np.flatnonzero(references >= 0)
        heard = table.recording[references[has]].astype(np.int64)
        np.add.at(self.as_reference, heard, 1)
        yield heard, has
        decoupled = np.array([kind.decoupled for kind in mixture.shares.kinds])[draws.kinds[at]]
        made = np.flatnonzero(decoupled)
        described, text = table.described_recording[rows[made]], table.text_recording[rows[made]]
        self.unnamed += int((described < 0).sum())
        # Several from one recording count once.
        sources = np.sort(
            np.stack((table.recording[references[made]], described, text), axis=1).astype(np.int64), axis=1
        )
        new = sources >= 0
        new[:, 1:] &= sources[:, 1:] != sources[:, :-1]
        at, _ = np.nonzero(new)
        np.add.at(self.through_decoupled, sources[new], 1)
        yield sources[new], made[at]


def drawn_rows(table: Table, columns: Mapping[str, np.ndarray], corpora: Sequence[str]) -> pa.Table:
    """Return the rows of lineage.parquet of one run. columns: `DrawnCounts.columns`. corpora: their names."""
    about = recordings_of(table).take(pa.array(columns["recording"]))
    found = {name: about[name] for name in COLUMNS.names if name in about.column_names}
    found["corpus"] = pa.array(list(corpora), pa.string()).take(about["part"].combine_chunks())
    found |= {name: pa.array(columns[name]) for name in (*COUNTS, "synthetic")}
    found |= {name: pa.array(columns[name], mask=columns[name] == NEVER) for name in _FIRST}
    found["first_phase"] = pa.array(columns["first_phase"], pa.string())
    found["generation"] = pa.array(np.zeros(len(about), dtype=np.int64))
    return pa.table({name: found[name] for name in COLUMNS.names}).cast(COLUMNS)
