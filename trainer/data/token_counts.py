"""The number of tokens of each candidate's text: counted once per tokenizer, stored beside the candidate table."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from catalogs.candidates.table import Table, mapped
from catalogs.files import open_atomically
from trainer.data.candidates import spoken_text

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from pathlib import Path

    from voxcpm.sequence.text_tokenizer import TextTokenizer

TEXT_ONLY = "text"
"""No description comes before the text. The other values of `words` are catalogs.candidates.captions.COLUMNS."""

_AT_ONCE = 8192
_LONG = 200_000
"""Number of rows from which on a message announces the counting."""


def token_counts(table: Table, tokenizer: TextTokenizer, words: str) -> np.ndarray:
    """Return int32 [rows]: tokens of each row's text, alone or with a caption; 0 if it has no such caption.

    words: TEXT_ONLY, or the caption's column.
    """
    key = tokenizer.digest, words
    if key not in table.counts:
        table.counts[key] = _stored(table, tokenizer, words)
    return table.counts[key]


def _stored(table: Table, tokenizer: TextTokenizer, words: str) -> np.ndarray:
    if table.folder is None or not tokenizer.digest:
        return np.concatenate([np.zeros(0, np.int32), *_counted(table, tokenizer.count, words)])
    path = table.folder / f"tokens-{tokenizer.digest}-{words}.i32"
    if not _is_whole(path, len(table)):
        try:
            _write(path, table, tokenizer, words)
        except OSError:
            # The corpus is read-only, or the disk is full: count for this run only.
            return np.concatenate([np.zeros(0, np.int32), *_counted(table, tokenizer.count, words)])
    return mapped(path, "<i4")[: len(table)]


def _counted(table: Table, count: Callable[[list[str]], np.ndarray], words: str) -> list[np.ndarray]:
    """Count the tokens of all rows: int32 arrays of [_AT_ONCE], the last one shorter."""
    found = []
    for start in range(0, len(table), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(table))
        texts = table.texts.stretch(start, stop)
        if words == TEXT_ONLY:
            found.append(count(texts))
            continue
        described = getattr(table, words).stretch(start, stop)
        wanted = np.array([bool(one) for one in described])
        some = np.zeros(stop - start, dtype=np.int32)
        both = zip(texts, described, strict=True)
        some[wanted] = count([spoken_text(text, one) for text, one in both if one])
        found.append(some)
    return found


def _write(path: Path, table: Table, tokenizer: TextTokenizer, words: str) -> None:
    """Write counts and their checksum to a file, atomically."""
    if len(table) >= _LONG:
        log.info(f"counting the tokens of {len(table):,} segments ({words}; once for this tokenizer)")
    with open_atomically(path) as sink:
        total = 0
        for part in _counted(table, tokenizer.count, words):
            data = part.astype("<i4").tobytes()
            total = zlib.crc32(data, total)
            sink.write(data)
        sink.write(np.array([total], "<u4").tobytes())


def _is_whole(path: Path, rows: int) -> bool:
    """Return True if a file of counts exists and is undamaged."""
    if not path.is_file() or path.stat().st_size != 4 * (rows + 1):
        return False
    data = np.fromfile(path, "<i4")
    return zlib.crc32(data[:-1].data) == int(data[-1:].view("<u4")[0])
