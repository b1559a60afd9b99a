"""The page counts what other thresholds would keep, as the catalog does once they are set."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_builders import make_unit
from fakes.chromium import chromium_page
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.corpus.commit import commit_unit, create_corpus
from catalogs.corpus.thresholds import RULES, Thresholds, change_thresholds
from catalogs.query.views import query
from catalogs.report.report import build_report
from catalogs.report.scores import NO_VALUE
from catalogs.report.tables import STAGE_LENGTHS

pytest.importorskip("jinja2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose scores lie around the thresholds. Not to be changed."""
    root = tmp_path_factory.mktemp("thresholds") / "c"
    create_corpus(root)
    rng = np.random.default_rng(5)
    for name in ("a", "b", "c"):
        unit = make_unit(name, 30)
        rows = [dict(row) for row in unit.rows]
        for row in rows[:-1]:
            row |= {
                "dnsmos_ovr": float(np.float32(np.clip(rng.normal(2.6, 0.4), 1, 5))),
                "snr_db": float(np.float32(rng.normal(18, 4))),
                "chars_per_s": float(np.float32(max(rng.normal(12, 6), 0.1))),
                "head_edge": float(np.float32(rng.uniform(0, 1))),
                "language": str(rng.choice(["en", "de", "zh"])),
                "flags": ["file_head"] if rng.random() < 0.3 else ["stock_phrase"] if rng.random() < 0.1 else [],
                "reasons": [],
            }
            if rng.random() < 0.1:
                row["snr_db"] = None
        commit_unit(root, make_unit(name, 30, rows=rows))
    change_thresholds(root, ["max_reverb_s=null"])
    return root


@pytest.fixture(scope="module")
def page(root: Path) -> Path:
    return build_report(root, root.parent / "report.html", audio_bytes=0)


@pytest.fixture(scope="module")
def sample(page: Path) -> dict[str, Any]:
    found = re.search(r'id="sample">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert found
    data: dict[str, Any] = json.loads(found[1])
    for lever in data["levers"]:
        lever["codes"] = np.frombuffer(base64.b64decode(lever["codes"]), np.uint8)
    return data


def _kept_s(root: Path, limits: Thresholds) -> float:
    return float(
        query(root, f"SELECT coalesce(sum(duration_s) FILTER ({limits.kept_sql()}), 0) FROM segments")[1][0][0]
    )


def test_the_present_thresholds_are_among_their_places(sample: dict[str, Any], root: Path) -> None:
    limits = {rule.setting: limit for rule, limit in Thresholds(max_reverb_s=None).limits()}
    for lever in sample["levers"]:
        assert lever["edges"] == sorted(lever["edges"]) and len(set(lever["edges"])) == len(lever["edges"])
        if lever["place"] >= 0:
            assert lever["edges"][lever["place"]] == limits[lever["setting"]]
        else:
            assert lever["setting"] == "max_reverb_s"
    known = {rule.setting: rule.column for rule in RULES}
    filled = query(root, "SELECT " + ", ".join(f"count({c})" for c in known.values()) + " FROM segments")[1][0]
    assert {lever["setting"] for lever in sample["levers"]} == {s for s, n in zip(known, filled, strict=True) if n}


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_the_page_counts_as_the_catalog_does(root: Path, sample: dict[str, Any], data: st.DataObject) -> None:
    lengths = np.frombuffer(base64.b64decode(sample["lengths"]), "<u2") / 100
    kept = np.ones(sample["rows"], bool)
    asked: dict[str, float | None] = {}
    for lever in sample["levers"]:
        place = data.draw(st.one_of(st.just(lever["place"]), st.integers(-1, len(lever["edges"]) - 1)))
        try:
            Thresholds(**{lever["setting"]: lever["edges"][place] if place >= 0 else None})
        except ValueError:
            place = lever["place"]  # The axis goes beyond what the setting allows.
        asked[lever["setting"]] = lever["edges"][place] if place >= 0 else None
        codes = lever["codes"]
        if place >= 0:
            fails = codes <= place if lever["side"] == "below" else codes > place
            kept &= ~(fails & (codes != NO_VALUE))
    limits = Thresholds(**{"max_reverb_s": None, **asked})
    assert lengths[kept].sum() * sample["weight"] == pytest.approx(_kept_s(root, limits), abs=0.01 * len(kept))


def test_recipes_have_the_lengths_that_the_page_names() -> None:
    from catalogs.settings import read_yaml

    recipes = Path(__file__).parents[2] / "trainer" / "recipes"
    found = [
        _longest(read_yaml(recipes / name))
        for name in ("finetune_lora.yaml", "stage1.yaml", "stage2.yaml", "stage3.yaml")
    ]
    assert [[limit] for _, limit in STAGE_LENGTHS] == found


def _longest(values: Any) -> list[float]:
    if isinstance(values, dict):
        own = [float(values["max_seconds"])] if "max_seconds" in values else []
        return own + [limit for value in values.values() for limit in _longest(value)]
    return [limit for value in values for limit in _longest(value)] if isinstance(values, list) else []


@pytest.fixture(scope="module")
def shown(page: Path) -> Iterator[Any]:
    """An empty page in a browser."""
    with chromium_page() as opened:
        yield opened


def test_a_dragged_line_tells_what_it_gains(shown: Any, root: Path, page: Path) -> None:
    shown.goto(page.as_uri())
    assert not shown.locator("#gain").is_visible()
    slider = shown.locator('input[aria-label^="min_dnsmos_ovr"]')
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    # The line of the threshold is where the handle of the slider is.
    place = int(slider.input_value()) / int(slider.get_attribute("max"))
    line = shown.locator(f'div[data-lever="{slider.get_attribute("data-lever")}"]').bounding_box()
    handle = box["x"] + 8 + place * (box["width"] - 16)
    assert abs(line["x"] - handle) < 2
    shown.mouse.move(handle, box["y"] + box["height"] / 2)
    shown.mouse.down()
    shown.mouse.move(handle - 60, box["y"] + box["height"] / 2, steps=4)
    shown.mouse.up()
    assert shown.locator("#gain").is_visible()
    assert "+" in shown.locator("#gain-change").inner_text()
    _agrees(shown, root)
    # By the keyboard, another one, in the other direction.
    shown.locator('input[aria-label^="min_snr_db"]').focus()
    for _ in range(12):
        shown.keyboard.press("ArrowRight")
    _agrees(shown, root)
    # Off.
    number = slider.get_attribute("data-lever")
    shown.locator(f'input[type=checkbox][data-lever="{number}"]').uncheck()
    assert "min_dnsmos_ovr=null" in shown.locator("#gain-command").inner_text()
    _agrees(shown, root)
    shown.locator("#gain-reset").click()
    assert not shown.locator("#gain").is_visible()


def _agrees(shown: Any, root: Path) -> None:
    """Check that the command that the page shows gives the time that the page shows."""
    command = shlex.split(shown.locator("#gain-command").inner_text())
    assert command[:3] == ["voxmill", "catalog", str(root)]
    pairs = [text for text in command[3:] if text != "--set"]
    values = {name: None if value == "null" else float(value) for name, _, value in (p.partition("=") for p in pairs)}
    assert values
    seconds = _kept_s(root, Thresholds(**{"max_reverb_s": None, **values}))
    number, unit = shown.locator("#gain-kept").inner_text().split()[:2]
    assert float(number) * {"s": 1, "min": 60, "h": 3600}[unit] == pytest.approx(seconds, abs=4 if unit == "min" else 1)


def test_keys_play_the_clips(shown: Any, root: Path, tmp_path: Path) -> None:
    shown.goto(build_report(root, tmp_path / "report.html").as_uri())
    shown.keyboard.press("j")
    shown.wait_for_selector(".player.playing")
    first = shown.locator(".player.playing button").get_attribute("aria-label")
    shown.keyboard.press(" ")
    shown.wait_for_selector(".player.playing", state="detached")
    shown.keyboard.press("j")
    shown.wait_for_selector(".player.playing")
    assert shown.locator(".player.playing button").get_attribute("aria-label") != first


def test_hasty_keys_are_no_errors(shown: Any, root: Path, tmp_path: Path) -> None:
    shown.goto(build_report(root, tmp_path / "report.html").as_uri())
    # A clip that is paused before it begins: the browser rejects the promise of its start. `shown` fails for errors of the page.
    shown.evaluate(
        """for (const key of ["j", " ", "j", "k", " ", "j", " "])
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }))"""
    )
    shown.wait_for_timeout(500)
