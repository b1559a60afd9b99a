"""What the speech server does with an engine process that does not start, or does not load its model."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from speech_service import WAIT_S, Service, until

from voxcpm.server.process import link as link_module
from voxcpm.server.process.link import EngineLink


def test_an_engine_that_loads_without_an_end_is_given_up() -> None:
    with Service({"checkpoint": "endless", "load_within": 0.2}) as service:
        until(lambda: service.server.failure is not None)
        assert "4 times" in (service.server.failure or "") and "within 0.2 s" in (service.server.failure or "")
        assert service.state.link.pid is None


def test_an_engine_process_that_cannot_be_started_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "AGAIN_S", 0.01)
    with Service({"worker": ("/nonexistent/engine",)}) as service:
        until(lambda: service.server.failure is not None)
        assert "could not be started (No such file or directory)" in (service.server.failure or "")
    # Also one that worked before: the server stays, and says that it does not work.
    with Service() as service:
        link = service.state.link
        link.command = ("/nonexistent/engine",)
        link.kill()
        until(lambda: link.status == "failed")
        assert service.ask("GET", "/health").status == 503 and service.speak("hello").status == 503


def test_an_engine_process_is_started_once_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "AGAIN_S", 0.01)
    start, tries = asyncio.create_subprocess_exec, []

    async def second_works(*command: Any, **options: Any) -> Any:
        tries.append(command)
        if len(tries) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", second_works)
    with Service() as service:
        assert service.state.link.restarts == 1
        assert service.speak("hello").status == 200


def test_a_fault_of_the_link_is_seen_by_health_and_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fault() -> None:
        raise RuntimeError("a fault of ours")

    async def scenario() -> None:
        link = EngineLink((), b"{}")
        monkeypatch.setattr(link, "_spawn", fault)
        link.start()
        await asyncio.wait_for(link.wait_ready(), WAIT_S)
        assert link.status == "failed" and "RuntimeError" in (link.failure or "")
        await link.stop()

    asyncio.run(scenario())


def test_a_short_limit_of_loading_does_not_shorten_that_of_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> float:
        link = EngineLink((), b"{}", hang_s=0.4, loading_s=0.04)
        killed = asyncio.Event()
        monkeypatch.setattr(link, "kill", killed.set)
        monkeypatch.setattr(link, "send", lambda message: None)
        link.status, link.channels = "ready", {1: None}  # type: ignore[dict-item]
        started = time.monotonic()
        watch = asyncio.create_task(link._watch())
        await asyncio.wait_for(killed.wait(), WAIT_S)
        watch.cancel()
        return time.monotonic() - started

    assert asyncio.run(scenario()) >= 0.4
