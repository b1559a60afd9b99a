"""Strikes: which death condemns which item, and that a strike outlives a power cut."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.engine.strikes import ALONE_AFTER, MOST, Strike, Strikes


@pytest.mark.parametrize(
    ("before", "now", "condemned"),
    [
        (Strike("s", 0), Strike("s", 1, "a", "x"), False),
        (Strike("s", 1, "a", "x"), Strike("s", 2, "a", "x"), False),
        (Strike("s", 2, "a", "x"), Strike("s", 3, "a", "x"), True),
        (Strike("s", 2, "a", "x"), Strike("s", 3, "a", "y"), False),
        (Strike("s", 2, "a", "x"), Strike("s", 3, "b", "x"), False),
        (Strike("s", 2), Strike("s", 3, "a", "x"), True),
        (Strike("s", 4, "a", "x"), Strike("s", 5, "b", "y"), False),
        (Strike("s", 5, "a", "x"), Strike("s", 6, "b", "y"), True),
        (Strike("s", 6, "a", "x"), Strike("s", 7, "b", "y"), True),
    ],
)
def test_only_the_same_place_twice_condemns(before: Strike, now: Strike, condemned: bool) -> None:
    assert now.condemns(before) is condemned


def test_deaths_at_different_places_condemn_at_the_sixth(tmp_path: Path) -> None:
    strikes, condemned = Strikes(tmp_path / "new" / "folder"), []
    for number in range(1, 8):
        before = strikes.last("s")
        strike = strikes.add("s", f"stage{number}", "died", f"source{number}")
        assert strike == strikes.last("s") == Strike("s", number, f"stage{number}", f"source{number}", "died")
        condemned.append(strike.condemns(before))
    assert condemned == [False] * 5 + [True] * 2
    assert (ALONE_AFTER, MOST) == (2, 6), "documented in docs/decisions.md"


def test_sessions_are_counted_apart_and_forgotten_when_committed(tmp_path: Path) -> None:
    strikes = Strikes(tmp_path)
    strikes.clear("never seen")
    for session, times in (("a", 2), ("b/../ä", 1)):
        for _ in range(times):
            strikes.add(session, "stage", "died", "x")
    assert [Strikes(tmp_path).count(session) for session in ("a", "b/../ä", "c")] == [2, 1, 0]
    strikes.clear("a")
    assert [strikes.count(session) for session in ("a", "b/../ä")] == [0, 1]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ['{"session_id": ', "[]", '{"other": 1}', "\x00" * 40])
def test_a_damaged_strike_file_is_no_strike(tmp_path: Path, text: str) -> None:
    strikes = Strikes(tmp_path)
    strikes.add("s", "stage", "died", "x")
    next(tmp_path.glob("*.json")).write_text(text)
    assert strikes.last("s") == Strike("s") and strikes.add("s", "stage", "died", "x").strikes == 1


def test_a_strike_is_on_disk_before_its_file_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, synced = os.fsync, []

    def record(number: int) -> None:
        path = Path(f"/proc/self/fd/{number}").readlink()
        synced.append((json.loads(path.read_text())["strikes"], Strikes(tmp_path).count("s")))
        fsync(number)

    monkeypatch.setattr(os, "fsync", record)
    for _ in range(2):
        Strikes(tmp_path).add("s", "stage", "died", "x")
    # (what the file on its way to the disk holds, what a reader finds at that time)
    assert synced == [(1, 0), (2, 1)]
