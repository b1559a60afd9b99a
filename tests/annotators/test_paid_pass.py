"""Paid passes against a real local service that counts money and audio as it sees them."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fakes.paid_provider import LocalProvider
from fakes.paid_server import PaidServer
from paid_corpus import Quick, kept, ledger_of, paid_corpus, paid_options, rows_of, spent, statuses

from annotators.paid.estimate import estimate
from annotators.paid.paid_pass import describe_paid, reparse, run_pass
from annotators.paid.pass_options import (
    PassOptions,
    pass_name,
)
from annotators.paid.prices import PriceError, micro_usd
from catalogs.corpus.reader import Corpus


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return paid_corpus(tmp_path / "corpus")


@pytest.fixture
def quick() -> Quick:
    return Quick()


@pytest.fixture
def options(tmp_path: Path, quick: Quick) -> PassOptions:
    return paid_options(tmp_path, quick)


def test_every_clip_is_described_and_paid_for_once(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        stats = describe_paid(root, LocalProvider(server.url), options)
        rows = rows_of(root)
        assert rows.keys() == kept(root) and stats.clips == {"ok": 12} and statuses(root) == {"ok"}
        assert server.seen.requests == stats.requests == 4 and set(server.seen.asked.values()) == {1}
        assert spent(root) == (server.seen.billed, 0)
        assert sum(float(str(row["cost_usd"])) for row in rows.values()) == pytest.approx(server.seen.billed / 1e6)
        again = describe_paid(root, LocalProvider(server.url), options)
        assert (again.clips, again.requests, server.seen.requests) == ({"ok": 12}, 0, 4)


def test_each_answer_belongs_to_its_clip(root: Path, options: PassOptions) -> None:
    import hashlib

    from annotators.paid.clips import pcm_of

    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
    corpus = Corpus(root)
    for segment, row in rows_of(root).items():
        pcm = pcm_of(corpus.audio_buffer(segment).to_pybytes())
        assert row["brief"] == hashlib.sha256(pcm.tobytes()).hexdigest()[:16]
        assert (row["annotator"], row["model"], row["prompt_version"], row["language"]) == (
            "local@1",
            "local-1",
            "1",
            "en",
        )
        assert row["attributes"]["gender"] == "female" and row["attributes"]["texture"] == ["warm"]  # type: ignore[index]
        assert row["attributes"]["age"] is None and row["labels"]["age"] == row["labels"]["pitch_range"] == "unsure"  # type: ignore[index]


def test_the_cap_is_kept_and_a_higher_one_continues(tmp_path: Path, options: PassOptions) -> None:
    root = paid_corpus(tmp_path / "c", units=4, clips=16)
    with PaidServer(latency_s=0.01) as server:
        low = dataclasses.replace(options, cap_usd=0.02)
        stats = describe_paid(root, LocalProvider(server.url), low)
        assert stats.cap_reached and "cap reached" in stats.line
        assert 0 < server.seen.billed <= 20_000 and spent(root) == (server.seen.billed, 0)
        # It stops when the next worst case does not fit, not earlier: holds that were too high came back.
        assert server.seen.billed > 20_000 - 5_200
        assert stats.clips["unasked"] > 0 and stats.clips.total() == 64
        stats = describe_paid(root, LocalProvider(server.url), options)
        assert stats.clips == {"ok": 64} and set(server.seen.asked.values()) == {1}


def test_without_a_cap_only_a_free_provider_starts(root: Path, options: PassOptions) -> None:
    no_cap = dataclasses.replace(options, cap_usd=None, prices=None)
    with PaidServer() as server:
        with pytest.raises(ValueError, match=r"local costs money: give the most .*--cap-usd") as caught:
            describe_paid(root, LocalProvider(server.url), no_cap)
        assert "\n" not in str(caught.value) and server.seen.requests == 0
        assert not (root / "annotations" / "local@1").exists()
        with pytest.raises(PriceError, match="no price of local-1"):
            describe_paid(root, LocalProvider(server.url), dataclasses.replace(options, prices=None))
        assert server.seen.requests == 0
        assert describe_paid(root, LocalProvider(server.url, free=True), no_cap).clips == {"ok": 12}
        assert spent(root) == (0, 0)


def test_the_price_is_that_of_the_day_of_the_reply(root: Path, options: PassOptions, tmp_path: Path) -> None:
    day = [date(2026, 12, 31)]
    row = '[[price]]\nmodel = "local-1"\nin_text = {0}\nin_audio = {0}\nout = {0}\n{1}\n'
    table = tmp_path / "days.toml"
    table.write_text(row.format(1, "until = 2026-12-31") + row.format(10, "from = 2027-01-01\nuntil = 2027-01-01"))
    dated = dataclasses.replace(options, prices=table, day=lambda: day[0], limit=6)

    class Midnight(LocalProvider):
        async def send(self, request: Any) -> Any:
            reply = await super().send(request)
            day[0] = date(2027, 1, 1)
            return reply

    with PaidServer() as server:
        # Sent before midnight, billed after it: the hold covers the higher price.
        describe_paid(root, Midnight(server.url), dated)
        tokens = 2 * 100 + 6 * (round(32 * 0.6) + 40)
        assert abs(spent(root)[0] - 10 * tokens) <= 60 and spent(root)[1] == 0
        day[0] = date(2027, 1, 1)

        class Later(LocalProvider):
            async def send(self, request: Any) -> Any:
                reply = await super().send(request)
                day[0] = date(2027, 1, 2)
                return reply

        # The price ended while the reply was on its way: it is stored, and costs what was held.
        stats = describe_paid(root, Later(server.url), dataclasses.replace(dated, concurrency=1, limit=3))
        assert stats.clips["ok"] == 9
        with pytest.raises(PriceError, match="has no price on 2027-01-02"):
            describe_paid(root, LocalProvider(server.url), dated)


def test_a_changed_schema_parses_the_stored_replies_again_and_asks_nothing(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
        before = rows_of(root)
        money = spent(root)
    # The service is gone.
    stats = reparse(root, LocalProvider(server.url, schema="2"), options)
    after = rows_of(root)
    assert stats.clips == {"ok": 12} and after.keys() == before.keys() and spent(root) == money
    assert all("schema 2" in str(row["full"]) for row in after.values())


def test_replies_to_an_earlier_prompt_are_parsed_again_too(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
    stats = reparse(root, LocalProvider(server.url, schema="3", prompt="another"), options)
    assert stats.clips == {"ok": 12} and all("schema 3" in str(row["full"]) for row in rows_of(root).values())
    # These are not answers to the present prompt: a pass with it still asks.
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url, prompt="another"), options)
        assert set(server.seen.asked.values()) == {1} and len(server.seen.asked) == 12


def test_a_changed_prompt_asks_again(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
        describe_paid(root, LocalProvider(server.url, prompt="another"), options)
        assert set(server.seen.asked.values()) == {2}
        describe_paid(root, LocalProvider(server.url), options)
        assert set(server.seen.asked.values()) == {2} and spent(root) == (server.seen.billed, 0)


def test_a_second_vote_asks_again_into_a_pass_of_another_name(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
        describe_paid(root, LocalProvider(server.url), dataclasses.replace(options, vote=2))
        assert set(server.seen.asked.values()) == {2} and rows_of(root, "local@1-vote2").keys() == kept(root)


def test_the_same_audio_in_two_units_is_paid_for_once(tmp_path: Path, options: PassOptions) -> None:
    root = paid_corpus(tmp_path / "c", units=3, same=True)
    with PaidServer(latency_s=0.02) as server:
        stats = describe_paid(root, LocalProvider(server.url), options)
        assert stats.clips == {"ok": 18} and statuses(root) == {"ok"} and len(rows_of(root)) == 18
        assert len(server.seen.asked) == 6 and set(server.seen.asked.values()) == {1}


def test_a_limit_asks_about_no_more_clips(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        stats = describe_paid(root, LocalProvider(server.url), dataclasses.replace(options, limit=5))
        assert server.seen.asked.total() == 5 and stats.clips == {"ok": 5, "unasked": 7}
        stats = describe_paid(root, LocalProvider(server.url), dataclasses.replace(options, limit=5))
        assert server.seen.asked.total() == 10 and stats.clips == {"ok": 10, "unasked": 2}


def test_only_chosen_clips_are_asked_about_and_earlier_ones_stay(root: Path, options: PassOptions) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = sorted(kept(root))

    def chosen(some: list[str]) -> PassOptions:
        return dataclasses.replace(
            options, chosen=lambda rows: rows.filter(pc.is_in(rows["segment_id"], pa.array(some)))
        )

    with PaidServer() as server:
        stats = describe_paid(root, LocalProvider(server.url), chosen(ids[:4]))
        assert stats.clips == {"ok": 4} and rows_of(root).keys() == set(ids[:4])
        describe_paid(root, LocalProvider(server.url), chosen(ids[2:8]))
        assert rows_of(root).keys() == set(ids[:8]) and statuses(root) == {"ok"}
        assert set(server.seen.asked.values()) == {1}


def test_what_is_in_flight_when_a_pass_is_cancelled_is_stored(tmp_path: Path, options: PassOptions) -> None:
    root = paid_corpus(tmp_path / "c", units=4, clips=16)

    async def interrupted(url: str, server: PaidServer) -> None:
        task = asyncio.create_task(run_pass(root, LocalProvider(url), options))
        while server.seen.requests < 3:
            await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with PaidServer(latency_s=0.1) as server:
        asyncio.run(interrupted(server.url, server))
        assert 3 <= server.seen.requests < 16 and spent(root) == (server.seen.billed, 0)
        assert len([r for r in rows_of(root).values() if r["status"] == "ok"]) == server.seen.asked.total()
        assert describe_paid(root, LocalProvider(server.url), options).clips == {"ok": 64}
        assert set(server.seen.asked.values()) == {1}


def test_progress_is_told_unit_by_unit(root: Path, options: PassOptions) -> None:
    seen: list[int] = []
    with PaidServer() as server:
        told = dataclasses.replace(options, progress=lambda stats: seen.append(stats.clips["ok"]))
        describe_paid(root, LocalProvider(server.url), told)
    assert seen == [6, 12]


def test_concurrency_and_rates_are_kept(tmp_path: Path, options: PassOptions, quick: Quick) -> None:
    root = paid_corpus(tmp_path / "c", units=4, clips=16)
    with PaidServer(latency_s=0.01) as server:
        limited = dataclasses.replace(options, concurrency=3, requests_per_minute=60)
        describe_paid(root, LocalProvider(server.url), limited)
        assert 1 < server.seen.most_at_once <= 3
        # 16 requests at one per second; the bucket starts with six.
        assert quick.time == pytest.approx(10, abs=0.5)


def test_the_estimate_holds_and_sends_nothing(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        provider = LocalProvider(server.url)
        found = estimate(root, provider, dataclasses.replace(options, requests_per_day=2, requests_per_minute=1))
        assert (found.clips, found.requests, found.answered, found.days) == (12, 4, 0, 2.0)
        assert found.audio_s == pytest.approx(12 * 0.6) and found.seconds == 240
        assert server.seen.requests == 0 and not (root / "annotations" / "local@1").exists()
        describe_paid(root, provider, dataclasses.replace(options, cap_usd=found.worst / 1e6))
        assert 0 < server.seen.billed <= found.worst and server.seen.billed <= found.expected <= found.worst
        after = estimate(root, provider, options)
        assert (after.clips, after.requests, after.answered, after.worst) == (0, 0, 12, 0)
        assert any("as of" in line for line in after.lines) and any("$0.00" in line for line in after.lines)


def test_names_of_passes_are_folder_names() -> None:
    provider = LocalProvider("http://x")
    assert pass_name(provider, PassOptions(vote=3)) == "local@1-vote3"
    for bad in ("../up", "tmp1", "a/b", "", "duplicates", "A"):
        provider.prompt_version = "1"
        if bad:
            with pytest.raises(ValueError, match="the pass has the name"):
                pass_name(provider, PassOptions(name=bad))
    provider.prompt_version = "../../x"
    with pytest.raises(ValueError, match="the pass has the name"):
        pass_name(provider, PassOptions())


def test_the_cap_that_is_stored_is_the_one_that_was_given(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        describe_paid(root, LocalProvider(server.url), options)
    ledger = ledger_of(root)
    assert ledger.totals().cap == micro_usd(1.0)
    ledger.close()
