"""Packing loses nothing, repeats nothing, overfills nothing, and fills rows well on a natural mix of lengths."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.packing import Packer, pack


@dataclass(frozen=True)
class Box:
    number: int
    length: int


def boxes(lengths: list[int]) -> list[Box]:
    return [Box(number, length) for number, length in enumerate(lengths)]


lengths = st.lists(st.integers(1, 100), max_size=200)


@given(lengths, st.integers(1, 20))
def test_every_item_comes_out_once_and_no_row_is_overfull(sizes: list[int], open_rows: int) -> None:
    items = boxes(sizes)
    rows = list(pack(items, 100, open_rows))
    assert Counter(chain.from_iterable(rows)) == Counter(items)
    assert all(0 < sum(item.length for item in row) <= 100 for row in rows)


@given(lengths)
def test_the_same_items_give_the_same_rows_in_the_same_order(sizes: list[int]) -> None:
    assert list(pack(boxes(sizes), 100)) == list(pack(boxes(sizes), 100))


@given(lengths, lengths)
def test_rows_given_out_early_do_not_depend_on_what_comes_later(sizes: list[int], later: list[int]) -> None:
    def given_out(items: list[Box], stop: int) -> list[list[Box]]:
        packer: Packer[Box] = Packer(100)
        return [row for item in items[:stop] if (row := packer.add(item)) is not None]

    assert given_out(boxes(sizes), len(sizes)) == given_out(boxes(sizes + later), len(sizes))


@given(st.integers(101, 10_000))
def test_an_item_longer_than_a_row_is_refused_and_changes_nothing(length: int) -> None:
    packer: Packer[Box] = Packer(100)
    packer.add(Box(0, 60))
    with pytest.raises(ValueError, match=f"{length} positions does not fit a row of 100"):
        packer.add(Box(1, length))
    assert list(packer.rest()) == [[Box(0, 60)]]


def test_no_row_waits_for_ever() -> None:
    """A row that nothing fits any more makes room for others as soon as all rows are open."""
    packer: Packer[Box] = Packer(100, open_rows=4)
    out = [row for number in range(400) if (row := packer.add(Box(number, 51 + number % 40))) is not None]
    assert len(out) == 396
    given_out = {item.number for row in out for item in row}
    assert set(range(300)) <= given_out


def test_rows_of_ordinary_speech_are_filled_to_97_percent() -> None:
    """Clips of 1 to 30 s (median some 6 s) with 12 characters a second, rows of 4,096 positions."""
    dice = np.random.default_rng(0)
    seconds = dice.lognormal(np.log(6), 0.6, 20_000).clip(1, 30)
    sizes = [int(np.ceil(s / 0.16)) + int(s * 4) + 2 for s in seconds]
    rows = list(pack(boxes(sizes), 4096))
    assert sum(sizes) / (4096 * len(rows)) >= 0.97


def test_an_item_that_fills_a_row_alone_is_not_kept_back() -> None:
    packer: Packer[Box] = Packer(100, open_rows=4)
    assert packer.add(Box(0, 100)) == [Box(0, 100)]
    assert list(packer.rest()) == []


@given(lengths, lengths, st.integers(1, 6))
def test_a_reopened_packer_goes_on_as_the_old_one(sizes: list[int], later: list[int], open_rows: int) -> None:
    """How long rows have waited is part of what is put back."""
    unbroken: Packer[Box] = Packer(100, open_rows)
    items = boxes(sizes + later)
    for item in items[: len(sizes)]:
        unbroken.add(item)
    resumed: Packer[Box] = Packer(100, open_rows)
    resumed.reopen(unbroken.rows, unbroken.waited)
    rest = items[len(sizes) :]
    assert [resumed.add(item) for item in rest] == [unbroken.add(item) for item in rest]
    assert list(resumed.rest()) == list(unbroken.rest())
