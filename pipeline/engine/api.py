"""The engine's interface: the events that it yields while sessions go through the stages, and the errors that stop it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from catalogs.corpus.commit import UnitContent
from pipeline.records import Session
from pipeline.runtime.failures import Tally


class DiskFullError(OSError):
    """No space is left for the corpus or its temporary files. The run stops; no data is quarantined for it."""


class EngineError(RuntimeError):
    """The system that the engine runs on failed, not a stage. The run stops with this one line and can be run again."""


@dataclass
class Outcome:
    """The small result that is returned with a processed session, so that the driver does not have to load the session."""

    session_id: str = ""
    busy_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds of all threads of the worker while each stage ran: unlike `busy_s` it does not grow when stages wait
    for a core."""
    audio_s: float = 0.0
    notices: list[str] = field(default_factory=list)
    halved: dict[str, int] = field(default_factory=dict)
    """Batch size to which stages were reduced because they ran out of memory."""
    tallies: dict[str, Tally] = field(default_factory=dict)
    """The outcomes of each stage's items, and (`<stage>/session`) of the session as a whole."""


@dataclass(frozen=True)
class ItemStarted:
    """A stage is about to take its next item of a session, and has finished `done_s` seconds of the session's audio.

    If several come close together, the Ray engine yields the latest.
    """

    session_id: str
    stage: str
    done_s: float


@dataclass(frozen=True)
class GroupDone:
    """A group of stages has finished a session. The outcome counts what failed in it."""

    group: str
    outcome: Outcome


@dataclass(frozen=True)
class SessionCounts:
    """The segments of a finished session, counted. Seconds are of segments; `reasons` counts those rejected."""

    segments: int = 0
    speech_s: float = 0.0
    kept: int = 0
    kept_s: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionDone:
    """A session came out of the last stage, or was quarantined. Its failures are in its `quarantine`.

    It has no audio, segments or references any more: this content stays where it was made, until `Engine.write`.
    """

    session: Session
    counts: SessionCounts = SessionCounts()


@dataclass(frozen=True)
class UnitWritten:
    """The files of a unit are written and on the disk. `record` names them; nobody sees them before it is linked."""

    record: dict[str, Any]


@dataclass(frozen=True)
class ContentLost:
    """The content of a unit's finished sessions is lost, because a node went down before it was written. These sessions are
    processed again: each comes in another SessionDone."""

    session_ids: tuple[str, ...]


Event = ItemStarted | GroupDone | SessionDone | UnitWritten | ContentLost


class Output:
    """What a worker makes of finished sessions. This one keeps nothing; `pipeline.runs.output` has the one that writes."""

    def split(self, session: Session) -> tuple[SessionDone, Any]:
        """Return the small event for the driver, and the content that stays with the workers."""
        session.windows, session.speech, session.segments, session.references = [], [], [], []
        return SessionDone(session), None

    def write(self, unit: UnitContent, contents: Iterable[Any]) -> dict[str, Any]:
        """Write the files of a unit from the contents of its sessions, and return its record.

        `contents` are in the order of `unit.sessions`; each is loaded when it is taken.
        """
        raise NotImplementedError


class Engine(Protocol):
    """Runs sessions through the groups of stages."""

    def run(self, sessions: Iterable[Session]) -> Iterator[Event]:
        """Process the sessions and yield what happens, until all are done and the units given to `write` are written. Each
        session is in one SessionDone, in any order (see ContentLost). May be called again with more sessions, or with none
        to wait for the units.

        Raises LoadError if a stage's model cannot be loaded, another StopRunError if a stage fails on everything or lacks a
        library, and DiskFullError if the disk is full; no data is quarantined for these.
        """

    def write(self, unit: UnitContent) -> None:
        """Let a worker write the files of a unit whose `sessions` are all done; the result is a UnitWritten from `run`."""

    def close(self) -> None:
        """Release actors, processes and threads."""
