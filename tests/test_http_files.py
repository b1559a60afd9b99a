"""The test server itself: what it serves, and each of its faults."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.http_files import HttpFiles

BODY = bytes(range(256)) * 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpFiles]:
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / "one two.wav").write_bytes(BODY)
    with HttpFiles(tmp_path) as files:
        yield files


def ask(
    server: HttpFiles, path: str, method: str = "GET", range_: str = "", timeout: float | None = None
) -> tuple[int, bytes, http.client.HTTPMessage]:
    host = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=timeout)
    try:
        connection.request(method, path, headers={"Range": range_} if range_ else {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_files_ranges_heads_and_folders_are_served(server: HttpFiles) -> None:
    path = "/talks/one%20two.wav"
    assert ask(server, path)[:2] == (200, BODY)
    status, body, headers = ask(server, path, range_="bytes=10-19")
    assert (status, body, headers["Content-Range"]) == (206, BODY[10:20], f"bytes 10-19/{len(BODY)}")
    assert ask(server, path, range_="bytes=-5")[1] == BODY[-5:]
    assert ask(server, path, range_=f"bytes={len(BODY) - 3}-")[1] == BODY[-3:]
    assert ask(server, path, range_=f"bytes={len(BODY)}-")[0] == 416
    status, body, headers = ask(server, path, "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(len(BODY)))
    assert b'href="one%20two.wav"' in ask(server, "/talks/")[1]
    assert ask(server, "/nothing")[0] == 404 and ask(server, "/../secret")[0] == 404
    # Requests are noted when their answers have been sent, so that two may change places.
    (asked,) = (request for request in server.requests if request.range == "bytes=10-19")
    assert (asked.method, asked.path, asked.range, asked.status, asked.sent) == (
        "GET",
        "talks/one two.wav",
        "bytes=10-19",
        206,
        10,
    )


def test_faults_hold_as_long_as_they_are_set(server: HttpFiles) -> None:
    path, url = "talks/one two.wav", "/talks/one%20two.wav"
    for fate in ("500", "403", "404"):
        server.fail(path, fate)
        assert ask(server, url)[0] == ask(server, url, "HEAD")[0] == int(fate)
    server.fail(path, "half", times=1, after=1, methods=("GET",))
    assert ask(server, url)[0] == 200
    with pytest.raises(http.client.IncompleteRead) as broken:
        ask(server, url)
    assert broken.value.partial == BODY[: len(BODY) // 2]
    assert ask(server, url)[1] == BODY
    server.fail(path, "500")
    server.mend(path)
    assert ask(server, url)[1] == BODY


def test_a_hanging_request_ends_when_it_is_mended_and_slow_ones_are_whole(server: HttpFiles) -> None:
    path, url = "talks/one two.wav", "/talks/one%20two.wav"
    server.fail(path, "hang")
    with pytest.raises(TimeoutError):
        ask(server, url, timeout=0.2)
    outcome: list[object] = []

    def wait() -> None:
        try:
            outcome.append(ask(server, url)[0])
        except (http.client.HTTPException, OSError) as error:
            outcome.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    server.wait_until_hanging(2)
    server.mend()
    waiting.join()
    assert isinstance(outcome[0], (http.client.RemoteDisconnected, OSError))
    assert ask(server, url)[1] == BODY
    server.fail(path, "slow", block_s=0.001)
    assert ask(server, url)[1] == BODY
