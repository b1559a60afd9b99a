"""What is trained on: choice i follows from (seed, phase, i) alone, and each rule of the mixture holds."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import LAYOUTS, LayoutWeights, Phase, TrainError
from trainer.mixture import Candidate, Mixture

LANGUAGES = {"en": 60, "de": 12, "yo": 3}


def segment(number: int, language: str = "en", **changes: object) -> Candidate:
    values: dict[str, object] = {
        "segment_id": f"{language}{number:04d}",
        "language": language,
        "text": "good evening",
        "seconds": 1.0 + number % 7,
        "description": "a low voice" if number % 2 else None,
        "references": (("en9000", 3.0), ("en9001", 4.0)) if number % 3 == 0 else (),
    }
    return Candidate(**(values | changes))  # type: ignore[arg-type]


def segments() -> list[Candidate]:
    return [segment(n, language) for language, count in LANGUAGES.items() for n in range(count)]


def phase(**changes: object) -> Phase:
    return Phase.model_validate({"steps": 10} | changes)


def mixture(seed: int = 1, name: str = "read", **changes: object) -> Mixture:
    return Mixture(segments(), phase(**changes), name, seed)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(0, 200))
def test_a_shorter_reading_is_the_beginning_of_a_longer_one(seed: int, count: int, more: int) -> None:
    assert list(islice(mixture(seed), count)) == list(islice(mixture(seed), count + more))[:count]


def test_the_order_of_the_candidates_given_does_not_matter() -> None:
    there = Mixture(segments(), phase(), "read", 1)
    back = Mixture(segments()[::-1], phase(), "read", 1)
    assert list(islice(there, 100)) == list(islice(back, 100))


@pytest.mark.parametrize(("seed", "name"), [(2, "read"), (1, "dear"), (1, "other")])
def test_another_seed_or_phase_is_another_order(seed: int, name: str) -> None:
    """`dear` has the letters of `read`."""
    assert list(islice(mixture(), 50)) != list(islice(mixture(seed, name), 50))


def test_every_sample_draws_its_own_numbers() -> None:
    assert len({choice.seed for choice in islice(mixture(), 500)}) == 500


def test_an_epoch_at_temperature_1_holds_every_segment_once() -> None:
    whole = {candidate.segment_id for candidate in segments()}
    chosen = [choice.candidate.segment_id for choice in islice(mixture(), 3 * len(whole))]
    epochs = [chosen[i : i + len(whole)] for i in range(0, len(chosen), len(whole))]
    assert all(set(epoch) == whole for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_temperature_0_takes_every_language_equally_often() -> None:
    counts = Counter(choice.candidate.language for choice in islice(mixture(language_temperature=0), 75 * 4))
    assert counts == {"en": 100, "de": 100, "yo": 100}


def test_a_temperature_between_takes_the_power_of_the_shares() -> None:
    counts = Counter(choice.candidate.language for choice in islice(mixture(language_temperature=0.5), 75))
    total = sum(count**0.5 for count in LANGUAGES.values())
    for language, count in LANGUAGES.items():
        assert counts[language] == pytest.approx(75 * count**0.5 / total, abs=1)


def test_a_language_that_is_thinned_out_still_comes_round_whole() -> None:
    chosen = {choice.candidate.segment_id for choice in islice(mixture(language_temperature=0), 75 * 20)}
    assert chosen == {candidate.segment_id for candidate in segments()}


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from(LAYOUTS), min_size=1))
def test_a_layout_of_weight_0_is_never_chosen(wanted: set[str]) -> None:
    weights = {layout: float(layout in wanted) for layout in LAYOUTS}
    chosen = list(islice(mixture(layouts=weights), 200))
    assert {choice.layout for choice in chosen} <= wanted
    assert all(choice.layout in choice.candidate.layouts() for choice in chosen)


def test_a_segment_serves_only_what_it_has() -> None:
    for choice in islice(mixture(), 1000):
        candidate = choice.candidate
        assert candidate.description or choice.layout not in ("design", "controllable")
        if choice.layout in ("reference", "controllable", "reference_continuation"):
            assert choice.reference in dict(candidate.references)
        else:
            assert choice.reference is None
        assert candidate.seconds >= 2 or "continuation" not in choice.layout


def test_layouts_are_chosen_in_proportion_to_their_weights() -> None:
    whole = [segment(n, description="calm", references=(("x", 3.0),), seconds=4.0) for n in range(100)]
    weights = LayoutWeights(basic=4, design=2, reference=1, controllable=1, continuation=1, reference_continuation=1)
    counts = Counter(choice.layout for choice in islice(Mixture(whole, phase(layouts=weights), "a", 1), 4000))
    assert {layout: round(count / 400) for layout, count in counts.items()} == {
        "basic": 4, "design": 2, "reference": 1, "controllable": 1, "continuation": 1, "reference_continuation": 1
    }  # fmt: skip


def test_nothing_that_can_be_served_is_one_line_that_says_what_is_missing() -> None:
    bare = [segment(n, description=None, references=()) for n in range(5)]
    with pytest.raises(TrainError, match=r"phase control: .*voxmill describe") as refused:
        Mixture(bare, phase(layouts={layout: float(layout == "design") for layout in LAYOUTS}), "control", 1)
    assert "\n" not in str(refused.value)
