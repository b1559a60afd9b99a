"""What a run will do: which sources are still to be processed, in which sessions, committed in which units."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from catalogs.ids import unit_id
from pipeline.audio_file import probe_seconds
from pipeline.containers import is_location
from pipeline.records import Recording, Session, Source

_GUESSED_BYTES_PER_S = 32_000


@dataclass(frozen=True)
class PlannedSession:
    """Recordings made together; `seconds` is what their headers promise."""

    session_id: str
    sources: tuple[Source, ...]
    seconds: float

    def start(self, fingerprint: str, spool: str) -> Session:
        """The session as the first stage gets it."""
        recordings = [Recording(source) for source in self.sources]
        return Session(self.session_id, fingerprint, f"{spool}/{_safe(self.session_id)}", recordings)


@dataclass(frozen=True)
class PlannedUnit:
    """Sessions that are committed together."""

    unit_id: str
    sessions: tuple[PlannedSession, ...]

    @property
    def seconds(self) -> float:
        return sum(session.seconds for session in self.sessions)


def promised_seconds(source: Source) -> float:
    """The duration a source's header promises, in seconds; by its size (as of 16 kHz, 16 bit) where it is still to be fetched."""
    return source.bytes / _GUESSED_BYTES_PER_S if is_location(source.path) else probe_seconds(source.path)


def plan_units(
    sources: Iterable[Source],
    committed: set[str],
    fingerprint: str,
    unit_s: float,
    seconds_of: Callable[[Source], float],
) -> list[PlannedUnit]:
    """Group the sources that are not committed yet into sessions and these into units of about `unit_s` seconds.

    The anti-join is by source and not by unit: after new recordings were added, or a run was broken off, what is left
    groups differently, and nothing that was committed may be done twice for it. Units come in an order that only their
    ids decide, so that one bad session is not met first again and again by every restart.
    """
    by_session: dict[str, list[Source]] = {}
    for source in sources:
        if source.source_id not in committed:
            by_session.setdefault(source.session_id, []).append(source)
    units: list[PlannedUnit] = []
    gathered: list[PlannedSession] = []
    for name in sorted(by_session):
        members = sorted(by_session[name], key=lambda source: source.relative_path)
        gathered.append(PlannedSession(name, tuple(members), sum(seconds_of(source) for source in members)))
        if sum(session.seconds for session in gathered) >= unit_s:
            units.append(_unit(gathered, fingerprint))
            gathered = []
    if gathered:
        units.append(_unit(gathered, fingerprint))
    return sorted(units, key=lambda unit: unit.unit_id)


def _unit(sessions: list[PlannedSession], fingerprint: str) -> PlannedUnit:
    members = [(s.source_id, s.bytes, s.content_sha256) for session in sessions for s in session.sources]
    return PlannedUnit(unit_id(members, fingerprint), tuple(sessions))


def _safe(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
