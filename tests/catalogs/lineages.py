"""Small lineages and their rows."""

from __future__ import annotations

import dataclasses

import pyarrow as pa

from catalogs.lineage.record import (
    COLUMNS,
    Ancestor,
    DrawnCorpus,
    DrawnRecording,
    HeldOut,
    LicenseShare,
    Lineage,
    Stretch,
)


def a_lineage(**changes: object) -> Lineage:
    """A lineage with every field filled."""
    values = {
        "digest": "ab" * 8,
        "kind": "model",
        "step": 20,
        "ancestors": (Ancestor(1, "start", "hub/model", None, False), Ancestor(2, "base", "older", "cd" * 8, True)),
        "corpora": (DrawnCorpus("a", "00" * 32, None, "corpus"),),
        "data_key": "3:1234",
        "order_version": 3,
        "seed": 1,
        "positions": (Stretch("only", 0, 90, 1, 20, "3:1234", (88, 89)),),
        "licenses": {"CC-BY-4.0": LicenseShare(1, 0.5, 1.25)},
        "held_out": HeldOut(2, 1, 0.01),
        "tombstones": ("t1",),
        "gaps": (),
        "notes": ("the tokenizer was trained on all texts",),
        "unnamed_draws": 0,
        "voxmill": "0.1.0",
        "commit": None,
        "table_rows": 0,
        "table_sha256": "",
    }
    return Lineage(**values | changes)  # type: ignore[arg-type]


def a_row(number: int, **changes: object) -> DrawnRecording:
    """One recording."""
    values = dict.fromkeys(COLUMNS.names)
    values |= {
        "corpus": "a", "source_id": f"s{number}", "content_sha256": f"{number:064x}", "synthetic": False, "draws": number,
        "drawn_s": 1.5 * number, "as_reference": 0, "through_decoupled": 0, "held_out": 0, "generation": 0, "in_codec": 0,
    }  # fmt: skip
    return DrawnRecording(**values | changes)  # type: ignore[arg-type]


def a_table(rows: list[DrawnRecording]) -> pa.Table:
    """The rows as a table."""
    return pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=COLUMNS)
