"""Speech is found where it is, whatever the windows and the level; noise, hum and tones are none."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from fakes.recordings import write
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import session_of

from catalogs.weights.registry import available
from pipeline.records import Session, SpeechSpan
from pipeline.speech.vad import SpanRules, find_spans, hearing_gain
from pipeline.stages.decode import Decode, DecodeConfig
from pipeline.stages.detect_speech import DetectSpeech, DetectSpeechConfig

pytestmark = pytest.mark.skipif(not available("silero-vad"), reason="needs the package silero-vad")


@pytest.fixture(scope="module")
def stage() -> DetectSpeech:
    stage = DetectSpeech(DetectSpeechConfig())
    stage.load()
    return stage


def detect(stage: DetectSpeech, *paths: Path) -> Session:
    return stage(Decode(DecodeConfig())(session_of(*paths)))


def share(spans: list[SpeechSpan], first: float, last: float) -> float:
    """Share of first..last that the spans cover."""
    return sum(max(0.0, min(s.end_s, last) - max(s.start_s, first)) for s in spans) / (last - first)


def test_what_is_no_speech_is_empty(stage: DetectSpeech, corpora: Path) -> None:
    broken, music = corpora / "world/broken", corpora / "world/music"
    paths = [broken / f"{name}.wav" for name in ("dtmf_only", "hum_50hz", "impulse_clicks", "silence_digital_5s")]
    paths += [broken / "silence_noise_floor_8s.flac", broken / "white_noise_loud.flac", corpora / "music/test.mp3"]
    paths += [music / "librosa-data__sugar_plum.ogg", music / "pv-noise__kitchen.flac"]
    session = detect(stage, *paths)
    assert {r.source.relative_path: r.status for r in session.recordings} == {path.name: "empty" for path in paths}
    assert session.speech == []


def test_speech_is_found_between_long_silences(stage: DetectSpeech, corpora: Path) -> None:
    session = detect(stage, corpora / "world/broken/very_long_silence.flac")
    assert session.recordings[0].status == "ok" and len(session.speech) == 2
    assert all(1.5 < span.end_s - span.start_s < 2.5 and span.p > 0.8 for span in session.speech)


def test_very_quiet_speech_is_found_like_loud_speech(stage: DetectSpeech, corpora: Path) -> None:
    quiet = detect(stage, corpora / "world/broken/very_quiet_speech.flac")
    loud = detect(stage, corpora / "world/broken/exact_duplicate.flac")
    assert quiet.recordings[0].status == "ok"
    assert share(quiet.speech, loud.speech[0].start_s, loud.speech[-1].end_s) > 0.95


@pytest.mark.parametrize(
    "name",
    ["AMI_pyannote_tests__trn06.flac", "composite__ko_dialogue_3spk.opus", "composite__pl_overlap_2spk_music.mp3"],
)
def test_turns_that_people_marked_are_found(stage: DetectSpeech, corpora: Path, name: str) -> None:
    """Marked turns hold the speakers' pauses, so that not all of them is speech; outside of them nobody speaks."""
    path = corpora / "world/sessions" / name
    session = detect(stage, path)
    frames = np.zeros((2, round(session.recordings[0].duration_s * 100)), dtype=bool)
    for line in Path(f"{path}.rttm").read_text().splitlines():
        start, length = (float(field) for field in line.split()[3:5])
        frames[0, round(start * 100) : round((start + length) * 100)] = True
    for span in session.speech:
        frames[1, round(span.start_s * 100) : round(span.end_s * 100)] = True
    both = (frames[0] & frames[1]).sum()
    assert both / frames[1].sum() > 0.94 and both / frames[0].sum() > 0.75


def test_only_quiet_recordings_are_heard_turned_up() -> None:
    rng = np.random.default_rng(0)
    for level_db, gain_db in ((-20, 0), (-44, 0), (-60, 35), (-120, 0)):
        pcm = np.rint(rng.standard_normal(160_000) * 32768 * 10 ** (level_db / 20)).astype(np.int16)
        expected = 60 if level_db == -120 else gain_db
        assert 20 * np.log10(hearing_gain([pcm])) == pytest.approx(expected, abs=1.5)
    burst = np.zeros(1_600_000, np.int16)
    burst[:32_000] = 8_000
    assert hearing_gain([burst]) == 1.0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 30)), max_size=40),
    st.floats(0.0, 0.6),
    st.floats(0.0, 0.6),
)
def test_spans_keep_their_rules(runs: list[tuple[float, int]], min_speech: float, min_silence: float) -> None:
    p = np.array([value for value, count in runs for _ in range(count)], dtype=np.float32)
    rules = SpanRules(min_speech_s=min_speech, min_silence_s=min_silence)
    spans = find_spans(p, rules)
    for first, last, mean in spans:
        assert 0 <= first < last <= len(p) and (last - first) * 0.032 >= min_speech
        assert p[first] >= 0.5 and mean == pytest.approx(float(p[first:last].mean()), abs=1e-4)
    for (_, before, _), (after, _, _) in itertools.pairwise(spans):
        assert (after - before) * 0.032 >= min_silence
    # Whatever is clearly speech for long enough is in a span.
    covered = np.zeros(len(p), dtype=bool)
    for first, last, _ in spans:
        covered[first:last] = True
    position = 0
    for value, count in runs:
        if value >= 0.5 and count * 0.032 >= min_speech:
            assert covered[position : position + count].all()
        position += count


def test_a_short_recording_is_padded_and_not_lost(stage: DetectSpeech, tmp_path: Path) -> None:
    session = detect(stage, write(tmp_path / "a.wav", np.zeros(100, np.float32), 16_000))
    assert session.recordings[0].status == "empty" and not session.quarantine
