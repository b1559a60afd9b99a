"""The speech server with the golden checkpoint and the real engine process."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import torch
from speech_service import REAL, Answer, Service, until

from voxcpm.inference.patch_codec import encode_clip
from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.provenance.files import read_marks
from voxcpm.provenance.source import checkpoint_digest
from voxcpm.server.calls import SpeechCall, speak
from voxcpm.server.errors import ApiError
from voxcpm.server.process.messages import Clip, Latents, VoicePrompt

TEXT = "Hello there."
PATCHES = 6


@pytest.fixture(scope="module")
def service(golden: Path) -> Iterator[Service]:
    settings = {
        "checkpoint": str(golden / "checkpoint"),
        "worker": REAL,
        "lora": (f"anna={golden / 'lora'}",),
        "slots": 2,
        "deadline": 600.0,
    }
    with Service(settings) as service:
        yield service


@pytest.fixture(scope="module")
def model(golden: Path) -> VoxCPM2Model:
    return VoxCPM2Model.from_local(golden / "checkpoint", device="cpu")


def samples_of(answer: Answer) -> np.ndarray:
    assert answer.status == 200, answer.body
    found, rate = soundfile.read(io.BytesIO(answer.body), dtype="float32")
    assert rate == 48_000
    return found


def expected(model: VoxCPM2Model, seed: int, text: str = TEXT) -> np.ndarray:
    audio, _ = model.speak(model.layout(text), SpeakOptions(seed=seed, max_len=PATCHES))
    return audio[0].numpy()


def test_the_server_speaks_what_the_model_speaks(service: Service, model: VoxCPM2Model) -> None:
    heard = samples_of(service.speak(TEXT, response_format="wav", seed=3, max_new_tokens=PATCHES))
    wanted = expected(model, 3)
    assert heard.shape == wanted.shape and np.abs(heard - np.clip(wanted, -1, 1)).max() < 2e-3


def test_streams_together_give_what_each_gives_alone(service: Service, model: VoxCPM2Model) -> None:
    connections = [service.connect() for _ in range(3)]
    for seed, connection in enumerate(connections):
        body = {"input": TEXT, "response_format": "pcm", "sample_rate": 48000, "seed": seed, "max_new_tokens": PATCHES}
        connection.request("POST", "/v1/audio/speech", json.dumps(body))
    for seed, connection in enumerate(connections):
        heard = np.frombuffer(connection.getresponse().read(), "<i2") / 32768
        assert np.abs(heard - np.clip(expected(model, seed), -1, 1)).max() < 2e-3
        connection.close()


def test_instructions_are_the_description(service: Service, model: VoxCPM2Model) -> None:
    heard = samples_of(
        service.speak(TEXT, instructions="A calm voice", response_format="wav", seed=3, max_new_tokens=PATCHES)
    )
    assert np.abs(heard - np.clip(expected(model, 3, f"(A calm voice){TEXT}"), -1, 1)).max() < 2e-3


def test_the_openai_client(service: Service) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused") as client:
        extra = {"seed": 3, "max_new_tokens": PATCHES}
        whole = client.audio.speech.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="wav", extra_body=extra
        )
        with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="pcm", extra_body=extra | {"sample_rate": 48000}
        ) as stream:
            streamed = b"".join(stream.iter_bytes())
    assert whole.content.endswith(streamed[-9600:])


def test_a_text_that_does_not_fit_is_refused_in_words(service: Service) -> None:
    answer = service.speak("word " * 800)
    assert answer.status == 400 and "512 positions" in answer.error["message"]


def test_a_long_text_continues_in_one_voice(service: Service) -> None:
    text = " ".join(f"This is sentence number {n}, and it takes a while to say." for n in range(6))
    asked: dict[str, Any] = {"response_format": "pcm", "max_new_tokens": 6, "seed": 1, "long": True}
    answer = service.speak(text, **asked)
    record = service.ask("GET", f"/v1/audio/speech/{answer.headers['x-request-id']}").json
    # Several pieces of 6 patches; all but the first read the patches of the first one as their voice.
    assert record["patches"] > 6 and record["patches"] % 6 == 0
    assert record["usage"]["input_token_details"]["audio_tokens"] >= 6
    assert len(answer.body) == record["patches"] * 3840 * 2
    assert service.speak(text, **asked).body == answer.body


def test_an_adapter_is_chosen_by_name(service: Service, golden: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"response_format": "wav", "seed": 3, "max_new_tokens": PATCHES}
    plain, adapted, again = (
        samples_of(service.speak(TEXT, model=name, **asked)) for name in ("checkpoint", "anna", "checkpoint")
    )
    assert np.array_equal(plain, again) and np.abs(plain - adapted).max() > 1e-3
    models = {one["id"]: one for one in service.ask("GET", "/v1/models").json["data"]}
    assert {"checkpoint", "anna", "tts-1"} <= set(models)
    # What speaks states its own digest: with an adapter, that of `voxmill speak --lora`.
    folders = {"checkpoint": None, "tts-1": None, "anna": golden / "lora"}
    for name, lora in folders.items():
        wanted = checkpoint_digest(golden / "checkpoint", lora)
        answer = service.speak(TEXT, model=name, **asked)
        assert answer.headers["x-checkpoint"] == models[name]["checkpoint"] == wanted
        (tmp_path / "heard.wav").write_bytes(answer.body)
        stated = read_marks(tmp_path / "heard.wav")
        assert stated is not None and stated.checkpoint == wanted
    assert models["anna"]["checkpoint"] != models["checkpoint"]["checkpoint"]


def test_an_adapter_that_does_not_fit_ends_the_server_at_its_start(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "lora_weights.safetensors").write_bytes(b"nothing")
    settings = {"checkpoint": str(golden / "checkpoint"), "worker": REAL, "lora": (f"bad={tmp_path}",)}
    with Service(settings) as broken:
        until(lambda: broken.server.failure is not None)
        assert broken.server.failure is not None and broken.server.failure.startswith("--lora bad: ")


def test_another_adapter_waits_for_the_engine_to_be_idle(service: Service) -> None:
    connection = service.connect()
    body = {
        "input": "word " * 60,
        "response_format": "pcm",
        "sample_rate": 48000,
        "min_len": 300,
        "max_new_tokens": 300,
    }
    connection.request("POST", "/v1/audio/speech", json.dumps(body))
    first = connection.getresponse()
    assert first.status == 200 and first.read(1000)
    refused = service.speak(TEXT, model="anna")
    assert (
        refused.status == 429
        and refused.headers["x-should-retry"] == "true"
        and "without an adapter" in refused.error["message"]
    )
    connection.close()
    first.close()
    # The disconnect frees the slot, and the adapter has its turn.
    until(lambda: service.state.link.load.running == 0)
    assert service.speak(TEXT, model="anna", max_new_tokens=4).status == 200


def test_a_clip_is_encoded_by_the_engine_process(service: Service, model: VoxCPM2Model) -> None:
    rate = model.config.sample_rate
    wave = (0.3 * np.sin(np.arange(rate) / 20)).astype("<f4")
    clip = Clip(rate, wave.tobytes())
    latents = service.run(service.state.link.encode(clip))
    wanted = encode_clip(model.audio_vae, model.config, torch.from_numpy(wave.copy()), "right").numpy()
    assert np.abs(np.frombuffer(latents.data, "<f4").reshape(latents.shape) - wanted).max() < 1e-4

    async def spoken(voice: VoicePrompt) -> tuple[np.ndarray, int]:
        async with await speak(service.state, SpeechCall(TEXT, voice, seed=3, max_len=4)) as speech:
            return np.concatenate([samples async for samples in speech]), speech.result.audio_tokens

    by_clip, read = service.run(spoken(VoicePrompt(reference=clip)))
    by_latents, _ = service.run(spoken(VoicePrompt(reference=latents)))
    assert read == len(wanted) and np.array_equal(by_clip, by_latents)


def test_a_voice_that_cannot_be_used_is_refused_alone(service: Service) -> None:
    bad = {
        "not finite": VoicePrompt(reference=Latents((1, 4, 64), np.full(256, np.nan, "<f4").tobytes())),
        "shorter": VoicePrompt(reference=Clip(16_000, b"")),
        "shape": VoicePrompt(reference=Latents((1, 3, 64), bytes(4 * 192))),
        "cannot reshape": VoicePrompt(reference=Latents((2, 4, 64), bytes(4))),
    }
    for words, voice in bad.items():
        with pytest.raises(ApiError, match=words) as refused:
            service.run(speak(service.state, SpeechCall(TEXT, voice)))
        assert refused.value.status == 400
    assert service.speak(TEXT, max_new_tokens=4).status == 200
