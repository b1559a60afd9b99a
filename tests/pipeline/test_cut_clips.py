"""Clips are the recording's own samples: nothing resampled, rounded or shifted that need not be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from sessions import make_stage, run_stages, session_of

from pipeline.records import Segment, Session

#: Seconds; edges that fall on no sample of any of the rates below.
EDGES = [(0.0, 1.2345678), (1.3, 11.987654), (12.0, 12.6), (19.99, 24.7531)]


def cut(path: Path, rate: int) -> Session:
    session = run_stages(session_of(path), "decode")
    source = session.recordings[0].source.source_id
    for seq, (start, end) in enumerate([*EDGES, (24.9, session.recordings[0].duration_s)]):
        session.segments.append(Segment(source, seq, round(start * rate) / rate, round(end * rate) / rate))
    session.segments[2].hard_reasons.append("too_short")
    return make_stage("cut_clips")(session)


def clip(segment: Segment) -> tuple[np.ndarray, soundfile.SoundFile]:
    assert segment.flac is not None
    file = soundfile.SoundFile(io.BytesIO(segment.flac))
    return file.read(dtype="int32"), file


def planted(path: Path, rate: int, subtype: str, channels: int = 1) -> np.ndarray:
    """25.3 s of noise written as `subtype`; int32 [S, C] as stored."""
    audio = np.random.default_rng(rate).normal(0, 0.2, (round(25.3 * rate), channels)).clip(-0.9, 0.9)
    soundfile.write(path, audio, rate, subtype=subtype)
    return soundfile.read(path, dtype="int32", always_2d=True)[0]


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("ending", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_16"), ("flac", "PCM_24")])
def test_a_clip_is_the_source_sample_for_sample(tmp_path: Path, rate: int, ending: str, subtype: str) -> None:
    path = tmp_path / f"noise.{ending}"
    whole = planted(path, rate, subtype)[:, 0]
    session = cut(path, rate)
    assert not session.quarantine
    assert [segment.flac is None for segment in session.segments] == [False, False, True, False, False]
    for segment in session.alive():
        samples, file = clip(segment)
        assert (file.samplerate, file.channels, file.subtype) == (rate, 1, subtype)
        assert segment.flac_rate == rate
        first, last = round(segment.start_s * rate), round(segment.end_s * rate)
        assert np.array_equal(samples, whole[first:last])


def test_96_khz_becomes_48_khz_and_keeps_24_bits(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    whole = planted(path, 96_000, "PCM_24")[:, 0]
    for segment in cut(path, 96_000).alive():
        samples, file = clip(segment)
        assert (file.samplerate, file.subtype, segment.flac_rate) == (48_000, "PCM_24", 48_000)
        stretch = whole[round(segment.start_s * 96_000) : round(segment.end_s * 96_000)]
        wanted = soxr.resample(stretch / 2**31, 96_000, 48_000, quality="VHQ")
        assert len(samples) == pytest.approx(len(stretch) / 2, abs=1)
        assert np.abs(samples / 2**31 - wanted[: len(samples)]).max() < 1e-5


def test_stereo_is_mixed_to_the_mean(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    whole = planted(path, 44_100, "PCM_16", channels=2)
    segment = next(cut(path, 44_100).alive())
    samples, file = clip(segment)
    assert file.channels == 1
    first, last = round(segment.start_s * 44_100), round(segment.end_s * 44_100)
    assert np.abs(samples / 2**31 - whole[first:last].mean(axis=1) / 2**31).max() <= 1 / 2**15


def test_real_recordings_through_all_cutting_stages(corpora: Path) -> None:
    """A long FLAC: all segments' clips, joined with what lies between them, are the file."""
    path = corpora / "long" / "silero_test.flac"
    session = run_stages(session_of(path), "decode", "detect_speech", "segment", "cut_clips")
    whole, rate = soundfile.read(path, dtype="int32", always_2d=True)
    segments = list(session.alive())
    assert len(segments) > 3
    for segment in segments:
        samples, file = clip(segment)
        first = round(segment.start_s * rate)
        assert file.samplerate == rate and np.array_equal(samples, whole[first : first + len(samples), 0])
        assert len(samples) == round(segment.duration_s * rate)
        assert segment.bandwidth_hz and 2000 < segment.bandwidth_hz <= rate / 2


def test_a_file_that_shrank_after_decoding_is_quarantined_with_its_segments(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    planted(path, 16_000, "PCM_16")
    session = run_stages(session_of(path), "decode")
    session.segments = [Segment(session.recordings[0].source.source_id, 0, 20.0, 25.0)]
    path.write_bytes(path.read_bytes()[:300_000])
    make_stage("cut_clips")(session)
    assert session.recordings[0].status == "quarantined"
    assert "changed" in session.quarantine[0].error
    # Its segments go: what is whole of the session is committed, and the recording's seconds are quarantined.
    assert session.segments == []
