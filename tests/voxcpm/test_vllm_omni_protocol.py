"""vLLM-Omni's own protocol models, read from its wheel: they make the requests that drive our server, and judge its answers."""

from __future__ import annotations

import base64
import io
import re
import types
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import soundfile
from official_sources import vllm_omni_wheel
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict
from speech_service import Answer, Service
from talking import TEXT, talking
from test_server_answers import VLLM_OMNI_FIELDS, VLLM_OMNI_METRICS

from voxcpm.server.speech.fields import UNSUPPORTED, WITHOUT_EFFECT, SpeechFields
from voxcpm.server.websocket.messages import SessionOptions

pytestmark = pytest.mark.filterwarnings("ignore:Support for class-based")

FILES = {
    "protocol": "vllm_omni/entrypoints/openai/protocol/audio.py",
    "definitions": "vllm_omni/metrics/definitions.py",
    "pipeline": "vllm_omni/metrics/prometheus.py",
    "modality": "vllm_omni/metrics/modality.py",
    "continuity": "vllm_omni/benchmarks/audio_continuity.py",
}
#: Its families that a speech server of one process has no figures for, by their first words, and why.
NOT_HERE = {
    "image_": "pictures", "video_": "pictures", "diffusion_": "pictures", "denoise_": "pictures",
    "num_inference_steps": "pictures", "peak_memory": "pictures",
    "stage_": "one stage: its times are those of the request", "vae_decode": "pictures; our codec is part of a step",
    "transfer_": "stages on several machines", "kv_wait": "stages on several machines",
    "realtime_": "conversations", "duplex_": "conversations",
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(request: pytest.FixtureRequest) -> dict[str, str]:
    with zipfile.ZipFile(vllm_omni_wheel(request.config)) as wheel:
        return {name: wheel.read(path).decode() for name, path in FILES.items()}


def loaded(source: str, name: str) -> types.ModuleType:
    """Run a module by itself. The wheel is pinned by its digest."""
    # What it takes of its own package is a helper without a part in the names.
    source = re.sub(r"^from vllm_omni\..*$", "resolve_int_by_sequential_keys = None", source, flags=re.MULTILINE)
    module = types.ModuleType(f"omni_{name}")
    exec(compile(source, FILES[name], "exec", dont_inherit=True), vars(module))
    return module


@pytest.fixture(scope="module")
def theirs(sources: dict[str, str]) -> Any:
    return loaded(sources["protocol"], "protocol")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({"name": "voxcpm2", "default_format": "wav"}) as service:
        yield service


def judged(model: type[BaseModel], values: Any) -> Any:
    """Return values as one of their models reads them. A field that it does not know may be ours, but none is missing."""
    exact = type(model.__name__, (model,), {"model_config": ConfigDict(strict=True)})
    found: Any = exact.model_validate(values)  # type: ignore[attr-defined]
    assert set(model.model_fields) <= set(values), f"{model.__name__} has fields that are missing"
    return found


def ask(service: Service, request: BaseModel) -> Answer:
    """Send a request as a client does that sends all its fields, those without a value too."""
    body = request.model_dump(mode="json")
    return service.ask("POST", "/v1/audio/speech", body)


def test_the_pinned_fields_are_those_of_the_wheel(theirs: Any) -> None:
    assert set(theirs.OpenAICreateSpeechRequest.model_fields) | {"references"} == VLLM_OMNI_FIELDS
    assert set(theirs.OpenAICreateSpeechRequest.model_fields) <= set(SpeechFields.model_fields)
    ours = {*SessionOptions.model_fields, *SpeechFields.model_fields}
    assert set(theirs.StreamingSpeechSessionConfig.model_fields) <= ours
    assert set(theirs.SpeechBatchItem.model_fields) <= set(SpeechFields.model_fields)
    assert {"items", *SpeechFields.model_fields} >= set(theirs.BatchSpeechRequest.model_fields)


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({}, []),
        ({"voice": "alloy", "model": "voxcpm2"}, []),
        ({"speaker": "alloy"}, []),
        ({"voice": {"id": "default"}}, []),
        ({"instructions": "A calm voice.", "task_type": "VoiceDesign"}, []),
        ({"speed": 1.25, "sample_rate": 16_000}, []),
        ({"speed": None}, []),
        ({"seed": -5, "max_new_tokens": 4}, []),
        ({"language": "English", "non_streaming_mode": True, "initial_codec_chunk_frames": 3}, list(WITHOUT_EFFECT[:3])),
        ({"extra_params": {"a": 1}}, ["extra_params"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["wav", "pcm", "opus"])
def test_whole_answers(theirs: Any, service: Service, form: str, fields: dict[str, Any], ignored: list[str]) -> None:
    request = theirs.OpenAICreateSpeechRequest(input="Hello there.", response_format=form, **fields)
    answer = ask(service, request)
    assert answer.status == 200, answer.body
    named = answer.headers.get("x-ignored-fields", "")
    assert sorted(filter(None, named.split(", "))) == sorted(ignored)
    counts = [int(answer.headers[f"x-vllm-omni-{name}-tokens"]) for name in ("input", "output", "total")]
    assert counts[0] + counts[1] == counts[2] and counts[1] > 0
    if form != "pcm":
        about = soundfile.info(io.BytesIO(answer.body))
        assert about.duration == pytest.approx(counts[1] * 0.16 / (request.speed or 1.0), abs=0.15)
        assert form == "opus" or about.samplerate == (request.sample_rate or 48_000)


@pytest.mark.parametrize("form", ["pcm", "wav"])
@pytest.mark.parametrize(
    "fields", [{"stream": True}, {"stream_format": "sse"}, {"stream": True, "stream_format": "sse"}]
)
def test_events(theirs: Any, service: Service, form: str, fields: dict[str, Any]) -> None:
    request = theirs.OpenAICreateSpeechRequest(input="Hello there.", response_format=form, **fields)
    # A client that sends what it set: with stream_format alone, `stream` is not sent.
    events = service.ask("POST", "/v1/audio/speech", request.model_dump(exclude_unset=True)).events
    assert request.is_sse_stream()
    assert [one["type"] for one in events] == ["speech.audio.delta"] * (len(events) - 1) + ["speech.audio.done"]
    assert all(one["response_format"] == form and base64.b64decode(one["audio"]) for one in events[:-1])
    usage = judged(theirs.SpeechTokenUsage, events[-1]["usage"])
    judged(theirs.SpeechInputTokenDetails, events[-1]["usage"]["input_token_details"])
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 0


def test_a_field_without_a_value_is_not_given(service: Service) -> None:
    body = dict.fromkeys(SpeechFields.model_fields) | {"speaker": None, "input": "Hello there."}
    answer = service.ask("POST", "/v1/audio/speech", body)
    assert answer.status == 200 and "x-ignored-fields" not in answer.headers
    missing = service.ask("POST", "/v1/audio/speech", body | {"input": None})
    assert missing.status == 400 and missing.error["param"] == "input" and "missing" in missing.error["message"]
    assert service.ask("POST", "/v1/audio/speech", body | {"unknwon": None, "strict": True}).status == 400


def test_raw_streams(theirs: Any, service: Service) -> None:
    request = theirs.OpenAICreateSpeechRequest(
        input="Hello there.", response_format="pcm", stream=True, stream_format="audio"
    )
    assert request.is_raw_audio_stream()
    answer = ask(service, request)
    assert answer.headers["content-type"] == "audio/pcm" and len(answer.body) == 2 * round(0.8 * 24_000)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"speaker_embedding": [0.5] * 4}, "speaker_embedding"),
        ({"x_vector_only_mode": True}, "x_vector_only_mode"),
        ({"word_timestamps": True}, "word_timestamps"),
        ({"ambient_sound": "rain"}, "ambient_sound"),
        ({"duration_seconds": 2.0}, "duration_seconds"),
        ({"ref_audio": ["data:audio/wav;base64,AA", "data:audio/wav;base64,AA"]}, "ref_audio"),
        ({"ref_audio": "file:///etc/passwd"}, "ref_audio"),
        ({"references": [{"audio_path": "/etc/passwd", "text": "x"}]}, "ref_audio"),
        ({"ref_text": "words alone"}, "ref_text"),
        ({"voice": "nobody"}, "voice"),
        ({"model": "nothing"}, "model"),
        ({"task_type": "Base"}, "task_type"),
    ],
)
def test_what_its_models_allow_and_ours_cannot_do_is_refused_by_name(
    theirs: Any, service: Service, fields: dict[str, Any], param: str
) -> None:
    answer = ask(service, theirs.OpenAICreateSpeechRequest(input="Hello.", **fields))
    assert answer.status in (400, 404) and answer.error["param"] == param
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert {"speaker_embedding", "x_vector_only_mode", "word_timestamps"} <= set(UNSUPPORTED)


def test_batches(theirs: Any, service: Service) -> None:
    items = [{"input": "One."}, {"input": "Two.", "response_format": "pcm", "speaker": "nobody"}, {"input": "Three."}]
    request = theirs.BatchSpeechRequest(model="voxcpm2", voice="default", items=items, max_new_tokens=5)
    answer = service.ask("POST", "/v1/audio/speech/batch", request.model_dump(mode="json", exclude_none=True))
    found = theirs.BatchSpeechResponse.model_validate(answer.json)
    assert (found.total, found.succeeded, found.failed) == (3, 2, 1) and found.id
    assert [one.index for one in found.results] == [0, 1, 2]
    assert [one.status for one in found.results] == ["success", "error", "success"] and "nobody" in found.results[
        1
    ].error
    for one in (found.results[0], found.results[2]):
        about = soundfile.info(io.BytesIO(base64.b64decode(one.audio_data)))
        assert one.media_type == "audio/wav" and about.duration == pytest.approx(0.8) and one.usage.output_tokens == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"split_granularity": "sentence", "stream_audio": True, "response_format": "pcm", "seed": 3},
        {"split_granularity": "clause", "response_format": "mp3", "speed": 1.5},
        {"speaker": "default", "max_new_tokens": 5, "language": "English"},
    ],
)
def test_sessions(theirs: Any, fields: dict[str, Any]) -> None:
    config = theirs.StreamingSpeechSessionConfig(**fields)
    with talking() as talk:
        talk.say("session.config", **config.model_dump(mode="json"))
        configured = talk.next()
        assert configured["type"] == "session.configured" and configured["format"] == config.response_format
        assert configured["ignored_fields"] == (["language"] if config.language else [])
        talk.say("input.text", text=TEXT)
        talk.say("input.done")
        done, _, before = talk.until("session.done")
        assert done["total_sentences"] == {"none": 1, "sentence": 3, "clause": 3}[config.split_granularity]
        assert not any(message["type"] == "error" for message in before)


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_the_pinned_metrics_are_those_of_the_wheel(sources: dict[str, str], service: Service) -> None:
    names = vars(loaded(sources["definitions"], "definitions"))
    made = re.findall(r"(?:Histogram|Counter|Gauge)\(\s*defs\.(\w+)", sources["pipeline"] + sources["modality"])
    families = {str(names[name]).removeprefix("vllm_omni:") for name in made}
    assert len(families) > 20
    wanted = {name for name in families if not name.startswith(tuple(NOT_HERE))}
    assert wanted == VLLM_OMNI_METRICS
    service.speak("hello", response_format="pcm", stream_format="audio")
    text = service.ask("GET", "/metrics").body.decode()
    assert {f"vllm_omni:{name}" for name in wanted} <= {one.name for one in text_string_to_metric_families(text)}
