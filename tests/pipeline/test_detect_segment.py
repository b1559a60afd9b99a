"""Finding speech and cutting it: every second accounted for, whatever the spans."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sessions import FINGERPRINT, make_stage, session_of, session_of_samples, source_of

from pipeline.records import PCM_RATE, PcmWindow, Recording, Session, SpeechSpan
from pipeline.speech.vad import SpanRules, find_spans, speech_probabilities
from pipeline.stages.detect_speech import DetectSpeech
from pipeline.stages.segment import CutSegments, SegmentConfig

RATE = 44_100
SAMPLE = 1 / RATE
NOISE = np.random.default_rng(0).integers(-3000, 3000, 7 * PCM_RATE, dtype=np.int16)


@pytest.fixture(scope="module")
def detect() -> DetectSpeech:
    stage = make_stage("detect_speech")
    assert isinstance(stage, DetectSpeech)
    return stage


@pytest.fixture(scope="module")
def talk(corpora: Path) -> np.ndarray:
    """int16 at 16 kHz: 12 s of read speech between silences."""
    session = make_stage("decode")(session_of(corpora / "read" / "jfk.flac"))
    silence = np.zeros(PCM_RATE // 2, dtype=np.int16)
    return np.concatenate([silence, session.windows[0].pcm, silence])


def speech_share(session: Session) -> float:
    total = sum(recording.duration_s for recording in session.recordings)
    return sum(span.end_s - span.start_s for span in session.speech) / total


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 190_000), max_size=4))
def test_probabilities_do_not_depend_on_the_windows(detect: DetectSpeech, talk: np.ndarray, cuts: list[int]) -> None:
    whole = speech_probabilities(detect._net, [talk])
    parts = speech_probabilities(detect._net, np.split(talk, sorted({cut for cut in cuts if cut < len(talk)})))
    assert len(whole) == -(-len(talk) // 512)
    assert np.array_equal(whole, parts)


def test_speech_lies_where_it_is(detect: DetectSpeech, talk: np.ndarray) -> None:
    spans = find_spans(speech_probabilities(detect._net, [talk]), SpanRules())
    assert spans[0][0] * 0.032 == pytest.approx(0.8, abs=0.3)
    assert 0.6 < sum(last - first for first, last, _ in spans) * 512 / len(talk) < 0.95
    assert all(p > 0.5 for *_, p in spans)


def test_music_and_noise_are_hardly_ever_speech(corpora: Path, detect: DetectSpeech) -> None:
    rows = map(json.loads, (corpora / "world" / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    files = {row["path"]: str(row) for row in rows if row["path"].startswith("music/")}
    decode = make_stage("decode")
    shares = {}
    for name in files:
        shares[name] = speech_share(detect(decode(session_of(corpora / "world" / name))))
    assert len(shares) > 5
    # Singing is a voice: it is music's business, not the detector's.
    sung = {name for name in shares if "vocals" in name}
    assert max(share for name, share in shares.items() if name not in sung) < 0.05


def test_read_speech_is_speech(corpora: Path, detect: DetectSpeech) -> None:
    decode = make_stage("decode")
    for path in sorted((corpora / "read").iterdir()):
        session = detect(decode(session_of(path)))
        assert session.recordings[0].status == "ok"
        # A meeting's headset hears its wearer for two of six seconds; all others are read.
        assert speech_share(session) > (0.35 if path.name.startswith("ES2011a") else 0.5), path.name


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), max_size=80),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
)
def test_spans_keep_the_rules_of_their_settings(values: list[float], min_speech_s: float, min_silence_s: float) -> None:
    probabilities = np.array(values, dtype=np.float32)
    rules = SpanRules(min_speech_s=min_speech_s, min_silence_s=min_silence_s)
    spans = find_spans(probabilities, rules)
    inside = np.zeros(len(values), dtype=bool)
    for first, last, p in spans:
        assert 0 <= first < last <= len(values)
        assert probabilities[first] >= rules.threshold and not inside[first:last].any()
        assert (last - first) * 0.032 >= min_speech_s - 1e-9
        assert p == pytest.approx(float(probabilities[first:last].mean()))
        inside[first:last] = True
    for (_, last, _), (first, *_) in itertools.pairwise(spans):
        assert (first - last) * 0.032 >= min_silence_s - 1e-9
    if min_speech_s == 0:
        assert inside[probabilities >= rules.threshold].all()


def test_spans_do_not_leave_the_file(detect: DetectSpeech, talk: np.ndarray) -> None:
    """The last frame is padded: speech up to the end ends with the recording."""
    cut = talk[: 3 * PCM_RATE + 100].astype(np.float32) / 32768
    session = detect(session_of_samples(cut))
    assert session.speech[-1].end_s <= session.recordings[0].duration_s


# --- segment ---------------------------------------------------------------------------------------------------------


@st.composite
def spoken(draw: st.DrawFn) -> tuple[float, list[tuple[float, float]]]:
    """(duration, speech spans in order of time) of a recording."""
    now, spans = 0.0, []
    for _ in range(draw(st.integers(0, 8))):
        start = now + draw(st.one_of(st.floats(0, 1.5), st.floats(0, 12)))
        end = start + draw(st.one_of(st.floats(0.05, 3), st.floats(0.05, 70)))
        spans.append((start, end))
        now = end + 1e-3
    duration = now + draw(st.one_of(st.just(0.0), st.floats(0, 20)))
    return max(1, round(duration * RATE)) / RATE, spans


@st.composite
def configs(draw: st.DrawFn) -> SegmentConfig:
    max_s = draw(st.floats(2, 40))
    min_s = draw(st.floats(0.1, max_s / 4))
    return SegmentConfig(
        max_s=max_s,
        min_s=min_s,
        target_s=draw(st.floats(min_s, max_s)),
        join_s=draw(st.floats(0, 2)),
        pad_s=draw(st.floats(0, 0.25)),
        gap_s=draw(st.floats(0.5, 10)),
    )


def cut(duration: float, spans: list[tuple[float, float]], config: SegmentConfig) -> Session:
    source = source_of(Path("/nowhere/a.wav"))
    noise = np.resize(NOISE, int(duration * PCM_RATE))
    session = Session("s", FINGERPRINT, "/nowhere", [Recording(source, duration, RATE, 1)])
    session.windows = [
        PcmWindow(source.source_id, float(start), noise[start * PCM_RATE : (start + 600) * PCM_RATE])
        for start in range(0, max(1, int(duration)), 600)
    ]
    session.speech = [SpeechSpan(source.source_id, *span) for span in spans]
    return CutSegments(config)(session)


@settings(max_examples=60, deadline=None)
@given(
    spoken(),
    configs(),
)
def test_every_second_is_accounted_for(
    recording: tuple[float, list[tuple[float, float]]], config: SegmentConfig
) -> None:
    duration, spans = recording
    session = cut(duration, spans, config)
    segments, silence = session.segments, session.recordings[0].silence_s
    assert not session.quarantine
    assert duration == pytest.approx(silence + sum(s.duration_s for s in segments), abs=1e-6)
    assert silence >= 0
    assert [s.seq for s in segments] == list(range(len(segments)))
    assert len({s.segment_id for s in segments}) == len(segments)
    for segment in segments:
        assert 0 <= segment.start_s < segment.end_s <= duration
        assert set(segment.hard_reasons) <= {"too_short", "no_speech"}
        if "no_speech" not in segment.hard_reasons:
            assert segment.duration_s <= config.max_s + 2 * SAMPLE
            assert ("too_short" in segment.hard_reasons) == (round(segment.duration_s * RATE) < config.min_s * RATE)
        else:
            assert not any(start < segment.end_s - SAMPLE and end > segment.start_s + SAMPLE for start, end in spans)
    for before, after in itertools.pairwise(segments):
        assert before.end_s <= after.start_s + 1e-9
    assert [s.segment_id for s in cut(duration, spans, config).segments] == [s.segment_id for s in segments]


@settings(max_examples=60, deadline=None)
@given(spoken(), configs())
def test_speech_is_cut_only_where_it_is_too_long(
    recording: tuple[float, list[tuple[float, float]]], config: SegmentConfig
) -> None:
    duration, spans = recording
    session = cut(duration, spans, config)
    edges = [time for s in session.segments for time in (s.start_s, s.end_s)]
    spoken_s = 0.0
    for start, end in spans:
        cuts = [edge for edge in edges if start + SAMPLE < edge < end - SAMPLE]
        if end - start <= config.max_s - 2 * config.pad_s:
            assert not cuts
        covered = [s for s in session.segments if s.start_s < end and s.end_s > start]
        spoken_s += sum(min(end, s.end_s) - max(start, s.start_s) for s in covered)
    assert spoken_s == pytest.approx(sum(end - start for start, end in spans), abs=SAMPLE * (2 * len(spans) + 1))


def test_no_speech_at_all_is_one_rejected_row() -> None:
    session = cut(3.0, [], SegmentConfig())
    assert [(s.start_s, s.end_s, s.hard_reasons) for s in session.segments] == [(0.0, 3.0, ["no_speech"])]
    assert session.recordings[0].silence_s == 0.0


def test_long_speech_is_split_in_its_pause() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.1, 40 * PCM_RATE)
    samples[25 * PCM_RATE : round(25.3 * PCM_RATE)] *= 0.001
    session = session_of_samples(samples)
    session.speech = [SpeechSpan(session.recordings[0].source.source_id, 0.0, 40.0)]
    CutSegments(SegmentConfig())(session)
    assert len(session.segments) == 2
    assert 25.0 < session.segments[0].end_s < 25.3


def test_segments_of_two_recordings_are_numbered_through_and_quarantined_ones_have_none(tmp_path: Path) -> None:
    sources = [source_of(Path(f"/nowhere/{name}.wav")) for name in "abc"]
    session = Session("s", FINGERPRINT, "/nowhere", [Recording(source, 4.0, 16_000, 1) for source in sources])
    session.recordings[1].status = "quarantined"
    session.speech = [SpeechSpan(source.source_id, 1.0, 3.0) for source in sources]
    CutSegments(SegmentConfig())(session)
    assert [(s.seq, s.source_id) for s in session.segments] == [(0, sources[0].source_id), (1, sources[2].source_id)]
