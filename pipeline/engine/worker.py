"""The engine's interface and the worker that runs a group of stages on one session, wherever it lives."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from catalogs.corpus.ids import other_channel_id
from catalogs.files import is_full_disk
from pipeline.engine.heartbeat import mark_path, write_mark
from pipeline.records import Quarantined, Session
from pipeline.runtime.failures import StopRunError, Tally, missing_library
from pipeline.stage import LoadError, Stage, StageConfig, described, quarantined
from pipeline.stages import stage_class


class DiskFullError(OSError):
    """No space left for the corpus or its temporary files: the run stops, no data is put into quarantine for it."""


class EngineError(RuntimeError):
    """The machinery under the engine failed, not a stage: the run stops with this one line and can be run again."""


#: Told of a session at work: its id, the stage, and the seconds of its audio that the stage is through with.
Moved = Callable[[str, str, float], None]


@dataclass(frozen=True)
class StageSpec:
    """A stage by name with its settings: what travels to an actor instead of the stage itself."""

    name: str
    config: StageConfig

    def build(self) -> Stage[Any]:
        return stage_class(self.name)(self.config)


@dataclass(frozen=True)
class StageGroup:
    """Stages that share one actor, how many such actors there are, and what each may use.

    `actors` 0: as many as the node's cores and GPUs bear (`pools.size_pools`). `timeout_s`: seconds that one item may take
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


@dataclass
class Outcome:
    """The small answer that comes back beside a processed session, so that the driver need not open the session."""

    session_id: str = ""
    busy_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds of all threads of the worker while each stage ran: unlike `busy_s` it does not grow when stages wait
    for a core."""
    audio_s: float = 0.0
    notices: list[str] = field(default_factory=list)
    halved: dict[str, int] = field(default_factory=dict)
    """Batch size that stages came down to because they ran out of memory."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    """What became of each stage's items, and (`<stage>/session`) of the session as a whole."""


class Engine(Protocol):
    """Drives sessions through the groups of stages."""

    def run(
        self,
        sessions: Iterable[Session],
        finish: Callable[[Session], None],
        watch: Callable[[str, Outcome], None],
        moved: Moved | None = None,
    ) -> None:
        """Process every session and hand each to `finish` once, in any order; `watch` sees each group's outcome, `moved`
        how far the sessions at work are.

        A session that cannot be processed comes to `finish` too, with its recordings quarantined. Raises LoadError when
        a stage's model cannot be loaded, another StopRunError when a stage fails on everything or lacks a library, and
        DiskFullError when the disk is full; no data is quarantined for these.
        """

    def close(self) -> None:
        """Let go of actors and processes."""


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
        self, session: Session, marked: bool, moved: Moved | None = None, one_by_one: bool = False
    ) -> tuple[Session, Outcome]:
        """Run the stages on one session. With `marked`, the item at work is noted on disk. The note shows that we are not
        stuck, and which item was at fault if we die. For a batch it names the first item, so a session under suspicion runs
        `one_by_one`. `moved` is called before every item."""
        outcome = Outcome(session.session_id)
        known = len(session.notices)
        for stage in self.stages:
            started, worked = time.perf_counter(), time.process_time()
            whole = Tally()
            try:
                stage.one_by_one = one_by_one
                stage.report_item = self._reporter(session, stage.name, marked, moved)
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
            busy = time.perf_counter() - started
            session.busy_s[stage.name] = session.busy_s.get(stage.name, 0.0) + busy
            outcome.busy_s[stage.name] = busy
            outcome.cpu_s[stage.name] = time.process_time() - worked
        outcome.audio_s = sum(recording.duration_s for recording in session.usable())
        outcome.notices = session.notices[known:]
        return session, outcome

    def _reporter(
        self, session: Session, stage: str, marked: bool, moved: Moved | None
    ) -> Callable[[str, float], None]:
        """What a stage calls before each item."""
        path = mark_path(self.marks, session.session_id)
        if marked:
            path.parent.mkdir(parents=True, exist_ok=True)
        furthest = 0.0

        def report(source_id: str, done_s: float) -> None:
            nonlocal furthest
            # A stage may go over its items more than once; the first round is the long one.
            furthest = max(furthest, done_s)
            if marked:
                write_mark(path, stage, source_id, furthest)
            if moved is not None:
                moved(session.session_id, stage, furthest)

        report("", 0.0)
        return report


def quarantine_session(session: Session, verdict: Quarantined, only: str | None = None) -> None:
    """Quarantine a session's usable recordings (or `only` that one) with a verdict and drop what was made of them."""
    for recording in list(session.usable()):
        source = recording.source
        # Before it is decoded a file whose channels are two recordings is one: the second one's fault is the file's.
        if only is not None and only not in (source.source_id, other_channel_id(source.source_id)):
            continue
        recording.status = "quarantined"
        session.quarantine.append(replace(verdict, path=source.path, source_id=source.source_id))
        session.forget(source.source_id)
