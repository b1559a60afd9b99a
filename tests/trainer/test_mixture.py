"""What is trained on: choice i follows from (seed, phase, i) alone, and each rule of the mixture holds."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import LayoutWeights, Phase, TrainError, ValidationSettings
from trainer.data.candidates import Choice
from trainer.data.mixture import Candidate, Mixture, data_key, hold_out
from trainer.data.sample_counts import SampleCounts, layout_words
from trainer.sample_kinds import BY_LAYOUT, LAYOUTS

LANGUAGES = {"en": 60, "de": 12, "yo": 3}
BASIC = {layout: float(layout == "basic") for layout in LAYOUTS}


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


def test_a_pass_at_temperature_1_holds_every_segment_once() -> None:
    whole = {candidate.segment_id for candidate in segments()}
    chosen = [choice.candidate.segment_id for choice in islice(mixture(layouts=BASIC), 3 * len(whole))]
    passes = [chosen[i : i + len(whole)] for i in range(0, len(chosen), len(whole))]
    assert mixture().epoch_samples == len(whole)
    assert all(set(one) == whole for one in passes)
    assert passes[0] != passes[1]


def test_every_layout_goes_through_its_own_segments_before_it_repeats_one() -> None:
    counts: dict[str, Counter[str]] = {layout: Counter() for layout in LAYOUTS}
    for choice in islice(mixture(), 3000):
        counts[choice.layout][choice.candidate.segment_id] += 1
    for layout, found in counts.items():
        able = {c.segment_id for c in segments() if layout in c.layouts()}
        assert set(found) == able and max(found.values()) - min(found.values()) <= 1, layout


def languages(count: int, **changes: object) -> Counter[str]:
    """Samples by language where all clips are of one length."""
    even = [segment(n, name, seconds=4.0) for name, size in LANGUAGES.items() for n in range(size)]
    stream = Mixture(even, phase(layouts=BASIC, max_repeats=1000, **changes), "read", 1)
    return Counter(choice.candidate.language for choice in islice(stream, count))


def test_temperature_0_takes_every_language_equally_often() -> None:
    assert languages(75 * 4, language_temperature=0) == {"en": 100, "de": 100, "yo": 100}


def test_a_temperature_between_takes_the_power_of_the_shares() -> None:
    counts = languages(75, language_temperature=0.5)
    total = sum(count**0.5 for count in LANGUAGES.values())
    for language, count in LANGUAGES.items():
        assert counts[language] == pytest.approx(75 * count**0.5 / total, abs=1)


def test_languages_are_balanced_by_their_audio() -> None:
    """As many of each, those of one language twice as long: half as many of its samples."""
    both = [segment(n, name, seconds=seconds) for name, seconds in (("en", 3.0), ("de", 6.0)) for n in range(30)]
    stream = Mixture(both, phase(layouts=BASIC, language_temperature=0), "read", 1)
    counts = Counter(choice.candidate.language for choice in islice(stream, 600))
    assert counts == {"en": 400, "de": 200}


def test_weights_of_languages_are_factors_on_their_shares() -> None:
    assert languages(75 * 4, language_temperature=0, language_weights={"yo": 0.5}) == {"en": 120, "de": 120, "yo": 60}
    assert set(languages(300, language_weights={"yo": 0})) == {"en", "de"}
    (note,) = mixture(language_weights={"sw": 2.0}).notes()
    assert "nothing to train on in sw" in note


def test_a_language_of_few_segments_is_not_repeated_without_end() -> None:
    many = [segment(n, seconds=4.0) for n in range(1000)] + [segment(n, "yo", seconds=4.0) for n in range(2)]
    stream = Mixture(many, phase(layouts=BASIC, language_temperature=0, max_repeats=5), "read", 1)
    counts = Counter(choice.candidate.segment_id for choice in islice(stream, 1002))
    assert counts["yo0000"] == counts["yo0001"] == 5


def test_a_language_that_is_thinned_out_still_comes_round_whole() -> None:
    """60 of 75 are English, and a third of the samples: all have come round after 180."""
    chosen = {choice.candidate.segment_id for choice in islice(mixture(layouts=BASIC, language_temperature=0), 225)}
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
    weights = LayoutWeights.model_validate(
        {"basic": 4, "design": 2, "reference": 1, "controllable": 1, "continuation": 1, "reference_continuation": 1}
    )
    counts = Counter(choice.layout for choice in islice(Mixture(whole, phase(layouts=weights), "a", 1), 4000))
    assert {layout: round(count / 400) for layout, count in counts.items()} == {
        "basic": 4, "design": 2, "reference": 1, "controllable": 1, "continuation": 1, "reference_continuation": 1
    }  # fmt: skip


def rich(described: int, referenced: int, count: int = 2000) -> list[Candidate]:
    """Every `described`-th segment has a description, every `referenced`-th references."""
    return [
        segment(
            n,
            seconds=8.0,
            description="calm" if n % described == 0 else None,
            references=(("x", 3.0),) if n % referenced == 0 else (),
        )
        for n in range(count)
    ]


def counted(stream: Mixture, count: int, first: int = 0) -> dict[str, float]:
    found = Counter(stream.choice(i).layout for i in range(first, first + count))
    return {layout: found[layout] / count for layout in LAYOUTS}


def test_a_layout_that_few_segments_serve_is_as_common_as_is_asked() -> None:
    """5 % are described, half have references: 100 of 2,000 segments serve `controllable`, which is asked for at 18 %."""
    stream = Mixture(rich(20, 2), phase(), "control", 1)
    found, asked = counted(stream, 8000), stream.shares.asked(8000)
    assert asked["controllable"] == pytest.approx(1 / 5.5)
    for layout in LAYOUTS:
        assert found[layout] == pytest.approx(asked[layout], abs=0.02), layout
    assert stream.notes() == []


def test_no_segment_is_repeated_more_often_than_is_allowed_and_the_limit_is_told() -> None:
    stream = Mixture(rich(100, 2), phase(max_repeats=4), "control", 1)
    # 20 segments, four times each in a pass of 2,000 choices: 4 %.
    found, expected = counted(stream, 20_000), stream.shares.expected(20_000)
    assert expected["controllable"] == pytest.approx(0.04)
    assert found["controllable"] == pytest.approx(0.04, abs=0.005)
    rounds = stream.rounds({layout: round(20_000 * share) for layout, share in found.items()})
    assert rounds["controllable"] == pytest.approx(10 * 4, rel=0.1)
    for layout in ("basic", "reference", "continuation"):
        assert found[layout] == pytest.approx((1 - 0.08) / 3.5, abs=0.02)
    notes = stream.notes()
    assert len(notes) == 2 and any("controllable is asked for at 18.2% and gets 4.0%: 20 segments" in n for n in notes)


def test_what_no_segment_can_serve_goes_to_the_others_and_is_told() -> None:
    bare = [segment(n, description=None, references=(), seconds=4.0) for n in range(50)]
    stream = Mixture(bare, phase(), "read", 1)
    assert set(counted(stream, 500)) == set(LAYOUTS) and stream.shares.expected(1) == {
        "basic": pytest.approx(0.5), "continuation": pytest.approx(0.5)
    }  # fmt: skip
    assert any("design is asked for, and no segment can serve it" in note for note in stream.notes())


RAMP = {"layouts_from": BASIC, "layouts": BASIC | {"design": 1.0}, "max_positions": 1000}


def test_weights_go_over_in_a_straight_line() -> None:
    stream = Mixture(rich(2, 2), phase(steps=100, ramp=0.5, **RAMP), "more", 1)
    ramp = stream.shares.ramp
    # 100 rows of 1,000 positions hold some 1,700 samples of 58 positions.
    assert 700 < ramp < 1000
    for start, share in ((0, 0.0), (ramp // 2, 0.25), (ramp, 0.5), (10 * ramp, 0.5)):
        (shares,) = stream.shares.at(start, 1)
        by_kind = dict(zip(stream.shares.kinds, shares, strict=True))
        assert by_kind[BY_LAYOUT["design"]] == pytest.approx(share, abs=0.001)
    late, early = counted(stream, 2000, ramp), counted(stream, ramp)
    assert late["design"] == pytest.approx(0.5, abs=0.04) and early["design"] == pytest.approx(0.25, abs=0.06)
    assert stream.shares.asked(ramp)["design"] == pytest.approx(0.25, abs=0.01)
    assert any(f"over the first {ramp:,} samples" in note for note in stream.notes())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 12_000), st.integers(0, 12_000))
def test_a_choice_does_not_depend_on_what_was_chosen_before_it(index: int, before: int) -> None:
    fresh, used = (Mixture(rich(2, 2, 60), phase(steps=500, **RAMP), "more", 1) for _ in range(2))
    used.choice(before)
    assert used.choice(index) == fresh.choice(index)


def test_how_long_a_phase_is_belongs_to_the_data_where_its_weights_change_with_it() -> None:
    def key(**changes: object) -> str:
        return data_key(1, {"a": phase(**changes)}, {"a": segments()})

    assert key(steps=5) == key(steps=6) and key(steps=5, **RAMP) != key(steps=6, **RAMP)
    assert key() != key(max_repeats=2) != key(brief=0.1)


def decoupled(number: int, described: str = "en0001", timbre: str = "en0000") -> Candidate:
    return Candidate(
        f"zz{number:04d}", "en", "an unrelated text", 5.0, "a low voice", ((timbre, 3.0),), None, described
    )


def test_content_decoupled_samples_are_their_share_of_the_controllable_ones() -> None:
    both = rich(2, 2) + [decoupled(n) for n in range(500)]
    weights = BASIC | {"controllable": 1.0}
    chosen = list(islice(Mixture(both, phase(layouts=weights, decoupled=0.7), "joint", 1), 8000))
    made = [choice for choice in chosen if choice.candidate.described_id is not None]
    assert len(made) / 8000 == pytest.approx(0.35, abs=0.02)
    assert {choice.layout for choice in made} == {"controllable"} and {choice.reference for choice in made} == {
        "en0000"
    }
    assert sum(choice.layout == "controllable" for choice in chosen) / 8000 == pytest.approx(0.5, abs=0.02)
    realised = SampleCounts()
    for choice in chosen:
        realised.count(choice)
    assert realised.decoupled == len(made)
    assert Mixture(both, phase(layouts=weights, decoupled=0.7), "joint", 1).shares.decoupled == pytest.approx(0.7)
    off = Mixture(both, phase(layouts=weights), "joint", 1)
    assert off.epoch_samples == 2000 and all(c.candidate.described_id is None for c in islice(off, 2000))


def test_without_decoupled_samples_recordings_serve_and_a_note_says_so() -> None:
    stream = Mixture(rich(2, 2), phase(decoupled=0.9), "joint", 1)
    assert counted(stream, 4000)["controllable"] == pytest.approx(1 / 5.5, abs=0.02)
    assert any("no accepted content-decoupled" in note for note in stream.notes())


def test_decoupled_samples_alone_serve_where_no_recording_can() -> None:
    both = [segment(n, description=None, references=(), seconds=4.0) for n in range(50)]
    both += [decoupled(n) for n in range(50)]
    weights = BASIC | {"controllable": 1.0}
    chosen = list(islice(Mixture(both, phase(layouts=weights, decoupled=0.2), "joint", 1), 1000))
    assert sum(choice.layout == "controllable" for choice in chosen) == pytest.approx(500, abs=50)


def test_decoupled_samples_are_not_held_out_and_give_away_nothing_that_is() -> None:
    recorded = [segment(n, references=()) for n in range(40)]
    made = [decoupled(n, f"en{n:04d}", f"en{(n + 1) % 40:04d}") for n in range(40)]
    training, held = hold_out({"a": recorded + made}, ValidationSettings(every=1, share=0.3))
    ids = {c.segment_id for c in held}
    assert ids and all(c.described_id is None for c in held)
    left = [c for c in training["a"] if c.described_id is not None]
    assert 0 < len(left) < 40
    for c in left:
        assert c.described_id not in ids and c.references[0][0] not in ids


def test_descriptions_are_drawn_in_both_lengths() -> None:
    whole = [segment(n, description="A calm voice, not loud.", brief="a calm voice") for n in range(50)]
    weights = BASIC | {"design": 1.0}

    def words(share: float, found: list[Candidate] = whole) -> Counter[str | None]:
        stream = Mixture(found, phase(layouts=weights, brief=share), "a", 1)
        return Counter(choice.description for choice in islice(stream, 2000) if choice.layout == "design")

    half = words(0.5)
    assert half["a calm voice"] / half.total() == pytest.approx(0.5, abs=0.05)
    assert set(words(0.0)) == {"A calm voice, not loud."} and set(words(1.0)) == {"a calm voice"}
    long_only = [segment(n, description="A calm voice, not loud.") for n in range(50)]
    assert set(words(1.0, long_only)) == {"A calm voice, not loud."}


def test_what_is_realised_is_told_beside_what_was_asked() -> None:
    realised = SampleCounts()
    for number, layout in enumerate(("basic", "basic", "basic", "design")):
        realised.count(Choice(number, segment(number, "de" if number else "en"), layout, None, 0))
    assert realised.metrics() == {
        "data/share_layout_basic": 0.75, "data/share_layout_design": 0.25,
        "data/share_language_de": 0.75, "data/share_language_en": 0.25,
    }  # fmt: skip
    words = layout_words(realised.layouts, {"basic": 0.5, "design": 0.3, "reference": 0.2}, {"basic": 0.1, "design": 2})
    assert words == (
        "basic 3 (75.0%, asked 50.0%, 0.1 rounds), design 1 (25.0%, asked 30.0%, 2.0 rounds), reference 0 (0.0%, asked 20.0%,"
        " 0.0 rounds)"
    )


def test_nothing_that_can_be_served_is_one_line_that_says_what_is_missing() -> None:
    bare = [segment(n, description=None, references=()) for n in range(5)]
    with pytest.raises(TrainError, match=r"phase control: .*voxmill describe") as refused:
        Mixture(bare, phase(layouts={layout: float(layout == "design") for layout in LAYOUTS}), "control", 1)
    assert "\n" not in str(refused.value)
