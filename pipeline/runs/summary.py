"""The result of one run, and the messages that report its failures."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from catalogs.durations import duration_text
from catalogs.query.views import query
from catalogs.words import counted
from pipeline.engine.api import Outcome
from pipeline.records import Quarantined, Session


@dataclass
class Summary:
    """The result of one run. Seconds are of audio; `stage_s` are busy seconds of the stages, summed over their actors."""

    corpus: str
    sources: int = 0
    already_there: int = 0
    tried_again: int = 0
    """Sources that an earlier run has committed and this one processes again."""
    ignored_files: int = 0
    sessions: int = 0
    units: int = 0
    audio_s: float = 0.0
    segments: int = 0
    kept: int = 0
    kept_s: float = 0.0
    rejected: dict[str, int] = field(default_factory=dict)
    """Number of segments per reason (a segment may have several)."""
    quarantined: list[dict[str, str]] = field(default_factory=list)
    stage_s: dict[str, float] = field(default_factory=dict)
    stage_cpu_s: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the stages: `stage_s` also counts waiting for a core that others use."""
    stage_audio_s: dict[str, float] = field(default_factory=dict)
    """Seconds of audio that each stage processed. Divided by `stage_s`, they are the stage's speed in times real time."""
    duplicates: dict[str, int] = field(default_factory=dict)
    """Segments of the whole corpus that are marked as duplicates of another, by kind."""
    separation: dict[str, float] = field(default_factory=dict)
    """Seconds that source separation was tried on (`tried_s`) and is used for (`used_s`), and the mean rise of DNSMOS OVRL
    where it is used (`gain`)."""
    halved: dict[str, int] = field(default_factory=dict)
    """Batch size to which stages were reduced because they ran out of memory."""
    wall_s: float = 0.0
    process_s: float = 0.0
    """Wall seconds from the engine's start to its end. Times `cores`, what exceeds `stage_s` is overhead."""
    cores: int = 0
    fingerprint: str = ""
    ended_at: str = ""
    """ISO 8601, UTC. The time of the file says nothing once the corpus was copied."""
    notices: list[str] = field(default_factory=list)


def summary_lines(summary: Summary) -> list[str]:
    """Return a few lines on what the run did; none if there was nothing to do."""
    if not summary.sessions and not summary.quarantined:
        return []
    rate = summary.audio_s / summary.wall_s if summary.wall_s else 0.0
    lines = [
        f"{counted(summary.sources - summary.already_there, 'recording')}, {duration_text(summary.audio_s)} in "
        f"{duration_text(summary.wall_s)} ({rate:.1f}x real time): {counted(summary.segments, 'segment')}, {summary.kept} kept "
        f"({duration_text(summary.kept_s)})"
    ]
    if summary.rejected:
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary.rejected.items())
        lines.append(f"rejected, by reason: {reasons}")
    if summary.separation:
        tried, used, gain = (summary.separation[key] for key in ("tried_s", "used_s", "gain"))
        whole = max(summary.audio_s, 1e-9)
        lines.append(
            f"source separation: tried on {tried / whole:.0%} of the audio, used for {used / whole:.0%}, "
            f"where DNSMOS rose by {gain:.2f}"
        )
    if summary.stage_s:
        busy = ", ".join(f"{name} {busy:.1f}" for name, busy in summary.stage_s.items())
        lines.append(f"seconds per stage: {busy}")
    return lines


def refusal(row: Quarantined) -> dict[str, str]:
    """Return a verdict as it is stored in the summary."""
    return {"path": row.path, "stage": row.stage, "error": row.error, "cause": row.cause, "log": row.log or ""}


def quarantine_lines(summary: Summary) -> list[str]:
    """Return one line per stage and cause on what could not be processed, and the commands to run next."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in summary.quarantined:
        groups.setdefault((row["stage"], row.get("cause", "data")), []).append(row)
    lines = []
    for (stage, cause), rows in sorted(groups.items()):
        first = f"{rows[0]['path']}: {rows[0]['error']}"
        count = "" if len(rows) == 1 else f"{len(rows)} items, e.g. "
        lines.append(f"quarantined in {stage} ({cause}): {count}{first}")
    if not lines:
        return []
    corpus = shlex.quote(summary.corpus)
    causes = {cause for _, cause in groups}
    if "machine" in causes:
        lines.append("machine: the same command tries these again")
    if "bug" in causes:
        log = next((row["log"] for row in summary.quarantined if row.get("log")), "logs")
        lines.append(
            f"bug: the traceback is in {summary.corpus}/{log}; try again with: voxmill retry {corpus} --cause bug"
        )
    sql = "select path, stage, cause, error, log from quarantine"
    return [*lines, f'{len(summary.quarantined)} quarantined; list them with: voxmill query {corpus} "{sql}"']


def new_lines(summary: Summary, outcome: Outcome, told: set[str]) -> list[str]:
    """Return the messages for a group's outcome: reduced batch sizes, which are added to the summary, and notices that are
    not in `told` yet."""
    lines = []
    for stage, size in outcome.halved.items():
        if size < summary.halved.get(stage, size + 1):
            summary.halved[stage] = size
            lines.append(f"{stage}: too little memory, continuing with batches of {size}")
    notices = [notice for notice in dict.fromkeys(outcome.notices) if notice not in told]
    told.update(notices)
    return lines + notices


def nothing_to_do(corpus: Path) -> str:
    """Return one line for a run that found everything done."""
    sql = "select (select count(*) from recordings), coalesce(sum(duration_s) filter (kept), 0) from segments"
    recordings, seconds = query(corpus, sql)[1][0]
    has = f"{shlex.quote(str(corpus))} has {counted(recordings, 'recording')}"
    return f"nothing to do; {has}, {duration_text(seconds)} kept"


def add_session(summary: Summary, session: Session) -> None:
    """Add the notices of a session and what source separation did in it."""
    summary.notices += session.notices
    sums = summary.separation
    for separation in (recording.separation for recording in session.recordings):
        if separation.tried_s:
            used, before = sum(end - start for start, end in separation.kept), sums.get("used_s", 0.0)
            gain = sum(
                (end - start) * rise for (start, end), rise in zip(separation.kept, separation.gains, strict=True)
            )
            sums["tried_s"] = sums.get("tried_s", 0.0) + separation.tried_s
            sums["used_s"] = before + used
            sums["gain"] = (before * sums.get("gain", 0.0) + gain) / max(before + used, 1e-9)


def added(tables: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the sum of the tables' values, key by key."""
    total: dict[str, float] = {}
    for table in tables:
        for key, value in table.items():
            total[key] = total.get(key, 0.0) + value
    return total
