"""Bounds: the same decision in Python and in SQL, and one reason for each rule that is broken."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthesis.bounds import BOUND_RULES, FAULTS, REASON_WORDS, SCORES, Bounds, accepted_sql, reasons_against

score = st.none() | st.floats(-20, 20, allow_nan=False).map(lambda value: round(value, 3))
GOOD = dict.fromkeys(SCORES, 0.0) | {"cosine": 0.9, "source_cosine": 0.9, "faults": []}


@settings(max_examples=60, deadline=None)
@given(
    scores=st.fixed_dictionaries(dict.fromkeys(SCORES, score)),
    faults=st.none() | st.lists(st.sampled_from(sorted(FAULTS)), max_size=2),
    off=st.sets(st.sampled_from(sorted(Bounds.model_fields))),
)
def test_python_and_sql_agree(scores: dict[str, float | None], faults: list[str] | None, off: set[str]) -> None:
    bounds = Bounds(**dict.fromkeys(off))
    # A clip without an error rate has not been measured: it is never accepted.
    accepted = scores["cer"] is not None and not reasons_against(scores | {"faults": faults}, bounds)
    columns = ", ".join(f'CAST(? AS DOUBLE) AS "{name}"' for name in SCORES)
    sql = f"SELECT {accepted_sql(bounds)} FROM (SELECT {columns}, CAST(? AS VARCHAR[]) AS faults)"
    ((found,),) = duckdb.connect().execute(sql, [*(scores[name] for name in SCORES), faults]).fetchall()
    assert found == accepted


@pytest.mark.parametrize("rule", BOUND_RULES, ids=lambda rule: rule.reason)
def test_each_rule_has_its_reason(rule: object) -> None:
    assert reasons_against(GOOD, Bounds()) == []
    reason, name, side = rule.reason, rule.score, rule.side  # type: ignore[attr-defined]
    for value in {"above": [9.0], "below": [-9.0], "both": [-30.0, 30.0]}[side]:
        assert reasons_against(GOOD | {name: value}, Bounds()) == [reason]
    assert reasons_against(GOOD | {name: None}, Bounds()) == []
    assert REASON_WORDS[reason]


def test_faults_come_first_and_no_bound_excuses_them() -> None:
    none = Bounds(**dict.fromkeys(Bounds.model_fields))
    assert reasons_against(GOOD | {"faults": ["silent"], "cer": 5.0}, Bounds()) == ["silent", "wrong_text"]
    assert reasons_against(GOOD | {"faults": ["silent"], "cer": 5.0}, none) == ["silent"]
