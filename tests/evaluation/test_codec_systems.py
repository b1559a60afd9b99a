"""Round trips: through the codec of a checkpoint, through a folder with only a codec, and through a lower sample rate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fakes.recordings import noise, tone, write

from evaluation.errors import EvaluationError, SpeakError
from evaluation.items import Item
from evaluation.metrics import load_metrics
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import score
from evaluation.systems import open_system
from evaluation.systems.base import Ask, Speech, System
from voxcpm.weights.checkpoint import load_codec


def asks(*clips: Path | None) -> list[Ask]:
    return [Ask(Item(f"text {number}", "en", human=path), 0) for number, path in enumerate(clips)]


def spoken(system: System, path: Path) -> Speech:
    (answer,) = system.speak(asks(path))
    assert isinstance(answer, Speech)
    return answer


@pytest.fixture
def chord(tmp_path: Path) -> Path:
    """A second of 440 Hz and 10 kHz at 48 kHz."""
    samples = tone(440, 1, 48_000, 0.3) + tone(10_000, 1, 48_000, 0.3)
    return write(tmp_path / "chord.wav", samples, 48_000, "FLOAT")


def test_resampling_keeps_what_is_below_half_of_the_rate(chord: Path) -> None:
    system = open_system("resample:16000")
    assert (system.name, system.seeded, system.describe()) == (
        "resample:16000",
        False,
        {"kind": "resample", "rate": 16_000},
    )
    answer = spoken(system, chord)
    assert answer.rate == 48_000 and len(answer.samples) == 48_000 and answer.notes == {"round_trip": True}
    middle = slice(4_800, -4_800)
    assert np.allclose(answer.samples[middle], tone(440, 1, 48_000, 0.3)[middle], atol=1e-3)


def test_a_rate_that_the_recording_does_not_reach_changes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "low.wav", noise(0.5, 8_000), 8_000, "FLOAT")
    answer = spoken(open_system("resample:16000"), path)
    assert answer.rate == 8_000 and np.array_equal(answer.samples, soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize("argument", ["", "16k", "0", "-16000", "400000", "1600.5"])
def test_a_rate_that_is_not_one_is_one_line(argument: str) -> None:
    with pytest.raises(EvaluationError, match=r"not a sample rate in Hz from 4000 to 192000, such as resample:16000$"):
        open_system(f"resample:{argument}")


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_a_round_trip_is_the_codec_on_the_recording_at_16_khz(golden: Path, tmp_path: Path, rate: int) -> None:
    """The golden codec has random weights, which amplify the rounding of its inference form; its samples reach 1."""
    samples = tone(300, 0.5, rate, 0.3)
    path = write(tmp_path / "clip.wav", samples, rate, "FLOAT")
    system = open_system(f"codec:{golden / 'checkpoint'}")
    answer = spoken(system, path)
    assert (system.name, system.seeded, answer.rate, answer.notes) == (
        "codec:checkpoint",
        False,
        48_000,
        {"round_trip": True},
    )
    assert len(answer.samples) == round(len(samples) * 48_000 / rate) and answer.wall_s is not None
    codec = load_codec(golden / "checkpoint")
    import soxr

    with torch.inference_mode():
        heard = torch.from_numpy(soxr.resample(samples, rate, 16_000).astype(np.float32))[None]
        wanted = codec.decode(codec.encode(heard), rate)[0, 0].numpy()
    assert np.allclose(answer.samples, wanted[: len(answer.samples)], atol=1e-3)
    assert len(wanted) - len(answer.samples) < codec.config.decode_hop + 3
    described = system.describe()
    assert (described["sample_rate"], described["out_sample_rate"], len(described["sha256"])) == (16_000, 48_000, 64)
    system.close()


def test_a_folder_with_only_a_codec_is_a_system_too(golden: Path, tmp_path: Path, chord: Path) -> None:
    """`voxmill train-codec` writes such folders."""
    whole = golden / "checkpoint"
    alone = tmp_path / "alone"
    alone.mkdir()
    settings = json.loads((whole / "config.json").read_text(encoding="utf-8"))["audio_vae_config"]
    (alone / "config.json").write_text(json.dumps({"audio_vae_config": settings}), encoding="utf-8")
    (alone / "audiovae.pth").write_bytes((whole / "audiovae.pth").read_bytes())
    one, other = (spoken(open_system(f"codec:{folder}"), chord).samples for folder in (whole, alone))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("content", [None, "{}", "not JSON", '{"audio_vae_config": {}}'])
def test_a_folder_without_a_codec_is_one_line(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "empty"
    if content is not None:
        folder.mkdir()
        (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(EvaluationError, match=rf"^codec:{folder}: ") as error:
        open_system(f"codec:{folder}")
    assert "\n" not in str(error.value)


def test_an_item_without_a_recording_fails_and_the_others_do_not(chord: Path, tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16_000)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    answers = open_system("resample:16000").speak(asks(None, chord, empty, tmp_path / "bad.wav"))
    assert [type(answer) for answer in answers] == [SpeakError, Speech, SpeakError, SpeakError]


def test_a_run_of_a_codec_is_scored_however_bad_it_is(golden: Path, chord: Path, tmp_path: Path) -> None:
    """The waveform that a codec with random weights returns has nothing in common with the recording."""
    metrics = load_metrics(["mel_dac", "codec_signal"])
    found = {}
    for name in (f"codec:{golden / 'checkpoint'}", "resample:16000"):
        system = open_system(name)
        run = create_run(
            tmp_path / system.name.replace(":", "-"), {"system": system.describe()}, [asks(chord)[0].item], [0]
        )
        assert generate(run, system) == {"ok": 1}
        assert score(run, metrics).rows == {"mel_dac": 1, "codec_signal": 1}
        (folder,) = run.root.glob("rows/mel_dac@*")
        import pyarrow.parquet as pq

        found[system.name] = pq.read_table(folder).to_pylist()[0]["mel_dac_48k"]
    assert found["codec:checkpoint"] > found["resample:16000"] > 0
