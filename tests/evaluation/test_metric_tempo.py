"""Faults planted in recordings of people are found, and the recordings have none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spoken_clips import EREWHON, KIDS, between, planted, samples_of, silence, take_of

from catalogs.weights import registry
from evaluation.metrics.tempo import Tempo
from evaluation.metrics.transcript import WhisperTranscript
from pipeline.speech import faults

RATE = 16_000
FAULTS = ("start_artifact", "tail", "loop", "early_stop")


@pytest.fixture(scope="module")
def rows(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Mapping[str, Any]]:
    """Rows of `tempo` by name: recordings, and what was made of them."""
    if not registry.available("whisper-base"):
        pytest.skip("weights whisper-base are not here: voxmill models pull whisper-base")
    folder = tmp_path_factory.mktemp("planted")
    whisper = WhisperTranscript(beam=1)
    whisper.load()
    takes = {"erewhon": take_of(corpora, EREWHON), "kids": take_of(corpora, KIDS)}
    erewhon, kids = (samples_of(corpora, clip) for clip in (EREWHON, KIDS))
    speech = faults.find_sounds(kids).speech
    spoken = between(kids, speech[0][0] - 0.1, speech[-1][1] + 0.1)
    burst = np.random.default_rng(1).normal(0, float(np.std(kids)) * 1.5, RATE // 10).astype(np.float32)
    reversed_speech = between(erewhon, 2.0, 4.5)[::-1]
    made = {
        "loop": planted(folder, "loop", np.concatenate([kids, spoken, spoken]), KIDS.text),
        "stop": planted(folder, "stop", between(erewhon, 0.0, 6.0), EREWHON.text),
        "words_after": planted(folder, "words_after", np.concatenate([spoken, between(erewhon, 0, 3)]), KIDS.text),
        "sound_after": planted(folder, "sound_after", np.concatenate([kids, reversed_speech]), KIDS.text),
        "burst": planted(folder, "burst", np.concatenate([burst, silence(0.4), spoken]), KIDS.text),
    }
    heard = dict(zip(takes, whisper.score(list(takes.values())), strict=True))
    heard |= zip(made, whisper.score(list(made.values())), strict=True)
    takes |= made
    for name, take in takes.items():
        take.given["transcript"] = heard[name] or {}
    found = Tempo().score(list(takes.values()))
    return {name: row for name, row in zip(takes, found, strict=True) if row is not None}


def flagged(row: Mapping[str, Any]) -> set[str]:
    return {name for name in FAULTS if row[name]}


@pytest.mark.parametrize("name", ["erewhon", "kids"])
def test_recordings_of_people_have_no_fault(rows: dict[str, Mapping[str, Any]], name: str) -> None:
    assert flagged(rows[name]) == set()
    assert 0.6 < rows[name]["usual_ratio"] < 2 and 2 < rows[name]["syllables_per_s"] < 8


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("loop", "loop"),
        ("stop", "early_stop"),
        ("words_after", "tail"),
        ("sound_after", "tail"),
        ("burst", "start_artifact"),
    ],
)
def test_planted_faults_are_found(rows: dict[str, Mapping[str, Any]], name: str, fault: str) -> None:
    assert fault in flagged(rows[name])
    # A loop at the end is also a tail.
    assert flagged(rows[name]) <= {fault, "tail"}


def test_silences_are_measured(corpora: Path, tmp_path: Path) -> None:
    kids = samples_of(corpora, KIDS)
    speech = faults.find_sounds(kids).speech
    inner = between(kids, speech[0][0], speech[-1][1])
    half = len(inner) // 2
    samples = np.concatenate([silence(0.7), inner[:half], silence(1.5), inner[half:], silence(0.9)])
    take = planted(tmp_path, "silences", samples, KIDS.text)
    take.given["transcript"] = {"hypothesis": None, "words": None}
    (row,) = Tempo().score([take])
    assert row and "loop" not in row
    assert row["lead_s"] == pytest.approx(0.7, abs=0.05) and row["trail_s"] == pytest.approx(0.9, abs=0.05)
    assert row["longest_pause_s"] == pytest.approx(1.5, abs=0.1)
    spoken = row["chars_per_s"] * (len(samples) / RATE - row["lead_s"] - row["trail_s"])
    assert spoken == pytest.approx(len("kidsaretalkingbythedoor"))


def test_levels_do_not_depend_on_gain(corpora: Path) -> None:
    kids = samples_of(corpora, KIDS)
    loud, quiet = faults.find_sounds(kids), faults.find_sounds(kids * 0.5)
    assert np.allclose(loud.speech, quiet.speech, atol=0.05)
    assert loud.mean_db(1.2, 1.4) == pytest.approx(quiet.mean_db(1.2, 1.4), abs=0.1)


def test_a_take_without_words_or_sound_has_no_row(tmp_path: Path, corpora: Path) -> None:
    takes = [
        planted(tmp_path, "marks", samples_of(corpora, KIDS), "..."),
        planted(tmp_path, "flat", np.zeros(RATE, np.float32), "hello"),
    ]
    for take in takes:
        take.given["transcript"] = {"hypothesis": "hello", "rest": "", "words": []}
    marks, flat = Tempo().score(takes)
    assert marks is None and flat is None


TEXT = st.lists(st.sampled_from(list("abcdefgh")), min_size=6, max_size=15)


@given(text=TEXT, cut=st.integers(0, 15))
def test_a_cut_text_misses_what_was_cut(text: list[str], cut: int) -> None:
    heard = text[: max(len(text) - cut, 0)]
    missing = faults.units_missing_at_the_end(text, heard)
    assert missing == len(text) - len(heard)
    assert faults.stops_early(text, heard, "word") == (missing >= max(2, len(text) / 3))
    assert faults.units_after_the_end(text, heard) == 0 == faults.repeated_units(text, heard, 3)


@given(text=TEXT, more=st.lists(st.sampled_from(list("xyz")), max_size=8))
def test_what_comes_after_the_text_is_counted(text: list[str], more: list[str]) -> None:
    assert faults.units_after_the_end(text, text + more) == len(more)
    assert faults.units_missing_at_the_end(text, text + more) == 0


@given(text=st.lists(st.sampled_from(list("abcdefgh")), min_size=6, max_size=9, unique=True), times=st.integers(0, 3))
def test_repeated_words_are_counted_beyond_the_text(text: list[str], times: int) -> None:
    heard = text + text[-3:] * times
    assert (faults.repeated_units(text, heard, 3) > 0) == (times > 0)
    # What the text itself repeats is not a loop.
    assert faults.repeated_units(heard, heard, 3) == 0


def test_few_digits_are_no_early_stop() -> None:
    wanted = ["he", "paid", "one", "thousand", "two", "hundred", "and", "thirty", "four"]
    assert not faults.stops_early(wanted, ["he", "paid", "1234"], "word")
    assert faults.stops_early(wanted, ["he", "paid", "one"], "word")


def test_limits_are_part_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Tempo().settings()
    monkeypatch.setattr(faults, "TAIL_S", 2.0)
    assert Tempo().settings() != before


def test_a_click_alone_is_no_word() -> None:
    sounds = faults.Sounds([(0.0, 0.04), (0.5, 1.5)], np.zeros(200), 0.0, 2.0)
    assert sounds.speech == [(0.5, 1.5)] and sounds.sound_after(1.0) == 0.5
    assert faults.has_start_artifact(sounds, (0.4, 0.9)) and not faults.has_start_artifact(sounds, (0.0, 0.03))
    assert not faults.has_start_artifact(sounds, None)
