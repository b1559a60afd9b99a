"""The engine's interface: the events that it yields while sessions go through the stages, and the errors that stop it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.records import Session
from pipeline.runtime.failures import Tally


class DiskFullError(OSError):
    """No space left for the corpus or its temporary files: the run stops, no data is put into quarantine for it."""


class EngineError(RuntimeError):
    """The machinery under the engine failed, not a stage: the run stops with this one line and can be run again."""


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


@dataclass(frozen=True)
class ItemStarted:
    """A stage is about to take its next item of a session, and is through with `done_s` seconds of the session's audio.

    The Ray engine yields the latest of several that came close together.
    """

    session_id: str
    stage: str
    done_s: float


@dataclass(frozen=True)
class GroupDone:
    """A group of stages has finished with a session. What failed in it is counted in the outcome."""

    group: str
    outcome: Outcome


@dataclass(frozen=True)
class SessionDone:
    """A session came out of the last stage, or was condemned: what failed of it is in its `quarantine`."""

    session: Session


Event = ItemStarted | GroupDone | SessionDone


class Engine(Protocol):
    """Drives sessions through the groups of stages."""

    def run(self, sessions: Iterable[Session]) -> Iterator[Event]:
        """Process the sessions and yield what happens. Each session is in one SessionDone, in any order.

        Raises LoadError when a stage's model cannot be loaded, another StopRunError when a stage fails on everything or lacks
        a library, and DiskFullError when the disk is full; no data is quarantined for these.
        """

    def close(self) -> None:
        """Let go of actors, processes and threads."""
