"""Answers of the speech server: the forms and formats of audio, its headers, errors, records, metrics. The engine makes tones."""

from __future__ import annotations

import base64
import http.client
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes.tone_engine import tone
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from speech_service import Answer, Service, until

from voxcpm.server.access.keys import Ticket
from voxcpm.server.encode import FORMATS
from voxcpm.server.errors import ApiError
from voxcpm.server.settings import ALIASES
from voxcpm.server.speech.fields import SpeechFields, read_fields, read_json
from voxcpm.server.speech.pieces import speak_pieces
from voxcpm.server.speech.prepare import prepare

STREAMS = [name for name, form in FORMATS.items() if form.streams]
#: Fields of vLLM-Omni 0.30.0's speech request (its protocol/audio.py), which must all be known here.
VLLM_OMNI_FIELDS = {
    "input", "model", "voice", "instructions", "response_format", "sample_rate", "speed", "stream_format", "stream", "task_type",
    "language", "ref_audio", "ref_text", "ref_audio_2", "references", "x_vector_only_mode", "speaker_embedding",
    "max_new_tokens", "seed", "initial_codec_chunk_frames", "non_streaming_mode", "ambient_sound", "duration_seconds",
    "extra_params", "word_timestamps",
}  # fmt: skip
#: Its metrics that a speech server has.
VLLM_OMNI_METRICS = {
    "num_requests_running", "num_requests_waiting", "e2e_request_latency_s", "requests_success", "requests_failed",
    "prompt_tokens", "generation_tokens", "audio_ttfp_s", "audio_duration_s", "audio_rtf", "audio_frames", "audio_underrun_s",
    "audio_continuity_ok", "speech_stream_aborted", "speech_stream_completed", "request_queue_wait_s", "audio_skipped_requests",
}  # fmt: skip


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    # Without marks, the same request gives the same bytes: a statement holds the time and the request's id.
    with Service({"no_mark": True, "name": "tones", "default_format": "mp3"}) as service:
        yield service


def spoken(seed: int, patches: int = 5) -> np.ndarray:
    return np.concatenate([tone(seed, index) for index in range(patches)])


def joined(answer: Answer) -> bytes:
    """The audio of server-sent events."""
    return b"".join(base64.b64decode(one["audio"]) for one in answer.events if one["type"] == "speech.audio.delta")


# -- forms and formats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", STREAMS)
def test_events_hold_the_bytes_of_the_stream(service: Service, form: str) -> None:
    stream = service.speak("hello", response_format=form, stream_format="audio", seed=5)
    events = service.speak("hello", response_format=form, stream_format="sse", seed=5)
    assert stream.status == events.status == 200
    assert stream.headers["content-type"].startswith(FORMATS[form].media_type)
    assert stream.headers["transfer-encoding"] == "chunked" and "content-length" not in stream.headers
    assert events.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["x-accel-buffering"] == events.headers["x-accel-buffering"] == "no"
    if form != "opus":  # an Ogg stream has a random serial number
        assert joined(events) == stream.body
    assert all(one["response_format"] == form for one in events.events[:-1])
    assert events.events[-1] == {
        "type": "speech.audio.done",
        "usage": {"input_tokens": 1, "output_tokens": 5, "total_tokens": 6,
                  "input_token_details": {"text_tokens": 1, "audio_tokens": 0}},
    }  # fmt: skip


@pytest.mark.parametrize("form", ["wav", "flac"])
def test_a_whole_file_has_its_length_and_its_samples(service: Service, form: str) -> None:
    answer = service.speak("hello", response_format=form, seed=7)
    samples, rate = soundfile.read(io.BytesIO(answer.body), dtype="float32")
    assert rate == 48_000 and np.abs(samples - spoken(7)).max() < 1e-3
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_pcm_has_24_khz_and_16_bits(service: Service) -> None:
    answer = service.speak("hello", response_format="pcm", seed=5)
    assert answer.headers["content-type"] == "audio/pcm" and answer.headers["x-sample-rate"] == "24000"
    assert len(answer.body) == 2 * round(0.8 * 24_000)
    native = service.speak("hello", response_format="pcm", seed=5, sample_rate=48_000)
    samples = np.frombuffer(native.body, "<i2") / 32768
    assert np.abs(samples - spoken(5)).max() < 1e-3


def test_the_default_is_mp3_as_it_is_made(service: Service) -> None:
    answer = service.speak("hello")
    assert answer.headers["content-type"] == "audio/mpeg" and answer.headers["transfer-encoding"] == "chunked"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"stream": True}, "text/event-stream"),
        ({"stream": True, "stream_format": "audio"}, "audio/mpeg"),
        ({"stream": False}, "audio/mpeg"),
        ({"stream": True, "response_format": "wav"}, "text/event-stream"),
        ({"response_format": "m4a"}, "audio/mp4"),
    ],
)
def test_stream_and_stream_format(service: Service, fields: dict[str, Any], kind: str) -> None:
    answer = service.speak("hello", **fields)
    assert answer.status == 200 and answer.headers["content-type"].startswith(kind)
    assert ("content-length" in answer.headers) == (fields.get("stream") is False or "m4a" in fields.values())


def test_a_whole_answer_counts_tokens_as_vllm_omni_does(service: Service) -> None:
    answer = service.speak("three words here", stream=False, seed=9)
    assert answer.headers["x-vllm-omni-input-tokens"] == "3"
    assert answer.headers["x-vllm-omni-output-tokens"] == "5"
    assert answer.headers["x-vllm-omni-total-tokens"] == "8"
    assert answer.headers["x-seed"] == "9"


def test_speed_changes_the_length(service: Service) -> None:
    one, fast = (service.speak("seconds 4", response_format="pcm", speed=speed).body for speed in (1.0, 2.0))
    assert abs(len(fast) / len(one) - 0.5) < 0.05


def test_the_same_seed_gives_the_same_audio_and_none_is_drawn(service: Service) -> None:
    drawn = service.speak("hello", response_format="pcm")
    again = service.speak("hello", response_format="pcm", seed=int(drawn.headers["x-seed"]))
    assert drawn.body == again.body


def test_max_new_tokens_limits_the_audio(service: Service) -> None:
    answer = service.speak("seconds 4", response_format="pcm", max_new_tokens=3)
    assert len(answer.body) == 2 * 3 * 3840


def test_audio_says_that_it_is_synthetic_unless_told_otherwise(service: Service) -> None:
    assert "x-synthetic" not in service.speak("hello").headers
    with Service() as marked:
        answer = marked.speak("hello", response_format="mp3", headers={"X-Request-Id": "mine"}, seed=3)
        assert answer.headers["x-synthetic"] == "1" and answer.headers["x-request-id"] == "mine"
        assert b'"synthetic": true' in answer.body and b'"seed": 3' in answer.body


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"input": ""}, 400, "input", "nothing to say"),
        ({"input": "?!"}, 400, "input", "nothing to say"),
        ({"input": "a" * 4097}, 400, "input", "4096"),
        ({"input": 5}, 400, "input", "string"),
        ({"model": "tone"}, 404, "model", "'tones'"),
        ({"voice": "aloy"}, 404, "voice", "'alloy'"),
        ({"voice": {"id": "voice_1"}}, 404, "voice", "alloy"),
        ({"voice": 3}, 400, "voice", "string"),
        ({"response_format": "mp4"}, 400, "response_format", "'mp3'"),
        ({"response_format": "m4a", "stream": True}, 400, "response_format", "streamed"),
        ({"response_format": "opus", "sample_rate": 44100}, 400, "sample_rate", "48000"),
        ({"sample_rate": 96000}, 400, "sample_rate", "8000..48000"),
        ({"speed": 5}, 400, "speed", "less than or equal to 4"),
        ({"speed": "fast"}, 400, "speed", "number"),
        ({"stream_format": "ws"}, 400, "stream_format", "'sse' or 'audio'"),
        ({"seed": 2**63}, 400, "seed", "less than"),
        ({"cfg_value": 11}, 400, "cfg_value", "10"),
        ({"inference_timesteps": 0}, 400, "inference_timesteps", "1"),
        ({"quality": "best"}, 400, "quality", "'balanced'"),
        ({"min_len": 9, "max_new_tokens": 4}, 400, "min_len", "above"),
        ({"word_timestamps": True}, 400, "word_timestamps", "not available"),
        ({"speaker_embedding": [0.1]}, 400, "speaker_embedding", "ref_audio"),
        ({"task_type": "VoiceDesign"}, 400, "task_type", "instructions"),
        ({"task_type": "Base"}, 400, "task_type", "ref_audio"),
        ({"ref_text": "words"}, 400, "ref_text", "ref_audio"),
        ({"ref_audio": "file:///etc/passwd"}, 400, "ref_audio", ""),
        ({"strict": True, "cfg_valeu": 3}, 400, "cfg_valeu", "'cfg_value'"),
        ({"input": "refuse"}, 400, None, "positions"),
    ],
)
def test_bad_values_are_told_in_one_line(
    service: Service, fields: dict[str, Any], status: int, param: str | None, words: str
) -> None:
    answer = service.ask("POST", "/v1/audio/speech", {"input": "hello"} | fields)
    assert answer.status == status
    assert answer.error["type"] == "invalid_request_error" and answer.error["param"] == param
    assert words in answer.error["message"] and "\n" not in answer.error["message"]
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]


BODIES = [
    b"", b"{", b"[1]", b"\xff\xfe", b'{"input": ' + b"[" * 100_000, b'"hello"', b'{"input": "a", "speed": NaN}',
    b'{"input": "half a pair: \\ud800"}', b'{"seed": ' + b"9" * 10_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_not_an_object_is_refused(service: Service, body: bytes) -> None:
    answer = service.ask("POST", "/v1/audio/speech", body)
    assert answer.status == 400 and "body" in answer.error["message"]


def test_deep_nesting_is_refused(service: Service) -> None:
    deep: Any = "x"
    for _ in range(64):
        deep = {"a": deep}
    assert service.speak("hello", extra_params=deep).status == 400


def test_fields_without_effect_are_named(service: Service) -> None:
    fields: dict[str, Any] = {"cfg_valeu": 3, "language": "en", "extra_params": {"a": 1}, "n\u00e9w\n\0": 1}
    answer = service.speak("hello", **fields)
    assert answer.status == 200
    assert answer.headers["x-ignored-fields"] == "cfg_valeu, n?w??, language, extra_params"
    assert "x-ignored-fields" not in service.speak("hello").headers


def test_a_failure_before_the_first_audio_has_a_status_and_later_ones_do_not_end_cleanly(service: Service) -> None:
    whole = service.speak("fault", stream=False)
    assert whole.status == 500 and whole.error["code"] == "generation_failed"
    assert whole.headers["x-should-retry"] == "false"
    events = service.speak("fault", response_format="pcm", stream_format="sse").events
    assert [one["type"] for one in events] == ["speech.audio.delta"] * (len(events) - 1) + ["speech.audio.error"]
    assert events[-1]["error"]["code"] == "generation_failed" and events[-1]["error"]["partial_audio"] is True
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        service.speak("fault", response_format="pcm", stream_format="audio")


def test_a_full_queue_asks_to_come_back(service: Service) -> None:
    answer = service.speak("busy 1")
    assert answer.status == 429 and answer.error["type"] == "rate_limit_error"
    assert answer.headers["retry-after"] == "1" and answer.headers["x-should-retry"] == "true"


def test_unknown_paths_and_methods_have_the_same_form(service: Service) -> None:
    assert service.ask("GET", "/v1/nothing").error["code"] == "not_found"
    assert service.ask("GET", "/v1/audio/speech").status == 405


# -- records, models, documents ----------------------------------------------------------------------------------------


def test_a_record_says_how_a_stream_ended(service: Service) -> None:
    answer = service.speak("hello", seed=4, response_format="pcm")
    record = service.ask("GET", f"/v1/audio/speech/{answer.headers['x-request-id']}").json
    assert record["status"] == "ended" and record["ending"] == "stop" and record["seed"] == 4
    assert record["patches"] == 5 and record["seconds"] == 0.8
    assert service.ask("GET", "/v1/audio/speech/other").status == 404


def test_a_record_of_a_long_text_adds_up_its_pieces(service: Service) -> None:
    text = " ".join(["These are words that take more than a few seconds to say aloud."] * 6)
    answer = service.speak(text, long=True, response_format="pcm", seed=4)
    record = service.ask("GET", f"/v1/audio/speech/{answer.headers['x-request-id']}").json
    assert record["status"] == "ended" and record["ending"] == "stop" and record["seed"] == 4
    assert record["patches"] >= 10 and record["patches"] % 5 == 0
    assert record["seconds"] == pytest.approx(record["patches"] * 0.16) and len(answer.body) == record["patches"] * 7680


def test_a_piece_that_fails_ends_a_long_text(service: Service) -> None:
    # The tone engine takes whole texts as plans: the second piece is refused.
    text = "word " * 33 + ".\n" + "refuse"
    fields, ignored = read_fields({"input": text, "long": True, "response_format": "pcm"})
    prepared = service.run(prepare(service.state, fields, ignored))

    async def spoken() -> tuple[int, str, str | None]:
        speech = await speak_pieces(service.state, prepared.call, (prepared.pieces[0], "refuse"), Ticket())
        heard = 0
        with pytest.raises(ApiError, match="positions"):
            async for samples in speech:
                heard += len(samples)
        return heard, str(speech.result.ending), speech.result.error

    heard, ending, error = service.run(spoken())
    assert heard == 5 * 7680 and ending == "failed" and "positions" in (error or "")
    until(lambda: not service.state.running and not service.state.link.channels)


def test_records_hold_neither_texts_nor_audio(service: Service) -> None:
    service.speak("hello", response_format="pcm")
    until(lambda: not service.state.running)
    assert all(record.call.text == "" for record in service.state.records.values())  # type: ignore[attr-defined]


def test_a_request_is_cancelled_from_elsewhere(service: Service) -> None:
    connection = service.connect()
    body = json.dumps({"input": "hold", "stream": False})
    connection.request("POST", "/v1/audio/speech", body, {"X-Request-Id": "held"})
    until(lambda: service.ask("GET", "/v1/audio/speech/held").json.get("status") == "running")
    assert service.speak("hello", headers={"X-Request-Id": "held"}).status == 409
    assert service.ask("DELETE", "/v1/audio/speech/held").json == {"id": "held", "cancelled": True}
    answer = connection.getresponse()
    assert answer.status == 499 and json.loads(answer.read())["error"]["code"] == "cancelled"
    assert service.ask("GET", "/v1/audio/speech/held").json["ending"] == "cancelled"
    assert service.ask("DELETE", "/v1/audio/speech/held").json["cancelled"] is False
    until(lambda: service.state.link.load.running == 0)
    connection.close()


def test_models_are_listed_with_openai_names(service: Service) -> None:
    listed = service.ask("GET", "/v1/models").json
    assert [one["id"] for one in listed["data"]] == ["tones", *ALIASES]
    assert listed["data"][0]["max_model_len"] == 4096
    assert service.ask("GET", "/v1/models/tts-1").json["id"] == "tts-1"
    assert service.ask("GET", "/v1/models/x").status == 404


def test_health_ready_and_the_root_are_cheap(service: Service) -> None:
    assert service.ask("GET", "/health").json == {"status": "ready"}
    assert service.ask("GET", "/ready").json["status"] == "ready"
    assert service.ask("GET", "/").status == 200


def test_the_document_has_every_route_and_field(service: Service) -> None:
    document = service.ask("GET", "/openapi.json").json
    assert {"/v1/audio/speech", "/v1/audio/speech/{request_id}", "/v1/models", "/metrics"} <= set(document["paths"])
    assert set(document["paths"]["/v1/audio/speech/{request_id}"]) == {"get", "delete"}
    properties = document["components"]["schemas"]["SpeechRequest"]["properties"]
    assert {"input", "voice", "cfg_value", "stream_format"} <= set(properties)
    assert all(operation["summary"] for path in document["paths"].values() for operation in path.values())


def test_the_fields_of_vllm_omni_are_known() -> None:
    assert set(SpeechFields.model_fields) >= VLLM_OMNI_FIELDS


def test_metrics_have_both_sets_of_names(service: Service) -> None:
    service.speak("hello", response_format="pcm")
    text = service.ask("GET", "/metrics").body.decode()
    families = {one.name: one for one in text_string_to_metric_families(text)}
    assert {f"vllm_omni:{name}" for name in VLLM_OMNI_METRICS} <= set(families)
    assert {"voxcpm_slots", "voxcpm_requests_running", "voxcpm_first_audio_seconds", "voxcpm_engine_restarts"} <= set(
        families
    )
    done = [
        one.value for one in families["voxcpm_requests_success"].samples if one.labels == {"finished_reason": "stop"}
    ]
    assert done[0] >= 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(list(SpeechFields.model_fields)) | st.text(max_size=8), JSON, max_size=6))
def test_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    try:
        _, ignored = read_fields(read_json(json.dumps({"input": "hello"} | body).encode()))
        assert set(ignored) <= set(body)
    except ApiError as error:
        assert error.status == 400
