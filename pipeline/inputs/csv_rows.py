"""Rows of a CSV or TSV text, whose fields may hold transcripts of hours of speech."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Literal, TextIO

LARGEST_FIELD = 64 * 1024**2
"""Maximum bytes of a field: the transcript of a recording of many hours is one field."""


class TableError(ValueError):
    """A text that is not a table; the message names the line and the fault."""


def csv_rows(text: str | TextIO, delimiter: str, quoted: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, keyed by the names in its first line. Raises TableError at a line that cannot be read.

    text: the table, or a file with it that was opened with newline="", of which only a row is in memory.
    """
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    lines = io.StringIO(text) if isinstance(text, str) else text
    reader = csv.DictReader(lines, delimiter=delimiter, quoting=quoting)
    while True:
        # The limit applies to the whole process, so it is changed only while a row is read.
        before = csv.field_size_limit(LARGEST_FIELD)
        try:
            row = next(reader, None)
        except csv.Error as error:
            fault = f"a field is longer than {LARGEST_FIELD >> 20} MB" if "limit" in str(error) else str(error)
            raise TableError(f"line {reader.reader.line_num}: {fault}") from None
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        yield {name: value for name, value in row.items() if name is not None}
