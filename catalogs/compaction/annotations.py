"""Blocks of annotation files: the rows of the passes below annotations/, and of quarantine/now.

A file is recognized by its columns: it may be of no kind (another tool's), or of several.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from catalogs.compaction.draft import BLOCK_ROWS, Draft, list_sql, merge
from catalogs.compaction.generation import Block, CompactFile, Generation, read_columns
from catalogs.compaction.listing import Entry
from catalogs.compaction.plain_arrays import plain_table
from catalogs.corpus.damage import reading
from catalogs.corpus.ids import short_hash
from catalogs.corpus.schema import required

KINDS = ("descriptions", "checks", "decoupled")
NOW = "quarantine/now"
_MEMBERS = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("mtime_ns", pa.int64())])
_BLOCK_FILES = 50_000


def annotation_blocks(
    draft: Draft, entries: Iterable[Entry], present: Collection[str], other: Collection[str], before: Generation | None
) -> list[Block]:
    """Return the blocks that hold these files: those of the generation before whose files are unchanged, and new ones.

    present, other: units of the present settings and of others. Files of `other` are left out. The draft holds the blocks of the
    units already. Raises DamagedFileError and duckdb.Error for a file that cannot be read.
    """
    wanted = set(entries)
    kept: dict[tuple[str, bool], list[Block]] = defaultdict(list)
    for block in () if before is None else before.blocks:
        if block.group != "":
            assert before is not None
            members = _members(before, block)
            if members <= wanted:
                draft.link(block, before)
                kept[block.group, block.loose].append(block)
                wanted -= members
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(wanted):
        groups[entry.group].append(entry)
    for group, files in groups.items():
        for part in _batches(draft.root, files):
            for block in _blocks(draft, group, part, present, other):
                kept[group, block.loose].append(block)
    return [block for blocks in kept.values() for block in merge(draft, blocks)]


def _members(before: Generation, block: Block) -> set[Entry]:
    rows = read_columns(before.folder / block.files["members"].path)
    return {Entry(*row) for row in zip(*(rows.column(name).to_pylist() for name in _MEMBERS.names), strict=True)}


Typed = tuple[Entry, Mapping[str, pa.Schema]]
"""A file, and its schema for each kind that it is of."""


def _batches(root: Path, entries: Sequence[Entry]) -> Iterator[list[Typed]]:
    """Yield the files with their kinds, as many as fill a block."""
    import pyarrow.parquet as pq

    found: list[Typed] = []
    rows = 0
    for entry in entries:
        path = root / entry.path
        with reading(path):
            about = pq.read_metadata(path)
        # By name only: other tools write the same columns with types that a cast converts, e.g. large strings.
        schema = about.schema.to_arrow_schema().remove_metadata()
        kinds = ("quarantine",) if entry.group == NOW else KINDS
        found.append((entry, {kind: schema for kind in kinds if required(kind) <= set(schema.names)}))
        rows += about.num_rows
        if rows >= BLOCK_ROWS or len(found) >= _BLOCK_FILES:
            yield found
            found, rows = [], 0
    if found:
        yield found


def _blocks(
    draft: Draft, group: str, files: Sequence[Typed], present: Collection[str], other: Collection[str]
) -> Iterator[Block]:
    """Yield a block of the files whose rows are all of segments of their unit, and a loose one of the others."""
    # A unit never changes, so what is found now about the rows of its file stays true.
    own = [(entry, kinds) for entry, kinds in files if entry.stem in present or entry.stem in other or group == NOW]
    strange = _strange(draft, [pair for pair in own if pair[0].stem in present])
    firm = [pair for pair in own if pair[0].path not in strange]
    firm_paths = {entry.path for entry, _ in firm}
    loose = [pair for pair in files if pair[0].path not in firm_paths]
    for part, is_loose in ((firm, False), (loose, True)):
        if part:
            shown = [pair for pair in part if pair[0].stem not in other]
            yield _block(draft, group, [entry for entry, _ in part], shown, is_loose)


def _strange(draft: Draft, files: Sequence[Typed]) -> set[str]:
    """Return the paths of the files with rows of segments that are not in their unit."""
    index = draft.folder / "index"
    found: set[str] = set()
    for kind in KINDS:
        paths = [entry.path for entry, kinds in files if kind in kinds]
        if not paths:
            continue
        if not index.is_dir():
            found.update(paths)
            continue
        full = list_sql(str(draft.root / path) for path in paths)
        rows = draft.connection.execute(
            "SELECT DISTINCT filename FROM ("
            "SELECT filename, CAST(segment_id AS VARCHAR) AS segment_id, "
            "regexp_replace(parse_filename(filename), '[.]parquet$', '') AS unit "
            f"FROM read_parquet({full}, filename = true, union_by_name = true)) AS rows "
            f"ANTI JOIN (SELECT segment_id, unit FROM read_parquet({list_sql([str(index / '*.parquet')])})) AS known "
            "USING (segment_id, unit)"
        ).fetchall()
        found.update(str(Path(path).relative_to(draft.root).as_posix()) for (path,) in rows)
    return found


def _block(draft: Draft, group: str, members: Sequence[Entry], files: Sequence[Typed], is_loose: bool) -> Block:
    name = short_hash("annotations", *(f"{one.path}\0{one.bytes}\0{one.mtime_ns}" for one in members))
    listed = {name: [getattr(one, name) for one in members] for name in _MEMBERS.names}
    written = draft.write("members", name, plain_table(listed, _MEMBERS))
    assert written is not None
    found: dict[str, CompactFile] = {"members": written}
    for kind in (*KINDS, "quarantine"):
        file = _copy(draft, kind, name, [(entry, kinds[kind]) for entry, kinds in files if kind in kinds])
        if file is not None:
            found[kind] = file
    return Block(name, group, len(members), found, is_loose)


def _copy(draft: Draft, kind: str, name: str, files: Sequence[tuple[Entry, pa.Schema]]) -> CompactFile | None:
    """Copy the rows of one kind; files with equal columns are read together."""
    alike: dict[str, tuple[pa.Schema, list[str]]] = {}
    for entry, schema in files:
        alike.setdefault(str(schema), (schema, []))[1].append(str(draft.root / entry.path))
    cut = len(str(draft.root)) + 2
    selects = [
        f"SELECT {draft.typed(kind, schema.names)}, substr(filename, {cut}) AS file, "
        "regexp_replace(parse_filename(filename), '[.]parquet$', '') AS unit, file_row_number AS file_row "
        f"FROM read_parquet({list_sql(paths)}, filename = true, file_row_number = true)"
        for schema, paths in alike.values()
    ]
    return draft.copy(kind, name, " UNION ALL ".join(selects)) if selects else None
