"""A cap leaves a balanced set: the selection's order as far as the money surely reaches, and more money extends it."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import pytest
from fakes.paid_provider import LocalBatches, LocalProvider
from fakes.paid_server import PaidServer
from paid_corpus import Quick, kept, paid_corpus, paid_options, rows_of, spent

from annotators.paid.pass_options import CannotWorkError, PassOptions
from annotators.paid.prices import micro_usd
from annotators.paid.selected_pass import Wanted, affordable, describe_selected, estimate_selected, wanted
from annotators.paid.selection import Selection
from annotators.providers.remote import FatalError
from catalogs.corpus.reader import Corpus


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return paid_corpus(tmp_path / "corpus", units=4, clips=8)


@pytest.fixture
def options(tmp_path: Path) -> PassOptions:
    return paid_options(tmp_path, Quick())


def places(root: Path, clips: Wanted) -> list[int]:
    """Places in the order of the clips that have an answer."""
    found = [clips.order.position(segment) for segment, row in rows_of(root).items() if row["status"] == "ok"]
    return sorted(place for place in found if place is not None)


def summary(root: Path) -> dict[str, object]:
    found = json.loads((root / "annotations" / "local@1" / "pass.json").read_text())
    assert isinstance(found, dict)
    return found


def test_everything_extends_the_selection(root: Path) -> None:
    some, every = wanted(root), wanted(root, everything=True)
    assert some.order.kept == every.first == len(kept(root)) == 32 and len(some.order) < 32
    for segment in kept(root):
        place = some.order.position(segment)
        assert place is None or every.order.position(segment) == place
    assert {every.order.position(segment) for segment in kept(root)} == set(range(32))


def test_a_cap_describes_the_beginning_of_the_order_and_a_higher_cap_more_of_it(
    root: Path, options: PassOptions
) -> None:
    clips = wanted(root, everything=True)
    with PaidServer() as server:
        make = partial(LocalProvider, server.url)
        low = dataclasses.replace(options, cap_usd=0.015)
        stats = describe_selected(root, make, low, clips)
        first = places(root, clips)
        assert stats.cap_reached and 0 < len(first) < 32
        # No hole, wherever the clips are in the corpus.
        assert first == list(range(len(first)))
        assert len(list((root / "annotations" / "local@1").glob("*/*.parquet"))) == 4
        assert server.seen.billed <= micro_usd(0.015) and spent(root) == (server.seen.billed, 0)
        # Rounds use what replies cost less than their worst case.
        assert server.seen.billed > 0.6 * micro_usd(0.015)
        assert stats.clips == {"ok": len(first), "unasked": 32 - len(first)}
        assert summary(root)["clips"] == {"ok": len(first), "blocked": 0, "failed": 0, "unasked": 32 - len(first)}
        stats = describe_selected(root, make, options, clips)
        assert places(root, clips) == list(range(32)) and not stats.cap_reached
        assert set(server.seen.asked.values()) == {1}
    found = summary(root)
    assert found["spent_usd"] == pytest.approx(server.seen.billed / 1e6) and found["cap_usd"] == 1.0
    assert (found["kept"], found["selected"], found["stopped"]) == (32, 32, None)


def test_every_kept_segment_has_an_offline_description(root: Path, options: PassOptions) -> None:
    with PaidServer() as server:
        stats = describe_selected(root, partial(LocalProvider, server.url), options, wanted(root, limit=5))
    assert stats.clips["ok"] == 5 == len(places(root, wanted(root)))
    described = Corpus(root).annotations("descriptions").to_pylist()
    assert {row["segment_id"] for row in described if row["annotator"] == "acoustic"} == kept(root)


def test_what_a_cap_pays_for_is_known_before(root: Path, options: PassOptions) -> None:
    clips = wanted(root, everything=True)
    make = partial(LocalProvider, "http://127.0.0.1:9")
    whole, pays_for = estimate_selected(root, make, options, clips)
    assert (whole.clips, pays_for) == (32, 32)
    for cap in (0.0, 0.005, 0.01, 0.015):
        some = dataclasses.replace(options, cap_usd=cap)
        first = affordable(root, make(), some, clips)
        worst = estimate_selected(root, make, dataclasses.replace(options, cap_usd=None), Wanted(clips.order, first))[0]
        assert worst.worst <= micro_usd(cap) and (first > 0) == (cap > 0)
    assert not list((root / "annotations").glob("*"))


def test_nothing_is_done_without_a_key(root: Path, options: PassOptions) -> None:
    class Locked(LocalProvider):
        def check(self) -> None:
            raise FatalError("no key is set")

    with pytest.raises(CannotWorkError, match="no key is set"):
        describe_selected(root, partial(Locked, "http://127.0.0.1:9"), options)
    assert not list((root / "annotations").glob("*"))


def test_a_pass_that_stops_says_so_in_its_summary(root: Path, options: PassOptions) -> None:
    class Closed(LocalProvider):
        async def send(self, request: object) -> object:  # type: ignore[override]
            raise FatalError("no such model")

    with pytest.raises(CannotWorkError, match="no such model"):
        describe_selected(root, partial(Closed, "http://127.0.0.1:9"), options, wanted(root, limit=3))
    found = summary(root)
    assert "no such model" in str(found["stopped"]) and found["spent_usd"] == 0


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_at_least_one(root: Path, limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        wanted(root, limit)


def test_shares_of_the_selection_are_shares() -> None:
    with pytest.raises(ValueError, match="shares"):
        Selection(expressive=0.8, neutral=0.3)


def test_batches_whose_holds_fill_the_cap_are_collected(root: Path, options: PassOptions) -> None:
    clips = wanted(root, everything=True)
    low = dataclasses.replace(options, cap_usd=0.015)
    with PaidServer() as server:
        make = partial(LocalBatches, server.url)
        first = describe_selected(root, make, low, clips)
        assert first.jobs_running and first.clips["ok"] == 0
        asked = affordable(root, make(), low, clips)
        assert 0 < asked < 32, "what was sent is not asked about again"
        second = describe_selected(root, make, low, clips)
        assert second.clips["ok"] >= asked and len(server.seen.jobs) <= 2 and server.seen.billed <= micro_usd(0.015)
