"""What one client may cost or learn: bodies that hold up others, batches, consents, records; what clients expect. Tones."""

from __future__ import annotations

import base64
import io
import json
import logging
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import soundfile
from speech_service import Answer, Service, until

from voxcpm.provenance.watermark_hook import NoWatermark
from voxcpm.server.access.keys import make_key
from voxcpm.server.errors import ApiError
from voxcpm.server.presets import PRESETS
from voxcpm.server.speech import answers, batch, forms
from voxcpm.server.speech.answers import whole_audio
from voxcpm.server.speech.fields import DEPTH, MOST_BESIDE, MOST_VALUES, read_json
from voxcpm.server.voices.library import VoiceLibrary
from voxcpm.server.voices.store import Voice, VoiceFolder
from voxcpm.watermark import PUBLIC_KEY

CONSENT = "I, Anna Example of 1 Main Street, allow this server to speak with my voice."
JSON = {"Content-Type": "application/json"}
LATENTS = {"ref_audio_feat": np.ones((2, 4, 64), np.float32)}


@pytest.fixture(scope="module")
def keys() -> dict[str, tuple[str, str]]:
    """Name -> (key, its line)."""
    return {"anna": make_key("anna", running=0), "root": make_key("root", admin=True, running=0)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    voices = tmp_path_factory.mktemp("voices")
    VoiceFolder(voices).add(Voice("anna", "uploaded", consent=CONSENT), LATENTS)
    with Service({"voices": voices, "cors": ("https://ours.example",), "slots": 1}) as service:
        yield service


@pytest.fixture(scope="module")
def keyed(keys: dict[str, tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text("\n".join(line for _, line in keys.values()), encoding="utf-8")
    VoiceFolder(folder / "voices").add(Voice("anna", "uploaded", consent=CONSENT), LATENTS)
    with Service({"voices": folder / "voices", "keys": folder / "keys"}) as service:
        yield service


@pytest.fixture
def bearer(keys: dict[str, tuple[str, str]]) -> Any:
    return lambda name: {"Authorization": f"Bearer {keys[name][0]}"}


def clip() -> str:
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(np.arange(32_000) / 10), 16_000, format="WAV")
    return "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()


def speak_batch(service: Service, *items: Any, **defaults: Any) -> list[dict[str, Any]]:
    answer = service.ask("POST", "/v1/audio/speech/batch", {"items": list(items)} | defaults)
    assert answer.status == 200, answer.body
    results: list[dict[str, Any]] = answer.json["results"]
    return results


# -- clients -----------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_while_it_sends_is_no_fault(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    state = service.state
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        until(lambda: state.answering == 1)
    until(lambda: state.answering == 0)
    assert service.speak("hello").status == 200
    assert not caplog.records, caplog.text


def test_a_page_may_send_the_headers_of_its_client(service: Service) -> None:
    asked = {"Origin": "https://ours.example", "Access-Control-Request-Method": "POST"}
    names = "authorization, content-type, x-stainless-lang, x-stainless-retry-count"
    allowed = service.ask("OPTIONS", "/v1/audio/speech", headers=asked | {"Access-Control-Request-Headers": names})
    assert allowed.status == 200 and allowed.headers["access-control-allow-headers"] == names
    assert "access-control-allow-credentials" not in allowed.headers


def test_open_webui_lists_models_and_voices(service: Service) -> None:
    listed = service.ask("GET", "/v1/models").json["data"]
    assert service.ask("GET", "/v1/audio/models").json == {"models": [{"id": one["id"]} for one in listed]}
    names = service.ask("GET", "/v1/audio/voices").json["voices"]
    objects = service.ask("GET", "/v1/audio/voices?format=objects").json["voices"]
    assert "anna" in names and objects == [{"id": name, "name": name} for name in names]


def test_fields_that_another_one_makes_useless_are_named(service: Service) -> None:
    whole = service.speak("hello", stream=False, stream_format="sse")
    assert whole.headers["x-ignored-fields"] == "stream_format" and "content-length" in whole.headers
    cloned = service.speak("hello", voice="alloy", ref_audio=clip())
    assert cloned.status == 200 and cloned.headers["x-ignored-fields"] == "voice"
    for plain in (service.speak("hello", stream=True, stream_format="audio"), service.speak("hello", voice="alloy")):
        assert plain.status == 200 and "x-ignored-fields" not in plain.headers


# -- bodies ------------------------------------------------------------------------------------------------------------

FULL = {
    "empty lists": b'{"input": "hello", "extra_params": {"a": [' + b"[]," * 400_000 + b"[]]}}",
    "short strings": b'{"input": "hello", "extra_params": {"a": [' + b'"a",' * 400_000 + b'"a"]}}',
    "a quote in a text": b'{"input": "a \\" b", "extra_params": {"a": [' + b"[]," * 400_000 + b"[]]}}",
    "behind a text": b'{"input": "' + b"a" * 5_000 + b'", "extra_params": {"a": [' + b"1," * 600_000 + b"1]}}",
    "escapes": b'{"input": "' + b"\\n" * (MOST_BESIDE + 1) + b'"}',
    "numbers": json.dumps({"input": "hello", "extra_params": {"a": [0] * MOST_VALUES}}).encode(),
    "objects": json.dumps({"input": "hello", "extra_params": {"a": [{"b": 0}] * (MOST_VALUES // 2)}}).encode(),
}


@pytest.mark.parametrize("name", FULL)
def test_a_body_that_would_hold_up_others_is_refused(service: Service, name: str) -> None:
    answer = service.ask("POST", "/v1/audio/speech", FULL[name])
    assert answer.status == 413 and answer.error["code"] == "body_too_large"
    assert "the body has more than" in answer.error["message"]


def test_what_holds_too_much_is_never_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("json.loads", None)
    with pytest.raises(ApiError) as refused:
        read_json(FULL["empty lists"])
    assert refused.value.status == 413


def test_clips_and_texts_are_not_counted() -> None:
    """Texts as other languages' clients write them: escaped slashes in base64, and \\u for each unit."""
    texts = ["\U0001f600" * 4_000, 'He said: "No." ' * 200, "a\\" * 900]
    body = {"ref_audio": "/+" * 3_000_000, "items": [{"input": text} for text in texts * 20]}
    raw = json.dumps(body).replace("/", "\\/", 200_000).encode()
    assert len(raw) > 5 * MOST_BESIDE and read_json(raw) == body
    assert read_json(b"\xef\xbb\xbf" + b'{"input": "a"}') == {"input": "a"}


@pytest.mark.parametrize(("depth", "fits"), [(DEPTH - 1, True), (DEPTH, False)])
def test_the_depth_of_a_body(depth: int, fits: bool) -> None:
    raw = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    if fits:
        read_json(raw)
    else:
        with pytest.raises(ApiError, match=f"more than {DEPTH} deep"):
            read_json(raw)


def test_a_body_in_utf_16_is_refused() -> None:
    with pytest.raises(ApiError, match="not JSON"):
        read_json('{"input": "hello"}'.encode("utf-16"))


def test_a_long_body_is_read_by_a_thread(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[int] = []

    def read(raw: bytes) -> dict[str, Any]:
        readers.append(threading.get_ident())
        return read_json(raw)

    async def loop() -> int:
        return threading.get_ident()

    monkeypatch.setattr(forms, "read_json", read)
    assert service.speak("hello").status == 200
    assert service.speak("hello", unused="a" * 300_000).status == 200
    assert len(readers) == 2 and readers[0] == service.run(loop()) != readers[1]


# -- voices ------------------------------------------------------------------------------------------------------------


def test_the_name_of_no_voice_cannot_be_stored(service: Service) -> None:
    for name in ("default", " Default"):
        refused = service.ask("POST", "/v1/audio/voices", {"name": name, "prompt": "A calm man"}, JSON)
        assert refused.status == 400 and refused.error["param"] == "name" and "'default'" in refused.error["message"]
        # In any case, a request with it has no voice.
        assert service.speak("hello", voice=name).status == 200


def test_a_full_disk_does_not_stop_openai_names(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(VoiceFolder, "add", full)
    assert service.speak("hello", voice="onyx").status == 200
    results = speak_batch(service, {"input": "one", "voice": "onyx"}, {"input": "two", "voice": "sage"})
    assert [one["status"] for one in results] == ["success", "success"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "voice onyx is not kept" in caplog.text and "Traceback" not in caplog.text
    # It is in memory, so that it is not designed again.
    assert isinstance(service.state.voices, VoiceLibrary)
    assert {"onyx", "sage"} <= set(service.state.voices._presets) <= set(PRESETS)


def test_consents_are_for_admins(service: Service, keyed: Service, bearer: Any) -> None:
    def listed(answer: Answer) -> Any:
        assert answer.status == 200
        return answer.json["uploaded_voices"][0]

    user = keyed.ask("GET", "/v1/audio/voices", headers=bearer("anna"))
    assert listed(user)["name"] == "anna" and "consent" not in listed(user) and b"Main Street" not in user.body
    assert listed(keyed.ask("GET", "/v1/audio/voices", headers=bearer("root")))["consent"] == CONSENT
    assert listed(service.ask("GET", "/v1/audio/voices"))["consent"] == CONSENT


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_has_no_long_texts(service: Service) -> None:
    long, short = speak_batch(service, {"input": "hello", "long": True}, {"input": "hello"})
    assert (long["status"], long["param"], short["status"]) == ("error", "long", "success")
    assert [one["param"] for one in speak_batch(service, {"input": "hello"}, long=True)] == ["long"]


def test_the_audio_of_a_batch_is_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_S", 1.0)
    # 0.8 s each, one after the other: the third one is not begun.
    results = speak_batch(service, *({"input": "hello"} for _ in range(4)))
    assert [one["status"] for one in results] == ["success", "success", "error", "error"]
    assert {one["code"] for one in results[2:]} == {"batch_too_long"}


def test_an_unexpected_error_is_that_items(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(encoding: Any, speech: Any) -> bytes:
        if speech.call.text == "breaks":
            raise RuntimeError("very private words")
        return await whole_audio(encoding, speech)

    monkeypatch.setattr(batch, "whole_audio", broken)
    bad, good = speak_batch(service, {"input": "breaks"}, {"input": "hello"})
    assert (bad["status"], bad["code"], good["status"]) == ("error", "internal_error", "success")
    assert "private" not in json.dumps(bad) and "item 0" in caplog.text
    until(lambda: not service.state.running)


def test_the_voice_of_an_item_counts_by_both_names(service: Service) -> None:
    for default, own in (("voice", "speaker"), ("speaker", "voice"), ("voice", "voice")):
        spoken, unknown = speak_batch(
            service, {"input": "hello", own: "anna"}, {"input": "hello"}, **{default: "nobody"}
        )
        assert spoken["status"] == "success" and "ignored_fields" not in spoken
        assert unknown["code"] == "voice_not_found"


def test_a_batch_names_what_it_does_not_stream(service: Service) -> None:
    (one,) = speak_batch(service, {"input": "hello", "stream_format": "sse", "stream": True})
    assert one["status"] == "success" and one["ignored_fields"] == ["stream", "stream_format"]


def test_a_batch_says_that_it_is_synthetic(service: Service) -> None:
    items = [{"input": "hello", "response_format": form, "seed": 3} for form in ("pcm", "mp3")] + [{"input": ""}]
    answer = service.ask("POST", "/v1/audio/speech/batch", {"items": items}, {"X-Request-Id": "many"})
    single = service.speak("hello", response_format="pcm", seed=3)
    for name in ("x-synthetic", "x-generator", "x-checkpoint"):
        assert answer.headers[name] == single.headers[name], name
    assert "x-created" in answer.headers and answer.headers["content-type"] == "application/json"
    pcm, mp3, failed = answer.json["results"]
    assert base64.b64decode(pcm["audio_data"]) == single.body
    assert (pcm["sample_rate"], mp3["sample_rate"]) == (24_000, 48_000) and "synthetic" not in failed
    for index, one in enumerate((pcm, mp3)):
        assert one["synthetic"] is True and one["checkpoint"] == single.headers["x-checkpoint"] and one["seed"] == 3
        assert one["generator"] == single.headers["x-generator"] and one["request_id"] == f"many-{index}"
        assert "watermark" not in one and "c2pa" not in one
    assert (answer.json["id"], answer.json["succeeded"], answer.json["failed"]) == ("many", 2, 1)
    failed_only = service.ask("POST", "/v1/audio/speech/batch", {"items": [{"input": ""}]})
    assert "x-synthetic" not in failed_only.headers


def test_a_batch_without_marks_says_nothing() -> None:
    with Service({"no_mark": True}) as unmarked:
        answer = unmarked.ask("POST", "/v1/audio/speech/batch", {"items": [{"input": "hello"}]})
        assert answer.json["succeeded"] == 1 and "x-synthetic" not in answer.headers
        assert "synthetic" not in answer.json["results"][0]


def test_other_requests_are_answered_while_a_batch_is_rendered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, other = threading.Event(), threading.Event()
    rendered = batch._rendered

    def slow(*about: Any) -> bytes:
        begun.set()
        assert other.wait(20.0), "the other request waited"
        return rendered(*about)

    monkeypatch.setattr(batch, "_rendered", slow)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(speak_batch, service, {"input": "hello"})
        assert begun.wait(60.0)
        assert service.ask("GET", "/v1/models").status == 200
        other.set()
        assert answer.result()[0]["status"] == "success"


def test_the_audio_of_a_batch_is_base64_however_long_it_is() -> None:
    for size in (0, 1, batch._SLICE, 2 * batch._SLICE + 1):
        data = random.Random(size).randbytes(size)
        parsed = json.loads(batch._rendered({"id": "a"}, [{"index": 0, "audio_data": data}, {"index": 1}]))
        assert base64.b64decode(parsed["results"][0]["audio_data"]) == data and parsed["results"][1] == {"index": 1}


# -- records, watermark ------------------------------------------------------------------------------------------------


def test_an_admin_sees_and_cancels_all_requests(keyed: Service, bearer: Any) -> None:
    connection = keyed.connect()
    connection.request("POST", "/v1/audio/speech", '{"input": "hold"}', bearer("anna") | {"X-Request-Id": "annas"})
    path = "/v1/audio/speech/annas"
    until(lambda: keyed.ask("GET", path, headers=bearer("root")).status == 200)
    assert keyed.ask("DELETE", path, headers=bearer("root")).json["cancelled"] is True
    assert connection.getresponse().status == 499
    connection.close()
    # Its own request of this id comes first; the other key's stays its own.
    assert keyed.speak("hello", headers=bearer("root") | {"X-Request-Id": "annas"}).status == 200
    endings = [keyed.ask("GET", path, headers=bearer(name)).json["ending"] for name in ("root", "anna")]
    assert endings == ["stop", "cancelled"]


def test_a_watermark_is_put_into_the_samples_that_are_sent(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    class Heard(NoWatermark):
        """Keeps the rate and the number of the samples that it was given."""

        rates: list[int]
        samples = 0

        def start(self, rate: int) -> Any:
            self.rates.append(rate)
            return super().start(rate)

        def mark(self, samples: Any, state: Any) -> Any:
            self.samples += len(samples)
            return super().mark(samples, state)

    heard = Heard()
    heard.rates = []
    monkeypatch.setattr(service.state, "watermark_keys", (PUBLIC_KEY,))
    monkeypatch.setattr(answers, "speech_mark", lambda *_: heard)
    answer = service.speak("seconds 2", response_format="pcm", sample_rate=24_000, speed=2.0)
    # After tempo and resampling, and once.
    assert heard.rates == [24_000] and heard.samples == len(answer.body) // 2
