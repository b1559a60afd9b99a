"""Processes of one paid pass that are killed at random: the cap holds, and nothing that was answered is asked again."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.forked_passes import Passes, Worker
from fakes.paid_provider import PRICES, LocalBatches, LocalProvider
from fakes.paid_server import Fault, PaidServer
from fakes.processes import PATIENCE_S
from paid_corpus import kept, paid_corpus, rows_of

from annotators.paid.ledger import Ledger
from annotators.paid.paid_pass import describe_paid
from annotators.paid.pass_options import PassOptions

pytestmark = pytest.mark.kill
SEED = int(os.environ.get("VOXMILL_TEST_SEED", "0")) or random.randrange(10**9)


@pytest.fixture(scope="module")
def passes() -> Iterator[Passes]:
    with Passes() as forked:
        yield forked


def wait_for(condition: Callable[[], bool], worker: Worker) -> None:
    """Wait until `condition()` holds or the process has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and worker.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def asked_for(server: PaidServer, requests: int, worker: Worker) -> None:
    """Wait until the server has seen a number of requests, or the process has ended."""
    wait_for(lambda: server.seen.requests >= requests, worker)


def prices_of(folder: Path) -> Path:
    path = folder / "prices.toml"
    path.write_text(PRICES)
    return path


@pytest.mark.parametrize(("cap", "tries"), [(0.025, 5), (1.0, 8)])
def test_workers_that_are_killed_never_pass_the_cap_and_ask_nothing_twice(
    tmp_path: Path, passes: Passes, cap: float, tries: int
) -> None:
    """Three processes on one ledger, SIGKILLs at random moments, with faults planted."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    root = paid_corpus(tmp_path / "c", units=4, clips=24)
    prices = prices_of(tmp_path)
    planted: dict[str, Fault] = {}

    def plan(hashes: list[str], before: int) -> Fault | None:
        # At most one fault per first clip of a request; never again for that clip.
        if hashes[0] in planted or rng.random() > 0.15:
            return None
        # Only groups fail for good: a clip that fails alone, too, has its final answer.
        faults: list[Fault] = ["500", "drop", "half", "mismatch", "400"]
        planted[hashes[0]] = rng.choice(faults if len(hashes) > 1 else faults[:3])
        return planted[hashes[0]]

    with PaidServer(plan, latency_s=0.05) as server:  # type: ignore[arg-type]
        workers = [passes.start(root, server.url, prices, cap) for _ in range(3)]
        kills = 0
        for _ in range(tries):
            place = rng.randrange(3)
            before = server.seen.requests
            goal = before + rng.randrange(1, 4)
            asked_for(server, goal, workers[place])
            kills += workers[place].kill()
            workers[place] = passes.start(root, server.url, prices, cap)
        for worker in workers:
            assert worker.wait() == 0
        # What a process that was killed last still held is settled by one more run.
        assert passes.start(root, server.url, prices, cap).wait() == 0
        seen = server.seen
    ledger = Ledger(root / "annotations" / "local" / "ledger.sqlite", "local")
    totals = ledger.totals()
    ledger.close()
    print(
        f"kills {kills}, billed {seen.billed} <= spent {totals.spent} <= cap {cap * 1e6:.0f}, most asked {max(seen.asked.values())}"
    )
    assert kills > 0 and totals.held == 0
    assert seen.billed <= totals.spent <= cap * 1e6
    # A planted fault allows two further requests per clip: again in its group, and alone.
    assert max(seen.asked.values()) <= 1 + kills + 2
    # A kill costs at most what was in flight: 4 requests of 4 clips.
    assert seen.asked.total() - len(seen.asked) <= kills * 16 + len(planted) * 8
    rows = rows_of(root, "local")
    described = [row for row in rows.values() if row["status"] == "ok"]
    assert len({row["brief"] for row in described}) == len(described)
    if cap == 1.0:
        assert rows.keys() == kept(root) and len(described) == 96
    else:
        assert len(described) < 96


def test_a_clip_with_a_stored_reply_is_never_asked_again(tmp_path: Path, passes: Passes) -> None:
    """One process at a time, killed again and again: every clip whose reply was stored before a kill keeps its count."""
    rng = random.Random(SEED)
    root = paid_corpus(tmp_path / "c", units=3, clips=16)
    prices = prices_of(tmp_path)
    path = root / "annotations" / "local" / "ledger.sqlite"
    stored: dict[str, int] = {}
    with PaidServer(latency_s=0.03) as server:
        for _ in range(5):
            goal = server.seen.requests + rng.randrange(2, 6)
            worker = passes.start(root, server.url, prices, 1.0)
            asked_for(server, goal, worker)
            worker.kill()
            stored |= {heard: server.seen.asked[heard] for heard in heard_by(path) if heard not in stored}
        assert stored
        assert passes.start(root, server.url, prices, 1.0).wait() == 0
        assert {heard: server.seen.asked[heard] for heard in stored} == stored
        extra = server.seen.asked.total() - len(server.seen.asked)
    heard = heard_by(path)
    ledger = Ledger(path, "local")
    lost = ledger.rows("select coalesce(sum(keys), 0) from requests where state = 'unknown'")[0][0]
    ledger.close()
    # What was asked twice was in flight at a kill. The service need not have seen all of that.
    assert len(heard) == len(set(heard)) == 48 and extra <= lost
    assert len(rows_of(root, "local")) == 48


def heard_by(path: Path) -> list[str]:
    """The audio hash of every clip of every stored reply."""
    ledger = Ledger(path, "local")
    rows = ledger.rows("select id, attempt from requests where state = 'answered'")
    replies = [json.loads(ledger.reply(*row)[0]) for row in rows]
    ledger.close()
    return [answer["heard"] for reply in replies for answer in reply["answers"]]


def test_batches_whose_process_is_killed_are_created_once(tmp_path: Path, passes: Passes) -> None:
    rng = random.Random(SEED)
    root = paid_corpus(tmp_path / "c", units=4, clips=12)
    prices = prices_of(tmp_path)
    with PaidServer(looks=20) as server:
        worker = passes.start(root, server.url, prices, 1.0, "batch")
        for _ in range(4):
            time.sleep(rng.uniform(0.1, 1.0))
            worker.kill()
            worker = passes.start(root, server.url, prices, 1.0, "batch")
        assert worker.wait() == 0
        assert set(server.seen.asked.values()) == {1} and len(server.seen.asked) == 48
        names = [job["display_name"] for job in server.seen.jobs.values()]
        assert len(set(names)) == len(names) == 1
    rows = rows_of(root, "local")
    assert len(rows) == 48 and {row["status"] for row in rows.values()} == {"ok"}


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_kill_around_the_creation_of_a_job_creates_it_once(tmp_path: Path, point: str) -> None:
    """before: the process dies after it noted the job and before it asked; after: before it heard of the creation."""
    root = paid_corpus(tmp_path / "c", units=2, clips=6)
    options = PassOptions(cap_usd=1.0, prices=prices_of(tmp_path), name="local", poll_s=0.01)

    class Dies(LocalBatches):
        async def create_job(self, display_name: str, requests: object) -> str:
            if point == "after":
                await super().create_job(display_name, requests)  # type: ignore[arg-type]
            os._exit(9)

    with PaidServer() as server:
        pid = os.fork()
        if pid == 0:
            try:
                describe_paid(root, Dies(server.url), options)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert len(server.seen.jobs) == (point == "after")
        stats = describe_paid(root, LocalBatches(server.url), options)
        assert stats.clips == {"ok": 12} and len(server.seen.jobs) == 1
        assert set(server.seen.asked.values()) == {1}
        assert stats.totals is not None and stats.totals.spent == server.seen.billed


def test_batches_are_collected_by_a_later_run_and_failed_items_asked_again(tmp_path: Path) -> None:
    root = paid_corpus(tmp_path / "c", units=2, clips=6)
    options = PassOptions(cap_usd=1.0, prices=prices_of(tmp_path), name="local")
    fates: list[Fault | None] = ["500", "drop", "mismatch"]

    def plan(hashes: object, before: int) -> Fault | None:
        return fates.pop() if fates else None

    with PaidServer(plan, looks=1) as server:
        provider = LocalBatches(server.url)
        stats = describe_paid(root, provider, options)
        assert (stats.jobs_running, stats.clips) == (1, {"unasked": 12})
        stats = describe_paid(root, provider, options)
        assert stats.jobs_running == 1 and len(server.seen.jobs) == 1
        # Now the job is ready: what failed goes into a new one.
        stats = describe_paid(root, provider, options)
        assert len(server.seen.jobs) == 2 and 0 < stats.clips["ok"] < 12
        describe_paid(root, provider, options)
        stats = describe_paid(root, provider, options)
        assert stats.clips == {"ok": 12} and stats.jobs_running == 0 and len(server.seen.jobs) == 2
        assert stats.totals is not None and stats.totals.held == 0
        # The item that was missing from the results counts as spent.
        assert stats.totals.unknown > 0 and stats.totals.spent >= server.seen.billed


def test_a_job_whose_creation_was_not_heard_of_is_found(tmp_path: Path) -> None:
    root = paid_corpus(tmp_path / "c", units=2, clips=6)
    options = PassOptions(cap_usd=1.0, prices=prices_of(tmp_path), name="local", poll_s=0.01)
    with PaidServer() as server:
        server.create_fault = "lost"
        stats = describe_paid(root, LocalBatches(server.url), options)
        assert stats.clips == {"ok": 12} and len(server.seen.jobs) == 1


def test_a_batch_stops_at_the_cap(tmp_path: Path) -> None:
    root = paid_corpus(tmp_path / "c", units=4, clips=12)
    options = PassOptions(cap_usd=0.02, prices=prices_of(tmp_path), name="local", poll_s=0.01)
    with PaidServer() as server:
        stats = describe_paid(root, LocalBatches(server.url), options)
        assert stats.cap_reached and 0 < server.seen.billed <= 20_000
        assert stats.clips["ok"] > 0 and stats.clips["unasked"] > 0


def test_a_pass_waits_for_no_other_living_process(tmp_path: Path, passes: Passes) -> None:
    """A key that another living process holds is left to it; when that process is gone, the next run asks."""
    root = paid_corpus(tmp_path / "c", units=1, clips=4)
    prices = prices_of(tmp_path)
    hang: list[Fault | None] = ["hang"]
    with PaidServer(lambda hashes, before: hang.pop() if hang else None) as server:
        worker = passes.start(root, server.url, prices, 1.0)
        assert server.hanging.acquire(timeout=PATIENCE_S)
        wait_for(lambda: server.seen.requests >= 2, worker)
        options = PassOptions(cap_usd=1.0, prices=prices, name="local")
        before = server.seen.asked.total()
        stats = describe_paid(root, LocalProvider(server.url), options)
        assert stats.requests == 0 and server.seen.asked.total() == before and stats.clips["unasked"] > 0
        worker.kill()
        assert describe_paid(root, LocalProvider(server.url), options).clips == {"ok": 4}
