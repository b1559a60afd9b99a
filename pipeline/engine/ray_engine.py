"""Sessions over Ray actors: a pool per group of stages, one call at a time on each actor, a bounded number in flight.

The driver moves references only: every actor call leaves the session in the object store and returns a small outcome. What the
last group leaves there is the session's content, with its clips. One of its actors writes a unit from its sessions' contents.
With one call per actor at a time, exactly one session is to blame if a worker dies. If its node went down with it, or it died
before it began, no session is to blame, and the session goes to another actor.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfDiskError, RaySystemError, RayTaskError

from catalogs.corpus.attempts import Cause
from catalogs.corpus.commit import UnitContent
from pipeline.engine.api import (
    ContentLost,
    DiskFullError,
    EngineError,
    Event,
    GroupDone,
    ItemStarted,
    Outcome,
    Output,
    SessionDone,
    UnitWritten,
)
from pipeline.engine.heartbeat import mark_path, mark_time, read_mark
from pipeline.engine.in_flight import Call, InFlight, PooledActor, Write
from pipeline.engine.pools import fit_promises, size_pools
from pipeline.engine.ray_actor import DEATHS, StageActor, raised, why
from pipeline.engine.ray_node import join_ray, node_answers
from pipeline.engine.strikes import ALONE_AFTER, Strikes
from pipeline.engine.worker import StageGroup, quarantine_session
from pipeline.records import Quarantined, Session
from pipeline.runtime.failures import LOST_WORKER, StopRunError
from pipeline.stage import LoadError

_FREE_LOSSES = 3
"""How often a session may lose its actor without a strike. After that a loss is a strike, because the session may be what
takes the nodes down."""
_LOADS = 4
"""Maximum number of consecutive deaths of actors of one group while they load."""
_LOAD_S = 600.0
_ROOM_AFTER_S = 60.0
_LISTEN_S = 0.5
"""Seconds between two looks at the heartbeats: each costs a call of the file system per session."""
_LISTEN_SHARE = 0.05
"""Maximum share of the driver's time for that, if the file system is slow."""
_WRITES = 4
"""Maximum number of actors that may die while they write one unit."""


class RayEngine:
    """Runs sessions over Ray actors, see `Engine`. `address` is None for this machine alone; a cluster changes only
    `ray.init(address=...)`.

    On a cluster the corpus (with its tmp/) and the sources must be on a file system that all nodes share."""

    def __init__(
        self,
        groups: list[StageGroup],
        marks: Path,
        strikes: Path,
        address: str | None = None,
        in_flight: int | None = None,
        output: Output | None = None,
    ) -> None:
        self._marks = marks
        self._output = output or Output()
        self._strikes = Strikes(strikes)
        self._own_ray = join_ray(address)
        self._here = str(ray.get_runtime_context().get_node_id())
        there = ray.cluster_resources()
        self._groups = size_pools(groups, there.get("CPU", 0.0), there.get("GPU", 0.0))
        fit_promises(self._groups, there.get("CPU", 0.0), there.get("GPU", 0.0))
        self._in_flight = in_flight or sum(group.actors for group in self._groups) + 1
        self._members: list[PooledActor] = []
        self._idle: list[list[PooledActor]] = [[] for _ in groups]
        self._starting: dict[Any, PooledActor] = {}
        self._failed_loads = [0] * len(groups)
        self._waiting: list[deque[InFlight]] = [deque() for _ in groups]
        self._loners: deque[InFlight] = deque()
        self._calls: dict[Any, Call] = {}
        self._traveling = 0
        self._finished: dict[str, InFlight] = {}
        self._to_write: deque[Write] = deque()
        self._writes: dict[Any, Write] = {}
        self._listen_at = 0.0

    def run(self, sessions: Iterable[Session]) -> Iterator[Event]:
        """See `Engine.run`. Raises EngineError if Ray itself has failed."""
        try:
            yield from self._drive(iter(sessions))
        except OutOfDiskError:
            raise DiskFullError(errno.ENOSPC, "no space left for Ray's temporary files (/tmp/ray)") from None
        except RaySystemError as error:
            raise EngineError(f"Ray has failed ({why(error)}); run the same command to resume") from None

    def write(self, unit: UnitContent) -> None:
        """See `Engine.write`: an actor of the last group does it."""
        self._to_write.append(Write(unit, [self._finished.pop(session_id) for session_id in unit.sessions]))

    def _drive(self, sessions: Iterator[Session]) -> Iterator[Event]:
        if not self._members:
            for index, group in enumerate(self._groups):
                for _ in range(group.actors):
                    self._spawn(index)
        exhausted = False
        while True:
            while not exhausted and self._traveling < self._in_flight and self._keeps_up():
                session = next(sessions, None)
                if session is None:
                    exhausted = True
                    break
                self._traveling += 1
                strikes = self._strikes.count(session.session_id)
                self._queue(InFlight(session, session, alone=strikes >= ALONE_AFTER, struck=strikes > 0))
            if exhausted and not self._traveling and not self._to_write and not self._writes:
                return
            self._assign()
            for ref in self._ready():
                events: list[Event] = []
                if ref in self._starting:
                    self._started(ref, self._starting.pop(ref))
                elif ref in self._writes:
                    events = self._written(ref, self._writes.pop(ref))
                elif ref in self._calls:
                    events = self._returned(ref, self._calls.pop(ref))
                # Before the events, which take the driver's time.
                self._assign()
                yield from events
            yield from self._listen()
            self._look_after_starts()

    def _keeps_up(self) -> bool:
        """Return True unless many units wait to be written: their audio fills the object store."""
        return len(self._to_write) + len(self._writes) <= 2 * self._groups[-1].actors

    def _ready(self) -> list[Any]:
        """Return the calls that have ended; wait for one, up to a second."""
        refs = [*self._calls, *self._writes, *self._starting]
        # With one at a time, a look at all of them would be due for each event.
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        if not ready:
            ready, _ = ray.wait(refs, num_returns=1, timeout=1.0)
        return list(ready)

    def _returned(self, ref: Any, call: Call) -> list[Event]:
        """Move the session of a call on. Return what has happened."""
        result = self._settle(ref, call)
        travel = call.travel
        if result is None:
            self._queue(travel)
            return []
        outcome, done = result
        events: list[Event] = [GroupDone(self._groups[call.member.group].name, outcome)]
        if done is None:
            self._queue(travel)
            return events
        session_id = travel.plan.session_id
        if travel.struck and not done.session.quarantine:
            # A quarantined session keeps its strikes until it is committed: the driver may still be killed.
            self._strikes.clear(session_id)
        self._finished[session_id] = travel
        self._traveling -= 1
        return [*events, done]

    def _written(self, ref: Any, write: Write) -> list[Event]:
        """Take the result of a write. If its actor has died, another one writes; if content is lost, its sessions start over."""
        assert write.member is not None
        try:
            record = ray.get(ref)
        except DEATHS as error:
            self._replace(write.member)
            write.deaths += 1
            if write.deaths > _WRITES:
                unit = f"{write.deaths} workers died while they wrote unit {write.unit.unit_id}"
                raise EngineError(f"{unit} ({why(error)}); run the same command to resume") from None
            self._to_write.append(write)
            return []
        except ObjectLostError:
            self._idle[-1].append(write.member)
            for travel in write.done:
                self._start_over(travel)
                self._queue(travel)
            self._traveling += len(write.done)
            return [ContentLost(tuple(write.unit.sessions))]
        except RayTaskError as error:
            raise raised(error) from None
        self._idle[-1].append(write.member)
        return [UnitWritten(record)]

    def close(self) -> None:
        """Kill the actors; shut Ray down if this engine started it."""
        for member in self._members:
            ray.kill(member.actor)
        self._members = []
        if self._own_ray and ray.is_initialized():
            ray.shutdown()

    def _queue(self, travel: InFlight) -> None:
        (self._loners if travel.alone else self._waiting[travel.group]).append(travel)

    def _assign(self) -> None:
        # Writes first: they free memory, and the next session would make more to write.
        while self._to_write and self._idle[-1]:
            write = self._to_write.popleft()
            write.member = max(self._idle[-1], key=lambda member: write.contents_at(member.node))
            self._idle[-1].remove(write.member)
            contents = [travel.state for travel in write.done]
            self._writes[write.member.actor.write.remote(write.unit, contents)] = write
        for index, queue in enumerate(self._waiting):
            while queue and self._idle[index]:
                self._submit(queue.popleft(), self._idle[index].pop())
        # A suspect session runs when no other does, so that its death harms no other session, and on an unused actor.
        if self._loners and not self._calls and not any(self._waiting):
            index = self._loners[0].group
            fresh = next((member for member in self._idle[index] if not member.used), None)
            if fresh is not None:
                self._idle[index].remove(fresh)
                self._submit(self._loners.popleft(), fresh)
            elif self._idle[index] and not any(member.group == index for member in self._starting.values()):
                self._replace(self._idle[index].pop())

    def _submit(self, travel: InFlight, member: PooledActor) -> None:
        if travel.died:
            mark_path(self._marks, travel.plan.session_id).unlink(missing_ok=True)
            travel.died = False
        member.used = True
        state, status = member.actor.run.remote(travel.state, travel.alone)
        self._calls[status] = Call(travel, member, state)

    def _settle(self, status: Any, call: Call) -> tuple[Outcome, SessionDone | None] | None:
        """Return the result of a call and move its session one group on; None if the session has to be tried again."""
        travel = call.travel
        try:
            result: tuple[Outcome, SessionDone | None] = ray.get(status)
        except ObjectLostError:
            # The node that held the session's state is gone. The session is not at fault and gets no strike.
            self._idle[travel.group].append(call.member)
            self._start_over(travel)
            return None
        except DEATHS as error:
            self._died(call, error)
            return None
        except RayTaskError as error:
            cause = raised(error)
            if isinstance(cause, DiskFullError | StopRunError | OutOfDiskError):
                raise cause from None
            # An error outside a worker's own handlers (an unpicklable session, ...) would occur again.
            self._strike(call, " ".join(str(cause).split())[-300:], "bug")
            return None
        self._idle[travel.group].append(call.member)
        travel.state, travel.node = call.state, call.member.node
        travel.group += 1
        return result

    def _start_over(self, travel: InFlight) -> None:
        travel.state = travel.plan
        travel.group = 0

    def _died(self, call: Call, error: Exception) -> None:
        """Handle a session that lost its actor: add a strike if it is to blame, otherwise only try it again on another
        actor."""
        travel = call.travel
        travel.died = True
        began = mark_path(self._marks, travel.plan.session_id).exists()
        blameless = isinstance(error, NodeDiedError) or not began or not self._node_lives(call.member.node)
        if blameless and travel.losses < _FREE_LOSSES:
            travel.losses += 1
            self._replace(call.member)
        else:
            self._strike(call, why(error))

    def _strike(self, call: Call, reason: str, cause: Cause = "machine") -> None:
        """Handle a session that killed its worker: count it on disk, replace the worker, and try the session again or
        quarantine it."""
        travel = call.travel
        group = self._groups[travel.group]
        session_id = travel.plan.session_id
        stage, source_id, _ = read_mark(mark_path(self._marks, session_id))
        before = self._strikes.last(session_id)
        strike = self._strikes.add(session_id, stage or group.name, reason, source_id)
        travel.struck = travel.died = True
        self._replace(call.member)
        if strike.condemns(before):
            error = f"its worker died: {reason}"
            verdict = Quarantined("", "", strike.stage, error, strike.strikes, cause=cause, kind=LOST_WORKER)
            quarantine_session(travel.plan, verdict, source_id or None)
            self._start_over(travel)
        travel.alone = strike.strikes >= ALONE_AFTER

    def _node_lives(self, node: str) -> bool:
        return node == self._here or node_answers(node)

    def _spawn(self, index: int) -> None:
        """Start one more actor for a group. It is used as soon as it has loaded; nothing waits for it."""
        there = ray.cluster_resources()
        spec = fit_promises(self._groups, there.get("CPU", 0.0), there.get("GPU", 0.0))[index]
        many = sum(bool(entry["Alive"]) for entry in ray.nodes()) > 1
        actor = StageActor.options(  # type: ignore[attr-defined]
            num_cpus=spec.cpus, num_gpus=spec.gpus, scheduling_strategy="SPREAD" if many else "DEFAULT"
        ).remote(spec.stages, str(self._marks), self._output if index == len(self._groups) - 1 else None)
        member = PooledActor(index, actor)
        self._members.append(member)
        self._starting[actor.where.remote()] = member

    def _discard(self, member: PooledActor) -> None:
        self._members.remove(member)
        ray.kill(member.actor)

    def _replace(self, member: PooledActor) -> None:
        """Replace an actor that died, but not if the cluster has shrunk and the group has other actors."""
        self._discard(member)
        try:
            self._spawn(member.group)
        except LoadError:
            if not any(other.group == member.group for other in self._members):
                raise
            self._shrink(member.group)

    def _shrink(self, index: int) -> None:
        group = self._groups[index]
        self._groups[index] = replace(group, actors=group.actors - 1)

    def _started(self, ref: Any, member: PooledActor) -> None:
        """Handle an actor that has found its node, has loaded, or has failed to."""
        index = member.group
        try:
            answer = ray.get(ref)
        except DEATHS as error:
            lost = bool(member.node) and not self._node_lives(member.node)
            self._failed_loads[index] += 0 if lost else 1
            if self._failed_loads[index] > _LOADS:
                raise LoadError(f"a worker of {self._groups[index].name} could not start: {why(error)}") from None
            self._replace(member)
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, LoadError) else LoadError(str(error.cause)) from None
        else:
            if not member.node:
                member.node = answer
                self._starting[member.actor.load.remote()] = member
                return
            member.loaded = True
            self._failed_loads[index] = 0
            self._idle[index].append(member)

    def _listen(self) -> list[ItemStarted]:
        """Return the latest heartbeats of the sessions being processed, if it is time for a look; kill workers that hang."""
        now = time.monotonic()
        if now < self._listen_at:
            return []
        found = []
        for status, call in list(self._calls.items()):
            path = mark_path(self._marks, call.travel.plan.session_id)
            mark = mark_time(path)
            limit = self._groups[call.travel.group].limit_s(call.stage)
            if mark != call.mark:
                call.mark, call.seen = mark, now
                call.stage, _, done_s = read_mark(path)
                if call.stage:
                    found.append(ItemStarted(call.travel.plan.session_id, call.stage, done_s))
            elif now - call.seen > limit and not ray.wait([status], timeout=0)[0]:
                del self._calls[status]
                self._strike(call, f"no answer within {limit:.0f} s")
                self._queue(call.travel)
        self._listen_at = now + max(_LISTEN_S, (time.monotonic() - now) / _LISTEN_SHARE)
        return found

    def _look_after_starts(self) -> None:
        """Make room for actors that Ray cannot place. Raises LoadError for a group in which no actor starts to work."""
        now = time.monotonic()
        working = {member.group for member in self._members if member.loaded}
        for member in self._starting.values():
            if member.group in working:
                continue
            if now - member.born > _LOAD_S:
                name = self._groups[member.group].name
                raise LoadError(f"no worker of {name} started within 10 minutes; is the Ray cluster short of CPUs?")
            if not member.node and now - member.born > _ROOM_AFTER_S and self._make_room():
                member.born = now
                return

    def _make_room(self) -> bool:
        """Discard an idle actor of a group that has others, without which everything would stop. Return True if one was."""
        for index, idle in enumerate(self._idle):
            if idle and sum(member.group == index for member in self._members) > 1:
                self._discard(idle.pop())
                self._shrink(index)
                return True
        return False
