"""The plan of a listening test is balanced, whatever its size; the sounds of its checks are what they claim."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.listen.design import (
    REPEAT_FROM,
    Slot,
    balance,
    ordered_slots,
    plan,
    repeats,
    sequence,
    shuffled_slots,
    williams,
)
from evaluation.listen.sound import (
    ORDERS,
    RATE,
    beeps,
    encoded,
    hard_clipped,
    leveled,
    loudness,
    low_passed,
    three_tones,
)

SIZES = {"items": st.integers(1, 40), "conditions": st.integers(1, 7), "listener": st.integers(0, 60)}


@pytest.mark.parametrize("count", range(1, 9))
def test_williams_rows_have_each_condition_once_and_each_neighbor_equally_often(count: int) -> None:
    rows = williams(count)
    assert all(sorted(row) == list(range(count)) for row in rows)
    assert all(len({row[place] for row in rows}) == count for place in range(count))
    after = Counter(pair for row in rows for pair in pairwise(row))
    assert len(after) == count * (count - 1) and len(set(after.values())) <= 1


@given(**SIZES)
def test_a_listener_hears_each_item_once_and_no_system_twice_in_a_row(
    items: int, conditions: int, listener: int
) -> None:
    slots = ordered_slots(items, conditions, listener, random.Random(listener))
    assert sorted(slot.item for slot in slots) == list(range(items))
    heard = Counter(slot.condition for slot in slots)
    counts = [heard[condition] for condition in range(conditions)]
    assert max(counts) - min(counts) <= 1
    assert conditions == 1 or all(a.condition != b.condition for a, b in pairwise(slots))


@given(**SIZES)
def test_listeners_in_turn_hear_each_item_under_every_condition(items: int, conditions: int, listener: int) -> None:
    for slots_of in (ordered_slots, shuffled_slots):
        sessions = [slots_of(items, conditions, listener + n, random.Random(n)) for n in range(conditions)]
        assert set(balance(sessions).values()) == {1} and len(balance(sessions)) == items * conditions


@pytest.mark.parametrize("conditions", range(2, 8))
def test_order_effects_cancel_over_listeners(conditions: int) -> None:
    after: Counter[tuple[int, int]] = Counter()
    places: Counter[tuple[int, int]] = Counter()
    for listener in range(len(williams(conditions))):
        order = sequence([3] * conditions, listener)
        blocks = [order[start : start + conditions] for start in range(0, len(order), conditions)]
        after.update(pair for block in blocks for pair in pairwise(block))
        places.update((place, condition) for block in blocks for place, condition in enumerate(block))
    assert len(set(after.values())) == 1 and len(after) == conditions * (conditions - 1)
    assert len(set(places.values())) == 1


@given(**SIZES, share=st.sampled_from([0.0, 0.05, 0.2]), attention=st.integers(0, 4), gold=st.booleans())
def test_checks_and_repeats_are_where_they_should_be(
    items: int, conditions: int, listener: int, share: float, attention: int, gold: bool
) -> None:
    rng = random.Random(listener)
    slots = ordered_slots(items, conditions, listener, rng)
    again = repeats(slots, share, rng)
    session = plan(slots, again, attention, gold, rng)
    roles = Counter(role for role, _ in session)
    assert roles["attention"] == attention and roles["gold"] == gold and roles["main"] == items
    assert session[0][0] == "main"
    heard: list[Slot] = [slot for _, slot in session if slot is not None]
    assert heard == [*slots, *again] and set(again) <= set(slots[: items // 2]) and len(set(again)) == len(again)
    assert conditions == 1 or all(a.condition != b.condition for a, b in pairwise(heard))
    if share and items >= REPEAT_FROM and conditions > 1:
        assert 1 <= len(again) <= max(1, round(share * items))


@settings(deadline=None, max_examples=30)
@given(level=st.floats(-80, 0), target=st.floats(-35, -14), seed=st.integers(0, 5))
def test_clips_are_leveled_and_never_clip(level: float, target: float, seed: int) -> None:
    noise = np.random.default_rng(seed).laplace(size=RATE // 2).astype(np.float32)
    noise *= 10 ** (level / 20) / np.abs(noise).max()
    out, gain, reached = leveled(noise, target, -1.0)
    peak = 20 * np.log10(np.abs(out).max())
    assert peak <= -1.0 + 1e-3 and reached is not None
    assert abs(reached - target) < 1e-6 or (reached < target and abs(peak + 1.0) < 1e-3)
    assert loudness(out) == pytest.approx(reached, abs=0.02)
    assert np.allclose(out, noise * 10 ** (gain / 20), atol=1e-6)


def test_silence_has_no_loudness_and_keeps_its_level() -> None:
    out, gain, reached = leveled(np.zeros(100, np.float32), -23.0, -1.0)
    assert not out.any() and gain == 0.0 and reached is None


@pytest.mark.parametrize("hertz", [3500.0, 7000.0])
def test_anchors_meet_the_limits_of_bs_1534(hertz: float) -> None:
    impulse = np.zeros(RATE, np.float32)
    impulse[RATE // 2] = 1.0
    out = low_passed(impulse, hertz)
    assert int(np.abs(out).argmax()) == RATE // 2
    response = 20 * np.log10(np.abs(np.fft.rfft(out)) + 1e-9)
    assert np.abs(response[50 : int(hertz)]).max() < 0.1
    assert response[int(hertz) + 500 :].max() < -25 and response[int(hertz) + 1000 :].max() < -50


def test_beeps_can_be_counted() -> None:
    for count in range(1, 6):
        loud = np.abs(beeps(count)) > 0.25
        frames = loud[: len(loud) // 480 * 480].reshape(-1, 480).any(axis=1)
        assert (np.diff(frames.astype(int)) == 1).sum() + frames[0] == count


def test_tones_swap_their_order_of_loudness_between_headphones_and_loudspeakers() -> None:
    for order in ORDERS:
        stereo = three_tones(order, 0.4)
        parts = np.array_split(stereo, 3)
        by_ear = [float(np.abs(part).max()) for part in parts]
        in_air = [float(np.abs(part.sum(axis=1)).max()) for part in parts]
        assert order[int(np.argmin(by_ear))] == "quiet" and order[int(np.argmin(in_air))] == "antiphase"


def test_the_clipped_clip_is_distorted_and_copies_of_a_clip_differ() -> None:
    tone = (0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)).astype(np.float32)
    assert (np.abs(hard_clipped(tone)) >= 1.0).mean() > 0.9
    assert encoded(tone, "flac", dither=1) != encoded(tone, "flac", dither=2) != encoded(tone, "flac")
    assert len(encoded(tone, "opus")) < len(encoded(hard_clipped(tone), "flac"))
