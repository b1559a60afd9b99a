"""Clips of compressed, repaired and odd recordings lie on the timeline that `decode` gave them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fakes.recordings import noise, tone, write
from sessions import session_of

from pipeline.audio.open import stream_mono
from pipeline.records import Segment, Session
from pipeline.stages.cut_clips import CutClips, CutClipsConfig
from pipeline.stages.decode import Decode, DecodeConfig


def cut(path: Path, start: float, end: float) -> tuple[Session, np.ndarray]:
    session = Decode(DecodeConfig())(session_of(path))
    recording = session.recordings[0]
    rate = recording.sample_rate
    edges = round(start * rate) / rate, round(end * rate) / rate
    session.segments = [Segment(recording.source.source_id, 0, *edges)]
    CutClips(CutClipsConfig())(session)
    assert not session.quarantine and session.segments[0].flac is not None
    return session, soundfile.read(io.BytesIO(session.segments[0].flac))[0]


@pytest.mark.parametrize(
    "name",
    [
        "speech.m4a",
        "speech.aac",
        "speech.opus",
        "speech.webm",
        "speech_32k.mp3",
        "stereo_inverted.wav",
        "tel_8k_mulaw.wav",
    ],
)
def test_the_clip_is_what_the_analysis_heard(corpora: Path, name: str) -> None:
    path = corpora / "world/broken" / name
    session, clip = cut(path, 0.7, 2.1)
    (segment,) = session.segments
    rate = session.recordings[0].sample_rate
    assert len(clip) == round(1.4 * rate) and segment.flac_rate == rate
    whole = np.concatenate(list(stream_mono(str(path))))
    first = round(0.7 * rate)
    assert np.abs(clip - np.clip(whole[first : first + len(clip)], -1, 1)).max() <= 1 / 32768
    heard = session.audio(segment)
    assert np.corrcoef(heard[800:-800], soxr.resample(clip, rate, 16_000)[: len(heard)][800:-800])[0, 1] > 0.999


def test_a_floating_point_recording_above_full_scale_is_not_cut_off(tmp_path: Path) -> None:
    session, clip = cut(write(tmp_path / "a.wav", tone(150, 3, 48_000, level=1.8), 48_000, "FLOAT"), 0.5, 2.5)
    assert session.segments[0].clipping == pytest.approx(0, abs=1e-3) and np.abs(clip).max() == pytest.approx(
        1, abs=1e-3
    )


def test_segments_far_apart_in_a_long_file_are_exact(tmp_path: Path) -> None:
    pcm = (noise(90, 16_000) * 32767).clip(-32768, 32767).astype(np.int16)
    path = tmp_path / "a.flac"
    soundfile.write(path, pcm, 16_000, subtype="PCM_16")
    session = Decode(DecodeConfig())(session_of(path))
    edges = [(0, 1_000), (9 * 16_000, 11 * 16_000), (11 * 16_000, 45 * 16_000), (90 * 16_000 - 777, 90 * 16_000)]
    source = session.recordings[0].source.source_id
    session.segments = [Segment(source, i, a / 16_000, b / 16_000) for i, (a, b) in enumerate(edges)]
    CutClips(CutClipsConfig())(session)
    for segment, (first, last) in zip(session.segments, edges, strict=True):
        assert segment.flac is not None
        assert np.array_equal(soundfile.read(io.BytesIO(segment.flac), dtype="int16")[0], pcm[first:last])
