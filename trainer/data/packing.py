"""First-fit packing: samples of any length into rows of a fixed number of positions, nothing truncated, nothing lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something with a length in positions."""

    @property
    def length(self) -> int: ...


Item = TypeVar("Item")
SizedItem = TypeVar("SizedItem", bound=Sized)


class Packer(Generic[Item]):
    """Keeps `open_rows` rows open and puts each sample into the first row it fits into; a full row is emitted.

    If no row has room, the fullest row is emitted, or the oldest once `8 * open_rows` others were emitted since it was opened.
    Otherwise, if all further clips are longer than half a row, a half-empty row would wait forever. The order depends only on
    the input.
    """

    def __init__(self, positions: int, open_rows: int = 16) -> None:
        self.positions = positions
        self._open_rows = open_rows
        self._rows: list[list[Item]] = []
        self._filled: list[int] = []
        self._opened: list[int] = []
        self._given_out = 0

    @property
    def rows(self) -> list[list[Item]]:
        """The open rows, in order. Together with the next items they determine every row that is emitted from here on."""
        return [list(row) for row in self._rows]

    @property
    def waited(self) -> list[int]:
        """The number of rows that were emitted since each open row was opened."""
        return [self._given_out - opened for opened in self._opened]

    def reopen(self, rows: Iterable[list[Item]], filled: Iterable[int], waited: Iterable[int]) -> None:
        """Restore open rows from the values of `rows` and `waited`. filled: positions that are used in each row."""
        self._rows = [list(row) for row in rows]
        self._filled = list(filled)
        self._opened = [self._given_out - count for count in waited]

    def add(self, item: Item, length: int) -> list[Item] | None:
        """Put a sample into a row; return a row that is emitted, if any. Raises ValueError if the sample is longer than a row."""
        most = self.positions - length
        if most < 0:
            raise ValueError(f"a sample of {length} positions does not fit a row of {self.positions}")
        for index, filled in enumerate(self._filled):
            if filled <= most:
                self._rows[index].append(item)
                self._filled[index] = filled + length
                return self._take(index) if filled == most else None
        full = None
        if len(self._rows) == self._open_rows:
            # Rows are in the order in which they were opened: the first is the oldest.
            waited = self._given_out - self._opened[0]
            full = self._take(0 if waited >= 8 * self._open_rows else self._fullest())
        self._rows.append([item])
        self._filled.append(length)
        self._opened.append(self._given_out)
        if not most and full is None:
            return self._take(len(self._rows) - 1)
        return full

    def rest(self) -> Iterator[list[Item]]:
        """Yield and close the rows that are still open, fullest first."""
        while self._rows:
            yield self._take(self._fullest())

    def _fullest(self) -> int:
        return self._filled.index(max(self._filled))

    def _take(self, index: int) -> list[Item]:
        self._given_out += 1
        del self._filled[index], self._opened[index]
        return self._rows.pop(index)


def pack(items: Iterable[SizedItem], positions: int, open_rows: int = 16) -> Iterator[list[SizedItem]]:
    """Yield rows of at most `positions`, at the end also the rows that are still open."""
    packer: Packer[SizedItem] = Packer(positions, open_rows)
    for item in items:
        row = packer.add(item, item.length)
        if row is not None:
            yield row
    yield from packer.rest()
