"""Packing loses nothing, repeats nothing, overfills nothing, and fills rows well on a natural mix of lengths."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.packing import Packer, pack


@dataclass(frozen=True)
class Box:
    number: int
    length: int


def boxes(lengths: list[int]) -> list[Box]:
    return [Box(number, length) for number, length in enumerate(lengths)]


def put(packer: Packer[Box], box: Box) -> list[Box] | None:
    return packer.add(box, box.length)


def reopened(old: Packer[Box], open_rows: int) -> Packer[Box]:
    """A new packer that continues where the old one is."""
    new: Packer[Box] = Packer(100, open_rows)
    new.reopen(old.rows, [sum(box.length for box in row) for row in old.rows], old.waited)
    return new


lengths = st.lists(st.integers(1, 100), max_size=200)


@given(lengths, st.integers(1, 20))
def test_every_item_comes_out_once_and_no_row_is_overfull(sizes: list[int], open_rows: int) -> None:
    items = boxes(sizes)
    rows = list(pack(items, 100, open_rows))
    assert Counter(chain.from_iterable(rows)) == Counter(items)
    assert all(0 < sum(item.length for item in row) <= 100 for row in rows)


def first_fit(items: list[Box], open_rows: int) -> list[list[Box]]:
    """The rows that `Packer` must give out, in order, written as its docstring says it: (row, number of rows out before it)."""
    rows: list[tuple[list[Box], int]] = []
    out: list[list[Box]] = []

    def filled(row: list[Box]) -> int:
        return sum(box.length for box in row)

    for item in items:
        fits = next((entry for entry in rows if filled(entry[0]) + item.length <= 100), None)
        if fits is not None:
            fits[0].append(item)
            if filled(fits[0]) == 100:
                rows.remove(fits)
                out.append(fits[0])
            continue
        gave = len(rows) == open_rows
        if gave:
            oldest = len(out) - rows[0][1] >= 8 * open_rows
            goes = rows[0] if oldest else max(rows, key=lambda entry: filled(entry[0]))
            rows.remove(goes)
            out.append(goes[0])
        rows.append(([item], len(out)))
        if item.length == 100 and not gave:
            out.append(rows.pop()[0])
    return out


@given(lengths, st.integers(1, 4))
def test_rows_are_given_out_by_the_rule_whatever_comes_later(sizes: list[int], open_rows: int) -> None:
    """Against the rule written down a second time: which row a sample goes to, and which one makes room."""
    packer: Packer[Box] = Packer(100, open_rows)
    items = boxes(sizes)
    assert [row for item in items if (row := put(packer, item)) is not None] == first_fit(items, open_rows)


@given(st.integers(101, 10_000))
def test_an_item_longer_than_a_row_is_refused_and_changes_nothing(length: int) -> None:
    packer: Packer[Box] = Packer(100)
    put(packer, Box(0, 60))
    with pytest.raises(ValueError, match=f"{length} positions does not fit a row of 100"):
        put(packer, Box(1, length))
    assert list(packer.rest()) == [[Box(0, 60)]]


def test_no_row_waits_for_ever() -> None:
    """A row that nothing fits any more makes room for others as soon as all rows are open."""
    packer: Packer[Box] = Packer(100, open_rows=4)
    out = [row for number in range(400) if (row := put(packer, Box(number, 51 + number % 40))) is not None]
    assert len(out) == 396
    given_out = {item.number for row in out for item in row}
    assert set(range(300)) <= given_out


def test_rows_of_ordinary_speech_are_filled_to_97_percent() -> None:
    """Clips of 1 to 30 s (median some 6 s) with 12 characters per second, rows of 4,096 positions."""
    dice = np.random.default_rng(0)
    seconds = dice.lognormal(np.log(6), 0.6, 20_000).clip(1, 30)
    sizes = [int(np.ceil(s / 0.16)) + int(s * 4) + 2 for s in seconds]
    rows = list(pack(boxes(sizes), 4096))
    assert sum(sizes) / (4096 * len(rows)) >= 0.97


def test_an_item_that_fills_a_row_alone_is_not_kept_back() -> None:
    packer: Packer[Box] = Packer(100, open_rows=4)
    assert put(packer, Box(0, 100)) == [Box(0, 100)] and packer.rows == []
    for number in (1, 2):
        put(packer, Box(number, 60))
    assert put(packer, Box(3, 100)) == [Box(3, 100)]
    assert list(packer.rest()) == [[Box(1, 60)], [Box(2, 60)]]


@given(st.integers(0, 60), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_reopened_packer_goes_on_as_the_old_one(before: int, open_rows: int, seed: int) -> None:
    """How long rows have waited is part of what is put back: nearly all clips are longer than half a row, so that rows with a
    short one wait until they are the oldest."""
    dice = random.Random(seed)
    items = boxes([dice.randint(51, 99) if dice.random() < 0.95 else dice.randint(1, 40) for _ in range(160)])
    unbroken: Packer[Box] = Packer(100, open_rows)
    for item in items[:before]:
        put(unbroken, item)
    resumed = reopened(unbroken, open_rows)
    assert [put(resumed, item) for item in items[before:]] == [put(unbroken, item) for item in items[before:]]
    assert list(resumed.rest()) == list(unbroken.rest())


def test_a_row_that_waited_before_it_was_reopened_makes_room_when_its_time_has_come() -> None:
    """With two open rows the oldest goes after 16 others; ten of these were given out before the packer was reopened."""
    first: Packer[Box] = Packer(100, open_rows=2)
    put(first, Box(0, 51))
    for number in range(1, 12):
        put(first, Box(number, 60))
    assert first.waited[0] == 10
    again = reopened(first, 2)
    out = [row for number in range(12, 30) if (row := put(again, Box(number, 60))) is not None]
    assert [row[0].number for row in out].index(0) == 6


def test_of_two_rows_that_are_equally_full_the_older_goes() -> None:
    packer: Packer[Box] = Packer(100, open_rows=3)
    for number in range(3):
        put(packer, Box(number, 70))
    assert put(packer, Box(3, 60)) == [Box(0, 70)]


def test_sixteen_rows_are_open_unless_another_number_is_asked_for() -> None:
    items = boxes([60] * 18)
    packer: Packer[Box] = Packer(100)
    assert [put(packer, item) for item in items] == [None] * 16 + [[items[0]], [items[1]]]
    dice = random.Random(1)
    mixed = boxes([dice.randint(1, 100) for _ in range(300)])
    assert list(pack(mixed, 100)) == list(pack(mixed, 100, 16)) != list(pack(mixed, 100, 15))


def test_the_rest_is_given_out_fullest_first() -> None:
    packer: Packer[Box] = Packer(100)
    for item in boxes([60, 70, 55, 70]):
        put(packer, item)
    assert [row[0].number for row in packer.rest()] == [1, 3, 0, 2] and packer.rows == []
