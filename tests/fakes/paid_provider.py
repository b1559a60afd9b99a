"""Providers for the service of `fakes.paid_server`, over a real connection."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx2

from annotators.providers.http import trusted
from annotators.providers.remote import (
    Ask,
    BatchProvider,
    FatalError,
    QuotaError,
    RefusedError,
    RemoteProvider,
    Reply,
    Request,
    Tokens,
    TransientError,
)
from annotators.schema import Attributes, Caption, VoiceDescription
from fakes.paid_server import AUDIO_PER_S, KEY, OUT_PER_CLIP, TEXT_IN

PRICES = """
[[price]]
model = "local-1"
tier = "standard"
in_text = 2.0
in_audio = 3.0
out = 10.0

[[price]]
model = "local-1"
tier = "batch"
in_text = 2.0
in_audio = 3.0
out = 10.0
"""
"""The server's prices."""


class LocalProvider(RemoteProvider):
    """Asks the local server about up to `size` clips of one speaker at once."""

    name = "local"
    default_model = "local-1"

    def __init__(self, url: str, size: int = 4, free: bool = False, schema: str = "1", prompt: str = "1") -> None:
        self.url, self.size, self.free = url, size, free
        self.model, self.prompt_version = "local-1", "1"
        self.identity = hashlib.sha256(f"local local-1 {prompt}".encode()).hexdigest()
        self.schema = schema
        """Version of the parser; not in the identity."""
        self._client: httpx2.AsyncClient | None = None

    def group(self, asks: Sequence[Ask]) -> list[Request]:
        found = []
        for _, voice in groupby(asks, key=lambda ask: ask.speaker):
            members = list(voice)
            found += [members[start : start + self.size] for start in range(0, len(members), self.size)]
        return [Request(hashlib.sha256("".join(a.key for a in m).encode()).hexdigest(), tuple(m)) for m in found]

    def bound(self, request: Request) -> Tokens:
        seconds = sum(ask.seconds for ask in request.asks)
        return Tokens(
            TEXT_IN, round(seconds * AUDIO_PER_S) + 8 * len(request.asks), 0, 3 * OUT_PER_CLIP * len(request.asks)
        )

    async def send(self, request: Request) -> Reply:
        reply = await self._post("/ask", {"clips": _clips(request)})
        if reply.status_code == 429:
            wait = reply.headers.get("retry-after")
            if wait is None:
                raise QuotaError("quota of the day")
            raise TransientError("slow down", sent=False, retry_after=float(wait), status=429)
        if reply.status_code >= 500:
            raise TransientError("internal", sent=False, status=reply.status_code)
        if reply.status_code == 401:
            raise FatalError("the key is wrong")
        if reply.status_code == 400:
            raise RefusedError("bad request")
        return _reply(reply.text)

    async def _post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        try:
            return await self._connected().post(self.url + path, json=body, headers={"x-key": KEY})
        except httpx2.ConnectError:
            raise TransientError("no connection", sent=False) from None
        except httpx2.HTTPError as error:
            raise TransientError(type(error).__name__, sent=True) from None

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=60.0, trust_env=False, verify=trusted())
        return self._client

    def parse(self, raw: str, keys: Sequence[str]) -> Mapping[str, VoiceDescription | str]:
        reply = json.loads(raw)
        if "blocked" in reply:
            return dict.fromkeys(keys, f"blocked:{reply['blocked']}")
        if reply["finish"] == "MAX_TOKENS":
            return dict.fromkeys(keys, "max_tokens")
        if [answer["label"] for answer in reply["answers"]] != [str(number) for number in range(len(keys))]:
            return dict.fromkeys(keys, "mismatch")
        return {key: self._said(answer["heard"]) for key, answer in zip(keys, reply["answers"], strict=True)}

    def _said(self, heard: str) -> VoiceDescription | str:
        if not heard:
            return "invalid: nothing was heard"
        text = f"A voice heard as {heard}, schema {self.schema}"
        return VoiceDescription(
            attributes=Attributes(gender="female", texture=("warm",), evidence="low hum"),
            captions=(Caption("brief", "en", heard), Caption("full", "en", text), Caption("full", "zh", "一个声音")),
        )

    def answered_by_another(self, model_version: str | None) -> bool:
        return model_version != "local-1"

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


class LocalBatches(LocalProvider, BatchProvider):
    """The same by jobs."""

    name = "local-batch"

    async def find_job(self, display_name: str) -> str | None:
        reply = await self._connected().get(f"{self.url}/jobs?display={display_name}")
        return next(iter(reply.json()["names"]), None)

    async def create_job(self, display_name: str, requests: Sequence[Request]) -> str:
        body = {"display_name": display_name, "requests": [{"id": r.id, "clips": _clips(r)} for r in requests]}
        reply = await self._post("/jobs", body)
        return str(reply.json()["name"])

    async def collect(self, job: str) -> Mapping[str, Reply | str] | None:
        reply = await self._connected().get(f"{self.url}/jobs/{job}")
        if reply.status_code == 404:
            raise FatalError("no such job")
        body = reply.json()
        if not body["done"]:
            return None
        return {
            name: str(result["error"]) if "error" in result else _reply(json.dumps(result))
            for name, result in body["results"].items()
        }


def _clips(request: Request) -> list[dict[str, str]]:
    return [{"label": str(n), "flac": base64.b64encode(ask.audio).decode()} for n, ask in enumerate(request.asks)]


def _reply(text: str) -> Reply:
    body = json.loads(text)
    usage = Tokens(body["usage"]["text"], body["usage"]["audio"], 0, body["usage"]["out"])
    return Reply(text, body["finish"], body.get("blocked"), body["model"], usage, text)


def run(corpus: str, url: str, prices: str, cap: str, kind: str = "") -> None:
    """Run a pass, online or as a `batch`, with a cap in USD."""
    from annotators.paid.paid_pass import describe_paid
    from annotators.paid.pass_options import PassOptions

    provider = LocalBatches(url) if kind else LocalProvider(url)
    options = PassOptions(
        cap_usd=float(cap), prices=Path(prices), concurrency=4, name="local", poll_s=0.05 if kind else None
    )
    describe_paid(corpus, provider, options)
