"""What a run begins with: its ancestors with what they were trained on, its codec and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from catalogs.lineage.record import COLUMNS, Ancestor
from catalogs.query.views import query
from catalogs.words import counted
from trainer.config import TrainConfig
from trainer.data.ancestry import ancestor_of
from trainer.data.corpora import Corpora
from trainer.model.build import CODEC_CLIPS

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
    gaps: tuple[str, ...] = ()
    """What is not known of the training of the ancestors."""


def origins_of(config: TrainConfig, corpora: Corpora) -> Origins:
    """Return what a run begins with. The weights that it starts from are hashed."""
    settings, notes = config.model, _made_by(config, corpora)
    if settings.start is not None:
        ancestors, rows, gaps = ancestor_of("start" if settings.lora is None else "base", settings.start)
        return Origins(ancestors, tuple(notes), rows, gaps=gaps)
    if settings.tokenizer is None:
        notes.append(
            f"the tokenizer was trained on the texts and descriptions of all {counted(len(corpora.table), 'segment')} of the"
            " corpora, held-out ones too"
        )
    if settings.codec is not None:
        ancestors, rows, gaps = ancestor_of("codec", settings.codec)
        return Origins(ancestors, tuple(notes), rows, gaps=gaps)
    taught = np.arange(min(CODEC_CLIPS, len(corpora.table)) if settings.codec_steps else 0)
    if len(taught):
        notes.append(f"the codec was trained on {counted(len(taught), 'clip')} of the corpora before the first step")
    return Origins((), tuple(notes), codec_rows=taught)


def _made_by(config: TrainConfig, corpora: Corpora) -> list[str]:
    if not any(phase.decoupled for phase in config.phases.values()):
        return []
    models = sorted({row[0] for part in corpora.parts for row in query(part.path, _MADE_BY)[1]})
    return [f"synthetic speech in the corpora was made by the checkpoints {', '.join(models)}"] if models else []
