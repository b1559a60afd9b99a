"""What a run begins with: its ancestors with what they were trained on, its corpora, its codec and its tokenizer."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.digest import corpus_digest
from catalogs.lineage.files import read_lineage, read_table
from catalogs.lineage.record import COLUMNS, Ancestor, DrawnCorpus, LineageError, Role
from catalogs.lineage.rows import of_an_ancestor
from catalogs.query.views import query
from catalogs.weights.checkpoint_files import checkpoint_digest
from catalogs.words import counted
from trainer.config import TrainConfig
from trainer.data.corpora import Corpora
from trainer.model.build import CODEC_CLIPS
from trainer.model.start_checkpoint import is_hub_id
from voxcpm.weights.checkpoint import find_checkpoint

log = logging.getLogger(__name__)

_MADE_BY = "select distinct model from decoupled where accepted and model is not null"


@dataclass(frozen=True)
class Origins:
    """What a run begins with."""

    ancestors: tuple[Ancestor, ...] = ()
    notes: tuple[str, ...] = ()
    rows: pa.Table = field(default_factory=COLUMNS.empty_table)
    """Rows of the ancestors' lineages, with the generation that they have here."""
    codec_rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Rows of the candidate table that the run's codec is trained on before the first step."""


def origins_of(config: TrainConfig, corpora: Corpora) -> Origins:
    """Return what a run begins with. The weights that it starts from are hashed."""
    settings, notes = config.model, _made_by(config, corpora)
    if settings.start is not None:
        ancestors, rows = ancestor_of("start" if settings.lora is None else "base", settings.start)
        return Origins(ancestors, tuple(notes), rows)
    if settings.tokenizer is None:
        notes.append(
            f"the tokenizer was trained on the texts and descriptions of all {counted(len(corpora.table), 'segment')} of the"
            " corpora, held-out ones too"
        )
    if settings.codec is not None:
        ancestors, rows = ancestor_of("codec", settings.codec)
        return Origins(ancestors, tuple(notes), rows)
    taught = np.arange(min(CODEC_CLIPS, len(corpora.table)) if settings.codec_steps else 0)
    if len(taught):
        notes.append(f"the codec was trained on {counted(len(taught), 'clip')} of the corpora before the first step")
    return Origins((), tuple(notes), codec_rows=taught)


def ancestor_of(role: Role, given: str) -> tuple[tuple[Ancestor, ...], pa.Table]:
    """Return (ancestors, rows) that a checkpoint brings with it. If it has no lineage, or one of other files, it is unknown."""
    name = given if is_hub_id(given) else _name(Path(given).expanduser())
    try:
        folder = find_checkpoint(given, local_files_only=True)
    except FileNotFoundError:
        return (Ancestor(1, role, name, None, False),), COLUMNS.empty_table()
    digest = checkpoint_digest(folder)
    try:
        found = read_lineage(folder)
        if found is not None and found.digest != digest:
            raise LineageError(
                f"{folder} holds other files than its lineage describes: what it was trained on is not known"
            )
        rows = read_table(found) if found is not None else None
    except LineageError as error:
        log.info(f"note: {error}")
        found = rows = None
    if found is None or rows is None:
        return (Ancestor(1, role, name, digest, False),), COLUMNS.empty_table()
    further = (Ancestor(a.generation + 1, a.role, a.name, a.digest, a.known) for a in found.ancestors)
    return (Ancestor(1, role, name, digest, True), *further), of_an_ancestor(rows, codec_only=role == "codec")


def corpora_entries(corpora: Corpora) -> tuple[DrawnCorpus, ...]:
    """Return the corpora of a run, each with a name that no other has."""
    found, taken = [], Counter[str]()
    for part in corpora.parts:
        info = corpus_info(part.path)
        name = str(info.get("name") or part.path.resolve().name)
        taken[name] += 1
        unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
        digest = corpus_digest(part.path, part.records)
        found.append(DrawnCorpus(unique, digest, info.get("fingerprint"), part.path.resolve().name))
    return tuple(found)


def tombstones(corpora: Corpora) -> tuple[str, ...]:
    """Return the ids of the tombstones of all corpora. Their segments are in no candidate table."""
    return tuple(sorted({path.stem for part in corpora.parts for path in (part.path / "tombstones").glob("*.json")}))


def _made_by(config: TrainConfig, corpora: Corpora) -> list[str]:
    if not any(phase.decoupled for phase in config.phases.values()):
        return []
    models = sorted({row[0] for part in corpora.parts for row in query(part.path, _MADE_BY)[1]})
    return [f"synthetic speech in the corpora was made by the checkpoints {', '.join(models)}"] if models else []


def _name(folder: Path) -> str:
    """Return a name that tells the run and the step, but not where they are."""
    folder = folder.resolve()
    return f"{folder.parents[1].name}/{folder.name}" if folder.parent.name == "checkpoints" else folder.name
