"""`voxmill lineage`: what a checkpoint was trained on, and how often one recording or one segment was used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from catalogs.compaction.draft import quoted
from catalogs.files import file_sha256
from catalogs.lineage.files import as_json, find_recordings, read_lineage, read_table
from catalogs.lineage.record import Ancestor, DrawnRecording, Lineage, LineageError
from catalogs.lineage.rows import used_rows
from catalogs.query.views import query
from catalogs.settings import read_yaml
from trainer.config import TrainConfig

if TYPE_CHECKING:
    from trainer.dryrun.segment_use import SegmentUse

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
    in_codec: int


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
    use = None
    if segment is not None:
        # It imports torch.
        from trainer.dryrun.segment_use import segment_use

        use = segment_use(found, segment, output, corpora)
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
    sums = ("draws", "drawn_s", "as_reference", "through_decoupled", "in_codec")
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
            row["in_codec_sum"],
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


def _output_of(folder: Path) -> Path:
    """Return the output folder of the run that made a checkpoint."""
    folder = folder.resolve()
    return folder.parents[1] if folder.parent.name == "checkpoints" else folder.parent


def _corpora_of(output: Path) -> list[str]:
    """Return the corpora of a run that are still where they were."""
    try:
        named = TrainConfig.model_validate(read_yaml(output / "train.yaml")).corpora
    except (OSError, ValueError):
        return []  # another version wrote it, or it was not copied
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
