"""Work on the rows of lineage.parquet: hours by license, rows of ancestors."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from catalogs.lineage.record import COLUMNS, LicenseShare
from catalogs.vocabulary.licenses import NOT_STATED, canonical

_COUNTS = ("draws", "as_reference", "through_decoupled", "in_codec")


def used_rows(rows: pa.Table) -> pa.Table:
    """Return the rows whose recordings were used in any way: without those that have held-out segments only."""
    used = pc.greater(rows[_COUNTS[0]], 0)
    for name in _COUNTS[1:]:
        used = pc.or_(used, pc.greater(rows[name], 0))
    return rows.filter(used)


def license_shares(rows: pa.Table) -> dict[str, LicenseShare]:
    """Return what was used by SPDX identifier, `NOASSERTION` without one. A recording of several runs or corpora counts once."""
    used = used_rows(rows)
    own = pc.binary_join_element_wise(used["corpus"], used["source_id"], "/")
    keyed = used.append_column("key", pc.coalesce(used["content_sha256"], own)).group_by("key", use_threads=False)
    once = keyed.aggregate([("license", "first"), ("seconds", "max"), ("drawn_s", "sum")])
    found = once.group_by("license_first").aggregate([("key", "count"), ("seconds_max", "sum"), ("drawn_s_sum", "sum")])
    shares: dict[str, LicenseShare] = {}
    for row in found.to_pylist():
        name = row["license_first"]
        spdx = canonical(name) if name and name.strip() else NOT_STATED
        before = shares.get(spdx, LicenseShare(0, 0.0, 0.0))
        shares[spdx] = LicenseShare(
            before.recordings + row["key_count"],
            before.hours + (row["seconds_max_sum"] or 0.0) / 3600,
            before.drawn_hours + (row["drawn_s_sum_sum"] or 0.0) / 3600,
        )
    return dict(sorted(shares.items()))


def of_an_ancestor(rows: pa.Table, codec_only: bool = False) -> pa.Table:
    """Return the rows of a parent's lineage as rows of its child's: one generation further away, without those that it has for
    held-out segments only. codec_only: the child took over the codec only."""
    found = used_rows(rows)
    if codec_only:
        found = found.filter(pc.greater(found["in_codec"], 0))
        found = _with(found, **dict.fromkeys((*_COUNTS[:3], "drawn_s", "first_step"), 0))
    return _with(found, held_out=0, generation=pc.add(found["generation"], 1))


def _with(rows: pa.Table, **columns: object) -> pa.Table:
    for name, values in columns.items():
        at, kind = COLUMNS.get_field_index(name), COLUMNS.field(name)
        column = pa.array([values] * len(rows), kind.type) if isinstance(values, int) else values
        rows = rows.set_column(at, kind, column)
    return rows
