"""The worker that runs a group of stages on one session, in any process or thread."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalogs.corpus.ids import other_channel_id
from catalogs.files import is_full_disk
from pipeline.engine.api import DiskFullError, ItemStarted, Outcome
from pipeline.engine.heartbeat import mark_path, write_mark
from pipeline.records import Quarantined, Session
from pipeline.runtime.failures import StopRunError, Tally, missing_library
from pipeline.stage import LoadError, Stage, StageConfig, described, quarantined
from pipeline.stages import stage_class

Started = Callable[[ItemStarted], None]


@dataclass(frozen=True)
class StageSpec:
    """A stage by name with its settings, which is sent to an actor instead of the stage itself."""

    name: str
    config: StageConfig

    def build(self) -> Stage[Any]:
        return stage_class(self.name)(self.config)


@dataclass(frozen=True)
class StageGroup:
    """Stages that share one actor, how many such actors there are, and what each may use.

    `actors` 0: as many as the node's cores and GPUs allow (`pools.size_pools`). `timeout_s`: seconds that one item may take
    in a stage that `timeouts` does not name.
    """

    stages: tuple[StageSpec, ...]
    actors: int = 1
    cpus: float = 0.2
    gpus: float = 0.0
    timeout_s: float = 3600.0
    timeouts: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "+".join(stage.name for stage in self.stages)

    def limit_s(self, stage: str) -> float:
        """Seconds that one item may take in a stage."""
        return self.timeouts.get(stage, self.timeout_s)


class Worker:
    """Runs the stages of one group, one session at a time."""

    def __init__(self, stages: tuple[StageSpec, ...], marks: str) -> None:
        self.stages = [spec.build() for spec in stages]
        self.marks = Path(marks)

    def load(self) -> None:
        """Load every stage's model; raises LoadError with one line."""
        for stage in self.stages:
            try:
                stage.load()
            except LoadError:
                raise
            except Exception as error:
                raise LoadError(f"{stage.name} cannot start: {described(error)}") from error

    def run(
        self, session: Session, marked: bool, started: Started = lambda item: None, one_by_one: bool = False
    ) -> tuple[Session, Outcome]:
        """Run the stages on one session. With `marked`, the item being processed is recorded on disk. The record shows that
        the worker is not stuck, and which item was at fault if it dies. For a batch it names the first item, so a suspect
        session runs `one_by_one`. `started` is called before every item."""
        outcome = Outcome(session.session_id)
        known = len(session.notices)
        for stage in self.stages:
            began, worked = time.perf_counter(), time.process_time()
            whole = Tally()
            try:
                stage.one_by_one = one_by_one
                stage.report_item = self._reporter(session, stage.name, marked, started)
                session = stage(session)
                stage.report_item("", sum(recording.duration_s for recording in session.usable()))
                if any(True for _ in session.usable()):
                    whole.add("")
            except StopRunError:
                raise
            except ImportError as error:
                raise missing_library(error) from error
            except Exception as error:
                if is_full_disk(error):
                    raise DiskFullError(errno.ENOSPC, f"no space left on the disk ({stage.name})") from error
                whole.fail(error, described(error))
                quarantine_session(session, quarantined("", "", stage.name, error))
            outcome.tallies |= {stage.name: stage.take_tally(), f"{stage.name}/session": whole}
            if stage.halved:
                outcome.halved[stage.name] = min(stage.halved)
                stage.halved.clear()
            busy = time.perf_counter() - began
            session.busy_s[stage.name] = session.busy_s.get(stage.name, 0.0) + busy
            outcome.busy_s[stage.name] = busy
            outcome.cpu_s[stage.name] = time.process_time() - worked
        outcome.audio_s = sum(recording.duration_s for recording in session.usable())
        outcome.notices = session.notices[known:]
        return session, outcome

    def _reporter(self, session: Session, stage: str, marked: bool, started: Started) -> Callable[[str, float], None]:
        """Return the function that a stage calls before each item."""
        path = mark_path(self.marks, session.session_id)
        if marked:
            path.parent.mkdir(parents=True, exist_ok=True)
        furthest = 0.0

        def report(source_id: str, done_s: float) -> None:
            nonlocal furthest
            # A stage may process its items in several passes; the first one is the longest.
            furthest = max(furthest, done_s)
            if marked:
                write_mark(path, stage, source_id, furthest)
            started(ItemStarted(session.session_id, stage, furthest))

        report("", 0.0)
        return report


def quarantine_session(session: Session, verdict: Quarantined, only: str | None = None) -> None:
    """Quarantine a session's usable recordings (or `only` that one) with a verdict and drop everything derived from them."""
    for recording in list(session.usable()):
        source = recording.source
        # Before decoding, a file whose channels are two recordings is one recording: a fault of the second is the file's.
        if only is not None and only not in (source.source_id, other_channel_id(source.source_id)):
            continue
        recording.status = "quarantined"
        session.quarantine.append(replace(verdict, path=source.path, source_id=source.source_id))
        session.forget(source.source_id)
