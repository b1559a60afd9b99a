"""The plan of a run: which sources are still to be processed, in which sessions, committed in which units."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from catalogs.corpus.ids import unit_id
from pipeline.audio.open import probe_seconds
from pipeline.records import Recording, Session, Source
from pipeline.runtime.paths import is_location

#: Assumed bytes per second of a file whose header cannot be read yet: 16 kHz of 16 bit, and 64 kbit/s if it is compressed.
_BYTES_PER_S, _COMPRESSED_BYTES_PER_S = 32_000, 8_000
_THREADS = 8
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
    ending = PurePosixPath(source.relative_path).suffix.lower()
    return source.bytes / (_COMPRESSED_BYTES_PER_S if ending in _COMPRESSED else _BYTES_PER_S)


def promised_lengths(sources: Sequence[Source], committed: Container[str]) -> Callable[[Source], float]:
    """Return the promised seconds of each source in a session with something left to do. Headers are read in threads,
    because reading one mostly waits for the disk. A session that is completely committed is not read."""
    waiting = {source.session_id for source in sources if source.source_id not in committed}
    asked = [source for source in sources if source.session_id in waiting]
    with ThreadPoolExecutor(_THREADS) as pool:
        lengths = dict(zip((source.source_id for source in asked), pool.map(promised_seconds, asked), strict=True))
    return lambda source: lengths[source.source_id]


def plan_units(
    sources: Iterable[Source],
    committed: set[str],
    fingerprint: str,
    unit_s: float,
    seconds_of: Callable[[Source], float],
    session_s: float = math.inf,
    generations: Mapping[str, int] | None = None,
) -> list[PlannedUnit]:
    """Group the sources that are not committed yet into sessions, and these into units of about `unit_s` seconds.

    A session of more than `session_s` seconds is processed in parts of at most that length (a recording is never cut). The
    parts are those of all its sources, committed or not, so that an interrupted run resumes with the same ones.

    Committed work is excluded by source and not by unit. After new recordings were added, or a run was interrupted, the
    rest is grouped differently, and nothing that was committed may be processed twice. The order of units depends only on
    their ids, so that not every restart meets the same bad session first.

    `generations`: the newest generation of each source that a commit record lists. A unit that processes such a source
    again has the next generation in its id: the first record of an id wins, and the first attempt has one.
    """
    generations = generations or {}
    by_session: dict[str, list[Source]] = {}
    for source in sources:
        by_session.setdefault(source.session_id, []).append(source)
    taken = set(by_session)
    units: list[PlannedUnit] = []
    gathered: list[PlannedSession] = []
    for name in sorted(by_session):
        members = sorted(by_session[name], key=lambda source: (source.relative_path, source.source_id))
        if all(source.source_id in committed for source in members):
            continue
        for number, part in enumerate(split_session(members, seconds_of, session_s), start=1):
            part_name = name if number == 1 else _part_name(name, number, taken)
            waiting = tuple(source for source in part if source.source_id not in committed)
            if not waiting:
                continue
            gathered.append(PlannedSession(part_name, waiting, sum(seconds_of(source) for source in waiting)))
            if sum(session.seconds for session in gathered) >= unit_s:
                units.append(_unit(gathered, fingerprint, generations))
                gathered = []
    if gathered:
        units.append(_unit(gathered, fingerprint, generations))
    return sorted(units, key=lambda unit: unit.unit_id)


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


def _unit(sessions: list[PlannedSession], fingerprint: str, generations: Mapping[str, int]) -> PlannedUnit:
    members, generation = [], 0
    for source in (source for session in sessions for source in session.sources):
        name = source.source_id
        if name in generations:
            generation = max(generation, generations[name] + 1)
            name = f"{name}#{generations[name] + 1}"
        members.append((name, source.bytes, source.content_sha256))
    return PlannedUnit(unit_id(members, fingerprint), tuple(sessions), generation)


def _safe(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
