"""What the steps of runs really drew, seen where they are computed, and counted without the code that makes lineages."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import DECOUPLED
from catalogs.lineage.files import find_recordings, read_lineage
from catalogs.lineage.record import Lineage
from trainer import step
from trainer.config import Phase
from trainer.result import StepReport
from trainer.step import Ready, Stepper

Drawn = tuple[int, int, str, str | None, str | None]
"""(step from 1, number of the choice, target, reference, described segment)."""


def watch(monkeypatch: pytest.MonkeyPatch, drawn: list[Drawn]) -> None:
    """Add the samples of every step of this process to `drawn`, as they are in its micro-batches."""
    honest = step.Stepper.take

    def take(stepper: Stepper, phase: Phase, in_phase: int, number: int, ready: Ready) -> StepReport:
        for part in ready.rows.parts:
            for choice in part.choices:
                candidate = choice.candidate
                drawn.append((number + 1, choice.index, candidate.segment_id, choice.reference, candidate.described_id))
        return honest(stepper, phase, in_phase, number, ready)

    monkeypatch.setattr(step.Stepper, "take", take)


def watched_train(path: Path) -> None:
    """`voxmill train` of one rank; what its steps draw is written beside its settings when it ends."""
    from forked import voxmill_train

    drawn: list[Drawn] = []
    with pytest.MonkeyPatch.context() as patch:
        import os

        watch(patch, drawn)
        try:
            voxmill_train(path)
        finally:
            path.with_suffix(f".drawn.{os.environ['RANK']}").write_text(json.dumps(drawn), encoding="utf-8")


def make_synthetic(corpus: Path) -> None:
    """Mark one clip of each speaker but the first two as synthetic: descriptions of the first, timbre of the second,
    texts of the others."""
    found = Corpus(corpus)
    by_source: dict[str, list[str]] = {}
    for row in found.index.to_pylist():
        by_source.setdefault(row["source_id"], []).append(row["segment_id"])
    (described, *_), (timbre, *_), *others = (by_source[name] for name in sorted(by_source))
    rows = [
        {"segment_id": made[1], "described_id": described, "timbre_id": timbre, "text": "other words", "accepted": True,
         "text_id": others[number - 1][0], "model": "cafe"}
        for number, made in enumerate(others)
    ]  # fmt: skip
    annotations = found.annotations("descriptions").to_pylist()
    assert described in {row["segment_id"] for row in annotations}, "the first clip of each speaker is described"
    path = corpus / "annotations" / "decoupled" / "one.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=DECOUPLED), path)


def expected(drawn: Iterable[Drawn], corpora: Mapping[str, Path], until: int) -> dict[tuple[str, str], dict[str, Any]]:
    """What a lineage must say of each recording after `until` steps: counts by (corpus, source).

    corpora: by name; a segment is from the first that has it.
    """
    owner: dict[str, tuple[str, str]] = {}
    seconds: dict[str, float] = {}
    timbre: dict[str, str] = {}
    text: dict[str, str] = {}
    for name, path in corpora.items():
        for row in Corpus(path).index.to_pylist():
            owner.setdefault(row["segment_id"], (name, row["source_id"]))
            seconds.setdefault(row["segment_id"], row["duration_s"])
        for row in Corpus(path).annotations("decoupled").to_pylist():
            timbre.setdefault(row["segment_id"], row["timbre_id"])
            text.setdefault(row["segment_id"], row["text_id"])
    draws, references, decoupled = Counter[Any](), Counter[Any](), Counter[Any]()
    spoken: dict[Any, float] = defaultdict(float)
    first: dict[Any, tuple[int, int]] = {}
    for number, index, target, reference, described in drawn:
        if number > until:
            continue
        used = {owner[target]}
        draws[owner[target]] += 1
        spoken[owner[target]] += seconds[target]
        if reference is not None:
            used.add(owner[reference])
            references[owner[reference]] += 1
        if described is not None:
            sources = {owner[described], owner[timbre[target]], owner[text[target]]}
            used |= sources
            decoupled.update(sources)
        for recording in used:
            first[recording] = min(first.get(recording, (number, index)), (number, index))
    return {
        recording: {
            "draws": draws[recording],
            "drawn_s": pytest.approx(spoken[recording]),
            "as_reference": references[recording],
            "through_decoupled": decoupled[recording],
            "first": at,
        }
        for recording, at in first.items()
    }


def told(folder: Path, generation: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
    """What the lineage of a checkpoint says of each recording that it used."""
    return {
        (row.corpus, row.source_id): {
            "draws": row.draws,
            "drawn_s": row.drawn_s,
            "as_reference": row.as_reference,
            "through_decoupled": row.through_decoupled,
            "first": (row.first_step, row.first_position),
        }
        for row in find_recordings(lineage_of(folder), generation=generation)
        if row.used
    }


def lineage_of(folder: Path) -> Lineage:
    """The lineage beside a checkpoint, which must have one."""
    found = read_lineage(folder)
    assert found is not None, f"{folder} has no lineage"
    return found
