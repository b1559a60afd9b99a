"""The server's speech has the watermark in every format, streamed and whole, over real HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes.watermark_speech import speech
from speech_service import Answer, Service

from voxcpm.server.app import build_state
from voxcpm.server.encode import FORMATS
from voxcpm.server.settings import ServerSettings
from voxcpm.watermark import PUBLIC_KEY, Detection, detect, new_key, read_key
from voxcpm.watermark.files import detect_in_file
from voxcpm.watermark.registry import known_names

DIGEST = "abab"
"""First digits of the digest that the engine of tones states."""


@pytest.fixture(scope="module")
def clip(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4.5 s of real speech at the engine's rate."""
    path = tmp_path_factory.mktemp("clip") / "jfk.wav"
    soundfile.write(path, speech(corpora, rate=48_000, seconds=4.5), 48_000)
    return path


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "house.key"
    path.write_text(new_key().secret.hex(), encoding="ascii")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def service(key_file: Path) -> Iterator[Service]:
    with Service({"no_watermark": False, "watermark_key": key_file, "name": "marked-model"}) as found:
        yield found


def found(answer: Answer, form: str, key_file: Path, folder: Path) -> list[Detection]:
    """Return what is found of the public and of the private key in an answer."""
    assert answer.status == 200 and answer.headers["x-watermark"] == f"org.voxmill.watermark.1 {DIGEST}"
    keys = (PUBLIC_KEY, read_key(key_file))
    if form == "pcm":
        return detect((np.frombuffer(answer.body, "<i2") / 32768).astype(np.float32), 24_000, keys)
    path = folder / f"answer.{form}"
    path.write_bytes(answer.body)
    return detect_in_file(path, keys)[0]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_every_format_is_marked(
    service: Service, clip: Path, key_file: Path, tmp_path: Path, form: str, streamed: bool
) -> None:
    if streamed and not FORMATS[form].streams:
        pytest.skip(f"{form} does not stream")
    fields = {"stream_format": "audio"} if streamed else {}
    asked = {"input": f"clip {clip}", "response_format": form, "seed": 5} | fields
    answer = service.ask("POST", "/v1/audio/speech", asked)
    for one in found(answer, form, key_file, tmp_path):
        assert one.marked and one.payload == int(DIGEST, 16)


def test_the_same_request_gives_the_same_samples_and_another_seed_another_phase(service: Service, clip: Path) -> None:
    first, again, other = (
        service.speak(f"clip {clip}", response_format="wav", seed=seed).body[-100_000:] for seed in (5, 5, 6)
    )
    assert first == again and first != other


def test_speed_and_rate_come_before_the_watermark(service: Service, clip: Path, key_file: Path, tmp_path: Path) -> None:
    answer = service.speak(f"clip {clip}", response_format="wav", seed=5, speed=1.3)
    assert all(one.marked for one in found(answer, "wav", key_file, tmp_path))


def test_without_a_watermark_the_samples_are_the_engines(clip: Path) -> None:
    with Service() as plain:
        answer = plain.speak(f"clip {clip}", response_format="wav", seed=5)
    samples = soundfile.read(io.BytesIO(answer.body), dtype="float32")[0]
    expected = soundfile.read(clip, dtype="float32")[0][: len(samples)]
    assert "x-watermark" not in answer.headers and np.abs(samples - expected).max() < 1e-4


def test_the_model_is_remembered_by_its_payload(service: Service) -> None:
    assert "marked-model" in known_names(int(DIGEST, 16))


def test_a_key_without_a_watermark_is_refused(key_file: Path) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        build_state(ServerSettings("m", no_watermark=True, watermark_key=key_file))
