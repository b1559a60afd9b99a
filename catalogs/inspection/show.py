"""Everything that a corpus knows about one clip."""

from __future__ import annotations

import difflib
import io
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import is_inside
from catalogs.corpus.damage import reading
from catalogs.corpus.marks import Marks
from catalogs.corpus.shards import Shard
from catalogs.corpus.thresholds import REASON_WORDS, RULES, load_thresholds
from catalogs.query.views import connect, result_rows

_NEAR = 5
_VOICES = 5
PLAYERS: dict[str, tuple[str, ...]] = {
    "ffplay": ("-nodisp", "-autoexit", "-loglevel", "error"),
    "play": ("-q",),
    "afplay": (),
    "aplay": ("-q",),
}
"""Players with the options to play one file and end. aplay knows no FLAC: see `play_command`."""


class UnknownSegmentError(ValueError):
    """No segment, or more than one, has this id; the message is one line that names some."""


@dataclass
class Shown:
    """A clip: its row of `segments`, and what other views and its shard say about it."""

    segment: dict[str, Any]
    why: list[str] = field(default_factory=list)
    """Why it is not kept: each reason in words, with the limit and the clip's value."""
    recording: dict[str, Any] | None = None
    words: list[dict[str, Any]] = field(default_factory=list)
    descriptions: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    pairs: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the macro `pairs`."""
    neighbors: list[dict[str, Any]] = field(default_factory=list)
    """The segments before and after it in its session."""
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    """Segments of its group of duplicates."""
    nearest_voices: list[dict[str, Any]] = field(default_factory=list)
    """The other voices of its shard that are nearest by speaker embedding: `speaker`, `segment_id`, `cosine`."""


def show(root: str | Path, segment: str) -> Shown:
    """Return everything known about the segment whose id is `segment`, or begins with it.

    Raises UnknownSegmentError if there is none or more than one, and DamagedFileError if its shard cannot be read.
    """
    root = Path(root)
    with connect(root) as connection:
        name = _whole_id(connection, segment)

        def rows(sql: str, *values: Any) -> list[dict[str, Any]]:
            return result_rows(connection, sql, *(values or (name,)))

        [row] = rows("SELECT * FROM segments WHERE segment_id = ?")
        row["extra"] = dict(row["extra"] or ())
        found = Shown(row, _why(root, row))
        found.recording = next(iter(rows("SELECT * FROM recordings WHERE source_id = ?", row["source_id"])), None)
        found.descriptions = rows("SELECT * FROM descriptions WHERE segment_id = ? ORDER BY annotator")
        found.checks = rows('SELECT * FROM checks WHERE segment_id = ? ORDER BY annotator, attribute, "where"')
        found.pairs = rows("FROM pairs(?)")
        found.neighbors = rows(
            "SELECT segment_id, seq, start_s, end_s, speaker, kept, text FROM segments WHERE session_id = ? "
            "AND seq BETWEEN ? AND ? AND seq <> ? ORDER BY seq",
            row["session_id"], row["seq"] - 1, row["seq"] + 1, row["seq"],
        )  # fmt: skip
        if row["duplicate_group"]:
            found.duplicates = rows(
                "SELECT segment_id, duplicate_of, duplicate_kind, kept, path FROM segments WHERE duplicate_group = ? "
                "AND segment_id <> ? ORDER BY segment_id",
                row["duplicate_group"], name,
            )  # fmt: skip
    if row["shard"] is not None:
        with reading(root / row["shard"]):
            shard = _shard(root, row["shard"])
            found.words = Marks.of(root).over_row(shard.row(row["row"]))["words"] or []
            found.nearest_voices = _nearest_voices(shard, row)
    return found


def clip(root: str | Path, row: dict[str, Any]) -> bytes:
    """Return the FLAC file of a row of `segments`. Raises UnknownSegmentError if it has no audio."""
    if row["shard"] is None:
        raise UnknownSegmentError(f"segment {row['segment_id']} has no audio: {', '.join(row['reasons'])}")
    path = Path(root) / row["shard"]
    with reading(path):
        return bytes(_shard(Path(root), row["shard"]).audio_buffer(row["row"]))


def play_command(file: Path) -> list[str] | None:
    """Return the command that plays a FLAC file with a player of this machine; None if there is none. For `aplay`, the file must
    be a WAV (`as_wav`)."""
    for player, options in PLAYERS.items():
        if shutil.which(player):
            return [player, *options, str(file)]
    return None


def as_wav(flac: bytes) -> bytes:
    """Return a FLAC file as a WAV file."""
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV")
    return out.getvalue()


def _shard(root: Path, name: str) -> Shard:
    # The catalog may come from another person: its rows are not trusted as paths.
    if not is_inside(name):
        raise UnknownSegmentError(f"{root}: a row names the shard {name}, which is not in this corpus; do not use it")
    return Shard(root / name)


def _whole_id(connection: Any, start: str) -> str:
    begun = "SELECT segment_id FROM segments WHERE starts_with(segment_id, ?) ORDER BY 1 LIMIT 6"
    ids = [row["segment_id"] for row in result_rows(connection, begun, start)] if start else []
    if start in ids or len(ids) == 1:
        return start if start in ids else ids[0]
    if ids:
        more = ", ..." if len(ids) > _NEAR else ""
        raise UnknownSegmentError(f"several segments begin with {start}: {', '.join(ids[:_NEAR])}{more}")
    # Ids near to a mistyped one begin alike.
    for length in range(len(start) - 1, 0, -1):
        near = [row["segment_id"] for row in result_rows(connection, begun, start[:length])]
        if near:
            near.sort(key=lambda one: -difflib.SequenceMatcher(None, start, one).ratio())
            raise UnknownSegmentError(f"no segment {start}; near are: {', '.join(near[:_NEAR])}")
    raise UnknownSegmentError(f"no segment {start!r}; list them with: select segment_id from segments")


def _why(root: Path, row: dict[str, Any]) -> list[str]:
    limits, lines = load_thresholds(root), []
    for reason in row["reasons"] or ():
        rule = next((rule for rule in RULES if rule.reason == reason), None)
        words = REASON_WORDS.get(reason, "a stage failed on it" if reason.startswith("failed_") else reason)
        if rule is None:
            lines.append(f"{reason}: {words}")
            continue
        limit = getattr(limits, rule.setting)
        lines.append(f"{reason}: {words} ({rule.column} is {row[rule.column]:.4g}, {rule.setting} is {limit:g})")
    return lines


def _nearest_voices(shard: Shard, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare with the voices of one shard only: those of a whole corpus are in thousands of files."""
    import numpy as np

    own = shard.values(row["row"], "embedding")
    if own is None:
        return []
    best: dict[str, dict[str, Any]] = {}
    for number in range(len(shard)):
        speaker, other = shard.column(number, "speaker"), shard.values(number, "embedding")
        if other is None or speaker is None or speaker == row["speaker"] or other.shape != own.shape:
            continue
        cosine = float(np.dot(own, other))
        if cosine > best.get(speaker, {"cosine": -2.0})["cosine"]:
            best[speaker] = {"speaker": speaker, "segment_id": shard.column(number, "segment_id"), "cosine": cosine}
    return sorted(best.values(), key=lambda one: -one["cosine"])[:_VOICES]


def play_line(root: Path, segment: str) -> str:
    """Return a command that writes the clip, for machines without a player."""
    return f"voxmill show {shlex.quote(str(root))} {shlex.quote(segment)} --audio clip.flac"
