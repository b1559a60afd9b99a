"""`voxmill detect`: whether the sound of audio files has our watermark."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmill.terminal import JsonOption, Terminal, explain

if TYPE_CHECKING:
    from voxcpm.watermark import Detection


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(detect)


def detect(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Audio files of any format and length.")],
    key: Annotated[
        list[Path] | None,
        typer.Option(help="File of a private key to look for, beside the public one. May be repeated."),
    ] = None,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough", help="Also look for other speeds and tempos. Takes about as long as the audio plays."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for the watermark that speak and the server put into the sound, and for statements in the file (docs/watermark.md).

    Exit status 0: all files are marked, 1: a file is not, 2: a file cannot be read.

    Example:  voxmill detect morning.wav
    """
    from voxcpm.provenance.files import read_marks
    from voxcpm.watermark import PUBLIC_KEY, read_key
    from voxcpm.watermark.files import detect_in_file

    keys = (PUBLIC_KEY, *(read_key(path) for path in key or ()))
    terminal = Terminal(as_json)
    results: list[dict[str, Any]] = []
    for path in files:
        try:
            found, seconds = detect_in_file(path, keys, thorough)
            statement = read_marks(path)
        except (OSError, ValueError) as error:
            terminal.say(f"{path}: {explain(error)}")
            results.append({"file": str(path), "error": explain(error)})
            continue
        marks = [_found(one) for one in found]
        for line in _told(str(path), marks, seconds):
            terminal.say(line)
        if statement is not None:
            terminal.say(f"  it states that it is synthetic ({statement.generator}); see voxmill mark --read")
        stated = statement and statement.to_dict()
        results.append({"file": str(path), "seconds": round(seconds, 3), "watermarks": marks, "statement": stated})
    terminal.result(results)
    if any("error" in one for one in results):
        raise typer.Exit(2)
    if any(not any(mark["marked"] for mark in one["watermarks"]) for one in results):
        raise typer.Exit(1)


def _found(one: Detection) -> dict[str, Any]:
    """Return what was found of a key as plain values, with the names of checkpoints that have the payload."""
    from voxcpm.watermark.registry import known_names

    names = [] if one.payload is None else known_names(one.payload)
    return asdict(one) | {"payload": None if one.payload is None else f"{one.payload:04x}", "checkpoints": names}


def _told(path: str, marks: list[dict[str, Any]], seconds: float) -> list[str]:
    """Return the lines about a file."""
    lines = []
    for mark in (one for one in marks if one["marked"]):
        lines.append(f"{path}: marked with the {mark['key']} key (score {mark['z']:.1f}, p <= {mark['p_value']:.3f})")
        if mark["payload"] is None:
            lines.append("  payload    not readable")
        else:
            names = " or ".join(mark["checkpoints"]) or "not a checkpoint that this machine has used"
            lines.append(f"  payload    {mark['payload']}, the start of a checkpoint's digest: {names}")
        spans = ", ".join(f"{start:.1f}-{end:.1f} s" for start, end in mark["spans"])
        lines.append(f"  marked     {spans or 'not located'}, of {seconds:.1f} s")
        changed = [f"{what} {mark[what]:g}" for what in ("speed", "tempo") if mark[what] != 1]
        if changed:
            lines.append(f"  changed    {', '.join(changed)}")
    if not lines:
        best = max(one["z"] for one in marks)
        lines.append(f"{path}: no voxmill mark found (score {best:.1f}); this does not show that it is a recording")
    return lines
