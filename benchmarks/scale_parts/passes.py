"""Descriptions and checks of a made-up service, in files per unit as a pass leaves them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from annotators.rows import description_columns
from annotators.schema import Attributes, VoiceDescription
from annotators.words.render import render
from catalogs.corpus.schema import CHECKS, DESCRIPTIONS, fill
from catalogs.vocabulary import voices

ANNOTATOR = "gemini"
_POOL = 200
"""Different descriptions of each gender."""
_CLAIMS = ("gender", "age", "pitch", "rate", "energy", "emotion")


def pass_tables(unit: str, rows: pa.Table, rng: np.random.Generator) -> dict[str, pa.Table]:
    """Return the descriptions and the checks of a unit by their paths in the corpus. rows: its kept INDEX rows."""
    pool = _pool()
    right = rng.random(len(rows)) < 0.94
    female = pc.equal(rows.column("gender"), "female").to_numpy() == right
    drawn = pool.take(pa.array(rng.integers(0, _POOL, len(rows)) + np.where(female, _POOL, 0)))
    ids = rows.column("segment_id")
    failed = rng.random(len(rows)) < 0.01
    drawn = drawn.set_column(0, DESCRIPTIONS.field("segment_id"), ids)
    status = pa.array(np.where(failed, "failed:invalid: gender is robot", "ok"))
    drawn = drawn.set_column(drawn.schema.get_field_index("status"), DESCRIPTIONS.field("status"), status)
    return {
        f"annotations/{ANNOTATOR}/{unit[:2]}/{unit}.parquet": drawn,
        f"annotations/{ANNOTATOR}/checks/{unit[:2]}/{unit}.parquet": _checks(ids, drawn, rng),
    }


def _checks(ids: pa.ChunkedArray, described: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return CHECKS rows: one claim per clip and attribute, of which a few are contradicted."""
    labels = described.column("labels").combine_chunks()
    parts = []
    for name in _CLAIMS:
        claimed = pc.struct_field(labels, name)
        state = rng.choice(3, len(ids), p=(0.7, 0.06, 0.24))
        other = claimed.take(pa.array(rng.integers(0, len(ids), len(ids))))
        found = pc.choose(pa.array(state), claimed, other, pa.scalar(None, pa.string()))
        columns = {
            "segment_id": ids.combine_chunks(),
            "annotator": pa.array(np.full(len(ids), ANNOTATOR)),
            "attribute": pa.array(np.full(len(ids), name)),
            "claimed": claimed,
            "found": found,
            "source": pa.array(np.full(len(ids), "measured")),
            "p": pa.array(rng.beta(8, 1, len(ids)), pa.float32()),
            "state": pa.array(np.array(["agree", "contradict", "unchecked"])[state]),
            "action": pa.array(np.array(["none", "value", "none"])[state]),
            "where": pa.array(np.full(len(ids), "json")),
        }
        parts.append(pa.table(columns))
    return fill(pa.concat_tables(parts), CHECKS)


@cache
def _pool() -> pa.Table:
    """Return DESCRIPTIONS rows without ids: first of male, then of female voices."""
    rng = np.random.default_rng(5)
    rows = []
    for gender in ("male", "female"):
        for number in range(_POOL):
            values = {name: str(rng.choice(known)) for name, known in voices.CLOSED.items()}
            values["rate"], values["pitch"] = str(rng.choice(voices.RATES[:5])), str(rng.choice(voices.PITCHES[:5]))
            attributes = Attributes(
                **(values | {"gender": gender}), texture=tuple(rng.choice(voices.TEXTURES, 2, replace=False).tolist())
            )
            said = VoiceDescription(attributes=attributes, captions=render(attributes, f"{gender}{number}"))
            rows.append(
                {
                    "annotator": ANNOTATOR,
                    "model": "gemini-synthetic",
                    "prompt_version": "1",
                    "verdict": "agree" if number % 20 else "dropped",
                    "disagreements": [] if number % 20 else ["gender"],
                    "tokens_in": 480,
                    "tokens_out": 210,
                    "cost_usd": 0.0004,
                    "status": "ok",
                    **description_columns(said),
                }
            )
    return pa.Table.from_pylist(rows, schema=DESCRIPTIONS)
