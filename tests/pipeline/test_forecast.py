"""The dry run: excerpts drawn by share of time, forecasts that scale, and nothing written."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fakes.engine_stages import TroubleConfig
from fakes.recordings import noise, tone, write
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.corpus.commit import create_corpus
from catalogs.corpus.history import Attempt, History
from catalogs.weights import registry
from pipeline.config import load_config
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.forecast.forecast import _scale, forecast, list_recordings, machine_of
from pipeline.forecast.sample import EXCERPT_S, Excerpt, draw_excerpts, write_piece, write_survey
from pipeline.forecast.trials import ExcerptResult, Trials, run_trials
from pipeline.records import Source
from pipeline.speech.language import DetectedLanguage
from pipeline.stage import LoadError
from pipeline.stages.transcribe import Transcribe
from voxmill.terminal import Terminal


def source(name: str) -> Source:
    return Source(name, f"/nowhere/{name}", name, Path(name).parent.as_posix(), 1, "")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["wav", "mp3"]), st.floats(1, 5000)), min_size=1, max_size=20
    ),
    st.floats(30, 900),
    st.integers(0, 100),
)
def test_places_lie_in_the_recordings_and_strata_get_their_share(
    items: list[tuple[str, str, float]], sample_s: float, seed: int
) -> None:
    recordings = [(source(f"{folder}/{i}.{ending}"), length) for i, (folder, ending, length) in enumerate(items)]
    lengths = {s.source_id: length for s, length in recordings}
    excerpts = draw_excerpts(recordings, sample_s, random.Random(seed))
    total = sum(lengths.values())
    count = max(3, round(min(sample_s, total) / EXCERPT_S))
    assert len(excerpts) == count
    for pieces in excerpts:
        assert 0 < sum(piece.length_s for piece in pieces) <= 1.25 * EXCERPT_S
        assert len({piece.source.source_id for piece in pieces}) == len(pieces), "none is heard twice"
        for piece in pieces:
            assert piece.start_s >= 0 and piece.start_s + piece.length_s <= lengths[piece.source.source_id] + 1e-6
            assert len(pieces) == 1 or piece.length_s == lengths[piece.source.source_id], "short ones are heard whole"
    stratum = {s.source_id: (folder, ending) for (s, _), (folder, ending, _) in zip(recordings, items, strict=True)}
    got = Counter(stratum[pieces[0].source.source_id] for pieces in excerpts)
    for key in set(stratum.values()):
        share = count * sum(length for s, length in lengths.items() if stratum[s] == key) / total
        assert abs(got[key] - share) < 1.0 + 1e-6


@pytest.mark.parametrize("ending", ["wav", "mp3"])
def test_excerpts_begin_and_end_in_pauses(tmp_path: Path, ending: str) -> None:
    """Two seconds of tone, half a second of quiet, and so on: both ends of an excerpt are quiet, wherever it was drawn."""
    rate = 16_000
    one = np.concatenate([tone(300, 2.0, rate, 0.3), np.zeros(rate // 2, np.float32)])
    subtype = {"wav": "PCM_16", "mp3": "MPEG_LAYER_III"}[ending]
    path = write(tmp_path / f"a.{ending}", np.tile(one, 40), rate, subtype)
    chosen = Source("a", str(path), path.name, "s", 1, "")
    for start in (0.0, 11.3, 40.0, 60.0):
        length = write_piece(Excerpt(chosen, start, 30.0), tmp_path / "out.wav", tmp_path)
        samples, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
        assert length == pytest.approx(len(samples) / rate) and 29.9 <= length <= 38.1
        ends = ([] if start == 0 else [samples[:800]]) + ([samples[-800:]] if start + 30 < 99 else [])
        assert all(np.abs(end).max() < 0.02 for end in ends), f"cut within a tone at {start}"
    assert (
        write_piece(Excerpt(Source("b", str(tmp_path / "none.wav"), "none.wav", "s", 1, ""), 0.0, 30.0), path, tmp_path)
        == 0
    )


def test_a_forecast_of_silence_and_of_nothing(tmp_path: Path) -> None:
    """Noise has no speech: nothing is kept, what cannot be read is counted, and nothing is written. With the settings of a run,
    so in other processes."""
    folder = tmp_path / "in"
    for i in range(2):
        write(folder / f"{i}.wav", noise(30.0, 16_000, level=0.001, seed=i), 16_000)
    (folder / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    config = load_config()
    if missing := [name for name in config.weights() if not registry.available(name)]:
        pytest.skip(f"the weights {', '.join(missing)} are not here (voxmill models pull small)")
    out = tmp_path / "corpus"
    found = list_recordings([str(folder)], out, config)
    result = forecast(found, out, config, sample_s=60)
    assert (result.recordings, result.unreadable) == (3, 1)
    assert result.audio_s == pytest.approx(60.0)
    assert result.kept_s.value == result.kept_s.high == 0.0
    assert result.rejected == {"no_speech": 1.0}, "that nothing is kept is explained"
    assert "descriptions are made here and cost nothing" in result.notes
    assert 0 < result.wall_s.low <= result.wall_s.value <= result.wall_s.high
    assert result.stage_cpu_s["detect_speech"] > 0
    assert not out.exists()
    (folder / "0.wav").unlink()
    (folder / "1.wav").unlink()
    with pytest.raises(ValueError, match="none of the 1 recordings can be read"):
        forecast(list_recordings([str(folder)], out, config), out, config)


def test_a_forecast_of_redo_covers_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.flac").write_bytes(b"fLaC" + bytes(100))
    config, out = load_config(), tmp_path / "corpus"
    create_corpus(out)
    found = list_recordings([str(tmp_path / "broken.flac")], out, config)
    history = History({one.source_id: Attempt(0, "") for one in found.sources})
    monkeypatch.setattr("pipeline.forecast.forecast.history_of", lambda *_: history)
    with pytest.raises(ValueError, match="nothing to forecast"):
        forecast(found, out, config)
    with pytest.raises(ValueError, match="none of the 1 recordings can be read"):
        forecast(found, out, config, redo=True)


def test_an_excerpt_speaks_the_language_of_its_recording(corpora: Path, tmp_path: Path) -> None:
    """A recording is English and its end is Chinese: in the run its segments are sure of English, or not, as a whole. Its
    excerpts are heard as what all of it speaks, and bear their share of the time to find that."""
    parts = []
    for name in ("read/jfk.flac", "multi/cosyvoice_zh.flac"):
        samples, rate = soundfile.read(corpora / name, dtype="float32", always_2d=True)
        parts += [soxr.resample(samples.mean(axis=1), rate, 16_000), np.zeros(8_000, np.float32)]
    english, chinese = np.concatenate(parts[:2]), np.concatenate(parts[2:])
    path = write(tmp_path / "talk.wav", np.concatenate([english, english, chinese]), 16_000)
    whole_s, part_s = soundfile.info(path).duration, 5.0
    quick = ["transcribe.beam_size=1", "transcribe.second_pass=off", "transcribe.language_windows=3"]
    config = load_config(None, ["engine.executor=inline", "describe=none", *quick])
    talk = Source("talk", str(path), path.name, "s", path.stat().st_size, "")
    (tmp_path / "scratch").mkdir()
    trials = Trials(config, tmp_path / "scratch")
    transcribe = trials._stage("transcribe")
    assert isinstance(transcribe, Transcribe)
    heard: list[DetectedLanguage] = []
    find = transcribe.find_languages
    transcribe.find_languages = lambda session: heard.extend((found := find(session)).values()) or found  # type: ignore[func-returns-value, method-assign]
    for start_s in (0.0, whole_s - part_s):
        trial = trials.run([Excerpt(talk, start_s, part_s)], {"talk": whole_s})
        assert trial.segments and trial.audio_s > part_s - 1
    survey, first, last = heard
    assert survey.language == "en" and survey == first == last, "once for the recording, used for each excerpt"
    least = trials._surveyed["talk"] * part_s / whole_s
    assert 0 < least < trial.busy_s["transcribe"]


class Chain:
    """Settings of another chain of stages."""

    engine = load_config().engine
    thresholds = load_config().thresholds

    def __init__(self, load: str) -> None:
        self._load = load

    def groups(self) -> list[StageGroup]:
        return [StageGroup((StageSpec("fakes.engine_stages:Trouble", TroubleConfig(load=self._load)),))]


@pytest.mark.parametrize(
    ("load", "error", "words"),
    [("die", ValueError, "a stage died on one of the excerpts"), ("fail", LoadError, "voxmill models pull trouble")],
)
def test_a_trial_that_dies_or_cannot_begin_is_one_line(
    tmp_path: Path, load: str, error: type[Exception], words: str
) -> None:
    path = write(tmp_path / "a.wav", noise(2.0, 16_000), 16_000)
    pieces = [Excerpt(Source("a", str(path), path.name, "s", 1, ""), 0.0, 2.0)]
    before = dict(os.environ)
    with pytest.raises(error, match=words):
        list(run_trials(Chain(load), [pieces, pieces], {"a": 2.0}, tmp_path))  # type: ignore[arg-type]
    assert dict(os.environ) == before


def test_a_survey_is_from_all_over_a_recording(tmp_path: Path) -> None:
    """Of every kind of file: ten seconds of each quarter, with both channels."""
    rate = 16_000
    left = np.concatenate([tone(200 * (1 + quarter), 30.0, rate, 0.3) for quarter in range(4)])
    for ending, subtype in (("wav", "PCM_16"), ("mp3", "MPEG_LAYER_III")):
        path = tmp_path / f"a.{ending}"
        soundfile.write(path, np.stack([left, 0.1 * left], axis=1), rate, subtype=subtype)
        source = Source("a", str(path), path.name, "s", 1, "")
        assert write_survey(source, 120.0, tmp_path / "survey.wav", tmp_path)
        samples, _ = soundfile.read(tmp_path / "survey.wav", dtype="float32")
        assert samples.shape == (40 * rate, 2) and np.std(samples[:, 1]) == pytest.approx(
            0.1 * np.std(samples[:, 0]), rel=0.05
        )
        for quarter in range(4):
            spectrum = np.abs(np.fft.rfft(samples[(quarter * 10 + 2) * rate : (quarter * 10 + 8) * rate, 0]))
            assert np.argmax(spectrum) / 6 == pytest.approx(200 * (1 + quarter), abs=2)
    assert not write_survey(Source("b", str(tmp_path / "none.wav"), "b", "s", 1, ""), 60.0, path, tmp_path)


def test_a_session_that_is_most_of_the_work_is_waited_for() -> None:
    """A hundred cores do not help with one session of two hours: it takes the stages' own time for it, and no more."""
    one = ExcerptResult(40.0, {"transcribe": 8.0}, {"transcribe": 10.0})
    found = [
        _scale([one, one, one], 36_000.0, longest, 9, 0, 3.0, load_config(), (100.0, 0.0)).wall_s.value
        for longest in (60.0, 7200.0)
    ]
    assert found[0] < 150 and found[1] == pytest.approx(7200 / 4, rel=0.02)


def test_a_forecast_for_a_cluster_reckons_with_its_cores(ray_node: None) -> None:
    """The Ray of the tests has four CPUs and no GPU, whatever this machine has."""
    assert machine_of(load_config(None, ["engine.address=auto"])) == (4.0, 0.0)
    assert machine_of(load_config(None, ["engine.executor=inline"]))[0] == len(os.sched_getaffinity(0))


def test_a_person_is_told_why_nothing_is_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The three reasons that most of the audio is rejected for, with their shares and words, and what has no price."""
    import pipeline.forecast.forecast as made
    import voxmill.forecast as shown
    from pipeline.forecast.forecast import Estimate, Forecast
    from pipeline.inputs.find import FoundSources

    nothing, some = Estimate(0.0, 0.0, 0.0), Estimate(90.0, 80.0, 100.0)
    rejected = {"low_snr": 0.9, "low_dnsmos": 0.62, "no_speech": 0.1, "slow_text": 0.01}
    result = Forecast(
        1, 0, 90.0, 90.0, 3, some, nothing, some, some, 1.0, {"transcribe": 9.0}, rejected, 8.0, 2.0, ["not priced"]
    )
    monkeypatch.setattr(made, "forecast", lambda *a, **k: result)
    monkeypatch.setattr(made, "list_recordings", lambda *a: FoundSources([], []))
    monkeypatch.setattr("pipeline.runs.weights.check_weights", lambda names: None)
    shown.show_forecast(["in"], Path("out"), load_config(), 60.0, Terminal())
    said = capsys.readouterr().out
    assert "low_snr" in said and "90%, low_dnsmos" in said and "62%, no_speech (no speech in it) 10%" in said
    assert "slow_text" not in said and "computed for 8 CPUs, 2 GPUs" in said and "not priced" in said
