"""`voxmill mark`: what audio files state about themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxmill.terminal import JsonOption, Terminal

if TYPE_CHECKING:
    from voxcpm.provenance.c2pa.read import Manifest
    from voxcpm.provenance.statement import Statement


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(mark)


def mark(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="WAV, FLAC, Ogg, MP3, AAC or M4A files.")],
    read: Annotated[bool, typer.Option("--read", help="Print what the files state. Required.")] = False,
    trust: Annotated[
        Path | None, typer.Option(help="Certificates that are trusted (PEM): manifests signed below them are Trusted.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what audio states about itself: the statement that it is synthetic, and its signed manifest (C2PA).

    Exit status 1: a file has neither, or its manifest is not valid. A file without a statement may be synthetic all the same:
    any converter or tag editor can remove it.

    Example:  voxmill mark --read morning.wav
    """
    from voxcpm.provenance.files import read_marks

    if not read:
        raise ValueError("say what to do with the files: voxmill mark --read FILE")
    if trust is not None and not trust.is_file():
        raise FileNotFoundError(f"no certificates at {trust}")
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"no audio file at {path}")
    terminal = Terminal(as_json)
    rows: list[dict[str, Any]] = []
    failed = False
    for path in files:
        statement, (manifest, fault) = read_marks(path), _manifest(path, trust)
        for line in _lines(path, statement, manifest, fault):
            terminal.say(line)
        # A manifest that is there but cannot be read does not make a file unmarked.
        failed |= (statement is None and manifest is None and fault is None) or (
            manifest is not None and manifest.state == "Invalid"
        )
        rows.append(
            {
                "file": str(path),
                "statement": statement and statement.to_dict(),
                "manifest": manifest.to_dict() if manifest is not None else fault and {"state": None, "fault": fault},
            }
        )
    terminal.result(rows)
    if failed:
        raise typer.Exit(1)


def _manifest(path: Path, trust: Path | None) -> tuple[Manifest | None, str | None]:
    """Return (manifest, None), or (None, why the one that is there cannot be read)."""
    from voxcpm.provenance.c2pa.library import C2paError
    from voxcpm.provenance.c2pa.read import read_manifest

    try:
        return read_manifest(path, trust), None
    except C2paError as error:
        return None, str(error)


def _lines(path: Path, statement: Statement | None, manifest: Manifest | None, fault: str | None) -> list[str]:
    """Return what is printed of a file."""
    if statement is None and manifest is None and fault is None:
        return [f"{path}: no statement found; this does not show that it is a recording"]
    synthetic = statement is not None or (manifest is not None and manifest.synthetic)
    values: dict[str, Any] = statement.to_dict() if statement is not None else {}
    lines = [f"{path}: {'synthetic' if synthetic else 'no statement that it is synthetic'}"]
    lines += [f"  {name.replace('_', ' '):<11}{value}" for name, value in values.items() if name != "synthetic"]
    if fault is not None:
        lines.append(f"  manifest   not read: {fault}")
    return lines + (_manifest_lines(manifest) if manifest is not None else [])


def _manifest_lines(manifest: Manifest) -> list[str]:
    where = "in the file" if manifest.embedded else "beside the file"
    signer = ", ".join(part for part in (manifest.signer, manifest.issuer) if part)
    rows: list[tuple[str, str | None]] = [("manifest", f"{manifest.state}, {where}")]
    rows += [("fault", fault) for fault in manifest.faults]
    rows += [("signed by", signer), ("created by", manifest.created_by), ("created", manifest.created)]
    rows += [("source", manifest.source_type), ("training", manifest.training), ("watermark", manifest.watermark)]
    rows += [("from", f"{one.title} ({one.relationship}) {one.identity}") for one in manifest.ingredients]
    return [f"  {name:<11}{value}" for name, value in rows if value]
