"""The state of the Ray engine: of each session in flight, of each actor, and of each session being processed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from catalogs.corpus.commit import UnitContent
from pipeline.records import Session


@dataclass
class InFlight:
    """A session in flight: the index of its next group and its latest state. `plan` is what to start over from.

    `struck`: it has strikes; `died`: its last worker died and has left a heartbeat. `node`: where the state was made. The
    state of a finished session is its content, until that is written.
    """

    plan: Session
    state: Any
    group: int = 0
    alone: bool = False
    struck: bool = False
    died: bool = False
    losses: int = 0
    node: str = ""


@dataclass(eq=False)
class PooledActor:
    """An actor of a group's pool; `node` is known once Ray has placed it."""

    group: int
    actor: Any
    born: float = field(default_factory=time.monotonic)
    node: str = ""
    loaded: bool = False
    used: bool = False


@dataclass
class Call:
    """A session being processed. `seen`: when it last showed a sign of life; `mark`: the time of its last mark; `stage`:
    the stage in that mark."""

    travel: InFlight
    member: PooledActor
    state: Any
    seen: float = field(default_factory=time.monotonic)
    mark: int = 0
    stage: str = ""


@dataclass(eq=False)
class Write:
    """A unit to be written from the content of its finished sessions. `deaths`: how many workers died while they wrote it."""

    unit: UnitContent
    done: list[InFlight]
    member: PooledActor | None = None
    deaths: int = 0

    def contents_at(self, node: str) -> int:
        """Return how many of its sessions' contents were made on a node."""
        return sum(travel.node == node for travel in self.done)
