"""The captions of a candidate: at most one for each register and each language that VoxCPM2 takes descriptions in."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CAPTIONS: Final = (
    ("full", "en"), ("brief", "en"), ("style", "en"), ("persona", "en"),
    ("full", "zh"), ("brief", "zh"), ("style", "zh"), ("persona", "zh"),
)  # fmt: skip
"""(register, language) of each. A caption's index here is its number everywhere in the trainer. Add at the end."""
COLUMNS: Final = tuple(register if language == "en" else f"{register}_{language}" for register, language in CAPTIONS)
"""Their columns in the candidate table."""
ADDED: Final = COLUMNS[2:]
"""Captions that descriptions of earlier versions lack. Hashes include them only if there is one, so that runs on earlier
descriptions resume."""
READ: Final = ("full", "brief", "style", "persona", "captions")
"""Columns of a description that they are read from."""

_UNSPEAKABLE = r"[()（）]"
"""A caption stands in parentheses before the text, so it cannot hold any."""


def caption_columns(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return the captions of descriptions by COLUMNS, null if there is none. rows: a table with the columns READ.

    A register's own column precedes an entry of the list `captions`. `full` and `brief` are as they are in the description.
    """
    listed = _listed(rows["captions"].combine_chunks())
    found = {}
    for name, (register, language) in zip(COLUMNS, CAPTIONS, strict=True):
        caption = listed[register, language]
        if language == "en":
            own = rows[register] if name not in ADDED else _cleaned(rows[register])
            caption = pc.coalesce(no_blanks(own), pa.chunked_array([caption]))
        found[name] = caption
    return found


def no_blanks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column with null for texts of white space only."""
    blank = pc.equal(pc.utf8_trim_whitespace(column), "")
    return pc.if_else(blank, None, column)


def _cleaned(column: pa.Array) -> pa.Array:
    """Return texts without parentheses, with single spaces."""
    bare = pc.replace_substring_regex(column, _UNSPEAKABLE, "")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(bare, r"\s+", " "))


def _listed(lists: pa.Array) -> dict[tuple[str, str], pa.Array]:
    """Return the first caption of each kind in each row of a list column, null if it has none."""
    rows, entries = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists)
    texts = no_blanks(_cleaned(pc.struct_field(entries, "text")))
    named = pc.binary_join_element_wise(pc.struct_field(entries, "register"), pc.struct_field(entries, "language"), " ")
    there = pc.is_valid(texts)
    found = {}
    for register, language in CAPTIONS:
        wanted = pc.and_(pc.fill_null(pc.equal(named, f"{register} {language}"), False), there)
        mine = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
        row, first = np.unique(rows[mine], return_index=True)
        places = np.zeros(len(lists), dtype=np.int64)
        places[row] = mine[first]
        lacks = np.ones(len(lists), dtype=bool)
        lacks[row] = False
        found[register, language] = texts.take(pa.array(places, mask=lacks))
    return found
