"""`voxmill mark`: what audio files state about themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxmill.terminal import JsonOption, Terminal


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(mark)


def mark(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="WAV, FLAC, Ogg, MP3, AAC or M4A files.")],
    read: Annotated[bool, typer.Option("--read", help="Print what the files state. Required.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the statement that audio is synthetic, as speak and the server write it. Exit status 1: a file has none.

    A file without a statement may be synthetic all the same: any converter or tag editor can remove it.

    Example:  voxmill mark --read morning.wav
    """
    from voxcpm.provenance.files import read_marks

    if not read:
        raise ValueError("say what to do with the files: voxmill mark --read FILE")
    found = {}
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"no audio file at {path}")
        found[path] = read_marks(path)
    terminal = Terminal(as_json)
    for path, statement in found.items():
        if statement is None:
            terminal.say(f"{path}: no statement found; this does not show that it is a recording")
            continue
        terminal.say(f"{path}: synthetic")
        for name, value in statement.to_dict().items():
            if name != "synthetic":
                terminal.say(f"  {name.replace('_', ' '):<11}{value}")
    terminal.result(
        [{"file": str(path), "statement": statement and statement.to_dict()} for path, statement in found.items()]
    )
    if None in found.values():
        raise typer.Exit(1)
