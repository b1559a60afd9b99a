"""Sessions over Ray actors: a pool per group of stages, one call at a time on each actor, a bounded number in flight.

The driver moves references, never audio: every actor call returns the session (left in the object store) and a small
outcome. One call per actor at a time means that when a worker dies, exactly one session was to blame.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from pipeline.engine.base import DiskFullError, Outcome, StageGroup, Worker, condemn, mark_path
from pipeline.engine.strikes import Strikes
from pipeline.records import Session
from pipeline.stage import LoadError

ALONE_AFTER = 2
"""After this many strikes a session runs alone on a fresh actor; if that dies too, what killed it is quarantined."""

_DEATHS = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError)
_LOST = (ObjectLostError, OwnerDiedError)


@ray.remote(max_restarts=0, max_task_retries=0)
class _Actor:
    """A `Worker` in a process of its own."""

    def __init__(self, stages: tuple[Any, ...], marks: str) -> None:
        self._worker = Worker(stages, marks)

    def load(self) -> None:
        self._worker.load()

    @ray.method(num_returns=2)
    def run(self, session: Session, marked: bool) -> tuple[Session, Outcome]:
        return self._worker.run(session, marked)


@dataclass
class _Travel:
    """A session on its way: which group is next and where its latest state lies. `plan` is what to start over from."""

    plan: Session
    state: Any
    group: int = 0
    alone: bool = False


@dataclass
class _Call:
    travel: _Travel
    actor: Any
    state: Any
    started: float
    fresh: bool


class RayEngine:
    """See `Engine`. `address` is None for this machine alone; `ray.init(address=...)` is all that a cluster changes."""

    def __init__(
        self,
        groups: list[StageGroup],
        marks: Path,
        strikes: Path,
        address: str | None = None,
        in_flight: int | None = None,
    ) -> None:
        self._groups = groups
        self._marks = marks
        self._strikes = Strikes(strikes)
        self._in_flight = in_flight or sum(group.actors for group in groups) + 1
        self._own_ray = not ray.is_initialized()
        if self._own_ray:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        self._check_cpus()
        self._idle: list[list[Any]] = [[] for _ in groups]

    def run(
        self,
        sessions: Iterable[Session],
        finish: Callable[[Session], None],
        watch: Callable[[str, Outcome], None],
    ) -> None:
        """See `Engine.run`."""
        self._start_pools()
        waiting: list[deque[_Travel]] = [deque() for _ in self._groups]
        loners: deque[_Travel] = deque()
        calls: dict[Any, _Call] = {}
        source = iter(sessions)
        travelling = 0
        exhausted = False
        while True:
            while not exhausted and travelling < self._in_flight:
                travel = self._admit(source)
                if travel is None:
                    exhausted = True
                    break
                travelling += 1
                (loners if travel.alone else waiting[0]).append(travel)
            for index, queue in enumerate(waiting):
                while queue and self._idle[index]:
                    self._submit(calls, queue.popleft(), self._idle[index].pop(), fresh=False)
            # A suspect runs when nothing else does, so that its death can harm nobody.
            if loners and not calls and not any(waiting):
                travel = loners.popleft()
                self._submit(calls, travel, self._spawn(travel.group, load=True), fresh=True)
            if not calls:
                if exhausted and not loners and not any(waiting):
                    return
                continue
            ready, _ = ray.wait(list(calls), num_returns=1, timeout=1.0)
            for status in ready:
                call = calls.pop(status)
                after = self._settle(status, call, watch)
                if after is None:
                    continue
                if after.group < len(self._groups):
                    (loners if after.alone else waiting[after.group]).append(after)
                    continue
                session = ray.get(after.state)
                session.windows = []
                self._strikes.clear(session.session_id)
                mark_path(self._marks, session.session_id).unlink(missing_ok=True)
                finish(session)
                travelling -= 1
            for status, call in self._overdue(calls):
                del calls[status]
                ray.kill(call.actor)
                limit = self._groups[call.travel.group].timeout_s
                after = self._strike(call, f"no answer within {limit:.0f} s")
                (loners if after.alone else waiting[after.group]).append(after)

    def close(self) -> None:
        """Kill the actors; shut Ray down if this engine started it."""
        for pool in self._idle:
            for actor in pool:
                ray.kill(actor)
        if self._own_ray and ray.is_initialized():
            ray.shutdown()

    def _admit(self, sessions: Iterator[Session]) -> _Travel | None:
        session = next(sessions, None)
        if session is None:
            return None
        return _Travel(session, ray.put(session), alone=self._strikes.count(session.session_id) >= ALONE_AFTER)

    def _submit(self, calls: dict[Any, _Call], travel: _Travel, actor: Any, fresh: bool) -> None:
        marked = travel.alone or self._strikes.count(travel.plan.session_id) > 0
        state, status = actor.run.remote(travel.state, marked)
        calls[status] = _Call(travel, actor, state, time.monotonic(), fresh)

    def _settle(self, status: Any, call: _Call, watch: Callable[[str, Outcome], None]) -> _Travel | None:
        """What a finished call leads to: the session one group on, or started over after a death."""
        travel = call.travel
        group = self._groups[travel.group]
        try:
            outcome: Outcome = ray.get(status)
        except _LOST:
            # The node that held the session's state is gone; nobody's fault, so no strike.
            self._give_back(call)
            return self._restart(travel)
        except _DEATHS as error:
            return self._strike(call, _why(error))
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, DiskFullError | LoadError):
                raise cause from None
            return self._strike(call, " ".join(str(cause).split())[-300:])
        watch(group.name, outcome)
        self._give_back(call)
        travel.state = call.state
        travel.group += 1
        return travel

    def _strike(self, call: _Call, reason: str) -> _Travel:
        """A session cost its worker: count it on disk, replace the worker, and start the session over or condemn it."""
        travel = call.travel
        group = self._groups[travel.group]
        session_id = travel.plan.session_id
        strikes = self._strikes.add(session_id, group.name, reason)
        if not call.fresh:
            self._idle[travel.group].append(self._spawn(travel.group, load=True))
        if strikes > ALONE_AFTER:
            stage, culprit = self._culprit(session_id)
            condemn(travel.plan, stage or group.name, f"its worker died: {reason}", strikes, only=culprit)
        travel.alone = strikes >= ALONE_AFTER
        return self._restart(travel)

    def _culprit(self, session_id: str) -> tuple[str | None, str | None]:
        """Stage and source id the dead worker had noted, if it came to note any."""
        path = mark_path(self._marks, session_id)
        if not path.exists():
            return None, None
        stage, _, source_id = path.read_text(encoding="utf-8").partition("\n")
        path.unlink()
        return stage, source_id or None

    def _restart(self, travel: _Travel) -> _Travel:
        travel.state = ray.put(travel.plan)
        travel.group = 0
        return travel

    def _give_back(self, call: _Call) -> None:
        if call.fresh:
            ray.kill(call.actor)
        else:
            self._idle[call.travel.group].append(call.actor)

    def _spawn(self, group: int, load: bool) -> Any:
        spec = self._groups[group]
        actor = _Actor.options(  # type: ignore[attr-defined]
            num_cpus=spec.cpus, num_gpus=spec.gpus
        ).remote(spec.stages, str(self._marks))
        if load:
            self._await_load([actor])
        return actor

    def _start_pools(self) -> None:
        for index, group in enumerate(self._groups):
            self._idle[index] = [self._spawn(index, load=False) for _ in range(group.actors)]
        self._await_load([actor for pool in self._idle for actor in pool])

    def _await_load(self, actors: list[Any]) -> None:
        try:
            ray.get([actor.load.remote() for actor in actors], timeout=600)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, LoadError) else LoadError(str(error.cause)) from None
        except RayActorError as error:
            raise LoadError(f"a worker could not start: {_why(error)}") from None
        except GetTimeoutError:
            raise LoadError("the workers did not start within 10 minutes; is the Ray cluster short of CPUs?") from None
        except RaySystemError as error:
            raise LoadError(f"Ray could not start the workers: {_why(error)}") from None

    def _overdue(self, calls: dict[Any, _Call]) -> list[tuple[Any, _Call]]:
        now = time.monotonic()
        return [
            (status, call)
            for status, call in calls.items()
            if now - call.started > self._groups[call.travel.group].timeout_s
        ]

    def _check_cpus(self) -> None:
        # With every CPU promised to an actor, Ray has none left to start the next one on and hangs without a word.
        asked = sum(group.actors * group.cpus for group in self._groups)
        there = ray.cluster_resources().get("CPU", 0.0)
        if asked >= there:
            raise LoadError(
                f"the stages ask for {asked:g} CPUs and Ray has {there:g}; lower engine.cpus_per_actor or engine.actors"
            )


def _why(error: BaseException) -> str:
    """The cause of a worker's death in one line, without Ray's stack of explanations."""
    if isinstance(error, OutOfMemoryError):
        return "out of memory"
    text = " ".join(str(error).split())
    for phrase in ("connection error code", "worker process has died", "SIGSEGV", "SIGKILL", "unexpected system error"):
        if phrase in text:
            return "the process ended without a word (killed, out of memory or a crash in native code)"
    return text[:200]
