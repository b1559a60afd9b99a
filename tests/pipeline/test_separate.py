"""Separation: off without weights, the real network's shapes with random ones, and times that stay as they were."""

from __future__ import annotations

import io
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from fakes.recordings import noise, tone, write
from sessions import session_of

from catalogs.weights import registry, verify
from pipeline.audio.demucs_net import load_demucs
from pipeline.audio.open import probe, stream_mono
from pipeline.quality.backing import backing_db
from pipeline.quality.dnsmos import Dnsmos
from pipeline.records import Session
from pipeline.stage import LoadError
from pipeline.stages.cut_clips import CutClips, CutClipsConfig
from pipeline.stages.decode import Decode, DecodeConfig
from pipeline.stages.segment import CutSegments, SegmentConfig
from pipeline.stages.separate import Separate, SeparateConfig

torch = pytest.importorskip("torch")


def tiny_package() -> dict[str, Any]:
    """A small HTDemucs with random weights, as its files hold it."""
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(0)
    sizes = {
        "sources": ["drums", "bass", "other", "vocals"],
        "channels": 4,
        "dconv_comp": 2,
        "t_layers": 1,
        "t_heads": 2,
        "segment": Fraction(39, 10),
    }
    net = HTDemucs(**sizes)
    state = {key: value.half() for key, value in net.state_dict().items()}
    numbers = {"best": np.float64(1.5), "epoch": np.int64(3)}
    return {"klass": HTDemucs, "args": (), "kwargs": sizes, "state": state, "training_args": numbers}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("demucs")
    path = tmp_path_factory.mktemp("htdemucs") / "955717e8-00000000.th"
    torch.save(tiny_package(), path)
    return path


def decoded(path: Path, spool: Path) -> Session:
    session = session_of(path)
    session.spool = str(spool)
    return Decode(DecodeConfig())(session)


def ready(config: SeparateConfig, net: Any, kind: type[Separate] = Separate) -> Separate:
    """A loaded stage with a network of the test's."""
    stage = kind(config)
    stage._net, stage._dnsmos = net, None
    if config.min_gain is not None:
        if not registry.available("dnsmos"):
            pytest.skip("the weights dnsmos are not here: voxmill models pull dnsmos")
        stage._dnsmos = Dnsmos(registry.resolve("dnsmos"))
    return stage


EVERYTHING = {"gate_db": None, "min_gain": None}


def test_it_is_off_with_a_notice_where_its_weights_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.separate.available", lambda name: False)
    path = write(tmp_path / "a.wav", noise(2, 16_000), 16_000)
    for mode, notices in (
        ("auto", ["source separation is off: weights htdemucs are not here (voxmill models pull htdemucs)"]),
        ("off", []),
    ):
        stage = Separate(SeparateConfig(mode=mode))
        assert stage.weights() == ()
        stage.load()
        session = stage(decoded(path, tmp_path / "spool"))
        assert session.notices == notices
        assert session.recordings[0].separated_path is None and not session.windows[0].separated


def test_always_asks_for_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("XDG_CACHE_HOME", "VOXMILL_MODELS", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("VOXMILL_OFFLINE", "1")
    stage = Separate(SeparateConfig(mode="always"))
    assert stage.weights() == ("htdemucs", "dnsmos")
    assert Separate(SeparateConfig(mode="always", min_gain=None)).weights() == ("htdemucs",)
    with pytest.raises(verify.WeightsMissing, match="voxmill models pull htdemucs"):
        stage.load()


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_the_network_gives_a_voice_of_the_same_length(tmp_path: Path, weights: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", noise(7.3, rate), rate)
    config = SeparateConfig(chunk_s=8.5, context_s=0.5, **EVERYTHING)
    session = ready(config, load_demucs(weights))(decoded(path, tmp_path / "spool"))
    assert not session.quarantine
    (recording,), (window,) = session.recordings, session.windows
    assert window.separated and len(window.pcm) == round(7.3 * 16_000)
    assert recording.separated_path is not None
    voice = soundfile.info(recording.separated_path)
    assert (voice.samplerate, voice.frames, voice.subtype) == (rate, round(7.3 * rate), "PCM_16")
    samples, _ = soundfile.read(recording.separated_path)
    assert np.isfinite(samples).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_separates_as_the_cpu_does(tmp_path: Path, weights: Path) -> None:
    path = write(tmp_path / "a.wav", tone(300, 9.0, 44_100, 0.2) + noise(9.0, 44_100, 0.05), 44_100)
    heard = []
    for device in ("cpu", "cuda"):
        stage = ready(SeparateConfig(device=device, **EVERYTHING), load_demucs(weights).to(device))
        (window,) = stage(decoded(path, tmp_path / device)).windows
        heard.append(window.pcm.astype(float) / 32768)
    difference = np.sqrt(np.mean((heard[0] - heard[1]) ** 2)) / np.sqrt(np.mean(heard[0] ** 2))
    assert 0 < difference < 0.02


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("demucs")
    package = tiny_package()
    marker = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    package["training_args"] = Harmful()
    torch.save(package, tmp_path / "bad.th")
    with pytest.raises(LoadError, match=r"bad\.th is not a Demucs network that can be loaded"):
        load_demucs(tmp_path / "bad.th")
    assert not marker.exists()
    (tmp_path / "worse.th").write_bytes(pickle.dumps({"klass": 1}))
    with pytest.raises(LoadError, match=r"worse\.th is not a Demucs network"):
        load_demucs(tmp_path / "worse.th")


class Unchanged(Separate):
    """The stage with a network that takes nothing away: what comes out must be what went in, at the same times."""

    longest = 0

    def _voice(self, mono: np.ndarray) -> np.ndarray:
        self.longest = max(self.longest, len(mono))
        return mono


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.4, 9.0, 31.7])
def test_nothing_moves_and_no_seam_is_heard(tmp_path: Path, rate: int, seconds: float) -> None:
    samples = tone(440, seconds, rate, 0.4) + noise(seconds, rate, 0.01)
    path = write(tmp_path / "a.wav", samples, rate)
    plain = decoded(path, tmp_path / "spool")
    stage = ready(SeparateConfig(chunk_s=9.0, context_s=1.0, **EVERYTHING), "there", Unchanged)
    session = stage(decoded(path, tmp_path / "spool"))
    assert isinstance(stage, Unchanged) and stage.longest <= 11.1 * 44_100, "memory is bounded by the chunk"
    before, after = plain.windows[0].pcm, session.windows[0].pcm
    assert len(before) == len(after)
    assert np.abs(before.astype(int) - after)[200:-200].max() < 32768 * 0.02
    separated = session.recordings[0].separated_path
    assert separated is not None
    native = np.concatenate(list(stream_mono(separated)))
    assert len(native) == len(samples)
    # 44.1 kHz is the network's rate: nothing above 22 kHz passes it.
    error = native - samples
    assert np.sqrt(np.mean(error[500:-500] ** 2)) < 0.01 and np.corrcoef(native, samples)[0, 1] > 0.999


def test_clips_are_cut_from_the_separated_voice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(300, 4, 16_000) + noise(4, 16_000, 0.01), 16_000)

    class Half(Unchanged):
        def _voice(self, mono: np.ndarray) -> np.ndarray:
            return mono / 2

    session = ready(SeparateConfig(**EVERYTHING), "there", Half)(decoded(path, tmp_path / "spool"))
    CutSegments(SegmentConfig())(session)
    session.segments[0].hard_reasons.clear()
    CutClips(CutClipsConfig())(session)
    (segment,) = session.segments
    assert segment.separated and segment.flac is not None
    clip, rate = soundfile.read(io.BytesIO(segment.flac))
    source, _ = soundfile.read(path)
    assert rate == probe(str(path)).sample_rate and len(clip) == len(source)
    assert np.corrcoef(clip, source)[0, 1] > 0.99 and np.std(clip) / np.std(source) == pytest.approx(0.5, abs=0.02)


@pytest.fixture(scope="module")
def lines(corpora: Path) -> list[np.ndarray]:
    """Lines of actors in a quiet studio, at 16 kHz."""
    found = []
    for path in sorted((corpora / "ravdess").rglob("*.flac"))[::4]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        found.append(np.asarray(soxr.resample(samples.mean(axis=1), rate, 16_000), dtype=np.float32))
    return found


@pytest.fixture(scope="module")
def speech(lines: list[np.ndarray]) -> np.ndarray:
    """Forty seconds of them."""
    return np.concatenate(lines)[: 40 * 16_000]


@pytest.fixture(scope="module")
def music(corpora: Path) -> np.ndarray:
    samples, rate = soundfile.read(
        corpora / "world/music/librosa-data__sugar_plum.ogg", dtype="float32", always_2d=True
    )
    mono = np.asarray(soxr.resample(samples.mean(axis=1), rate, 16_000), dtype=np.float32)
    return np.resize(mono[20 * 16_000 :], 40 * 16_000)  # It begins so softly that nobody would take it away.


def test_music_and_noise_lie_closer_under_the_voice_than_a_studio(lines: list[np.ndarray], music: np.ndarray) -> None:
    limit = SeparateConfig().gate_db
    assert limit is not None and len(lines) >= 40

    def tried(added: float, other: np.ndarray) -> float:
        found = [backing_db(line + added * line.std() * np.roll(other, -index * 16_000)[: len(line)] / other.std())
                 for index, line in enumerate(lines)]  # fmt: skip
        return sum(value is not None and value < limit for value in found) / len(found)

    hiss = np.random.default_rng(1).normal(0, 1, 40 * 16_000).astype(np.float32)
    assert tried(0.0, hiss) <= 0.05, "a voice alone"
    assert tried(0.5, music) >= 0.9 and tried(0.1, hiss) >= 0.9, "music 6 dB below it, hiss 20 dB below it"
    assert backing_db(np.zeros(32_000, np.float32)) is None and backing_db(lines[0][:4000]) is None


def mixed_session(tmp_path: Path, parts: list[np.ndarray]) -> tuple[Session, np.ndarray]:
    samples = np.clip(np.concatenate(parts), -1, 1).astype(np.float32)
    path = write(tmp_path / "show.wav", samples, 16_000)
    return decoded(path, tmp_path / "spool"), np.concatenate(list(stream_mono(str(path))))


def test_only_what_has_music_is_heard_and_only_what_gets_better_is_used(
    tmp_path: Path, speech: np.ndarray, music: np.ndarray
) -> None:
    """20 s of voice, 20 s of voice over music: the first is not even tried, the second is used and fades in and out."""
    clean = speech[: 20 * 16_000]
    loud = 0.7 * music[: 20 * 16_000] * clean.std() / music.std()
    session, whole = mixed_session(tmp_path, [clean, clean + loud])
    truth = soxr.resample(np.concatenate([clean, clean]), 16_000, 44_100)

    class Perfect(Separate):
        """Knows the voice: where what it is given lies is found by its second half, which is the voice with music."""

        heard = 0

        def _voice(self, mono: np.ndarray) -> np.ndarray:
            self.heard += 1
            start = [round((at - 2 if at else 0) * 44_100) for at in (20, 30)][self.heard - 1]
            return np.resize(truth[start : start + len(mono)], len(mono)).astype(np.float32)

    before = session.windows[0].pcm.copy()
    stage = ready(SeparateConfig(chunk_s=10.0, context_s=2.0, fade_s=0.05), "there", Perfect)
    session = stage(session)
    (recording,) = session.recordings
    assert not session.quarantine and isinstance(stage, Perfect) and stage.heard == 2
    assert recording.separation.tried_s == pytest.approx(20.0)
    assert recording.separation.kept == [(20.0, 30.0), (30.0, 40.0)] and min(recording.separation.gains) > 0.3
    assert recording.separation.touches(29.0, 31.0) and not recording.separation.touches(0.0, 20.0)
    pcm, middle = session.windows[0].pcm, 20 * 16_000
    assert np.array_equal(pcm[:middle], before[:middle]), "what was not separated stays to the bit"
    voice = np.concatenate([clean, clean])
    assert np.abs(pcm[middle + 800 :] / 32768 - voice[middle + 800 :])[:-200].max() < 0.02, "the music is gone"
    assert recording.separated_path is not None
    native, _ = soundfile.read(recording.separated_path, dtype="float32")
    assert len(native) == len(whole) and np.abs(native[:middle] - whole[:middle]).max() <= 1 / 32768


def test_a_network_that_makes_it_worse_changes_nothing(tmp_path: Path, speech: np.ndarray, music: np.ndarray) -> None:
    session, _ = mixed_session(
        tmp_path, [speech[: 12 * 16_000] + 0.2 * music[: 12 * 16_000] * speech.std() / music.std()]
    )

    class Harmful(Separate):
        def _voice(self, mono: np.ndarray) -> np.ndarray:
            return (mono + np.random.default_rng(0).normal(0, mono.std(), len(mono))).astype(np.float32)

    before = session.windows[0].pcm.copy()
    session = ready(SeparateConfig(gate_db=None), "there", Harmful)(session)
    (recording,) = session.recordings
    assert recording.separation.tried_s == pytest.approx(12.0) and not recording.separation.kept
    assert recording.separated_path is None and not list((tmp_path / "spool").glob("*.flac"))
    assert np.array_equal(session.windows[0].pcm, before) and not session.windows[0].separated
