"""The engine's interface and the worker that runs a group of stages on one session, wherever it lives."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.records import Quarantined, Session
from pipeline.stage import LoadError, Stage, StageConfig, one_line
from pipeline.stages import stage_class


class DiskFullError(OSError):
    """No space left for the corpus or its temporary files: the run stops, no data is put into quarantine for it."""


@dataclass(frozen=True)
class StageSpec:
    """A stage by name with its settings: what travels to an actor instead of the stage itself."""

    name: str
    config: StageConfig

    def build(self) -> Stage[Any]:
        return stage_class(self.name)(self.config)


@dataclass(frozen=True)
class StageGroup:
    """Stages that share one actor, how many such actors there are, and what each may use."""

    stages: tuple[StageSpec, ...]
    actors: int = 1
    cpus: float = 0.2
    gpus: float = 0.0
    timeout_s: float = 1800.0

    @property
    def name(self) -> str:
        return "+".join(stage.name for stage in self.stages)


@dataclass
class Outcome:
    """The small answer that comes back beside a processed session, so that the driver need not open the session."""

    busy_s: dict[str, float] = field(default_factory=dict)
    audio_s: float = 0.0
    notices: list[str] = field(default_factory=list)


class Engine(Protocol):
    """Drives sessions through the groups of stages."""

    def run(
        self,
        sessions: Iterable[Session],
        finish: Callable[[Session], None],
        watch: Callable[[str, Outcome], None],
    ) -> None:
        """Process every session and hand each to `finish` once, in any order; `watch` sees each group's outcome.

        A session that cannot be processed comes to `finish` too, with its recordings quarantined. Raises LoadError when
        a stage's model cannot be loaded and DiskFullError when there is no space; no data is quarantined for these.
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
                raise LoadError(f"{stage.name} cannot start: {one_line(error)}") from error

    def run(self, session: Session, marked: bool) -> tuple[Session, Outcome]:
        """Run the stages on one session. With `marked`, the item at work is noted on disk, in case it kills us."""
        outcome = Outcome()
        known = len(session.notices)
        for stage in self.stages:
            stage.report_item = self._marker(session, stage.name) if marked else _ignore
            started = time.perf_counter()
            try:
                session = stage(session)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise DiskFullError(error.errno, f"no space left on the disk ({stage.name})") from error
                condemn(session, stage.name, one_line(error))
            except Exception as error:
                condemn(session, stage.name, one_line(error))
            busy = time.perf_counter() - started
            session.busy_s[stage.name] = session.busy_s.get(stage.name, 0.0) + busy
            outcome.busy_s[stage.name] = busy
        outcome.audio_s = sum(recording.duration_s for recording in session.usable())
        outcome.notices = session.notices[known:]
        return session, outcome

    def _marker(self, session: Session, stage: str) -> Callable[[str], None]:
        path = mark_path(self.marks, session.session_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        return lambda source_id: _write(path, f"{stage}\n{source_id}")


def condemn(session: Session, stage: str, reason: str, attempts: int = 1, only: str | None = None) -> None:
    """Quarantine a session's usable recordings (or `only` that one) and drop what was made of them."""
    for recording in list(session.usable()):
        source = recording.source
        if only is not None and source.source_id != only:
            continue
        recording.status = "quarantined"
        session.quarantine.append(Quarantined(source.path, source.source_id, stage, reason, attempts))
        session.windows = [window for window in session.windows if window.source_id != source.source_id]
        session.segments = [segment for segment in session.segments if segment.source_id != source.source_id]
    alive = {segment.segment_id for segment in session.segments}
    session.references = [r for r in session.references if r.segment_id in alive and r.reference_id in alive]


def mark_path(marks: Path, session_id: str) -> Path:
    """Where a worker notes which item of a session it is at."""
    return marks / f"{session_id.replace('/', '_')[:120]}.mark"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _ignore(source_id: str) -> None:
    return None
