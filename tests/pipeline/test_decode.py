"""The windows that travel: contiguous, at most ten minutes, and the same samples whatever the chunks were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soxr
from fakes.recordings import noise, tone, write
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import session_of

from pipeline.audio.pcm_windows import WindowMaker
from pipeline.records import Session
from pipeline.stages.decode import Decode, DecodeConfig


def decode(session: Session) -> Session:
    return Decode(DecodeConfig())(session)


def test_windows_are_contiguous_and_at_most_ten_minutes(tmp_path: Path) -> None:
    session = decode(session_of(write(tmp_path / "a.wav", noise(1_300, 8_000, level=0.05), 8_000)))
    assert [len(w.pcm) / 16_000 for w in session.windows] == [600.0, 600.0, 100.0]
    assert [w.start_s for w in session.windows] == [0.0, 600.0, 1200.0]
    assert all(w.pcm.dtype == np.int16 and not w.separated for w in session.windows)
    (recording,) = session.recordings
    assert (recording.duration_s, recording.sample_rate, recording.channels) == (1_300.0, 8_000, 1)
    assert recording.codec == "wav/pcm_16"
    across = session.pcm(recording.source.source_id, 599.5, 600.5)
    assert np.array_equal(across, np.concatenate([session.windows[0].pcm[-8_000:], session.windows[1].pcm[:8_000]]))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 96_000])
def test_resampling_in_chunks_equals_resampling_at_once(tmp_path: Path, rate: int) -> None:
    samples = noise(23.4, rate, level=0.05) + tone(300, 23.4, rate, level=0.3)
    session = decode(session_of(write(tmp_path / "a.flac", samples, rate, "PCM_24")))
    expected = soxr.resample(samples, rate, 16_000, quality="HQ")
    found = np.concatenate([w.pcm for w in session.windows]).astype(np.float64) / 32768
    assert abs(len(found) - len(expected)) <= 1
    shortest = min(len(found), len(expected))
    assert np.abs(found[:shortest] - expected[:shortest]).max() < 3 / 32768


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5_000), max_size=12), st.integers(1, 4_000))
def test_chunks_of_any_size_make_the_same_windows(sizes: list[int], window: int) -> None:
    samples = noise(1.0, max(1, sum(sizes)), seed=sum(sizes))[: sum(sizes)]
    maker = WindowMaker("s")
    maker._size = window
    position = 0
    for size in sizes:
        maker.add(samples[position : position + size])
        position += size
    windows = maker.finish()
    assert all(len(w.pcm) == window for w in windows[:-1])
    joined = np.concatenate([w.pcm for w in windows]) if windows else np.zeros(0, np.int16)
    assert np.array_equal(joined, np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16))


def test_one_bad_file_does_not_harm_the_others(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", noise(1, 16_000), 16_000)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF nothing of the kind")
    gone = write(tmp_path / "gone.wav", noise(1, 16_000), 16_000)
    session = session_of(bad, good, gone)
    gone.unlink()
    session = decode(session)
    assert [recording.status for recording in session.recordings] == ["quarantined", "ok", "quarantined"]
    assert len(session.windows) == 1 and len(session.quarantine) == 2
    assert session.quarantine[1].error == "the file is gone"


def test_a_file_that_changed_since_it_was_listed_is_not_mixed_up(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", noise(1, 16_000), 16_000)
    session = session_of(path)
    write(path, noise(2, 16_000), 16_000)
    (row,) = decode(session).quarantine
    assert row.error == "the file has changed since it was listed; run the same command again"
