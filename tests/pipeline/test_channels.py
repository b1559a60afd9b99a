"""Files with a speaker on each channel: two recordings, each with its own voice; ordinary stereo stays one."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import numpy as np
import pytest
import soundfile
import soxr
from sessions import run_stages, session_of

from catalogs.corpus.fsck import fsck
from catalogs.weights.registry import available
from pipeline.audio.open import probe
from pipeline.audio.stereo import is_one_speaker_a_channel
from pipeline.config import load_config
from pipeline.prepare import prepare
from pipeline.stages.decode import Decode, DecodeConfig

RATE = 22_050


def clip(corpora: Path, actor: str, seconds: float) -> np.ndarray:
    """An actor's clips, one after the other with a pause, float32 [S] of `seconds` seconds."""
    parts = []
    for path in sorted((corpora / "ravdess" / actor).glob("*.flac"))[:4]:
        samples, rate = soundfile.read(path, dtype="float32")
        parts += [soxr.resample(samples, rate, RATE), np.zeros(RATE // 2)]
    return np.resize(np.concatenate(parts), round(seconds * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def call(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Two actors who take turns every 6 s and once talk at the same time, each on a channel; its samples [S, 2]."""
    one, two = clip(corpora, "actor_01", 24), clip(corpora, "actor_02", 24)
    turn = np.repeat(np.arange(4) % 2, 6 * RATE).astype(np.float32)
    turn_one, turn_two = turn.copy(), 1 - turn
    turn_one[15 * RATE : 17 * RATE] = turn_two[15 * RATE : 17 * RATE] = 1
    stereo = np.stack([one * turn_one, two * turn_two], axis=1)
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, stereo, RATE, subtype="PCM_16")
    return path, stereo


def test_a_call_becomes_two_recordings_with_a_voice_each(call: tuple[Path, np.ndarray]) -> None:
    path, stereo = call
    session = run_stages(session_of(path), "decode", "detect_speech", "segment", "cut_clips")
    one, two = session.recordings
    assert (one.channel, two.channel) == (0, 1) and one.source.source_id != two.source.source_id
    assert one.source.path == two.source.path and one.duration_s == two.duration_s == 24.0
    for recording in session.recordings:
        own = [s for s in session.segments if s.source_id == recording.source.source_id]
        assert sum(s.duration_s for s in own) + recording.silence_s == pytest.approx(24.0)
        for segment in (s for s in own if not s.hard_reasons):
            assert segment.flac is not None
            samples, _ = soundfile.read(io.BytesIO(segment.flac), dtype="float32")
            first = round(segment.start_s * RATE)
            wanted = stereo[first : first + len(samples), recording.channel]
            assert np.abs(samples - wanted).max() <= 1 / 32768, "nothing of the other channel"


@pytest.mark.parametrize("kind", ["dual mono", "panned", "two microphones", "one side", "inverted", "mono"])
def test_ordinary_files_stay_one_recording(corpora: Path, tmp_path: Path, kind: str) -> None:
    one, two = clip(corpora, "actor_01", 24), clip(corpora, "actor_02", 24)
    turn = np.repeat(np.arange(4) % 2, 6 * RATE).astype(np.float32)
    talk = np.stack([one * turn, two * (1 - turn)], axis=1)
    stereo = {
        "dual mono": np.stack([one, one], axis=1),
        "panned": np.stack([one, 0.3 * one], axis=1),
        # Each hears the other 8 dB lower.
        "two microphones": talk + 0.4 * talk[:, ::-1],
        "one side": np.stack([one, 0 * one], axis=1),
        "inverted": np.stack([one, -one], axis=1),
        "mono": one[:, None],
    }[kind]
    path = tmp_path / "a.wav"
    soundfile.write(path, stereo, RATE, subtype="PCM_16")
    assert not is_one_speaker_a_channel(str(path), probe(str(path)))
    session = run_stages(session_of(path), "decode")
    assert [r.channel for r in session.recordings] == [None]


def test_what_was_said_counts(call: tuple[Path, np.ndarray], corpora: Path) -> None:
    mixed = Decode(DecodeConfig(channels="mix"))(session_of(call[0]))
    assert [r.channel for r in mixed.recordings] == [None]
    both_at_once = corpora / "world/broken/stereo_two_speakers.flac"
    auto = Decode(DecodeConfig())(session_of(both_at_once))
    asked = Decode(DecodeConfig(channels="split"))(session_of(both_at_once))
    assert [r.channel for r in auto.recordings] == [None] and [r.channel for r in asked.recordings] == [0, 1]


def test_a_call_in_a_corpus_is_whole_and_done_once(call: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    quick = ["transcribe.beam_size=1", "sources.language=en", "transcribe.second_pass=off"]
    config = load_config(None, ["describe=none", "engine.executor=inline", *quick])
    missing = [weights for weights in config.weights() if not available(weights)]
    if missing:
        pytest.skip(f"weights that are not here: {', '.join(missing)}; voxmill models pull ...")

    root, path = tmp_path / "corpus", tmp_path / "call.wav"
    soundfile.write(path, call[1][: 14 * RATE], RATE, subtype="PCM_16")
    summary = prepare([str(path)], root, config)
    assert summary.segments > 4 and not summary.quarantined
    assert fsck(root) == []
    again = prepare([str(path)], root, config)
    assert again.already_there == 1 and again.units == 0
    found = duckdb.sql(f"select path, channels, status from read_parquet('{root}/recordings/*/*.parquet')")
    assert found is not None
    rows = found.fetchall()
    assert len(rows) == 2 and {row[1] for row in rows} == {2}
