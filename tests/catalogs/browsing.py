"""A served corpus for the tests of `voxmill browse`: small, synthetic, with descriptions, references and words."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from corpus_builders import FINGERPRINT, annotate, make_unit

from catalogs.browse.server import Served, browse
from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus


def make_corpus(root: Path, units: int = 2, segments: int = 6) -> Path:
    """Clips of half a second; each says its number. One in three is too noisy for DNSMOS, the last of a unit has no audio."""
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    for number in range(units):
        unit = make_unit(f"talk{number}", segments, 0.5)
        for place, row in enumerate(unit.rows):
            row["text"] = f"unit {number} clip {place}"
            row["words"] = [
                {"word": word, "start": 0.1 * at, "end": 0.1 * at + 0.08, "p": 0.9}
                for at, word in enumerate(row["text"].split())
            ]
            row["dnsmos_ovr"] = 1.0 if place % 3 == 1 else 3.5
            row["language"] = "de" if number % 2 else "en"
            row["snr_db"] = 20.0 + place
        commit_unit(root, unit)
        annotate(root, unit.unit_id, [row["segment_id"] for row in unit.rows[:2]], f"a warm voice of talk {number}")
    return root


@dataclass
class Client:
    """Asks a server as a browser does that opened its address."""

    url: str
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        status, headers, _ = self.ask("GET", urlsplit(self.url)._replace(scheme="", netloc="").geturl())
        assert status == 200
        self.cookie = headers["set-cookie"].split(";")[0]

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a request; `headers` replace those of a browser, an empty one leaves it out."""
        own = {"Host": urlsplit(self.url).netloc, "Cookie": self.cookie, "X-Voxmill": "1", **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.url).port or 0, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in own.items():
                if value:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """JSON of a GET."""
        status, _, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def post(self, path: str, given: Any) -> Any:
        """JSON of a POST."""
        status, _, body = self.ask("POST", path, json.dumps(given).encode())
        assert status == 200, body
        return json.loads(body)


@contextmanager
def served(root: Path, by: str = "Ann", **options: Any) -> Iterator[str]:
    """The address of a server of this corpus, in a thread."""
    ready: queue.Queue[Served | BaseException] = queue.Queue()

    def run() -> None:
        try:
            browse(root, by=by, ready=ready.put, **options)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=run)
    thread.start()
    found = ready.get(timeout=60)
    if isinstance(found, BaseException):
        raise found
    try:
        yield found.url
    finally:
        found.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()


@contextmanager
def served_elsewhere(root: Path, by: str) -> Iterator[str]:
    """The address of a server in another process, started by the command."""
    command = [sys.executable, "-m", "voxmill.cli", "browse", str(root), "--no-open", "--by", by, "--json"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert run.stdout is not None
    try:
        yield json.loads("".join(run.stdout.readline() for _ in range(3)))["url"]
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=30)
        assert run.returncode in (0, 130) and "Traceback" not in said
    finally:
        run.kill()
