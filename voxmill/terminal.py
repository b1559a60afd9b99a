"""Output of every command: one readable line per step, JSON with `--json`, one line for an error."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_SAY_AGAIN_S = 60.0
"""Seconds between lines of progress if no terminal is attached."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output, for programs.")]


class Terminal:
    """Readable lines and tables. With `as_json` they go to standard error and the result to standard output."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, quiet=quiet, highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            # Without a terminal rich assumes 80 columns and wraps lines; a file or pipe should get whole lines.
            self.console = Console(stderr=as_json, quiet=quiet, highlight=False, soft_wrap=True, width=400)

    def say(self, line: str) -> None:
        """Print one plain line."""
        self.console.print(escape(line))

    @contextmanager
    def printing(self, package: str) -> Iterator[None]:
        """Print the log messages of a package (level INFO and above), one line each."""
        logger, lines = logging.getLogger(package), _Lines(self)
        before = logger.level
        logger.addHandler(lines)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.setLevel(before)
            logger.removeHandler(lines)

    @contextmanager
    def counting(self, things: str) -> Iterator[Callable[[int, int | None], None]]:
        """Yield a function for (done, in all): a bar on a terminal, otherwise one line a minute."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (TextColumn(things), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        shown = self.console.is_terminal
        said = time.monotonic()
        with Progress(*columns, console=self.console, transient=True, disable=not shown) as bar:
            task = bar.add_task("", total=None)

            def count(done: int, of: int | None) -> None:
                nonlocal said
                bar.update(task, completed=done, total=of)
                if not shown and time.monotonic() - said >= _SAY_AGAIN_S:
                    self.say(f"  {done:,}{'' if of is None else f'/{of:,}'} {things}")
                    said = time.monotonic()

            yield count

    def title(self, line: str) -> None:
        """Print the title of a step."""
        self.console.print(f"[bold]{escape(line)}[/bold]")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table; numbers are right-aligned."""
        rows = [list(row) for row in rows]
        table = Table(
            title=escape(title) if title else None, title_justify="left", header_style="bold", box=SIMPLE_HEAD
        )
        for index, column in enumerate(columns):
            numeric = any(isinstance(row[index], int | float) and not isinstance(row[index], bool) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(shown(value)) for value in row))
        self.console.print(table)

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table, or one field per line for each row if the table is wider than the terminal."""
        if not rows:
            self.say("no rows")
            return
        widths = [max([len(name), *(len(shown(row[i])) for row in rows)]) + 2 for i, name in enumerate(columns)]
        if sum(widths) <= self.console.width:
            self.table("", columns, rows)
            return
        longest = max(len(name) for name in columns)
        for number, row in enumerate(rows, 1):
            self.title(f"row {number}")
            for name, value in zip(columns, row, strict=True):
                self.say(f"  {name:<{longest}}  {shown(value)}")

    def result(self, value: Any) -> None:
        """Print the machine-readable result; only with `--json`."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str, indent=1) + "\n")


class _Lines(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.say(record.getMessage())


def quoted(value: object) -> str:
    """Quote a path or name for a shell; used for every command that is printed."""
    return shlex.quote(str(value))


def shown(value: Any) -> str:
    """Return the text of a table cell."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1 else f"{value:,.2f}"
    return str(value)


def explain(error: Exception) -> str:
    """Return one line: the error's message if it is meant for users, otherwise also its type and how to get the traceback."""
    # str() of a KeyError puts the message in quotes.
    words = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] not in _OURS:
        return f"the Python package {error.name} is not installed; pip install 'voxmill[all]' brings everything"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.strerror}: {error.filename}"
    if (words and type(error).__module__.split(".")[0] in _OURS) or (
        isinstance(error, ValueError | OSError | KeyError) and words
    ):
        return words
    return f"{type(error).__name__}: {words} (unexpected; VOXMILL_DEBUG=1 shows where)"


_OURS = ("catalogs", "voxcpm", "annotators", "pipeline", "trainer", "evaluation", "voxmill")
