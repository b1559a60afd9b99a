"""`voxmill lineage`: what a checkpoint was trained on, and how often one recording or one segment was used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catalogs.compaction.draft import quoted
from catalogs.corpus.commit import CorpusError
from catalogs.files import file_sha256
from catalogs.lineage.files import as_json, find_recordings, read_lineage, read_table
from catalogs.lineage.record import Ancestor, DrawnRecording, Lineage, LineageError
from catalogs.lineage.rows import used_rows
from catalogs.query.views import query
from catalogs.settings import read_yaml
from trainer.config import TrainConfig, TrainError
from trainer.data.candidates import Candidates
from trainer.data.replay import replay
from trainer.data.rows import Planner
from trainer.dryrun.checks import Data, read_data
from trainer.model.start_checkpoint import local_start
from voxcpm.config import VoxCPM2Config
from voxcpm.sequence.text_tokenizer import TextTokenizer

_PREFIX = 8
"""Least number of characters of an id that may stand for the whole."""


@dataclass(frozen=True)
class CorpusUse:
    """What was used of one corpus by one run. generation: see `DrawnRecording`."""

    corpus: str
    generation: int
    recordings: int
    draws: int
    drawn_hours: float
    as_reference: int
    through_decoupled: int


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


@dataclass(frozen=True)
class LineageReport:
    """What `lineage` found."""

    lineage: Lineage
    uses: tuple[CorpusUse, ...]
    found: dict[str, str]
    """Folders of ancestors that lie beside the checkpoint, by digest."""
    recordings: tuple[DrawnRecording, ...] | None = None
    """The rows of the recording that was asked for; empty if the checkpoint was not trained on it, as far as is known."""
    segment: SegmentUse | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "folder": str(self.lineage.folder),
            "lineage": as_json(self.lineage),
            "unknown": list(self.lineage.unknown),
            "uses": [asdict(use) for use in self.uses],
            "found": self.found,
            "recordings": None if self.recordings is None else [asdict(row) for row in self.recordings],
            "segment": None if self.segment is None else asdict(self.segment),
        }


def lineage(
    model: str | Path,
    recording: str | Path | None = None,
    segment: str | None = None,
    corpora: Sequence[str | Path] = (),
) -> LineageReport:
    """Return what a checkpoint, an adapter or the output folder of a run was trained on.

    recording: an audio file, or a path, `source_id`, `session_id` or SHA-256 of the content as the corpus names it; ids may be
    shortened to 8 characters. segment: an id; its uses are computed from the order of the data, which needs the corpora. corpora:
    where they are now; default: as in train.yaml of the run. Raises LineageError, TrainError and CorpusError with one line.
    """
    found = _read(Path(model).expanduser(), model)
    assert found.folder is not None
    output = _output_of(found.folder)
    rows = None
    if recording is not None:
        rows = tuple(_recordings(found, recording, corpora or _corpora_of(output)))
    use = _segment(found, segment, output, corpora) if segment is not None else None
    beside = {one.digest: str(path) for one in found.ancestors if one.digest and (path := _beside(output, one))}
    return LineageReport(found, tuple(_uses(read_table(found))), beside, rows, use)


def _read(folder: Path, given: str | Path) -> Lineage:
    for place in (folder, folder / "latest"):
        found = read_lineage(place)
        if found is not None:
            return found
    if not folder.is_dir():
        raise LineageError(f"no checkpoint folder at {given}: give the folder of a checkpoint, or the output of a run")
    raise LineageError(
        f"{given} has no lineage.json: another program made it, or a voxmill that wrote none; what it was trained on is not known"
    )


def _uses(rows: pa.Table) -> Iterator[CorpusUse]:
    sums = ("draws", "drawn_s", "as_reference", "through_decoupled")
    found = used_rows(rows).group_by(["generation", "corpus"], use_threads=False)
    totals = found.aggregate([("source_id", "count"), *((name, "sum") for name in sums)])
    for row in totals.sort_by([("generation", "ascending"), ("corpus", "ascending")]).to_pylist():
        yield CorpusUse(
            row["corpus"],
            row["generation"],
            row["source_id_count"],
            row["draws_sum"],
            row["drawn_s_sum"] / 3600,
            row["as_reference_sum"],
            row["through_decoupled_sum"],
        )


def _recordings(found: Lineage, wanted: str | Path, corpora: Sequence[str | Path]) -> list[DrawnRecording]:
    """Return the rows of a recording. An audio file is recognized by its content, whatever its name is now."""
    text, path = str(wanted), Path(wanted).expanduser()
    if path.is_file():
        return find_recordings(found, content_sha256=file_sha256(path))
    rows = read_table(found)
    names = [rows["source_id"], rows["content_sha256"], rows["session_id"]]
    match = [pc.starts_with(column, text) if len(text) >= _PREFIX else pc.equal(column, text) for column in names]
    ids = set(
        rows["source_id"].filter(pc.fill_null(pc.or_kleene(pc.or_kleene(*match[:2]), match[2]), False)).to_pylist()
    )
    for corpus in () if ids else corpora:
        ids |= {
            row[0] for row in query(Path(corpus), f"select source_id from recordings where path = {quoted(text)}")[1]
        }
    return find_recordings(found, source_id=ids)


def _segment(found: Lineage, segment: str, output: Path, corpora: Sequence[str | Path]) -> SegmentUse:
    """Compute the uses of a segment from the positions that the run took."""
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


def _output_of(folder: Path) -> Path:
    """Return the output folder of the run that made a checkpoint."""
    folder = folder.resolve()
    return folder.parents[1] if folder.parent.name == "checkpoints" else folder.parent


def _config(output: Path, corpora: Sequence[str | Path]) -> TrainConfig:
    path = output / "train.yaml"
    if not path.is_file():
        raise LineageError(
            f"no train.yaml in {output}: the draws of one segment are computed with the settings of the run"
        )
    try:
        config = TrainConfig.model_validate(read_yaml(path))
    except ValueError:
        raise TrainError(f"{path} cannot be read: it was written by another version, or by hand") from None
    given = {"corpus": [str(Path(one).expanduser()) for one in corpora]} if corpora else {}
    return config.model_copy(update=given)


def _corpora_of(output: Path) -> list[str]:
    """Return the corpora of a run that are still where they were."""
    try:
        named = _config(output, ()).corpora
    except (LineageError, TrainError):
        return []
    return [one for one in named if (Path(one) / "corpus.json").is_file()]


def _beside(output: Path, ancestor: Ancestor) -> Path | None:
    """Return the folder of an ancestor if it lies beside the run, and is the same checkpoint by its own lineage."""
    run, _, step = ancestor.name.rpartition("/")
    places = [output.parent / run / "checkpoints" / step] if run else [output.parent / ancestor.name]
    for place in (*places, output / ancestor.name):
        try:
            found = read_lineage(place)
        except LineageError:
            continue
        if found is not None and found.digest == ancestor.digest:
            return place
    return None
