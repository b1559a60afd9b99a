"""How often a run used one segment, computed again from the order of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.corpus.commit import CorpusError
from catalogs.lineage.record import Lineage, LineageError
from catalogs.settings import read_yaml
from trainer.config import TrainConfig
from trainer.data.candidates import Candidates
from trainer.data.replay import replay
from trainer.data.rows import Planner
from trainer.dryrun.checks import Data, read_data
from trainer.model.start_checkpoint import local_start
from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class SegmentUse:
    """How the run that made a checkpoint used one segment."""

    segment_id: str
    held_out: bool
    draws: int
    as_reference: int
    through_decoupled: int
    first_phase: str | None
    first_step: int | None


def segment_use(found: Lineage, segment: str, output: Path, corpora: Sequence[str | Path]) -> SegmentUse:
    """Compute the uses of a segment from the positions that the run took.

    output: the folder of the run, with its train.yaml. corpora: where they are now; empty: as in train.yaml. Raises LineageError,
    and TrainError for corpora that cannot be trained on.
    """
    config = _config(output, corpora)
    try:
        data = read_data(config)
    except CorpusError as error:
        raise LineageError(f"{error}; give the corpora with --corpus") from None
    if data.key != found.data_key:
        raise LineageError(
            f"the corpora are not what {found.folder} was trained on (order {data.key}, not {found.data_key}), so the draws of one"
            " segment cannot be computed; its recording: --recording"
        )
    table = data.corpora.table
    try:
        row = table.find(segment)
    except KeyError:
        row = -1
    followers = np.array([n for n in _made_rows(data) if table.described[n] == segment], dtype=np.int64)
    if row < 0 and not len(followers):
        raise LineageError(f"segment {segment} is not in the data that {found.folder} was trained on, held out or not")
    held = row >= 0 and isinstance(data.held, Candidates) and row in data.held.rows
    counts, first = np.zeros(3, dtype=np.int64), None
    for phase, step, uses in _replayed(found, data, config, output, row, followers):
        counts += uses
        first = first or (phase, step)
    draws, references, through = counts.tolist()
    return SegmentUse(segment, held, draws, references, through, *(first or (None, None)))


def _replayed(
    found: Lineage, data: Data, config: TrainConfig, output: Path, row: int, followers: np.ndarray
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield (phase, step, int64 [3]: as target, as reference, through decoupled) of each sample that uses a segment."""
    planner = _planner(found, config, output)
    at: dict[str, Any] = {}
    for stretch in found.positions:
        if stretch.data_key != data.key:
            raise LineageError(
                f"steps {stretch.first_step} to {stretch.last_step} were drawn by another version of the order: the draws of one"
                " segment cannot be computed"
            )
        mixture, phase = data.mixtures[stretch.phase], config.phases[stretch.phase]
        steps = range(stretch.first_step, stretch.last_step + 1)
        start = {"next": stretch.first, "open": [], "waited": []} if stretch.first else None
        for numbers, of, after in replay(mixture, planner, phase, steps, start):
            at = after
            for number, step in zip(numbers.tolist(), of.tolist(), strict=True):
                draws = mixture.draws(number)
                place = number - draws.first
                target, reference = int(draws.rows[place]), int(draws.references[place])
                made = mixture.shares.kinds[int(draws.kinds[place])].decoupled
                through = made and (reference == row or target in followers)
                uses = np.array([target == row, row >= 0 and reference == row, through], dtype=np.int64)
                if uses.any():
                    yield stretch.phase, step, uses
        if at["next"] != stretch.end or tuple(n for r in at["open"] for n in r) != stretch.waiting:
            raise LineageError(
                f"{output / 'train.yaml'} has other rows per step than steps {stretch.first_step} to {stretch.last_step} had: the"
                " draws of one segment cannot be computed"
            )


def _made_rows(data: Data) -> Iterator[int]:
    rows = {
        row for mixture in data.mixtures.values() for row in mixture.candidates.rows[mixture.candidates.made].tolist()
    }
    yield from sorted(rows)


def _planner(found: Lineage, config: TrainConfig, output: Path) -> Planner:
    folder = found.folder
    assert folder is not None
    if found.kind == "adapter":
        base = local_start(config.model.start or "")
        if base is None:
            raise LineageError(
                f"{config.model.start} is not fetched: the draws of one segment cannot be computed without it"
            )
        folder = base
    tokens = folder if (folder / "tokenizer.json").is_file() else output / ".assets"
    return Planner(TextTokenizer.load(tokens), VoxCPM2Config.load(folder))


def _config(output: Path, corpora: Sequence[str | Path]) -> TrainConfig:
    path = output / "train.yaml"
    if not path.is_file():
        raise LineageError(
            f"no train.yaml in {output}: the draws of one segment are computed with the settings of the run"
        )
    try:
        config = TrainConfig.model_validate(read_yaml(path))
    except ValueError:
        raise LineageError(f"{path} cannot be read: it was written by another version, or by hand") from None
    given = {"corpus": [str(Path(one).expanduser()) for one in corpora]} if corpora else {}
    return config.model_copy(update=given)
