"""Ways in which a user's money could be lost, each tried for real."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fakes.paid_provider import LocalBatches, LocalProvider
from fakes.paid_server import Fault, PaidServer
from paid_corpus import Quick, ledger_of, paid_corpus, paid_options, rows_of, spent, statuses

from annotators.paid import jobs as jobs_module
from annotators.paid.estimate import estimate
from annotators.paid.ledger import Ledger
from annotators.paid.ledger_file import LedgerError
from annotators.paid.paid_pass import describe_paid, reparse
from annotators.paid.pass_options import CannotWorkError, PassOptions, QuotaUsedError, notices, pass_name
from annotators.providers.chat import Chat
from annotators.providers.gemini import Gemini
from annotators.providers.gemini_batch import GeminiBatch
from annotators.providers.remote import FatalError, JobFailedError, QuotaError, RefusedError, Tokens, TransientError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return paid_corpus(tmp_path / "corpus")


@pytest.fixture
def options(tmp_path: Path) -> PassOptions:
    return paid_options(tmp_path, Quick())


@pytest.mark.parametrize("fault", ["mismatch", "blocked", "max_tokens"])
def test_a_unit_is_not_complete_before_its_clips_were_asked_alone(
    tmp_path: Path, options: PassOptions, fault: Fault
) -> None:
    """Both groups of a unit fail, and the quota ends before their clips are asked about alone."""
    root = paid_corpus(tmp_path / "c", units=1, clips=4)
    over = [True]

    def plan(hashes: Sequence[str], before: int) -> Fault | None:
        return fault if len(hashes) > 1 else "quota" if over[0] else None

    with PaidServer(plan) as server:
        with pytest.raises(QuotaUsedError):
            describe_paid(root, LocalProvider(server.url), options)
        assert all(status.startswith("failed:to be asked alone: ") for status in statuses(root))
        over[0] = False
        assert describe_paid(root, LocalProvider(server.url), options).clips == {"ok": 4}
        assert statuses(root) == {"ok"} and len(server.seen.asked) == 4


def test_a_ledger_that_cannot_store_replies_pays_for_no_more_of_them(tmp_path: Path, options: PassOptions) -> None:
    """The disk is full for replies, but not yet for the small rows of reservations."""
    root = paid_corpus(tmp_path / "c", units=1, clips=48)

    class Full(LocalProvider):
        async def send(self, request: Any) -> Any:
            reply = await super().send(request)
            return dataclasses.replace(reply, raw=reply.raw + " " + os.urandom(400_000).hex())

    real = sqlite3.connect

    def small(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = real(*args, **kwargs)
        connection.execute("pragma max_page_count=40")
        return connection

    with PaidServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        one = dataclasses.replace(options, concurrency=1)
        with pytest.raises(LedgerError, match=r"cannot be used \(database or disk is full\): check the disk") as caught:
            describe_paid(root, Full(server.url), one)
        assert "\n" not in str(caught.value) and server.seen.requests <= 2
        patch.undo()
        billed = server.seen.billed
        assert describe_paid(root, LocalProvider(server.url), options).clips["ok"] > 0
        assert billed > 0


@pytest.mark.parametrize("out", [10**30, -5, 2.5, "7"])
def test_a_usage_that_cannot_be_counts_as_the_worst_case(out: Any) -> None:
    from annotators.providers import chat, gemini

    usage = {"promptTokenCount": 100, "candidatesTokenCount": out}
    assert gemini._usage(usage, True) is None
    assert chat._usage({"prompt_tokens": 100, "completion_tokens": out}, True) is None


def test_output_that_is_not_stated_counts_as_the_worst_case() -> None:
    from annotators.providers import chat, gemini

    assert gemini._usage({"promptTokenCount": 100}, True) is None and chat._usage({"prompt_tokens": 9}, True) is None
    # A blocked prompt has no output.
    assert gemini._usage({"promptTokenCount": 100, "candidatesTokenCount": 0}, False) == Tokens(0, 100, 0, 0)
    assert gemini._usage({"promptTokenCount": 100, "totalTokenCount": 130}, True) == Tokens(0, 100, 0, 30)


def test_a_provider_that_reports_nonsense_costs_its_worst_case(root: Path, options: PassOptions) -> None:
    class Absurd(LocalProvider):
        async def send(self, request: Any) -> Any:
            return dataclasses.replace(await super().send(request), usage=Tokens(10**40, 0, 0, 1))

    with PaidServer() as server:
        stats = describe_paid(root, Absurd(server.url), options)
        assert stats.clips == {"ok": 12} and stats.underestimated == 0 and spent(root)[0] >= server.seen.billed


HALF = "\ud83d"
"""Half of a surrogate pair, which JSON can hold and UTF-8 cannot."""


def test_text_that_no_file_takes_is_stored_and_compiled(root: Path, options: PassOptions) -> None:
    class Odd(LocalProvider):
        async def send(self, request: Any) -> Any:
            reply = await super().send(request)
            return dataclasses.replace(reply, raw=reply.raw + HALF, model_version=f"v{HALF}\0", finish=HALF)

        def parse(self, raw: str, keys: Sequence[str]) -> Any:
            assert raw.endswith(HALF)
            found = dict(super().parse(raw.removesuffix(HALF), keys))
            return found | {keys[0]: f"blocked:{HALF}"}

        def answered_by_another(self, model_version: str | None) -> bool:
            return False

    with PaidServer() as server:
        assert describe_paid(root, Odd(server.url), options).clips == {"ok": 8, "blocked": 4}
    assert statuses(root) == {"ok", "blocked:?"} and spent(root) == (server.seen.billed, 0)


def test_a_damaged_reply_is_one_line(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
    path = root / "annotations" / "local@1" / "ledger.sqlite"
    with sqlite3.connect(path) as damaged:
        damaged.execute("update requests set reply = x'00112233' where rowid = 1")
    damaged.close()
    with pytest.raises(LedgerError, match=r"is damaged .*restore it from a copy") as caught:
        reparse(root, LocalProvider("http://127.0.0.1:9"), options)
    assert "\n" not in str(caught.value)


def test_a_database_of_another_program_is_no_ledger(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "theirs.db") as theirs:
        theirs.execute("create table bookmarks (url text)")
    theirs.close()
    with pytest.raises(LedgerError, match="database of another program"):
        Ledger(tmp_path / "theirs.db", "pass")
    with sqlite3.connect(tmp_path / "theirs.db") as theirs:
        assert theirs.execute("select name from sqlite_master").fetchall() == [("bookmarks",)]
    theirs.close()


def test_what_a_container_left_is_settled_after_hours(tmp_path: Path) -> None:
    """A killed container comes back with other process numbers, and its old processes cannot be seen."""
    from annotators.paid.owners import this_process

    pid, start, boot, namespace = this_process().split(":")
    hidden = Ledger(tmp_path / "l", "pass", owner=f"{pid}:{start}:{boot}:{int(namespace) + 1}")
    ledger = Ledger(tmp_path / "l", "pass")
    ledger.set_cap(100)
    hidden.reserve("r", ["a"], 30)
    hidden.sent("r", 1)
    assert ledger.recover() == 0
    with ledger.writing() as db:
        db.execute("update requests set reserved_at = reserved_at - 7300")
    assert ledger.recover() == 1 and ledger.totals().unknown == 30
    ledger.close()
    hidden.close()


def test_another_model_has_a_pass_and_a_cap_of_its_own(root: Path, options: PassOptions) -> None:
    class Other(LocalProvider):
        def __init__(self, url: str) -> None:
            super().__init__(url, prompt="of another model")
            self.model = "local-1-001"

        def answered_by_another(self, model_version: str | None) -> bool:
            return False

    assert pass_name(Gemini(), PassOptions()) == f"gemini@{Gemini().prompt_version}"
    batch = GeminiBatch("gemini-3.1-pro-preview")
    assert pass_name(batch, PassOptions(vote=2)) == f"gemini@{batch.prompt_version}-gemini-3.1-pro-preview-vote2"
    chat = Chat("Qwen/Qwen3-Omni:30B", "http://127.0.0.1:9")
    assert pass_name(chat, PassOptions()) == f"chat@{chat.prompt_version}-Qwen3-Omni-30B"
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
        first, money = rows_of(root), spent(root)
        stats = describe_paid(root, Other(server.url), options)
        assert stats.name == "local@1-local-1-001" and stats.clips == {"ok": 12}
        assert rows_of(root) == first and spent(root) == money
        assert {str(row["model"]) for row in rows_of(root, stats.name).values()} == {"local-1-001"}


def test_batches_and_online_requests_of_one_service_pay_once(root: Path, options: PassOptions) -> None:
    class Batches(LocalBatches):
        name = "local-batch"
        kind = "local"

    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), dataclasses.replace(options, limit=6))
        stats = describe_paid(root, Batches(server.url), dataclasses.replace(options, poll_s=0.01))
        assert stats.name == "local@1" and stats.clips == {"ok": 12} and set(server.seen.asked.values()) == {1}


def test_descriptions_stay_until_those_of_a_changed_prompt_are_there(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
        before = rows_of(root)
        changed = LocalProvider(server.url, prompt="another")
        stats = describe_paid(root, changed, dataclasses.replace(options, limit=4))
        assert stats.clips == {"ok": 4, "unasked": 8}
        after = rows_of(root)
        assert after.keys() == before.keys() and statuses(root) == {"ok"}
        assert sum(after[segment] == before[segment] for segment in before) == 8
        # The kept ones do not make the unit complete.
        stats = describe_paid(root, changed, options)
        assert stats.clips == {"ok": 12} and set(server.seen.asked.values()) == {2}
        assert not any(row == before[segment] for segment, row in rows_of(root).items())


def test_a_cap_counts_even_what_looks_free_and_without_one_it_is_said(root: Path, options: PassOptions) -> None:
    said: list[str] = []
    with PaidServer() as server:
        proxy = LocalProvider(server.url, free=True)
        capped = dataclasses.replace(options, cap_usd=0.006, say=said.append)
        stats = describe_paid(root, proxy, capped)
        assert stats.cap_reached and 0 < server.seen.billed <= 6000 and said == []
        describe_paid(root, proxy, dataclasses.replace(capped, cap_usd=None))
        assert len(said) == 1 and "counts as free" in said[0] and "--cap-usd" in said[0] and "\n" not in said[0]
    plain = notices(Gemini(base_url="http://gateway.example.com"), options)
    assert len(plain) == 1 and "without encryption" in plain[0] and notices(Gemini(), options) == []


def test_a_service_that_asks_to_wait_for_hours_stops_the_pass(root: Path, options: PassOptions) -> None:
    class Closed(LocalProvider):
        async def send(self, request: Any) -> Any:
            raise TransientError("closed until tomorrow", sent=False, status=503, retry_after=50_000.0)

    with pytest.raises(QuotaUsedError, match="closed until tomorrow"):
        describe_paid(root, Closed("http://127.0.0.1:9"), options)


@pytest.mark.parametrize("length", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_length_that_cannot_be_does_not_break_an_estimate(length: float) -> None:
    from annotators.paid.clips import seconds_of

    assert 0 <= seconds_of(length) < 1e6


class Jobs(LocalBatches):
    """Batches whose calls fail as planned: name of a call -> errors, in order."""

    def __init__(self, url: str, **plan: list[Exception]) -> None:
        super().__init__(url)
        self.plan = plan

    def _fail(self, call: str) -> None:
        if self.plan.get(call):
            raise self.plan[call].pop(0)

    async def find_job(self, display_name: str) -> str | None:
        self._fail("find")
        return await super().find_job(display_name)

    async def create_job(self, display_name: str, requests: Sequence[Any]) -> str:
        self._fail("create")
        name = await super().create_job(display_name, requests)
        self._fail("created")
        return name

    async def collect(self, job: str) -> Any:
        self._fail("collect")
        return await super().collect(job)


@pytest.mark.parametrize("then", [QuotaError("of the day"), FatalError("the key was revoked")])
def test_a_job_whose_creation_is_unclear_is_neither_given_up_nor_created_again(
    root: Path, options: PassOptions, then: Exception
) -> None:
    lost = TransientError("the reply was lost", sent=True)
    batch = dataclasses.replace(options, poll_s=0.01, name="local@1")
    with PaidServer() as server:
        with pytest.raises((QuotaUsedError, CannotWorkError)):
            describe_paid(root, Jobs(server.url, created=[lost], find=[then]), batch)
        ledger = ledger_of(root)
        assert ledger.totals().held > 0
        ledger.close()
        assert describe_paid(root, Jobs(server.url), batch).clips == {"ok": 12}
        assert len(server.seen.jobs) == 1 and spent(root) == (server.seen.billed, 0)


@pytest.mark.parametrize("error", [QuotaError("of the day"), RefusedError("no such file")])
def test_a_job_that_was_surely_not_created_holds_no_money(root: Path, options: PassOptions, error: Exception) -> None:
    batch = dataclasses.replace(options, poll_s=0.01, name="local@1")
    with PaidServer() as server:
        with pytest.raises((QuotaUsedError, CannotWorkError)):
            describe_paid(root, Jobs(server.url, create=[error]), batch)
        assert spent(root) == (0, 0)
        assert describe_paid(root, Jobs(server.url), batch).clips == {"ok": 12} and len(server.seen.jobs) == 1


def test_results_that_cannot_be_fetched_now_are_fetched_later(root: Path, options: PassOptions) -> None:
    batch = dataclasses.replace(options, poll_s=0.01, name="local@1")
    with PaidServer() as server:
        with pytest.raises(CannotWorkError, match="redirect to a login"):
            describe_paid(root, Jobs(server.url, collect=[FatalError("redirect to a login")]), batch)
        assert describe_paid(root, Jobs(server.url), batch).clips == {"ok": 12}
        assert set(server.seen.asked.values()) == {1} and spent(root) == (server.seen.billed, 0)


def test_a_job_without_results_counts_as_spent_and_is_asked_again_once(root: Path, options: PassOptions) -> None:
    batch = dataclasses.replace(options, poll_s=0.01, name="local@1")
    with PaidServer() as server:
        stats = describe_paid(root, Jobs(server.url, collect=[JobFailedError("expired")]), batch)
        assert stats.clips == {"ok": 12} and set(server.seen.asked.values()) == {2}
        assert spent(root)[0] >= server.seen.billed and spent(root)[1] > 0
    ledger = ledger_of(root)
    states = ledger.rows("select state, error from jobs order by created_at")
    ledger.close()
    assert states == [(jobs_module.FAILED, "expired"), (jobs_module.DONE, None)]


@pytest.mark.parametrize("call", ["create", "collect"])
def test_a_service_of_jobs_that_asks_to_wait_for_hours_stops_the_pass(
    root: Path, options: PassOptions, call: str
) -> None:
    batch = dataclasses.replace(options, poll_s=0.01, name="local@1")
    closed: Exception = TransientError("closed until tomorrow", sent=False, status=503, retry_after=50_000.0)
    with PaidServer() as server:
        with pytest.raises(QuotaUsedError, match="closed until tomorrow"):
            describe_paid(root, Jobs(server.url, **{call: [closed]}), batch)
        assert describe_paid(root, Jobs(server.url), batch).clips == {"ok": 12} and len(server.seen.jobs) == 1


def test_a_job_that_was_given_up_at_a_kill_is_not_created_empty(root: Path, options: PassOptions) -> None:
    name = "local@1"
    ledger = Ledger(root / "annotations" / name / "ledger.sqlite", name)
    ledger.set_cap(10**6)
    jobs_module.start_job(ledger, "voxmill-1", [])
    ledger.close()
    with PaidServer() as server:
        batch = dataclasses.replace(options, poll_s=0.01, name=name)
        assert describe_paid(root, Jobs(server.url), batch).clips == {"ok": 12} and len(server.seen.jobs) == 1


def test_a_job_over_a_change_of_prices_stays_below_the_cap(
    root: Path, tmp_path: Path, options: PassOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is created two days before the price doubles and worked on at the new price."""
    import calendar

    row = '[[price]]\nmodel = "local-1"\ntier = "batch"\nin_text = {0}\nin_audio = {0}\nout = {0}\n{1}\n'
    table = tmp_path / "days.toml"
    table.write_text(row.format(5, "until = 2026-12-31") + row.format(10, "from = 2027-01-01"))
    day = [date(2026, 12, 30)]
    monkeypatch.setattr("annotators.paid.jobs.time.time", lambda: float(calendar.timegm((2026, 12, 30, 9, 0, 0))))
    batch = dataclasses.replace(options, prices=table, day=lambda: day[0], name="local@1", cap_usd=0.02)
    with PaidServer() as server:
        stats = describe_paid(root, Jobs(server.url), batch)
        held = stats.totals.held if stats.totals else 0
        day[0] = date(2027, 1, 2)
        describe_paid(root, Jobs(server.url), dataclasses.replace(batch, limit=0))
        tokens = sum(
            reply["usage"]["text"] + reply["usage"]["audio"] + reply["usage"]["out"]
            for job in server.seen.jobs.values()
            for reply in job["results"].values()
        )
        assert 0 < spent(root)[0] <= held <= 20_000 and spent(root)[0] == 10 * tokens


def test_an_estimate_of_a_capped_pass_of_ones_own_server_has_a_price(root: Path, options: PassOptions) -> None:
    provider = LocalProvider("http://127.0.0.1:9", free=True)
    assert estimate(root, provider, options).worst > 0
    assert estimate(root, provider, dataclasses.replace(options, cap_usd=None)).worst == 0
