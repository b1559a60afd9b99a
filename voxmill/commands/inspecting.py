"""Commands that answer questions about a corpus: query, status, show."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catalogs.words import counted
from voxmill.commands.corpus import CorpusArgument
from voxmill.terminal import JsonOption, Terminal, shown

if TYPE_CHECKING:
    import pyarrow as pa

    from catalogs.query.formats import Format

TABLE_ROWS = 1000
"""Most rows of a table for people: its columns are as wide as their longest value, so that all rows are held."""


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (query, status, show):
        app.command()(command)


def query(
    corpus: CorpusArgument,
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            help="One SELECT over the views, e.g. segments; a file that ends in .sql; - for standard input.",
        ),
    ],
    as_table: Annotated[
        bool, typer.Option("--table", help=f"A table for people, at most {TABLE_ROWS:,} rows. The default.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV; lists and structs in it are JSON.")] = False,
    as_tsv: Annotated[bool, typer.Option("--tsv", help="The same with tabs.")] = False,
    as_nl: Annotated[bool, typer.Option("--nl", help="One JSON object a line.")] = False,
    as_json: JsonOption = False,
    as_arrow: Annotated[bool, typer.Option("--arrow", help="An Arrow IPC stream.")] = False,
    limit: Annotated[int | None, typer.Option(help="Most rows.", min=0)] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", help="Value of a $name in the SQL, e.g. -p language=en; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; standard output if not given.")
    ] = None,
) -> None:
    """Query the catalog with SQL: as a table, or as a stream of rows in constant memory.

    Macros answer common questions: "from hours('speaker')", "from what_if('min_snr_db', 10)". docs/query.md lists them.

    Example:  voxmill query corpus "select segment_id, text from segments where kept and language = $l" -p l=en --csv
    """
    from catalogs.files import open_atomically
    from catalogs.query.formats import write_rows
    from catalogs.query.streaming import streamed

    form = _one_format({"csv": as_csv, "tsv": as_tsv, "nl": as_nl, "json": as_json, "arrow": as_arrow}, as_table, out)
    text, parameters = _sql(sql), dict(_parameter(words) for words in param or ())
    if form == "arrow" and out is None and sys.stdout.isatty():
        raise ValueError("--arrow is not for a terminal: give a file with -o, or send it to a program")
    with _quiet_pipe(), streamed(corpus, text, parameters, limit) as (schema, batches):
        if form is None:
            _print_table(Terminal(), list(schema.names), batches)
        elif out is None:
            write_rows(schema, batches, form, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            with open_atomically(out) as file:
                rows = write_rows(schema, batches, form, file)
            Terminal(as_json=True).say(f"{out}: {rows} rows")


def status(corpus: CorpusArgument, as_json: JsonOption = False) -> None:
    """Say how a corpus stands: hours found and kept, runs at work, thresholds, descriptions, and the next step.

    Example:  voxmill status corpus
    """
    from catalogs.inspection.status import status as look

    terminal, found = Terminal(as_json), look(corpus)
    share = f" ({found.hours_kept / found.hours_found:.0%})" if found.hours_found else ""
    terminal.say(f"{found.corpus}: {found.hours_found:,.2f} h found, {found.hours_kept:,.2f} h kept{share}")
    terminal.say(f"{found.kept:,} of {found.segments:,} segments kept, from {found.recordings:,} recordings")
    terminal.say(f"{found.sessions:,} sessions done, {found.units:,} commits; {found.quarantined:,} quarantined")
    shares = f" (shares {', '.join(found.shares_at_work)})" if found.shares_at_work else ""
    terminal.say(f"a run is at work{shares}" if found.at_work else "no run is at work")
    if found.last_run:
        terminal.say(f"last run: {found.last_run['at']}, {found.last_run['sessions']} sessions")
    elif found.last_commit:
        terminal.say(f"last commit: {found.last_commit}")
    if found.marked:
        terminal.say(
            f"{counted(found.marked, 'segment')} marked by {found.people} {'person' if found.people == 1 else 'people'}"
        )
    for row in found.thresholds:
        terminal.say(f"threshold {row['threshold']} is {row['now']} (default {row['default']})")
    for one in found.passes:
        covered = f", {one['share']:.0%} of the kept" if one["share"] is not None else ""
        terminal.say(f"{one['annotator']}: {one['described']:,} described{covered}; {one['verified']:,} verified")
    terminal.say(f"next ({found.why}): {found.next_step}")
    terminal.result(asdict(found))


def show(
    corpus: CorpusArgument,
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="Id of a segment, or the start of one.")],
    play: Annotated[bool, typer.Option("--play", help="Play it, if this machine has a player.")] = False,
    audio: Annotated[Path | None, typer.Option("--audio", help="FLAC file to write the clip to.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything known about a clip: scores, words, descriptions, references, neighbors, why it was dropped.

    Example:  voxmill show corpus 0a1b2c --play
    """
    from catalogs.corpus.columns import PLACE, SEGMENT
    from catalogs.files import write_atomically
    from catalogs.inspection.show import clip, play_line
    from catalogs.inspection.show import show as look

    if audio is not None and audio.suffix != ".flac":
        raise ValueError(f"--audio {audio}: the clip is FLAC, so that the name must end in .flac")
    terminal, found = Terminal(as_json), look(corpus, segment)
    row = found.segment
    terminal.title(f"{row['segment_id']}: {'kept' if row['kept'] else 'not kept'}")
    for line in found.why:
        terminal.say(f"  {line}")
    units = {column.name: column.unit for column in (*SEGMENT, *PLACE)}
    for name, value in row.items():
        if value not in (None, [], {}):
            terminal.say(f"  {name:<18} {shown(value)} {units.get(name, '')}".rstrip())
    parts = {name: part for name, part in asdict(found).items() if name not in ("segment", "why", "recording") and part}
    for name, rows in parts.items():
        terminal.title(name.replace("_", " "))
        for one in rows:
            terminal.say(
                "  " + "; ".join(f"{key} {shown(value)}" for key, value in one.items() if value not in (None, [], {}))
            )
    if audio is not None:
        write_atomically(audio, clip(corpus, row))
        terminal.say(f"{audio}: written")
    elif play:
        _play(terminal, clip(corpus, row), play_line(corpus, row["segment_id"]))
    elif row["shard"] is not None:
        terminal.say(f"listen: {play_line(corpus, row['segment_id']).replace('--audio clip.flac', '--play')}")
    terminal.result(asdict(found))


def _play(terminal: Terminal, flac: bytes, otherwise: str) -> None:
    """Play a clip, or say how to get it on a machine without a player."""
    from catalogs.inspection.show import as_wav, play_command

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.flac"
        command = play_command(file)
        if command is None:
            terminal.say(f"no player here (ffplay, play, afplay, aplay); write the clip: {otherwise}")
            return
        file.write_bytes(as_wav(flac) if command[0] == "aplay" else flac)
        if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
            terminal.say(f"{command[0]} cannot play here; write the clip: {otherwise}")


def _one_format(asked: dict[Format, bool], as_table: bool, out: Path | None) -> Format | None:
    """Return the format that is asked for; None for a table. Raises ValueError for more than one."""
    chosen = [name for name, is_asked in asked.items() if is_asked]
    if len(chosen) + as_table > 1:
        raise ValueError(f"one format at a time, not --{' and --'.join([*chosen, *['table'] * as_table])}")
    if out is not None and not chosen:
        raise ValueError("-o needs a format: --csv, --tsv, --nl, --json or --arrow")
    return chosen[0] if chosen else None


def _sql(words: str) -> str:
    """Return the SQL that an argument names: its own text, that of a file *.sql, or standard input."""
    if words == "-":
        return sys.stdin.read()
    return Path(words).read_text(encoding="utf-8-sig") if words.endswith(".sql") else words


def _parameter(words: str) -> tuple[str, str]:
    name, sign, value = words.partition("=")
    if not sign or not name.isidentifier():
        raise ValueError(f"a parameter is written as name=value, e.g. -p language=en, not {words}")
    return name, value


def _print_table(terminal: Terminal, columns: Sequence[str], batches: Iterator[pa.RecordBatch]) -> None:
    rows = _rows(batches)
    shown = list(islice(rows, TABLE_ROWS))
    terminal.rows(columns, shown)
    if next(rows, None) is not None:
        Terminal(as_json=True).say(
            f"these are the first {TABLE_ROWS:,} rows; all of them: --csv, --tsv, --nl, --json or --arrow"
        )


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        # Columns may have one name: rows as dicts would lose one.
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@contextmanager
def _quiet_pipe() -> Iterator[None]:
    """End as other programs do if nobody reads the output any more, e.g. `| head`: with status 141 and without a word."""
    try:
        yield
    except BrokenPipeError:
        # The interpreter flushes standard output at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None
