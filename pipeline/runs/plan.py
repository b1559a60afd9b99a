"""The plan of a run: which sources are still to be processed, in which sessions, committed in which units."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from catalogs.corpus.ids import unit_id
from catalogs.urls import is_location
from pipeline.audio.open import probe_seconds
from pipeline.records import Recording, Session, Source

#: Assumed bytes per second of a file whose header cannot be read yet: 16 kHz of 16 bit, and 64 kbit/s if it is compressed.
_BYTES_PER_S, _COMPRESSED_BYTES_PER_S = 32_000, 8_000
_THREADS = 8
_AHEAD = 32
"""Headers per thread that are read before their session is asked for."""
HELD = 16
"""Units that are planned before the first one starts."""
_UNITS, _LEAST_UNIT_S, _MOST_UNIT_S = 20_000, 600.0, 9 * 3600.0
_PROBED = 16
"""Headers read per kind of file to estimate the seconds of all of them."""
_COMPRESSED = frozenset({".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".wma", ".amr", ".spx"})


@dataclass(frozen=True)
class PlannedSession:
    """Recordings made together, or a part of them if there are too many. `seconds` is their duration by their headers."""

    session_id: str
    sources: tuple[Source, ...]
    seconds: float

    def start(self, fingerprint: str, spool: str) -> Session:
        """Return the session for the first stage."""
        recordings = [Recording(source) for source in self.sources]
        return Session(self.session_id, fingerprint, f"{spool}/{_safe(self.session_id)}", recordings)


@dataclass(frozen=True)
class PlannedUnit:
    """Sessions that are committed together."""

    unit_id: str
    sessions: tuple[PlannedSession, ...]
    generation: int = 0
    """See `catalogs.corpus.commit.UnitContent`."""

    @property
    def seconds(self) -> float:
        return sum(session.seconds for session in self.sessions)


def promised_seconds(source: Source) -> float:
    """Return the duration in a source's header, in seconds; estimated from size and ending if it still has to be fetched."""
    if not is_location(source.path):
        return probe_seconds(source.path)
    return source.bytes / _bytes_per_s(PurePosixPath(source.relative_path).suffix.lower())


def unit_seconds(setting: float | Literal["auto"], total_s: float) -> float:
    """Return the seconds of a unit. `auto`: about 20,000 units for a run of `total_s` seconds, each 10 minutes to 9 hours."""
    return min(max(total_s / _UNITS, _LEAST_UNIT_S), _MOST_UNIT_S) if setting == "auto" else setting


def estimated_seconds(files: Iterable[tuple[str, int]]) -> float:
    """Return about how many seconds the files, (path or location, bytes), hold together.

    Per kind of file, a few headers are read, spread evenly over the list: opening a million headers takes an hour on a
    network disk. Locations in archives and stores are not opened; their seconds follow from bytes and ending.
    """
    kinds: dict[tuple[str, bool], tuple[int, list[tuple[str, int]]]] = {}
    for path, size in files:
        far = is_location(path)
        ending = PurePosixPath(path.partition("::")[0]).suffix.lower()
        total, some = kinds.setdefault((ending, far), (0, []))
        some.append((path, size)) if not far else None
        kinds[ending, far] = total + max(size, 0), some
    seconds = 0.0
    for (ending, _), (total, some) in kinds.items():
        drawn = some[:: max(1, len(some) // _PROBED)][:_PROBED]
        probed = [(size, probe_seconds(path)) for path, size in drawn]
        held, lasting = sum(size for size, length in probed if length > 0), sum(length for _, length in probed)
        seconds += total * lasting / held if held > 0 else total / _bytes_per_s(ending)
    return seconds


def _bytes_per_s(ending: str) -> int:
    return _COMPRESSED_BYTES_PER_S if ending in _COMPRESSED else _BYTES_PER_S


Members = tuple[str, Sequence[Source], Sequence[float]]
"""A session: its name, its sources, and the promised seconds of each (none if all are committed)."""


def measured(
    sessions: Iterable[tuple[str, Sequence[Source]]], committed: Container[str], threads: int = _THREADS
) -> Iterator[Members]:
    """Yield the sessions in order with the promised seconds of their sources. Headers are read ahead in threads, because
    reading one mostly waits for the disk. A session that is completely committed is not read."""
    with ThreadPoolExecutor(threads, "headers") as pool:
        waiting: deque[tuple[str, Sequence[Source], list[Future[float]]]] = deque()
        running = 0
        try:
            for name, sources in sessions:
                asked = () if all(source.source_id in committed for source in sources) else sources
                waiting.append((name, sources, [pool.submit(promised_seconds, source) for source in asked]))
                running += len(asked)
                while waiting and (running > _AHEAD * threads or not waiting[0][2]):
                    first, members, futures = waiting.popleft()
                    running -= len(futures)
                    yield first, members, [future.result() for future in futures]
            for first, members, futures in waiting:
                yield first, members, [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)


def plan_units(
    sessions: Iterable[Members],
    committed: Container[str],
    fingerprint: str,
    unit_s: float,
    session_s: float = math.inf,
    generation: Callable[[str], int | None] = lambda source: None,
    names: Collection[str] = (),
) -> Iterator[PlannedUnit]:
    """Group the sources that are not committed yet into units of about `unit_s` seconds, while the sessions come in.

    A session of more than `session_s` seconds is processed in parts of at most that length (a recording is never cut). The
    parts are those of all its sources, committed or not, so that an interrupted run resumes with the same ones. `names`:
    those of all sessions of the run; no part is named like one of them.

    Committed work is excluded by source and not by unit. After new recordings were added, or a run was interrupted, the
    rest is grouped differently, and nothing that was committed may be processed twice.

    `generation`: the newest generation of a source that a commit record lists. A unit that processes such a source again
    has the next generation in its id: the first record of an id wins, and the first attempt has one.
    """
    # Copied only when a session is cut: a run may have a million sessions.
    taken: set[str] | None = None
    gathered: list[PlannedSession] = []
    filled = 0.0
    for name, sources, seconds in sessions:
        if all(source.source_id in committed for source in sources):
            continue
        lengths = {source.source_id: length for source, length in zip(sources, seconds, strict=True)}
        members = sorted(sources, key=lambda source: (source.relative_path, source.source_id))
        parts = split_session(members, lambda source, of=lengths: of[source.source_id], session_s)  # type: ignore[misc]
        for number, part in enumerate(parts, start=1):
            part_name = name
            if number > 1:
                taken = set(names) if taken is None else taken
                part_name = _part_name(name, number, taken)
            waiting = tuple(source for source in part if source.source_id not in committed)
            if not waiting:
                continue
            gathered.append(PlannedSession(part_name, waiting, sum(lengths[source.source_id] for source in waiting)))
            filled += gathered[-1].seconds
            if filled >= unit_s:
                yield _unit(gathered, fingerprint, generation)
                gathered, filled = [], 0.0
    if gathered:
        yield _unit(gathered, fingerprint, generation)


def mixed(units: Iterable[PlannedUnit], held: int = HELD) -> Iterator[PlannedUnit]:
    """Yield the units ordered by their ids as far as possible with at most `held` of them waiting.

    A run that dies of a session would otherwise meet the same one first after every restart.
    """
    waiting: list[tuple[str, int, PlannedUnit]] = []
    for number, unit in enumerate(units):
        heapq.heappush(waiting, (unit.unit_id, number, unit))
        if len(waiting) > held:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def starts(units: Iterable[PlannedUnit], fingerprint: str, spool: str) -> Iterator[Session]:
    """Return the sessions of the units for the first stage, with their spools below the folder `spool`."""
    return (session.start(fingerprint, spool) for unit in units for session in unit.sessions)


def split_session(
    members: Sequence[Source], seconds_of: Callable[[Source], float], session_s: float
) -> list[list[Source]]:
    """Return the sources of a session in order, in parts of at most `session_s` seconds. A longer source is a part by
    itself."""
    parts: list[list[Source]] = []
    filled = 0.0
    for source in members:
        seconds = seconds_of(source)
        if not parts or filled + seconds > session_s:
            parts.append([])
            filled = 0.0
        parts[-1].append(source)
        filled += seconds
    return parts


def _part_name(name: str, number: int, taken: set[str]) -> str:
    """Return `name#2` for the second part. Strikes, spools and speakers are stored by session name, so two may not share
    one."""
    part = f"{name}#{number}"
    while part in taken:
        part = f"{part}#"
    taken.add(part)
    return part


def _unit(sessions: list[PlannedSession], fingerprint: str, generation_of: Callable[[str], int | None]) -> PlannedUnit:
    members, generation = [], 0
    for source in (source for session in sessions for source in session.sources):
        name = source.source_id
        if (before := generation_of(name)) is not None:
            generation = max(generation, before + 1)
            name = f"{name}#{before + 1}"
        members.append((name, source.bytes, source.content_sha256))
    return PlannedUnit(unit_id(members, fingerprint), tuple(sessions), generation)


def _safe(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
