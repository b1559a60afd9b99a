"""Clients of the speech server: the openai package, and requests as LiveKit, Pipecat and Open WebUI send them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import soundfile
from speech_service import Service


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({"name": "voxcpm2"}) as service:
        yield service


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused") as client:
        yield client


# -- the openai package ------------------------------------------------------------------------------------------------


def test_openai_whole(client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello there.", response_format="flac")
    assert soundfile.info(io.BytesIO(answer.content)).duration == pytest.approx(0.8)
    # What the file states is the model, not the name that the client asked by.
    assert b'"model": "voxcpm2"' in answer.content.replace(b'":"', b'": "') and b"tts-1" not in answer.content


def test_openai_extra_fields(client: openai.OpenAI) -> None:
    extra = {"seed": 5, "cfg_value": 1.5, "inference_timesteps": 4, "normalize": True, "unknwon": 1}
    with client.audio.speech.with_streaming_response.create(
        model="voxcpm2", voice="coral", input="Hello there.", instructions="A calm voice.", extra_body=extra
    ) as answer:
        assert answer.headers["x-seed"] == "5" and answer.headers["x-ignored-fields"] == "unknwon"
        assert answer.headers["content-type"] == "audio/mpeg"


def test_openai_streamed(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="nova", input="Hello there.", response_format="pcm"
    ) as answer:
        parts = list(answer.iter_bytes())
    assert sum(map(len, parts)) == 2 * round(0.8 * 24_000) and len(parts) > 1


def test_openai_events(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="nova", input="Hello there.", stream_format="sse"
    ) as answer:
        events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
    assert [one["type"] for one in events[-2:]] == ["speech.audio.delta", "speech.audio.done"]
    assert events[-1]["usage"]["output_tokens"] == 5


def test_openai_errors_have_their_classes(client: openai.OpenAI) -> None:
    def speak(**fields: Any) -> Any:
        asked: Any = {"model": "tts-1", "voice": "alloy", "input": "hello"} | fields
        return client.with_options(max_retries=0).audio.speech.create(**asked)

    with pytest.raises(openai.NotFoundError, match="did you mean 'alloy'") as unknown:
        speak(voice="aloy")
    assert unknown.value.param == "voice" and unknown.value.request_id
    with pytest.raises(openai.BadRequestError, match="did you mean 'mp3'"):
        speak(response_format="mp4")
    with pytest.raises(openai.RateLimitError, match="queue"):
        speak(input="busy 1")
    with pytest.raises(openai.InternalServerError, match="could not generate"):
        speak(input="fault", response_format="wav")


def test_openai_retries_what_can_succeed_later(service: Service, client: openai.OpenAI) -> None:
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input="busy 2", response_format="pcm")
    assert len(answer.content) > 0


def test_openai_does_not_retry_what_fails_again(service: Service, client: openai.OpenAI) -> None:
    def asked() -> float:
        found = service.state.metrics.registry.get_sample_value("voxcpm_requests_failed_total", {"reason": "error"})
        return found or 0.0

    before = asked()
    with pytest.raises(openai.InternalServerError):
        client.audio.speech.create(model="tts-1", voice="alloy", input="fault", response_format="wav")
    assert asked() == before + 1


def test_openai_lists_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()][:2] == ["voxcpm2", "tts-1"]


# -- recorded requests -------------------------------------------------------------------------------------------------


def test_livekit(service: Service) -> None:
    """livekit-plugins-openai 1.8.9: events with MP3; the content type decides how they are read; GET / warms up."""
    assert service.ask("GET", "/").status == 200
    body = {"input": "Hello there.", "model": "gpt-4o-mini-tts", "voice": "ash", "response_format": "mp3", "speed": 1.0,
            "stream_format": "sse"}  # fmt: skip
    answer = service.ask("POST", "/v1/audio/speech", body, {"Accept": "application/octet-stream"})
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    audio = b"".join(base64.b64decode(one["audio"]) for one in answer.events if one["type"] == "speech.audio.delta")
    assert soundfile.info(io.BytesIO(audio)).duration == pytest.approx(0.8, abs=0.1)


def test_pipecat(service: Service) -> None:
    """pipecat-ai 1.14: PCM that it takes for 24 kHz, with one of OpenAI's voices."""
    body = {"input": "Hello there.", "model": "gpt-4o-mini-tts", "voice": "alloy", "response_format": "pcm"}
    answer = service.ask("POST", "/v1/audio/speech", body)
    assert answer.status == 200 and len(answer.body) == 2 * round(0.8 * 24_000)


def test_open_webui(service: Service) -> None:
    """Open WebUI: three fields; the whole body is saved as MP3; the message of an error is shown."""
    answer = service.ask("POST", "/v1/audio/speech", {"model": "tts-1", "input": "Hello there.", "voice": "alloy"})
    assert answer.status == 200 and soundfile.info(io.BytesIO(answer.body)).format == "MP3"
    failed = service.ask("POST", "/v1/audio/speech", {"model": "tts-1", "input": "Hello.", "voice": "aloy"})
    assert failed.json["error"]["message"].startswith("unknown voice 'aloy'")


def test_vllm_omni_benchmark(service: Service) -> None:
    """`vllm bench serve --omni`: streamed PCM, which it takes for 24 kHz unless told otherwise."""
    body = {"model": "voxcpm2", "input": "Hello there.", "voice": "default", "response_format": "pcm", "stream": True,
            "stream_format": "audio", "task_type": "CustomVoice", "language": "English", "max_new_tokens": 2048}  # fmt: skip
    answer = service.ask("POST", "/v1/audio/speech", body)
    assert answer.status == 200 and answer.headers["content-type"] == "audio/pcm"
    assert answer.headers["x-ignored-fields"] == "language"
