"""Arrays that are made without pandas are those of pyarrow."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpus_builders import make_unit
from hypothesis import given
from hypothesis import strategies as st

from catalogs.compaction.plain_arrays import plain_array
from catalogs.compaction.units import RECORDS
from catalogs.corpus.commit import commit_unit, create_corpus

ROOT = Path(__file__).resolve().parents[2]

_LEAF: list[tuple[pa.DataType, Any]] = [
    (pa.string(), st.text(st.characters(exclude_categories=["Cs"]))),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float64(), st.floats(allow_nan=False)),
    (
        pa.timestamp("us", tz="UTC"),
        st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=-30))])),
    ),
]
_NESTED: list[tuple[pa.DataType, Any]] = [
    (pa.list_(pa.string()), st.lists(_LEAF[0][1], max_size=4)),
    (pa.map_(pa.string(), pa.float64()), st.lists(st.tuples(_LEAF[0][1], _LEAF[3][1]), max_size=4)),
]


@given(
    st.sampled_from(_LEAF + _NESTED).flatmap(lambda pair: st.tuples(st.just(pair[0]), st.lists(pair[1] | st.none())))
)
def test_arrays_are_those_of_pyarrow(case: tuple[pa.DataType, list[Any]]) -> None:
    kind, values = case
    for some in (values, [value for value in values if value is not None]):
        made = plain_array(some, kind)
        made.validate(full=True)
        assert made.type == kind and made.equals(pa.array(some, kind))


def test_every_type_of_a_record_is_known() -> None:
    assert {field.type for field in RECORDS} <= {kind for kind, _ in _LEAF + _NESTED}


@pytest.mark.parametrize("steps", ["build_catalog(root)", "connect(root).close()"])
def test_a_new_unit_is_compacted_without_pandas(tmp_path: Path, steps: str) -> None:
    root = tmp_path / "c"
    create_corpus(root)
    commit_unit(root, make_unit("a", 2))
    program = f"""
import sys
from pathlib import Path
from catalogs.query.views import build_catalog, connect
root = Path(sys.argv[1])
{steps}
print("pandas" in sys.modules)
"""
    told = subprocess.run(
        [sys.executable, "-c", program, str(root)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout == "False\n"
