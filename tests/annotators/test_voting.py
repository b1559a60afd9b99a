"""One identity per voice: votes add to experts, and a grey zone stays grey."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.experts.base import pooled
from annotators.verification.evidence import SURE, age_finding, gender_finding
from annotators.verification.voting import vote_age, vote_gender


def shares(female: float) -> dict[str, float]:
    return {"female": female, "male": 1 - female}


def test_a_sure_expert_decides_without_votes() -> None:
    finding = vote_gender(shares(0.95), [])
    assert finding is not None
    assert (finding.value, finding.refuted, finding.source) == ("female", frozenset({"male"}), "gender")
    assert finding.p == pytest.approx(0.95)


@pytest.mark.parametrize("female", [0.11, 0.3, 0.5, 0.7, 0.89])
def test_a_grey_voice_has_no_verdict(female: float) -> None:
    assert vote_gender(shares(female), []) is None
    assert vote_gender(shares(female), ["female", "male", "unsure"]) is None


def test_votes_of_one_voice_decide_only_if_they_agree() -> None:
    assert vote_gender(None, ["female"] * 3) is None, "three answers are too few"
    agreed = vote_gender(None, ["female"] * 9 + ["male"])
    assert agreed is not None and (agreed.value, agreed.source) == ("female", "votes")
    assert vote_gender(None, ["female"] * 6 + ["male"] * 4) is None
    assert vote_gender(None, []) is None


def test_votes_against_a_sure_expert_leave_the_voice_open() -> None:
    assert vote_gender(shares(0.97), ["male"] * 6) is None


# Multiples of 1/1024, whose complement to 1 is exact: 1 - 0.9 is not 0.1.
@given(
    st.integers(0, 1024).map(lambda n: n / 1024), st.lists(st.sampled_from(["female", "male", "unsure"]), max_size=30)
)
def test_the_vote_is_fair_to_both_genders(female: float, answers: list[str]) -> None:
    other = {"female": "male", "male": "female", "unsure": "unsure"}
    one, two = vote_gender(shares(female), answers), vote_gender(shares(1 - female), [other[a] for a in answers])
    assert (one is None) == (two is None)
    if one and two:
        assert two.value == other[one.value or "unsure"] and one.p == pytest.approx(two.p, abs=1e-4)
        assert one.p >= SURE


def test_many_answers_weigh_no_more_than_four() -> None:
    few, many = vote_gender(None, ["male"] * 4), vote_gender(None, ["male"] * 400)
    assert few is not None and many is not None and few.p == pytest.approx(many.p)


def test_an_age_is_refuted_from_two_bands_on() -> None:
    finding = age_finding({"child": 0.0, "teen": 0.05, "young": 0.15, "middle": 0.6, "senior": 0.2}, "age")
    assert finding is not None and finding.value == "middle"
    assert finding.refuted == {"child", "teen"}
    assert not finding.contradicts("young") and finding.contradicts("child")
    spread = age_finding({"child": 0.0, "teen": 0.2, "young": 0.2, "middle": 0.4, "senior": 0.2}, "age")
    assert spread is not None and spread.refuted == {"child"}, "a band with mass is not refuted"


def test_the_band_beside_the_likeliest_is_never_refuted() -> None:
    finding = age_finding({"child": 0.0, "teen": 0.0, "young": 0.02, "middle": 0.98, "senior": 0.0}, "age")
    assert finding is not None and finding.refuted == {"child", "teen"}


def test_an_age_by_votes_needs_a_majority() -> None:
    assert vote_age(None, ["young"] * 3) is None
    assert vote_age(None, ["young", "middle", "senior", "teen", "young"]) is None
    agreed = vote_age(None, ["young"] * 4 + ["senior"])
    assert agreed is not None and agreed.value == "young" and "senior" not in agreed.refuted
    clear = vote_age(None, ["young"] * 19 + ["senior"])
    assert clear is not None and clear.contradicts("senior")


def test_pooled_shares_are_probabilities_and_keep_the_order_of_one() -> None:
    assert pooled([]) is None
    assert pooled([shares(0.7)]) == pytest.approx(shares(0.7))
    both = pooled([shares(0.9), shares(0.6)])
    assert both is not None and sum(both.values()) == pytest.approx(1) and 0.6 < both["female"] < 0.9
    outvoted = pooled([shares(0.0), *[shares(0.95)] * 9])
    assert outvoted is not None and outvoted["female"] > 0.85, "one clip does not decide"


def test_a_gender_finding_needs_nine_tenths() -> None:
    assert gender_finding(shares(0.899), "x") is None and gender_finding(None, "x") is None
    assert gender_finding(shares(0.9), "x") is not None
