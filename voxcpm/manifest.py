"""Check a training manifest of the official trainer: JSON lines with `audio`, `text` and optional fields.

audio, text               required; a relative path is relative to the manifest
ref_audio                 a clip of the same voice, or null
duration, ref_duration    seconds
dataset_id                an integer
is_prompt                 true: the sample is context only and has no loss
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_OPTIONAL: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("duration", (int, float), "a number"),
    ("ref_duration", (int, float), "a number"),
    ("dataset_id", (int,), "an integer"),
    ("is_prompt", (bool,), "true or false"),
)


@dataclass
class ManifestReport:
    """The findings of `validate_manifest`."""

    manifest: Path
    lines: int = 0
    good: list[int] = field(default_factory=list)  #: line numbers of the usable lines
    problems: list[tuple[int, str]] = field(default_factory=list)  #: (line, problem); line 0: the file
    warnings: list[tuple[int, str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    characters: list[int] = field(default_factory=list)
    references: int = 0

    @property
    def valid(self) -> bool:
        """Return True if the manifest can be used for training as it is."""
        return not self.problems

    def text(self, verbose: bool = False) -> str:
        """Return the report as text for the terminal. verbose: also list the usable lines."""
        out = [
            f"{self.manifest}: {len(self.good)} of {self.lines} lines can be used, {self.references} with a reference"
        ]
        if self.seconds:
            out.append(
                f"  audio  {sum(self.seconds) / 3600:.2f} hours; {min(self.seconds):.2f}-{max(self.seconds):.2f} s, "
                f"median {statistics.median(self.seconds):.2f} s"
            )
        if self.characters:
            out.append(
                f"  text   {min(self.characters)}-{max(self.characters)} characters, "
                f"median {statistics.median(self.characters):g}"
            )
        out += [f"  line {number}: ok" for number in self.good if verbose]
        out += [f"  line {number}: warning: {words}" for number, words in self.warnings]
        out += [f"  line {number}: {words}" if number else f"  {words}" for number, words in self.problems]
        return "\n".join([*out, "valid" if self.valid else f"not valid: {len(self.problems)} problems"])


def validate_manifest(manifest: Path, sample_rate: int = 16000, max_samples: int = 0) -> ManifestReport:
    """Check every line, or the first `max_samples` lines (0: all). Raises FileNotFoundError if the file does not exist."""
    report = ManifestReport(manifest)
    with manifest.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if max_samples > 0 and report.lines == max_samples:
                break
            report.lines += 1
            found = _check_line(report, number, line, sample_rate)
            report.problems += [(number, words) for words in found]
            if not found:
                report.good.append(number)
    if report.lines == 0:
        report.problems.append((0, "the manifest holds no samples"))
    return report


def _check_line(report: ManifestReport, number: int, line: str, sample_rate: int) -> list[str]:
    """Return the problems of a line; add its warnings and statistics to `report`."""
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return [f"not JSON ({error.msg} at character {error.pos + 1})"]
    if not isinstance(row, dict):
        return ["not a JSON object"]
    found = []
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        found.append("text is missing" if text is None else "text is empty" if text == "" else "text holds no words")
    else:
        report.characters.append(len(text))
    for key, kinds, words in _OPTIONAL:
        if row.get(key) is not None and not isinstance(row[key], kinds):
            found.append(f"{key} is {row[key]!r}, not {words}")
    if row.get("audio") is None:
        found.append("audio is missing")
    else:
        seconds = _check_clip(report.manifest, "audio", row["audio"], sample_rate, found)
        if seconds is not None:
            report.seconds.append(seconds)
            told = row.get("duration")
            if isinstance(told, int | float) and abs(told - seconds) > max(0.1, 0.02 * seconds):
                report.warnings.append((number, f"duration says {told:g} s, the clip has {seconds:.2f} s"))
    if row.get("ref_audio"):
        report.references += 1
        _check_clip(report.manifest, "ref_audio", row["ref_audio"], sample_rate, found)
    return found


def _check_clip(manifest: Path, name: str, given: Any, sample_rate: int, found: list[str]) -> float | None:
    """Return the clip's duration in seconds, or None if it cannot be read. Problems are added to `found`."""
    import soundfile

    if not isinstance(given, str):
        found.append(f"{name} is {given!r}, not a path")
        return None
    path = Path(given) if Path(given).is_absolute() else manifest.parent / given
    if not path.is_file():
        found.append(f"{name} {given} does not exist")
        return None
    try:
        about = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError):
        found.append(f"{name} {given} cannot be read")
        return None
    if about.samplerate != sample_rate:
        found.append(f"{name} {given} has {about.samplerate} Hz, not {sample_rate}")
    if about.frames == 0:
        found.append(f"{name} {given} is empty")
    return float(about.frames / about.samplerate)
