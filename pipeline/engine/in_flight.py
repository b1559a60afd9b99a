"""What the Ray engine keeps of each session on its way, of each actor, and of each session at work."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from pipeline.records import Session


@dataclass
class InFlight:
    """A session on its way: which group is next and where its latest state lies. `plan` is what to start over from."""

    plan: Session
    state: Any
    group: int = 0
    alone: bool = False
    losses: int = 0


@dataclass(eq=False)
class PooledActor:
    """An actor of a group's pool; `node` is known once Ray has found a place for it."""

    group: int
    actor: Any
    born: float = field(default_factory=time.monotonic)
    node: str = ""
    loaded: bool = False
    used: bool = False


@dataclass
class Call:
    """A session at work. `seen`: when it last gave a sign of life, `mark` the time of its last mark, `stage` what that named."""

    travel: InFlight
    member: PooledActor
    state: Any
    seen: float = field(default_factory=time.monotonic)
    mark: int = 0
    stage: str = ""
