"""Turns: another voice after a short pause begins a new segment; one voice is left in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from sessions import run_stages, session_of_samples

from catalogs.weights import registry
from pipeline.records import PCM_RATE, Session, SpeechSpan
from pipeline.stages.find_turns import FindTurns, FindTurnsConfig, runs
from pipeline.stages.segment import SegmentConfig, join_spans

needs_weights = pytest.mark.skipif(
    not registry.available("ge2e") or not registry.available("silero-vad"),
    reason="the weights ge2e and silero-vad are not here: voxmill models pull small",
)


def read(path: Path, seconds: float | None = None) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if seconds is not None:
        samples = samples[: round(seconds * rate)]
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, PCM_RATE), dtype=np.float32)


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Without the silence before and after, so that the pauses are those the test puts in."""
    loud = np.flatnonzero(np.abs(samples) > 0.05 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def in_turns(corpora: Path, actors: list[str], pause_s: float) -> tuple[Session, list[float]]:
    """A session of lines by turns of the actors, and the times at which the next one begins."""
    lines = {a: sorted((corpora / "ravdess" / f"actor_{a}").glob("03-01-0[12]-*.flac")) for a in set(actors)}
    parts: list[np.ndarray] = [np.zeros(8000, np.float32)]
    begins = []
    for actor in actors:
        begins.append(sum(map(len, parts)) / PCM_RATE)
        line = trimmed(read(lines[actor].pop(0)))
        parts += [line / np.abs(line).max() * 0.5, np.zeros(round(pause_s * PCM_RATE), np.float32)]
    samples = np.concatenate(parts)
    hiss = np.random.default_rng(1).normal(0, 10 ** (-66 / 20), len(samples)).astype(np.float32)
    return session_of_samples(samples + hiss), begins


@needs_weights
def test_two_voices_in_turns_share_no_segment(corpora: Path) -> None:
    """A man and a woman, 0.35 s between them: shorter than the pauses that segments keep."""
    session, begins = in_turns(corpora, ["01", "02"] * 3, 0.35)
    run_stages(session, "detect_speech")
    joined = join_spans(session.speech, SegmentConfig())
    assert len(joined) < len(begins), "without turns they would share segments"
    run_stages(session, "find_turns", "segment")
    alive = list(session.alive())
    for segment in alive:
        inside = [at for at in begins if segment.start_s + 0.3 < at < segment.end_s - 0.3]
        assert not inside, f"another voice begins at {inside} within {segment.start_s:.2f}-{segment.end_s:.2f}"
    assert len(alive) >= len(begins)


@needs_weights
def test_a_reader_is_left_in_one_piece(corpora: Path) -> None:
    session = session_of_samples(read(corpora / "long" / "two_cities.flac", 60))
    run_stages(session, "detect_speech", "find_turns")
    assert len(session.speech) > 8 and not any(span.turn for span in session.speech)


@needs_weights
def test_a_threshold_of_minus_one_hears_nothing_and_asks_for_no_weights(corpora: Path) -> None:
    session, _ = in_turns(corpora, ["01", "02"], 0.3)
    run_stages(session, "detect_speech")
    off, always = FindTurns(FindTurnsConfig(threshold=-1)), FindTurns(FindTurnsConfig(threshold=1, pause_s=60))
    assert off.weights() == () and always.weights() == ("ge2e",)
    off.load()
    assert not any(span.turn for span in off(session).speech)
    always.load()
    spans = sorted(always(session).speech, key=lambda span: span.start_s)
    assert not spans[0].turn and all(span.turn for span in spans[1:])


def test_runs_end_at_long_pauses() -> None:
    spans = [SpeechSpan("a", start, start + 1.0) for start in (0.0, 1.5, 4.0, 5.6, 8.0)]
    assert runs(spans, 0.6) == [(0, 2), (2, 4), (4, 5)]
    assert runs([], 0.6) == []


def test_nothing_is_joined_over_a_turn() -> None:
    spans = [SpeechSpan("a", 0.0, 1.0), SpeechSpan("a", 1.2, 2.0, turn=True), SpeechSpan("a", 2.2, 3.0)]
    assert join_spans(spans, SegmentConfig()) == [(0.0, 1.0), (1.2, 3.0)]
