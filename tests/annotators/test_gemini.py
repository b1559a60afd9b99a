"""Gemini over google-genai against a local server of its wire format: one request for every outcome, and the right error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from asked_clips import KEY, SPOKEN, ask, clean_environment, one, send, send_all, three
from fakes.gemini_server import GeminiServer, get

from annotators.providers.gemini import Gemini
from annotators.providers.questions import new_request
from annotators.providers.remote import FatalError, QuotaError, RefusedError, Reply, TransientError
from annotators.questions.wire import unseal
from annotators.schema import VoiceDescription


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    with GeminiServer(KEY) as running:
        yield running


def gemini(server: GeminiServer, model: str = "gemini-3.8-flash", timeout_s: float = 20.0) -> Gemini:
    return Gemini(model, server.url, timeout_s=timeout_s)


def replied(server: GeminiServer, fault: str = "") -> tuple[Gemini, Reply]:
    """Return the provider and its reply about three clips with a fault."""
    if fault:
        server.fail("*", 1, fault)
    provider = gemini(server)
    reply = send(provider, three())
    assert isinstance(reply, Reply), repr(reply)
    assert len(server.requests) == 1
    return provider, reply


def test_clips_are_described_by_what_is_heard(server: GeminiServer) -> None:
    provider, reply = replied(server)
    found = provider.parse(reply.raw, three().keys)
    low, high, _ = (found[key] for key in three().keys)
    assert isinstance(low, VoiceDescription) and isinstance(high, VoiceDescription)
    assert (low.attributes.gender, low.attributes.pitch) == ("male", "low")
    assert (high.attributes.gender, high.attributes.pitch) == ("female", "high")
    assert len(low.captions) == 8
    assert reply.finish == "STOP" and reply.blocked is None and reply.model_version == "gemini-3.8-flash-001"
    assert not provider.answered_by_another(reply.model_version)
    assert all(count == 1 for count in server.asked.values()) and len(server.asked) == 3


def test_the_request_is_as_documented(server: GeminiServer) -> None:
    replied(server)
    seen = server.requests[0]
    body = json.loads(seen.body)
    config = body["generationConfig"]
    assert seen.path == "/v1/models/gemini-3.8-flash:generateContent" and seen.headers["x-goog-api-key"] == KEY
    assert get(config["thinkingConfig"], "thinkingLevel") == "LOW"
    assert not {"temperature", "topP", "topK", "seed", "responseSchema"} & config.keys()
    assert config["maxOutputTokens"] == 1000 + 3 * 600
    assert {setting["threshold"] for setting in body["safetySettings"]} == {"BLOCK_NONE"}
    texts = [part["text"] for part in body["contents"][0]["parts"] if "text" in part]
    assert [text[:7] for text in texts] == ["Clip A.", "Clip B.", "Clip C.", "Answer "]
    assert "Chinese" in texts[1] and SPOKEN not in seen.body.decode() and "segment-a" not in seen.body.decode()
    assert "s1" not in json.dumps(texts)


def test_usage_is_read_and_never_above_the_bound(server: GeminiServer) -> None:
    provider, reply = replied(server)
    bound = provider.bound(three())
    usage = reply.usage
    assert usage is not None
    assert usage.audio_in == round(32 * 14.5) <= bound.audio_in
    assert usage.text_in <= bound.text_in and usage.out <= bound.out
    assert server.spent_micro <= bound.text_in * 0.75 + bound.audio_in * 0.75 + bound.out * 3.75


@pytest.mark.parametrize(
    ("fault", "kind", "sent", "retry_after", "status"),
    [
        ("429", TransientError, False, 3.5, 429),
        ("500", TransientError, False, None, 500),
        ("503_html", TransientError, False, 7.0, 503),
        ("slow", TransientError, True, None, None),
        ("drop", TransientError, True, None, None),
        ("half", TransientError, True, None, None),
        ("empty", TransientError, True, None, 200),
        ("not_json", TransientError, True, None, 200),
        ("429_day", QuotaError, None, None, None),
        ("400", RefusedError, None, None, None),
        ("echo", RefusedError, None, None, None),
        ("403", FatalError, None, None, None),
        ("404", FatalError, None, None, None),
        ("redirect", FatalError, None, None, None),
    ],
)
def test_each_fault_is_one_request_and_one_error(
    server: GeminiServer,
    fault: str,
    kind: type[Exception],
    sent: bool | None,
    retry_after: float | None,
    status: int | None,
) -> None:
    server.fail("*", 1, fault)
    error = send(gemini(server, timeout_s=0.4 if fault == "slow" else 20.0), three())
    assert type(error) is kind, repr(error)
    assert len(server.requests) == 1 and server.trap.requests == []
    if isinstance(error, TransientError):
        assert (error.sent, error.retry_after, error.status) == (sent, retry_after, status)
    assert "\n" not in str(error) and "<" not in str(error) and 0 < len(str(error)) <= 400


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        ("blocked", ["blocked:PROHIBITED_CONTENT"] * 3),
        ("safety", ["blocked:SAFETY"] * 3),
        ("max_tokens", ["max_tokens"] * 3),
        ("continuation", ["invalid: the answer ended with CONTINUATION"] * 3),
        ("unknown_finish", ["invalid: the answer ended with TEA_TIME"] * 3),
        ("thoughts_only", ["empty"] * 3),
        ("truncated", ["invalid: the answer holds no complete JSON object of the form asked for"] * 3),
        ("missing", ["mismatch"] * 3),
        ("duplicate", ["mismatch"] * 3),
        ("swapped", ["mismatch"] * 3),
        ("wrong_enum", ["invalid: gender is 'robot'", "", ""]),
        ("fenced", ["", "", ""]),
    ],
)
def test_spoiled_answers_are_paid_replies_with_a_reason(server: GeminiServer, fault: str, reasons: list[str]) -> None:
    provider, reply = replied(server, fault)
    found = provider.parse(reply.raw, three().keys)
    assert ["" if isinstance(one, VoiceDescription) else one for one in found.values()] == reasons
    assert reply.usage is not None and reply.usage.out > 0
    assert (reply.blocked is not None) is reasons[0].startswith("blocked")


def test_another_model_is_noticed(server: GeminiServer) -> None:
    provider, reply = replied(server, "other_model")
    assert provider.answered_by_another(reply.model_version)


def test_a_stored_reply_is_parsed_again_to_the_same(server: GeminiServer) -> None:
    provider, reply = replied(server, "wrong_enum")
    keys = three().keys
    assert Gemini("gemini-3.8-flash").parse(reply.raw, keys) == provider.parse(reply.raw, keys)
    assert unseal(reply.raw)[0] == (2.0, 4.5, 8.0) and json.loads(unseal(reply.raw)[1])["modelVersion"]
    assert set(provider.parse(reply.raw, keys[:2]).values()) == {"mismatch"}, (
        "another number of clips than was asked about"
    )


def test_a_bad_key_is_fatal(server: GeminiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "AIzaWRONG-0123456789-wrong-key-of-the-test")
    error = send(gemini(server), one())
    assert type(error) is FatalError and "WRONG" not in str(error) and len(server.requests) == 1


def test_without_a_key_nothing_is_sent(server: GeminiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    error = send(gemini(server), one())
    assert type(error) is FatalError and "GEMINI_API_KEY" in str(error) and server.requests == []


def test_no_server_is_a_connection_that_was_not_made() -> None:
    with GeminiServer(KEY) as gone:
        url = gone.url
    error = send(Gemini(base_url=url), one())
    assert isinstance(error, TransientError) and not error.sent and error.status is None


def test_the_environment_of_other_services_changes_nothing(
    server: GeminiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
    for name, value in {
        "GOOGLE_GENAI_USE_VERTEXAI": "true",
        "GOOGLE_GENAI_USE_ENTERPRISE": "true",
        "GOOGLE_API_KEY": "AIzaOTHER-0123456789-other-key-of-the-user",
        "GOOGLE_GENAI_CLIENT_MODE": "replay",
        "GOOGLE_GENAI_API_VERSION": "v9",
        "GOOGLE_CLOUD_PROJECT": "p",
    }.items():
        monkeypatch.setenv(name, value)
    reply = send(Gemini(), one())
    assert isinstance(reply, Reply) and server.requests[0].headers["x-goog-api-key"] == KEY
    assert server.requests[0].path.startswith("/v1/")


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "gemini-2.5-flash", "gemini-3.1-pro-preview", "gemini-4-argon"])
def test_every_family_is_asked_in_its_way(server: GeminiServer, model: str) -> None:
    provider = gemini(server, model)
    reply = send(provider, one())
    assert isinstance(reply, Reply) and not provider.answered_by_another(reply.model_version)


def test_requests_run_side_by_side_over_one_client(server: GeminiServer) -> None:
    provider = gemini(server)

    async def all_at_once() -> list[Reply]:
        found = await asyncio.gather(*(provider.send(new_request([ask(f"c{n}", 1.0 + n / 10)])) for n in range(12)))
        await provider.close()
        return found

    assert len(asyncio.run(all_at_once())) == 12 and sum(server.asked.values()) == 12


def test_a_provider_works_again_after_it_was_closed(server: GeminiServer) -> None:
    provider = gemini(server)
    assert isinstance(send(provider, one()), Reply) and isinstance(send(provider, one()), Reply)
    assert [type(reply) for reply in asyncio.run(send_all(provider, one("a"), one("b", 3.0)))] == [Reply, Reply]


def test_identity_holds_what_decides_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Gemini()
    assert first.identity == Gemini(base_url="http://127.0.0.1:1", clips=3).identity
    others = [Gemini("gemini-3.1-pro-preview"), Gemini(languages=("en",)), Gemini(languages=("en", "zh", "own"))]
    assert len({first.identity, *(other.identity for other in others)}) == 4
    with pytest.raises(ValueError, match="fr"):
        Gemini(languages=("fr",))
    for url in ("ftp://x", "gemini", "http://u:p@host/", "http://h/?key=1", "http://h:port"):
        with pytest.raises(ValueError, match="base URL"):
            Gemini(base_url=url)
