"""Ends of clips: words that were cut are heard, pauses and noise are not; clicks stand out, voices do not."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import make_stage, run_stages, session_of, session_of_samples

from catalogs.corpus.thresholds import Thresholds
from pipeline.quality.clicks import clicks_per_s
from pipeline.quality.edges import begins_softly, measure_edges
from pipeline.records import PCM_RATE, Segment, Session
from pipeline.speech.quiet import settle


@pytest.fixture(scope="module")
def spoken(corpora: Path) -> Session:
    """Read and acted clips with pauses around them, cut into segments."""
    rows = [json.loads(line) for line in (corpora / "manifest.jsonl").read_text().splitlines()]
    paths = [corpora / r["path"] for r in rows if r.get("corpus") in ("EmoDB", "RAVDESS")][::12]
    return run_stages(session_of(*paths, corpora / "read" / "jfk.flac"), "decode", "detect_speech", "segment")


def cut_in_speech(samples: np.ndarray, dice: np.random.Generator) -> int | None:
    """A place with a loud 100 ms on both sides of it, found without the measure under test."""
    power = np.square(samples.astype(np.float64))
    power = np.convolve(power, np.ones(1600) / 1600, "same")
    loud = np.flatnonzero(power > np.quantile(power, 0.7))
    loud = loud[(loud > 8000) & (loud < len(samples) - 8000)]
    return int(dice.choice(loud)) if len(loud) else None


def test_cuts_in_speech_are_told_from_cuts_in_pauses(spoken: Session) -> None:
    dice = np.random.default_rng(0)
    proper, cut = [], []
    for segment in spoken.alive():
        audio = spoken.audio(segment)
        proper += [edge for edge in measure_edges(audio) if edge is not None]
        place = cut_in_speech(audio, dice)
        if place is not None:
            cut += [measure_edges(audio[:place])[1], measure_edges(audio[place:])[0]]
    assert len(proper) > 40 and len(cut) > 40
    caught = np.mean([(edge or 0.0) > 0.3 for edge in cut])
    alarms = np.mean([edge > 0.3 for edge in proper])
    # Acted clips were cut by people, some of them tightly, before we got them.
    assert caught >= 0.9 and alarms <= 0.05, (caught, alarms)


def test_level_and_polarity_do_not_matter(spoken: Session) -> None:
    # A broadcast with noise in its pauses: those of a studio clip lie at the measure's own floor of -100 dB.
    audio = spoken.audio(list(spoken.alive())[-1])
    for changed in (audio * 0.1, -audio):
        assert measure_edges(changed) == pytest.approx(measure_edges(audio), abs=0.02)
    assert measure_edges(audio[::-1]) == pytest.approx(measure_edges(audio)[::-1], abs=0.05)


def test_what_has_no_speech_has_no_edges() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, PCM_RATE).astype(np.float32)
    for samples in (noise, np.zeros(PCM_RATE, np.float32), noise[:1000], noise[:0]):
        assert measure_edges(samples) == (None, None)


def test_a_cut_moves_to_the_next_pause_and_stays_where_it_is_quiet() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 4 * PCM_RATE).astype(np.float32)
    samples[: PCM_RATE // 2] *= 0.001
    samples[2 * PCM_RATE : 2 * PCM_RATE + 3200] *= 0.001
    place = settle(samples, 2 * PCM_RATE - 1000, PCM_RATE, 3 * PCM_RATE)
    assert 2 * PCM_RATE < place < 2 * PCM_RATE + 800, "the near side of the pause"
    assert settle(samples, 2 * PCM_RATE + 1600, PCM_RATE, 3 * PCM_RATE) == 2 * PCM_RATE + 1600
    assert settle(samples, 3 * PCM_RATE, 3 * PCM_RATE, 3 * PCM_RATE) == 3 * PCM_RATE
    # A pause that is long enough for one side only, and another one that is for both.
    samples[3 * PCM_RATE : 3 * PCM_RATE + 640] *= 0.001
    assert 2 * PCM_RATE < settle(samples, 3 * PCM_RATE - 200, PCM_RATE, 4 * PCM_RATE) < 2 * PCM_RATE + 3200
    assert settle(samples, 3 * PCM_RATE - 200, 3 * PCM_RATE - 400, 4 * PCM_RATE) == pytest.approx(
        3 * PCM_RATE + 320, abs=100
    )
    steady = rng.normal(0, 0.1, PCM_RATE).astype(np.float32)
    assert settle(steady, 5000, 0, 16_000) == 5000, "no pause to be told from speech"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 16_000), st.integers(0, 16_000), st.integers(0, 16_000))
def test_a_cut_stays_within_its_limits(seed: int, a: int, b: int, c: int) -> None:
    low, wanted, high = sorted((a, b, c))
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 1, 16_000) * np.repeat(10 ** rng.uniform(-4, 0, 40), 400)
    assert low <= settle(samples.astype(np.float32), wanted, low, high) <= high


def test_soft_ends_are_within_the_segments(spoken: Session) -> None:
    """No end of a segment has voice at it if the recording itself continues with a pause."""
    edges = []
    for recording in spoken.usable():
        own = [s for s in spoken.alive() if s.source_id == recording.source.source_id]
        for before, after in itertools.pairwise(own):
            edges += [measure_edges(spoken.audio(before))[1], measure_edges(spoken.audio(after))[0]]
    measured = [edge for edge in edges if edge is not None]
    assert len(measured) >= 4 and max(measured) < 0.3, measured


def cut_reasons(session: Session) -> list[list[str]]:
    """The reasons of each segment that say a word was cut off."""
    found = (Thresholds().reasons(vars(segment)) for segment in make_stage("refine_cuts")(session).alive())
    return [[reason for reason in reasons if reason.endswith("cut_off")] for reasons in found]


@pytest.fixture(scope="module")
def tightly_cut(corpora: Path) -> list[Path]:
    """Clips of corpora that come cut within 30 ms of the voice."""
    rows = [json.loads(line) for line in (corpora / "world" / "manifest.jsonl").read_text().splitlines()]
    paths = [corpora / "world" / r["path"] for r in rows if r["corpus"] in ("LJSpeech", "TESS") and not r.get("fault")]
    assert len(paths) >= 20
    return paths


def test_corpora_that_come_cut_are_kept(tightly_cut: list[Path]) -> None:
    session = run_stages(session_of(*tightly_cut), "decode", "detect_speech", "segment")
    reasons = cut_reasons(session)
    voiced, rejected = 0, 0
    for segment, found in zip(session.alive(), reasons, strict=True):
        after = session.recording(segment.source_id).duration_s - segment.end_s
        if segment.start_s <= 0.05:
            voiced += (segment.head_edge or 0) > 0.3
            rejected += "head_cut_off" in found
        if after <= 0.05:
            voiced += (segment.tail_edge or 0) > 0.3
            rejected += "tail_cut_off" in found
    assert voiced >= 15, "the measure hears voice at their ends"
    assert rejected == 0


def test_files_that_were_cut_in_a_word_are_still_noticed(tightly_cut: list[Path], spoken: Session) -> None:
    dice = np.random.default_rng(2)
    whole = run_stages(session_of(*tightly_cut), "decode")
    clips = [window.pcm / np.float32(32768) for window in whole.windows] + [spoken.audio(s) for s in spoken.alive()]
    heads, tails = [], []
    for clip in clips:
        place = cut_in_speech(clip, dice)
        if place is not None:
            heads.append(clip[place:])
            tails.append(clip[:place])
    found = []
    for reason, cut in (("head_cut_off", heads), ("tail_cut_off", tails)):
        session = session_of_samples(*cut)
        for number, recording in enumerate(session.recordings):
            session.segments.append(Segment(recording.source.source_id, number, 0.0, recording.duration_s))
        found += [reason in reasons for reasons in cut_reasons(session)]
    assert len(found) > 60 and np.mean(found) >= 0.85, np.mean(found)


def test_only_the_ends_of_the_file_are_excused(tightly_cut: list[Path]) -> None:
    path = next(path for path in tightly_cut if "LJSpeech" in path.name)
    (window,) = run_stages(session_of(path), "decode").windows
    clip = window.pcm / np.float32(32768)
    assert begins_softly(clip) and not begins_softly(clip[:1000])
    assert not begins_softly(np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)), "nothing to tell by"
    # The same samples in the midst of a recording: there it is the pipeline that cut, and there was more before.
    session = session_of_samples(clip, np.concatenate([clip, clip]))
    first, second = session.recordings
    half = first.duration_s
    session.segments = [
        Segment(first.source.source_id, 0, 0.0, half),
        Segment(second.source.source_id, 1, half, 2 * half),
    ]
    assert cut_reasons(session) == [[], ["head_cut_off"]]


def test_voices_do_not_click_and_clicks_do(spoken: Session) -> None:
    dice = np.random.default_rng(1)
    plain, planted = [], []
    for segment in spoken.alive():
        audio = spoken.audio(segment)
        plain.append(clicks_per_s(audio))
        crackling = audio.copy()
        places = dice.choice(len(audio) - 100, round(2 * segment.duration_s) + 1, replace=False) + 50
        crackling[places] += (0.5 * np.abs(audio).max() * dice.choice([-1, 1], len(places))).astype(np.float32)
        planted.append(clicks_per_s(crackling))
    assert np.mean(np.array(plain) > 0.5) < 0.1
    assert np.mean(np.array(planted) > 0.5) > 0.9


def test_a_file_of_clicks(corpora: Path) -> None:
    samples, rate = soundfile.read(corpora / "world/broken/impulse_clicks.wav", dtype="float32")
    assert rate == PCM_RATE and clicks_per_s(samples) >= 1
    assert clicks_per_s(np.zeros(16_000, np.float32)) == 0.0 and clicks_per_s(samples[:100]) == 0.0
