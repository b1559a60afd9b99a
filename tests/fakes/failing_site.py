"""A corpus whose recordings fail on request, prepared in this process with cheap stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.query.views import query
from fakes.chaos_run import CheapConfig
from fakes.engine_stages import TroubleConfig
from fakes.recordings import noise, write
from pipeline.engine.worker import StageGroup
from pipeline.prepare import prepare
from pipeline.runs.summary import Summary


class OneActor(CheapConfig):
    """All stages in one group: over Ray a suspect session needs a fresh process of each group."""

    def groups(self) -> list[StageGroup]:
        """One group of the stages of all groups."""
        groups = super().groups()
        return [replace(groups[0], stages=tuple(stage for group in groups for stage in group.stages))]


class Site:
    """A folder of recordings, what each of them meets, and the corpus made of them."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.sources, self.fates, self.corpus = folder / "sources", folder / "fates", folder / "corpus"
        self.fates.mkdir()
        for number in range(count):
            self.add(f"{number:02d}.wav", number)

    def add(self, name: str, seed: int) -> None:
        write(self.sources / name, noise(3.0, 16_000, seed=seed), 16_000)

    def fail(self, fate: str, *names: str) -> None:
        for name in names:
            (self.fates / name).write_text(fate)

    def mend(self) -> None:
        for note in self.fates.iterdir():
            note.unlink()

    def run(self, redo: bool = False, unit_s: float = 1.0, **engine: Any) -> Summary:
        settings: dict[str, Any] = {"executor": "inline"} | engine
        trouble = TroubleConfig(fates=str(self.fates))
        config = OneActor(unit_s=unit_s, engine=settings, describe="none", trouble=trouble)
        return prepare([str(self.sources)], self.corpus, config, redo)

    def quarantine(self) -> list[tuple[Any, ...]]:
        sql = "select split_part(path, '/', -1), cause, runs from quarantine order by path"
        return query(self.corpus, sql)[1]

    def check(self, recordings: int) -> None:
        """Nothing twice, everything there."""
        ids = Corpus(self.corpus).index.column("segment_id").to_pylist()
        assert len(ids) == len(set(ids)) == query(self.corpus, "select count(*) from segments")[1][0][0]
        assert query(self.corpus, "select count(*), count(distinct path) from recordings")[1] == [(recordings,) * 2]
        assert fsck(self.corpus, hashes=False) == []
