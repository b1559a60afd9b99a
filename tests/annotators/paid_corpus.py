"""Small corpora for paid passes: every clip sounds different, unless two units are named alike."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from corpus_builders import FINGERPRINT, flac, make_unit, tone
from fakes.paid_provider import PRICES
from fakes.paid_server import Fault

from annotators.paid.ledger import Ledger
from annotators.paid.limits import Clock
from annotators.paid.pass_options import PassOptions
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.reader import Corpus


def paid_corpus(folder: Path, units: int = 2, clips: int = 6, seconds: float = 0.6, same: bool = False) -> Path:
    """A corpus of `units` x `clips` kept clips. same: whether all units have the same clips."""
    return Path(shutil.copytree(_built(units, clips, seconds, same), folder))


_BUILT = tempfile.TemporaryDirectory(prefix="paid-corpora-")
"""Each kind of corpus is built once and copied. Removed when the tests end."""


@cache
def _built(units: int, clips: int, seconds: float, same: bool) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_BUILT.name)) / "corpus"
    create_corpus(folder)
    bind_fingerprint(folder, FINGERPRINT)
    for number in range(units):
        # The last of three or more clips of a unit is rejected.
        unit = make_unit(f"unit{number}", clips + 1, seconds)
        for place, row in enumerate(unit.rows[:-1]):
            row["audio"] = flac(tone(seconds, 100.0 + place + (0 if same else clips * number)))
            row["speaker"] = f"{row['session_id']}-spk{place * 2 // clips}"
        commit_unit(folder, unit)
    return folder


def rows_of(root: Path, name: str = "local@1") -> dict[str, dict[str, object]]:
    """The rows that a pass left, by segment."""
    import pyarrow.parquet as pq

    files = sorted((root / "annotations" / name).rglob("*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    found = {row["segment_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def kept(root: Path) -> set[str]:
    """Ids of the kept segments."""
    return set(Corpus(root).kept().column("segment_id").to_pylist())


class Quick:
    """A clock whose waits take no time; it remembers them."""

    def __init__(self) -> None:
        self.time, self.waits = 0.0, []  # type: ignore[var-annotated]

    def clock(self) -> Clock:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.time += seconds
            await asyncio.sleep(0)

        return Clock(lambda: self.time, sleep)


def first(fault: Fault, times: int = 1, most: int | None = None) -> Callable[[Sequence[str], int], Fault | None]:
    """A plan: the first `times` requests for each clip fail (most: at most this number of requests in all)."""
    left = [most]

    def plan(hashes: Sequence[str], before: int) -> Fault | None:
        if before >= times or left[0] == 0:
            return None
        left[0] = None if left[0] is None else left[0] - 1
        return fault

    return plan


def ledger_of(root: Path) -> Ledger:
    return Ledger(root / "annotations" / "local@1" / "ledger.sqlite", "local@1")


def spent(root: Path) -> tuple[int, int]:
    """Micro-dollars (spent, of it unknown)."""
    ledger = ledger_of(root)
    totals = ledger.totals()
    ledger.close()
    assert totals.held == 0
    return totals.spent, totals.unknown


def statuses(root: Path) -> set[str]:
    return {str(row["status"]) for row in rows_of(root).values()}


def paid_options(folder: Path, quick: Quick) -> PassOptions:
    """A cap of one dollar, the service's prices, a clock whose waits take no time, and a fixed seed."""
    prices = folder / "prices.toml"
    prices.write_text(PRICES)
    return PassOptions(cap_usd=1.0, prices=prices, clock=quick.clock(), rng=random.Random(1))
