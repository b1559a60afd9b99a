"""Clips for the fake describers, requests about them, and what every test of a service needs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import pickle
import traceback
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import soundfile

from annotators.providers.questions import Questions, new_request
from annotators.providers.remote import Ask, RemoteError, Reply, Request

KEY = "AIzaCANARY-0123456789-secret-of-the-test"
SPOKEN = "the quick brown fox"
"""The transcript of every clip. No provider ever gets it."""


def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what the machine's user has set for services and proxies, and set the keys of the tests."""
    for name in list(os.environ):
        if name.upper().startswith(("GOOGLE_", "GEMINI_", "VOXMILL_CHAT")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


@cache
def flac(seconds: float, pitch: float = 120.0, level: float = 0.2) -> bytes:
    """Return a voice-like tone: harmonics that fall off, at 16 kHz."""
    time = np.arange(int(seconds * 16_000)) / 16_000
    tone = np.sum([np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 8)], axis=0)
    sink = io.BytesIO()
    soundfile.write(sink, (level * tone * 32767 / 2).astype(np.int16), 16_000, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def ask(
    name: str, seconds: float, pitch: float = 120.0, speaker: str | None = "s1", language: str | None = "en"
) -> Ask:
    key = hashlib.sha256(name.encode()).hexdigest()
    return Ask(key, f"segment-{name}", speaker, language, seconds, flac(seconds, pitch))


def three() -> Request:
    """Return a request about a low voice of 2 s, a high voice of 4.5 s and a soft one of 8 s."""
    return new_request([ask("a", 2.0, 100.0), ask("b", 4.5, 260.0, language="zh"), ask("c", 8.0, 130.0)])


def one(name: str = "a", seconds: float = 2.0) -> Request:
    return new_request([ask(name, seconds)])


async def send_all(provider: Questions, *requests: Request) -> list[Reply | RemoteError]:
    """Send requests one after the other and close the provider. Any error that is not a RemoteError is raised."""
    found: list[Reply | RemoteError] = []
    try:
        for request in requests:
            try:
                found.append(await provider.send(request))
            except RemoteError as error:
                found.append(error)
    finally:
        await provider.close()
    return found


def send(provider: Questions, request: Request) -> Reply | RemoteError:
    """Send one request with a provider that is closed afterwards."""
    return asyncio.run(send_all(provider, request))[0]


def shown(error: BaseException) -> str:
    """Return everything that an exception shows or keeps: texts, pickles, attributes, and the same of those behind it."""
    return "\n".join(_shown(error, set()))


def _shown(error: BaseException | None, seen: set[int]) -> Iterator[str]:
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    yield from (repr(error), str(error), repr(vars(error)), repr(error.args), repr(pickle.dumps(error)))
    yield "".join(traceback.format_exception(error))
    yield from _shown(error.__cause__, seen)
    yield from _shown(error.__context__, seen)
