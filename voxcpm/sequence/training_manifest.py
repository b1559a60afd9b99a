"""Check a training manifest of the official trainer: JSON lines with `audio`, `text` and optional fields.

audio, text               required; a relative path is relative to the manifest
ref_audio                 a clip of the same voice, or null
duration, ref_duration    seconds
dataset_id                an integer
is_prompt                 true: the sample is context only and has no loss

The rules for errors and warnings are the official ones: a missing `ref_audio` file and an empty text are warnings.
"""

from __future__ import annotations

import json
import statistics
import sys
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
class ValidationResult:
    """The findings of `validate_manifest`. Errors and warnings start with their line, if they have one."""

    total_samples: int = 0
    valid_samples: int = 0
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    audio_durations: list[float] = field(default_factory=list)  #: seconds
    text_lengths: list[int] = field(default_factory=list)  #: characters
    has_ref_audio: int = 0  #: samples with a reference that exists

    @property
    def is_valid(self) -> bool:
        """Return True if the manifest can be used for training as it is."""
        return not self.errors and self.valid_samples > 0

    def report(self) -> str:
        """Return the findings as text for the terminal."""
        counted = (
            f"{self.valid_samples} of {self.total_samples} lines can be used, {self.has_ref_audio} with a reference"
        )
        out = [counted]
        if self.audio_durations:
            seconds = self.audio_durations
            out.append(
                f"  audio  {sum(seconds) / 3600:.2f} hours; {min(seconds):.2f}-{max(seconds):.2f} s, "
                f"median {statistics.median(seconds):.2f} s"
            )
        if self.text_lengths:
            lengths = self.text_lengths
            out.append(f"  text   {min(lengths)}-{max(lengths)} characters, median {statistics.median(lengths):g}")
        return "\n".join([*out, *(f"  warning: {words}" for words in self.warnings), *(f"  {e}" for e in self.errors)])


def validate_manifest(
    manifest_path: str | Path, sample_rate: int = 16000, max_samples: int = 0, verbose: bool = False
) -> ValidationResult:
    """Check every line, or the first `max_samples` lines (0: all). sample_rate: Hz that every clip must have.

    verbose: print each line that can be used to standard error. A manifest that is missing or cannot be read is an error of
    the result.
    """
    result, manifest = ValidationResult(), Path(manifest_path)
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = "not found" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        result.errors.append(f"manifest {manifest} {problem}")
        return result
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if max_samples > 0 and result.total_samples == max_samples:
            break
        result.total_samples += 1
        found, warnings = _check_line(result, manifest.parent, line, sample_rate)
        result.errors += [f"line {number}: {words}" for words in found]
        result.warnings += [f"line {number}: {words}" for words in warnings]
        result.valid_samples += not found
        if verbose and not found:
            sys.stderr.write(f"line {number}: ok\n")
    if result.total_samples == 0:
        result.errors.append(f"manifest {manifest} holds no samples")
    return result


def _check_line(result: ValidationResult, folder: Path, line: str, sample_rate: int) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings of a line; add its statistics to `result`."""
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        return [f"Invalid JSON ({error.msg} at character {error.pos + 1})"], []
    if not isinstance(row, dict):
        return ["not a JSON object"], []
    found = [f"'{name}' is missing" for name in ("text", "audio") if row.get(name) is None]
    warnings = []
    text = row.get("text")
    if isinstance(text, str) and text.strip():
        result.text_lengths.append(len(text))
    elif text is not None:
        warnings.append("Empty text: there is nothing to learn to say")
    for key, kinds, words in _OPTIONAL:
        if row.get(key) is not None and not isinstance(row[key], kinds):
            found.append(f"{key} is {row[key]!r}, not {words}")
    if row.get("audio") is not None:
        seconds = _check_clip(folder, row["audio"], sample_rate, found)
        if seconds is not None:
            result.audio_durations.append(seconds)
            told = row.get("duration")
            if isinstance(told, int | float) and abs(told - seconds) > max(0.1, 0.02 * seconds):
                warnings.append(f"duration says {told:g} s, the clip has {seconds:.2f} s")
    if row.get("ref_audio"):
        if isinstance(row["ref_audio"], str) and (folder / row["ref_audio"]).is_file():
            result.has_ref_audio += 1
        else:
            warnings.append(f"ref_audio file not found: {row['ref_audio']}")
    return found, warnings


def _check_clip(folder: Path, given: Any, sample_rate: int, found: list[str]) -> float | None:
    """Return the clip's duration in seconds, or None if it cannot be read. Problems are added to `found`."""
    import soundfile

    if not isinstance(given, str):
        found.append(f"audio is {given!r}, not a path")
        return None
    path = folder / given  # an absolute path stays as it is
    if not path.is_file():
        found.append(f"audio {given} not found")
        return None
    try:
        about = soundfile.info(path)
    except (soundfile.LibsndfileError, RuntimeError):
        found.append(f"audio {given} cannot be read")
        return None
    if about.samplerate != sample_rate:
        found.append(f"audio {given} has a sample rate of {about.samplerate} Hz, not {sample_rate}")
    if about.frames == 0:
        found.append(f"audio {given} is empty")
    return float(about.frames / about.samplerate)
