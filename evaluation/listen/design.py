"""The plan of a test: which listener hears which item by which system, and in which order.

A condition is a system or, in a comparison, an ordered pair of systems. The Latin square gives each item of a listener one
condition; `k` consecutive listeners hear each item under each of the `k` conditions once.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["main", "repeat", "training", "attention", "gold", "headphone"]

REPEAT_FROM = 8
"""Trials from which at least one is asked twice."""


@dataclass(frozen=True)
class Slot:
    """A trial of a listener, by numbers of the item and the condition."""

    item: int
    condition: int


def williams(count: int) -> list[list[int]]:
    """Return the rows of a Williams design: every condition once per row, and each condition directly before each other one
    equally often. `count` rows if it is even, otherwise twice as many."""
    base = [0]
    low, high = 1, count - 1
    while len(base) < count:
        if len(base) % 2:
            base.append(low)
            low += 1
        else:
            base.append(high)
            high -= 1
    rows = [[(entry + shift) % count for entry in base] for shift in range(count)]
    return rows if count % 2 == 0 else [*rows, *(row[::-1] for row in rows)]


def assign(items: int, conditions: int, listener: int) -> list[int]:
    """Return the condition of each item for a listener (numbers from 0)."""
    return [(item + listener) % conditions for item in range(items)]


def sequence(counts: Sequence[int], listener: int) -> list[int]:
    """Return an order in which condition `c` comes `counts[c]` times and, of two conditions or more, none twice in a row.

    The counts differ by at most 1. Blocks of all conditions follow the rows of a Williams design; a last, partial block
    takes the rest. Listener by listener, each block begins with the next row.
    """
    rows = williams(len(counts))
    step = _step(rows)
    blocks, rest = min(counts), {c for c, count in enumerate(counts) if count > min(counts)}
    order: list[int] = []
    for start in range(len(rows)):
        order = [c for b in range(blocks) for c in rows[(listener + start + step * b) % len(rows)]]
        for turn in range(len(rows)):
            last = [c for c in rows[(listener + start + turn) % len(rows)] if c in rest]
            if not (last and order and last[0] == order[-1]):
                return [*order, *last]
    return [*order, *sorted(rest)]


def _step(rows: Sequence[Sequence[int]]) -> int:
    """Return how many rows a block lies after the one before it, so that no condition meets itself between blocks."""
    for step in [*range(1, len(rows)), 0]:
        if all(row[-1] != rows[(number + step) % len(rows)][0] for number, row in enumerate(rows)):
            return step
    return 0


def ordered_slots(items: int, conditions: int, listener: int, rng: random.Random) -> list[Slot]:
    """Return the trials of a listener, one per item, in the order of `sequence`; which item comes first is random."""
    by_condition: dict[int, list[int]] = {c: [] for c in range(conditions)}
    for item, condition in enumerate(assign(items, conditions, listener)):
        by_condition[condition].append(item)
    for numbers in by_condition.values():
        rng.shuffle(numbers)
    counts = [len(by_condition[c]) for c in range(conditions)]
    return [Slot(by_condition[c].pop(), c) for c in sequence(counts, listener)]


def shuffled_slots(items: int, conditions: int, listener: int, rng: random.Random) -> list[Slot]:
    """Return the trials of a listener in random order. For pairs: a fixed alternation of sides would be noticed."""
    slots = [Slot(item, c) for item, c in enumerate(assign(items, conditions, listener))]
    rng.shuffle(slots)
    return slots


def repeats(slots: Sequence[Slot], share: float, rng: random.Random) -> list[Slot]:
    """Return the trials to be asked a second time, after all others.

    They come from the first half. If there is more than one condition, none is that of the trial before it.
    """
    count = max(1, round(share * len(slots))) if share and len(slots) >= REPEAT_FROM else 0
    several = len({slot.condition for slot in slots}) > 1
    pool = list(slots[: len(slots) // 2])
    rng.shuffle(pool)
    chosen: list[Slot] = []
    for _ in range(count):
        before = (chosen[-1] if chosen else slots[-1]).condition
        found = next((slot for slot in pool if not (several and slot.condition == before)), None)
        if found is None:
            break
        pool.remove(found)
        chosen.append(found)
    return chosen


def plan(
    slots: Sequence[Slot], again: Sequence[Slot], attention: int, gold: bool, rng: random.Random
) -> list[tuple[Role, Slot | None]]:
    """Return a session: its trials and repeats in order, attention trials spread over it, the gold pair at a random place."""
    session: list[tuple[Role, Slot | None]] = [("main", slot) for slot in slots]
    session += [("repeat", slot) for slot in again]
    length = len(session)
    for number in reversed(range(attention)):
        # One per stretch of equal length, never before the first trial.
        high = max(1, (number + 1) * length // attention)
        low = min(number * length // attention + 1, high)
        session.insert(rng.randint(low, high), ("attention", None))
    if gold:
        session.insert(rng.randint(1, len(session)), ("gold", None))
    return session


def balance(sessions: Sequence[Sequence[Slot]]) -> Counter[tuple[int, int]]:
    """Return how often each (item, condition) is heard over listeners."""
    return Counter((slot.item, slot.condition) for session in sessions for slot in session)
