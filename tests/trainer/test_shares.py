"""Orders in which segments come round equally often, and shares that are what is asked for where there is room."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.quotas import limited
from trainer.data.shuffle import Pools


def draws(pools: Pools, count: int, first: int = 0) -> list[int]:
    """Of the first kind."""
    return [int(i) for i in pools.draw(np.zeros(count, dtype=np.int64), np.arange(first, first + count))]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 300))
def test_a_pool_repeats_no_segment_of_a_language_before_all_have_come_round(
    sizes: list[int], seed: int, passes: int
) -> None:
    members = [np.arange(first, last) for first, last in pairwise(np.cumsum([0, *sizes]))]
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(sizes)))

    # Beside another kind, whose segments are never drawn.
    both = Pools([(1, 2), (1, 3)], [members, [np.arange(900, 950)]], [shares, np.ones(1)])
    length, passes = int(both.lengths[0]), 1 + passes % 7
    more = draws(both, passes * length)
    assert draws(both, length) == more[:length], "the first pass is the same when it is asked for again"
    assert [draws(both, 1, at)[0] for at in range(length)] == more[:length], "and one by one"
    counts = np.bincount(more, minlength=sum(sizes))
    for part in members:
        assert counts[part].max() - counts[part].min() <= 1


def test_a_pool_gives_languages_their_shares_and_none_nothing() -> None:
    members = [np.arange(80), np.arange(80, 100)]
    drawn = np.array(draws(Pools([1], [members], [np.array([0.5, 0.5])]), 100))
    assert (drawn < 80).sum() == 50
    lone = np.array(draws(Pools([1], [members], [np.array([1 - 1e-9, 1e-9])]), 101))
    assert (lone >= 80).sum() == 1


MAYBE_NONE = st.one_of(st.just(0.0), st.floats(0, 10)), st.one_of(st.just(0.0), st.floats(0, 2))


@settings(max_examples=200)
@given(st.lists(st.tuples(*MAYBE_NONE), min_size=1, max_size=7))
def test_shares_have_room_and_are_otherwise_as_asked(pairs: list[tuple[float, float]]) -> None:
    asked, room = (np.array(column) for column in zip(*pairs, strict=True))
    # Each alone may be 0: what is not asked for gets nothing, whatever its room, and what has no room is not drawn.
    asked, room = np.where(asked > 1e-6, asked, 0.0), np.where(room > 1e-6, room, 0.0)
    wants = (asked > 0) & (room > 0)
    if not wants.any():
        with pytest.raises(ValueError, match="room"):
            limited(asked, room)
        return
    shares = limited(asked, room)
    assert shares.sum() == pytest.approx(1.0) and not shares[~wants].any()
    room = np.where(wants, room, 0.0)
    if room.sum() < 1:
        assert np.allclose(shares, room / room.sum())
        return
    assert (shares <= room * (1 + 1e-9) + 1e-12).all()
    free = wants & (shares < room * (1 - 1e-9))
    if free.any():
        factors = shares[free] / asked[free]
        assert np.allclose(factors, factors[0])
        # What is held back got less than its due, never more.
        held = wants & ~free
        assert (shares[held] <= factors.max() * asked[held] * (1 + 1e-9)).all()


def test_what_is_above_its_room_goes_to_the_others_in_proportion() -> None:
    assert limited(np.array([2.0, 1.0, 1.0]), np.array([0.1, 1.0, 1.0])).tolist() == [0.1, 0.45, 0.45]
    assert limited(np.array([5.0, 4.0, 1.0]), np.array([0.1, 0.3, 9.0])).tolist() == pytest.approx([0.1, 0.3, 0.6])


@pytest.mark.parametrize("room", [[0.4, 0.5], [4.0, 0.5], [4.0, 4.0], [0.0, 0.5]])
def test_what_is_not_asked_for_gets_nothing_however_much_room_it_has(room: list[float]) -> None:
    assert limited(np.array([0.0, 1.0]), np.array(room)).tolist() == [0.0, 1.0]


def test_every_kind_of_a_pool_has_a_key_its_segments_and_its_shares() -> None:
    """What is left over of one of the lists would never be drawn."""
    part, share = [np.arange(3)], np.ones(1)
    for keys, members, shares in (
        ([1, 2], [part], [share]), ([1], [part, part], [share, share]), ([1], [part], [share, share]),
        ([1, 2], [part, part], [share]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="zip"):
            Pools(keys, members, shares)
