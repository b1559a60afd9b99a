"""Orders in which segments come round equally often, and shares that are what is asked for where there is room."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.pool import Pool
from trainer.shares import limited


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 3), st.integers(1, 300))
def test_a_pool_repeats_no_segment_of_a_language_before_all_have_come_round(
    sizes: list[int], seed: int, passes: int
) -> None:
    members = [np.arange(first, last) for first, last in pairwise(np.cumsum([0, *sizes]))]
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(sizes)))

    def pool() -> Pool:
        return Pool((1, 2), members, shares)

    passes = 1 + passes % 7
    drawn = [pool().draw(i) for i in range(pool().length)]
    longer = pool()
    more = [longer.draw(i) for i in range(passes * longer.length)]
    assert more[: len(drawn)] == drawn
    assert [longer.draw(i) for i in range(longer.length)] == drawn, (
        "the first pass is the same when it is asked for again"
    )
    counts = np.bincount(more, minlength=sum(sizes))
    for part in members:
        assert counts[part].max() - counts[part].min() <= 1


def test_a_pool_gives_languages_their_shares_and_none_nothing() -> None:
    members = [np.arange(80), np.arange(80, 100)]
    drawn = np.array([Pool((1,), members, np.array([0.5, 0.5])).draw(i) for i in range(100)])
    assert (drawn < 80).sum() == 50
    lone = np.array([Pool((1,), members, np.array([1 - 1e-9, 1e-9])).draw(i) for i in range(101)])
    assert (lone >= 80).sum() == 1


@settings(max_examples=200)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 2)), min_size=1, max_size=7))
def test_shares_have_room_and_are_otherwise_as_asked(pairs: list[tuple[float, float]]) -> None:
    asked, room = (np.array(column) for column in zip(*pairs, strict=True))
    wants = (asked > 1e-6) & (room > 1e-6)
    asked, room = np.where(wants, asked, 0.0), np.where(wants, room, 0.0)
    if not wants.any():
        with pytest.raises(ValueError, match="room"):
            limited(asked, room)
        return
    shares = limited(asked, room)
    assert shares.sum() == pytest.approx(1.0) and not shares[~wants].any()
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
