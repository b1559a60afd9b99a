"""The chat provider against a local server of OpenAI's format: plain, streaming only, and Step-Audio's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from asked_clips import KEY, SPOKEN, ask, clean_environment, one, send, three
from fakes.openai_server import OpenAIServer
from fakes.voices_heard import decode

from annotators.providers.chat import Chat, completion, wavs_of
from annotators.providers.http import sse_events
from annotators.providers.questions import new_request
from annotators.providers.remote import FatalError, QuotaError, RefusedError, Reply, TransientError
from annotators.schema import VoiceDescription

QWEN, STREAMED, STEP = "Qwen/Qwen3-Omni-30B-A3B-Instruct", "qwen3.8-omni-flash", "stepfun-ai/Step-Audio-R1.1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)
    monkeypatch.setenv("VOXMILL_CHAT_API_KEY", KEY)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(KEY) as running:
        yield running


@pytest.fixture
def streaming() -> Iterator[OpenAIServer]:
    with OpenAIServer(KEY, style="stream") as running:
        yield running


def chat(server: OpenAIServer, model: str = QWEN, timeout_s: float = 20.0) -> Chat:
    return Chat(model, f"{server.url}/v1/", timeout_s=timeout_s)


def described(provider: Chat, reply: object) -> list[str]:
    """Return the reason for each of the three clips, "" for a description."""
    assert isinstance(reply, Reply), repr(reply)
    found = provider.parse(reply.raw, three().keys)
    return ["" if isinstance(one, VoiceDescription) else one for one in found.values()]


def test_clips_are_described_by_what_is_heard(server: OpenAIServer) -> None:
    provider = chat(server)
    reply = send(provider, three())
    assert described(provider, reply) == ["", "", ""] and isinstance(reply, Reply)
    first = provider.parse(reply.raw, three().keys)[three().keys[0]]
    assert isinstance(first, VoiceDescription) and (first.attributes.gender, first.attributes.pitch) == ("male", "low")
    assert len(server.requests) == 1 and reply.model_version == QWEN and not provider.answered_by_another(QWEN)
    assert reply.usage is not None and reply.usage.audio_in == (25 * 2) + round(25 * 4.5) + 25 * 8
    bound = provider.bound(three())
    assert (reply.usage.text_in, reply.usage.audio_in, reply.usage.out) <= (bound.text_in, bound.audio_in, bound.out)
    assert reply.usage.text_in <= bound.text_in and reply.usage.out <= bound.out


def test_the_request_is_as_documented(server: OpenAIServer) -> None:
    send(chat(server), three())
    seen = server.requests[0]
    body = json.loads(seen.body)
    assert seen.path == "/v1/chat/completions" and seen.headers["authorization"] == f"Bearer {KEY}"
    assert (
        "stream" not in body and "temperature" not in body and body["response_format"]["json_schema"]["strict"] is True
    )
    parts = body["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["text", "input_audio"] * 3 + ["text"]
    text = seen.body.decode()
    assert SPOKEN not in text and "segment-a" not in text and "guided_json" not in text


@pytest.mark.parametrize(
    ("fault", "kind", "sent", "retry_after", "status"),
    [
        ("429", TransientError, False, 2.5, 429),
        ("500", TransientError, False, None, 500),
        ("503_html", TransientError, False, 7.0, 503),
        ("slow", TransientError, True, None, None),
        ("drop", TransientError, True, None, None),
        ("half", TransientError, True, None, None),
        ("empty", TransientError, True, None, 200),
        ("not_json", TransientError, True, None, 200),
        ("quota", QuotaError, None, None, None),
        ("400", RefusedError, None, None, None),
        ("400_flat", RefusedError, None, None, None),
        ("422", RefusedError, None, None, None),
        ("401", FatalError, None, None, None),
        ("404", FatalError, None, None, None),
        ("redirect", FatalError, None, None, None),
    ],
)
def test_each_fault_is_one_request_and_one_error(
    server: OpenAIServer,
    fault: str,
    kind: type[Exception],
    sent: bool | None,
    retry_after: float | None,
    status: int | None,
) -> None:
    server.fail("*", 1, fault)
    error = send(chat(server, timeout_s=0.4 if fault == "slow" else 20.0), three())
    assert type(error) is kind, repr(error)
    assert len(server.requests) == 1 and server.trap.requests == []
    if isinstance(error, TransientError):
        assert (error.sent, error.retry_after, error.status) == (sent, retry_after, status)
    if fault.startswith("4") and fault != "429":
        assert "planned" in str(error)


@pytest.mark.parametrize("style", ["plain", "stream"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("blocked", "blocked:content_filter"),
        ("refusal", "blocked:refusal"),
        ("length", "max_tokens"),
        ("think_open", "max_tokens"),
        ("truncated", "invalid: the answer holds no complete JSON object of the form asked for"),
        ("missing", "mismatch"),
        ("swapped", "mismatch"),
        ("duplicate", "mismatch"),
        ("fenced", ""),
        ("think", ""),
        ("think_closed", ""),
        ("reasoning", ""),
    ],
)
def test_spoiled_answers_are_paid_replies_with_a_reason(style: str, fault: str, reason: str) -> None:
    with OpenAIServer(KEY, style="stream" if style == "stream" else "plain") as server:
        server.fail("*", 1, fault)
        provider = chat(server, STREAMED if style == "stream" else QWEN)
        reply = send(provider, three())
        assert described(provider, reply) == [reason] * 3
        assert isinstance(reply, Reply) and reply.usage is not None and len(server.requests) == 1
        assert (reply.blocked is not None) is reason.startswith("blocked")
        again = Chat(provider.model, "http://127.0.0.1:1")
        assert again.parse(reply.raw, three().keys) == provider.parse(reply.raw, three().keys)


@pytest.mark.parametrize("fault", ["cut_stream", "stream_error", "half"])
def test_a_stream_that_breaks_off_may_have_been_billed(streaming: OpenAIServer, fault: str) -> None:
    streaming.fail("*", 1, fault)
    error = send(chat(streaming, STREAMED), three())
    assert isinstance(error, TransientError) and error.sent and len(streaming.requests) == 1
    assert ("the engine died" in str(error)) is (fault == "stream_error")


def test_another_model_is_noticed(server: OpenAIServer) -> None:
    server.fail("*", 1, "other_model")
    provider = chat(server)
    reply = send(provider, three())
    assert isinstance(reply, Reply) and provider.answered_by_another(reply.model_version)


def test_too_many_clips_are_refused_and_single_ones_are_taken(server: OpenAIServer) -> None:
    server.most_audios = 1
    provider = chat(server)
    assert type(send(provider, three())) is RefusedError
    singly = [request for clip in three().asks for request in provider.group([clip])]
    assert [type(send(provider, request)) for request in singly] == [Reply] * 3
    assert all(count == 1 for count in server.asked.values()) and len(server.asked) == 3


def test_step_audio_is_asked_in_its_way() -> None:
    with OpenAIServer(KEY, style="step") as server:
        provider = chat(server, STEP)
        long = new_request([ask("long", 61.0)])
        reply = send(provider, long)
        assert isinstance(reply, Reply), repr(reply)
        assert isinstance(provider.parse(reply.raw, long.keys)[long.keys[0]], VoiceDescription)
        body = json.loads(server.requests[0].body)
        assert sum(part["type"] == "input_audio" for part in body["messages"][1]["content"]) == 3
        assert "response_format" not in body and body["max_tokens"] > 8000
        assert [len(request.asks) for request in provider.group(three().asks)] == [1, 1, 1]


def test_pieces_of_audio_hold_every_sample() -> None:
    clip = ask("long", 61.0)
    pieces = [decode(wav) for wav in wavs_of(clip.audio, 25.0)]
    assert [sample for piece in pieces for sample in piece] == list(decode(clip.audio))
    assert max(len(piece) for piece in pieces) <= 25 * 16_000 and len(list(wavs_of(clip.audio))) == 1


def test_audio_that_cannot_be_decoded_is_refused_before_anything_is_sent(server: OpenAIServer) -> None:
    broken = new_request([replace(ask("x", 2.0), audio=b"fLaC nothing")])
    assert type(send(chat(server), broken)) is RefusedError and server.requests == []


def test_a_server_of_ones_own_is_free_and_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Chat("m", "http://127.0.0.1:8000/v1").free, "a key is set, so somebody may be paid"
    monkeypatch.delenv("VOXMILL_CHAT_API_KEY")
    for url in ("http://127.0.0.1:8000/v1", "http://localhost/v1", "http://10.1.2.3/v1", "http://[::1]:8000/v1"):
        assert Chat("m", url).free
    assert not Chat("m", "https://api.example.com/v1").free
    with OpenAIServer() as server:
        assert isinstance(send(chat(server), one()), Reply) and "authorization" not in server.requests[0].headers
    wrong: list[tuple[str | None, str | None]] = [(None, "http://h"), ("m", None)]
    for no_model, no_url in wrong:
        with pytest.raises(ValueError, match="--base-url"):
            Chat(no_model, no_url)


def test_events_of_a_stream_are_whole_or_none() -> None:
    text = ': hi\n\nevent: x\ndata: {"a":\r\ndata: 1}\r\n\r\ndata:[DONE]\n\ndata: {"cut'
    assert sse_events(text) == ['{"a":\n1}', "[DONE]"]
    assert sse_events("data: a\u2028b\n\n") == ["a\u2028b"]
    assert completion("") is None and completion("[]") is None and completion('{"choices": []}') is None
