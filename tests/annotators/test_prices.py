"""Prices by day, in integer micro-dollars."""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotators.paid.prices import FREE, TABLE, PriceError, micro_usd, tariff, usd
from annotators.providers.remote import Tokens

DECEMBER, JANUARY = date(2026, 12, 31), date(2027, 1, 1)


def test_a_price_changes_with_the_day() -> None:
    prices = tariff("gemini-3.8-flash")
    tokens = Tokens(1_000_000, 0, 0, 1_000_000)
    assert prices.at(DECEMBER).cost(tokens) == 4_500_000
    assert prices.at(JANUARY).cost(tokens) == 9_000_000


def test_a_hold_covers_the_price_of_the_next_day() -> None:
    """A request that is sent before midnight may be billed after it."""
    prices = tariff("gemini-3.8-flash")
    tokens = Tokens(100, 320, 0, 900)
    assert prices.bound(tokens, DECEMBER) == prices.at(JANUARY).cost(tokens)
    assert prices.bound(tokens, DECEMBER - timedelta(days=1)) == prices.at(DECEMBER).cost(tokens)


def test_half_price_in_batches_and_cached_text_is_cheaper() -> None:
    tokens = Tokens(1000, 1000, 0, 1000)
    standard, batch = tariff("gemini-3.8-flash").at(DECEMBER), tariff("gemini-3.8-flash", "batch").at(DECEMBER)
    assert standard.cost(tokens) == 2 * batch.cost(tokens)
    assert standard.cost(Tokens(1000, 0, 1000, 0)) == 75
    assert standard.cost(Tokens(1000, 0, 0, 0)) == 750


@given(*[st.integers(0, 10**9)] * 4)
def test_costs_are_rounded_up_and_never_below_the_exact_price(text: int, audio: int, cached: int, out: int) -> None:
    price = tariff("gemini-3.1-flash-lite").at(DECEMBER)
    tokens = Tokens(text, audio, min(cached, text + audio), out)
    exact = text * Fraction("0.25") + audio * Fraction("0.5") + out * Fraction("1.5")
    if not cached:
        assert exact <= price.cost(tokens) < exact + 1
    # Without a cached price, cached tokens must not be cheaper than they may be.
    assert price.cost(tokens) >= exact


def test_versions_and_publishers_are_the_same_model_but_a_lite_model_is_not() -> None:
    for name in ("gemini-3.8-flash-001", "google/gemini-3.8-flash", "Gemini-3.8-Flash", "gemini-3.8-flash-latest"):
        assert tariff(name).at(DECEMBER).model == "gemini-3.8-flash"
    with pytest.raises(PriceError):
        tariff("gemini-3.8-flash-lite")


def test_an_unknown_price_says_what_to_do() -> None:
    with pytest.raises(
        PriceError, match=r"no price of gpt-9 is known.* mimo-v2.* add a \[\[price\]\].*--prices"
    ) as caught:
        tariff("gpt-9")
    assert "\n" not in str(caught.value)
    for without in ("gemini-3.7-flash", "gemini-3.5-flash-lite"):
        with pytest.raises(PriceError, match=rf"no price of {without} is known.*gemini-3\.8-flash") as caught:
            tariff(without)
        assert "mimo" not in str(caught.value), "only models of the same maker are named"
    with pytest.raises(PriceError, match="no batch price of gemini-4-argon"):
        tariff("gemini-4-argon", "batch")
    with pytest.raises(PriceError, match=r"gemini-2\.5-pro has no price on 2026-12-01"):
        tariff("gemini-2.5-pro").at(date(2026, 12, 1))


def test_a_model_of_ones_own_costs_nothing() -> None:
    prices = tariff("MOSS-Audio-8B", free=True)
    assert prices.at(DECEMBER) is FREE and prices.bound(Tokens(10**6, 10**6, 0, 10**6), DECEMBER) == 0


def test_a_table_of_the_user_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[[price]]\nmodel = "gemini-4-argon"\nin_text = 1\nin_audio = 1\nout = 1.5\n')
    assert tariff("gemini-4-argon", extra=own).at(DECEMBER).cost(Tokens(1, 0, 0, 1)) == 3
    assert tariff("gemini-3.8-flash", extra=own).at(DECEMBER).model == "gemini-3.8-flash"


@pytest.mark.parametrize(
    "text",
    [
        "price = 3",
        '[[price]]\nmodel = "m"\nin_text = 1\nin_audio = 1\n',
        '[[price]]\nmodel = "m"\nin_text = -1\nin_audio = 1\nout = 1\n',
        '[[price]]\nmodel = "m"\nin_text = 1\nin_audio = 1\nout = 1\nuntill = 2026-01-01\n',
        '[[price]]\nmodel = "m"\nin_text = 1\nin_audio = 1\nout = 1\n' * 2,
    ],
)
def test_a_wrong_table_is_one_line(tmp_path: Path, text: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(PriceError, match="the price table") as caught:
        tariff("m", extra=own)
    assert "\n" not in str(caught.value)


def test_every_price_of_the_table_is_readable_and_dated() -> None:
    import tomllib

    for row in tomllib.loads(TABLE.read_text())["price"]:
        price = tariff(row["model"], row["tier"]).at(row.get("until", JANUARY))
        assert price.as_of is not None and price.out > 0


def test_a_cap_is_never_rounded_up() -> None:
    assert micro_usd(0.29) == 290_000 and micro_usd(1e-7) == 0 and usd(290_000) == "$0.2900"
    for bad in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="cap"):
            micro_usd(bad)


def test_a_job_that_lasts_days_is_held_and_billed_at_the_dearest_of_them() -> None:
    prices = tariff("gemini-3.8-flash", "batch")
    tokens = Tokens(100, 320, 0, 900)
    old, new = prices.at(DECEMBER).cost(tokens), prices.at(JANUARY).cost(tokens)
    sent = DECEMBER - timedelta(days=1)
    assert prices.bound(tokens, sent) == old and prices.bound(tokens, sent, days=3) == new
    assert prices.cost(tokens, sent, DECEMBER, days=3) == old and prices.cost(tokens, sent, JANUARY, days=3) == new
    # Collected months later, or on a clock that was set back: never more than was held, and never less than was sent at.
    assert prices.cost(tokens, date(2026, 10, 1), date(2027, 3, 1), days=3) == old
    assert prices.cost(tokens, JANUARY, DECEMBER) == new
