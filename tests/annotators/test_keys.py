"""Keys show nowhere: not in errors, what is behind them, pickles, logs or replies, and no other host gets them."""

from __future__ import annotations

import asyncio
import logging
import pickle
from datetime import UTC, datetime

import pytest
from asked_clips import KEY, clean_environment, one, send, shown, three
from fakes.gemini_server import FAULTS as GEMINI_FAULTS
from fakes.gemini_server import GeminiServer
from fakes.openai_server import FAULTS as CHAT_FAULTS
from fakes.openai_server import OpenAIServer
from hypothesis import given
from hypothesis import strategies as st

from annotators.providers import ANNOTATORS, REMOTE, remote_provider
from annotators.providers.chat import Chat
from annotators.providers.gemini import Gemini
from annotators.providers.gemini_batch import GeminiBatch
from annotators.providers.http import HttpReply, is_private, refusal, retry_after
from annotators.providers.keys import Key, key_from, redacted, without
from annotators.providers.questions import Questions
from annotators.providers.remote import FatalError, RemoteError, Reply, TransientError
from catalogs.extensions import ExtensionError

SECRET = "CANARY"
"""Part of the key that is looked for, so that a shortened key is found, too."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clean_environment(monkeypatch)
    monkeypatch.setenv("VOXMILL_CHAT_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    for name in ("google_genai", "httpx2", "httpcore2", "httpx", "httpcore", "asyncio"):
        caplog.set_level(logging.DEBUG, name)


def check(provider: Questions, outcome: Reply | RemoteError, logs: str) -> None:
    found = shown(outcome) if isinstance(outcome, RemoteError) else repr(outcome) + repr(pickle.dumps(outcome))
    assert SECRET not in found, found
    assert SECRET not in logs, "the key is in a log"
    assert SECRET not in repr(provider) and SECRET not in repr(vars(provider))
    if isinstance(outcome, RemoteError):
        assert outcome.__cause__ is None and outcome.__context__ is None
        # The test's own module and ours are in the frames, never one that holds the request with its key.
        assert SECRET not in str(outcome)


@pytest.mark.parametrize("fault", ["", *GEMINI_FAULTS])
def test_no_fault_of_gemini_shows_the_key(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    with GeminiServer(KEY) as server:
        server.fail("*", 1, fault)
        provider = Gemini(base_url=server.url, timeout_s=0.4 if fault == "slow" else 20.0)
        check(provider, send(provider, three()), _logs(caplog))
        assert server.trap.requests == [] and len(server.requests) == 1


@pytest.mark.parametrize("fault", ["", *CHAT_FAULTS])
def test_no_fault_of_a_chat_server_shows_the_key(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    with OpenAIServer(KEY) as server:
        server.fail("*", 1, fault)
        provider = Chat("m", server.url, timeout_s=0.4 if fault == "slow" else 20.0)
        check(provider, send(provider, three()), _logs(caplog))
        assert server.trap.requests == [] and len(server.requests) == 1


@pytest.mark.parametrize("kind", [Gemini, Chat])
def test_a_refused_key_is_not_repeated(kind: type[Gemini] | type[Chat], caplog: pytest.LogCaptureFixture) -> None:
    with GeminiServer("another") as gemini, OpenAIServer("another") as chat:
        provider = kind("m", gemini.url if kind is Gemini else chat.url)
        outcome = send(provider, one())
        assert type(outcome) is FatalError
        check(provider, outcome, _logs(caplog))


@pytest.mark.parametrize("action", ["upload", "chunk", "create", "look", "download"])
@pytest.mark.parametrize("fault", ["500", "drop", "redirect"])
def test_no_fault_of_a_batch_shows_the_key(action: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    with GeminiServer(KEY) as server:
        provider = GeminiBatch(base_url=server.url, timeout_s=20.0)

        async def steps() -> None:
            try:
                job = await provider.create_job("voxmill-1", [one()])
                server.finish_jobs()
                await provider.collect(job)
            finally:
                await provider.close()

        server.fail(action, 1, fault)
        try:
            asyncio.run(steps())
        except RemoteError as error:
            check(provider, error, _logs(caplog))
        else:
            assert action == "create" and fault == "redirect"
        assert server.trap.requests == []


def _logs(caplog: pytest.LogCaptureFixture) -> str:
    assert caplog.records, "something was logged at DEBUG, otherwise this shows nothing"
    return caplog.text + "".join(repr(vars(record)) for record in caplog.records)


def test_a_key_shows_and_pickles_nowhere() -> None:
    key = Key(KEY)
    assert SECRET not in f"{key} {key!r} {[key]}" and key.reveal() == KEY and not hasattr(key, "__dict__")
    with pytest.raises(TypeError):
        pickle.dumps(key)


@pytest.mark.parametrize("value", ["a b", "a\nb", "clé", "a\x00b"])
def test_a_key_that_fits_no_header_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(FatalError) as caught:
        key_from({"K": value}, "K")
    assert value not in str(caught.value) and "K holds" in str(caught.value)
    assert key_from({"K": "  abc\n"}, "K").reveal() == "abc" and not key_from({}, "K")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60), st.text(), st.text())
def test_redaction_leaves_no_key_of_any_form(secret: str, before: str, after: str) -> None:
    from urllib.parse import quote

    for form in {secret, quote(secret, safe="")}:
        assert secret not in redacted(f"{before}{form}{after}", Key(secret)).replace("***", "")


def test_keys_of_others_are_redacted_by_their_look() -> None:
    text = "with AIzaSyA1234567890123456789012345678901 and Bearer abcdefgh.ijk and sk-proj-0123456789abcdef"
    assert redacted(text) == "with *** and *** and ***"


def test_waits_are_read_from_all_places() -> None:
    def reply(status: int, body: str = "{}", **headers: str) -> HttpReply:
        return HttpReply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)

    now = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
    assert retry_after(reply(429, retry_after="3", retry_after_ms="4500")) == 4.5
    assert retry_after(reply(503, retry_after="Sat, 28 Nov 2026 12:00:30 GMT"), now) == 30
    assert retry_after(reply(503, retry_after="Sat, 28 Nov 2026 11:00:00 GMT"), now) == 0
    delay = '{"error": {"details": [{"@type": "x.RetryInfo", "retryDelay": "12.5s"}]}}'
    assert retry_after(reply(429, delay, retry_after="2")) == 12.5
    assert retry_after(reply(429, x_ratelimit_reset_requests="6m0s", x_ratelimit_reset_tokens="120ms")) == 360
    for nonsense in ("inf", "nan", "-3", "soon", "1e999"):
        assert retry_after(reply(429, retry_after=nonsense)) is None
    assert retry_after(reply(429, '{"error": {"details": [1, {"retryDelay": 5}, {"retryDelay": "xs"}]}}')) is None


@pytest.mark.parametrize(
    "status", [100, 201, 204, 301, 399, 400, 402, 404, 408, 409, 413, 418, 422, 429, 500, 529, 599]
)
@pytest.mark.parametrize(
    "body", ["", "[]", "null", '{"error": null}', '{"error": "x"}', '{"error": {"details": 3}}', "{" * 2000]
)
def test_every_status_has_an_error_whatever_the_body_is(status: int, body: str) -> None:
    error = refusal(HttpReply(status, {"location": "::::"}, body), "host")
    assert isinstance(error, RemoteError) and str(status) in str(error)


def test_private_hosts_are_those_of_ones_own() -> None:
    assert all(is_private(f"http://{host}/v1") for host in ("localhost", "127.0.0.1", "192.168.1.4", "gpu.local"))
    assert not any(is_private(f"http://{host}/v1") for host in ("example.com", "8.8.8.8", "localhost.example.com"))


def test_remote_annotators_are_named_as_the_others() -> None:
    assert set(REMOTE.ours) == {"gemini", "gemini-batch", "chat"} and not set(REMOTE.ours) & set(ANNOTATORS.ours)
    for name in REMOTE.ours:
        made = remote_provider(name, "some-model", "http://127.0.0.1:9/v1", ("en", "zh", "own"))
        assert made.name == name and made.model == "some-model" and len(made.identity) == 64
        assert made.free is (False if name != "chat" else made.free)
    assert remote_provider("gemini").model == "gemini-3.8-flash"
    with pytest.raises(ExtensionError):
        remote_provider("claude")
    with pytest.raises(ValueError, match="--model"):
        remote_provider("chat")


@pytest.mark.parametrize("fault", ["drip", "huge", "packed"])
@pytest.mark.parametrize("kind", [Gemini, Chat])
def test_a_reply_without_end_is_given_up(kind: type[Gemini] | type[Chat], fault: str) -> None:
    """drip: a byte now and then, so that no pause is too long. packed: a small body that is huge when unpacked."""
    with GeminiServer(KEY) as gemini, OpenAIServer(KEY) as chat:
        server = gemini if kind is Gemini else chat
        server.fail("*", 1, fault)
        error = send(kind("m", server.url, timeout_s=0.2 if fault == "drip" else 20.0), one())
        assert isinstance(error, TransientError) and error.sent and len(server.requests) == 1
        assert ("no complete reply from 127.0.0.1 in 0.8 s" in str(error)) is (fault == "drip")


def test_short_words_that_servers_take_for_keys_stay_in_answers() -> None:
    assert without("EMPTY and " + KEY, Key("EMPTY"), Key(KEY)) == "EMPTY and ***"
