"""The HTTP process's side of the engine process: start, messages, death, restart."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from voxcpm.server.errors import ApiError, unavailable
from voxcpm.server.process.channel import Channel
from voxcpm.server.process.messages import (
    PREFIX,
    Accepted,
    Audio,
    Cancel,
    Clip,
    Encode,
    Encoded,
    Failed,
    FromEngine,
    Latents,
    Load,
    Ping,
    Pong,
    Ready,
    Speak,
    ToEngine,
    body_length,
    from_engine,
    packed,
)

log = logging.getLogger("voxcpm.server")

RESTARTS = 3
"""Restarts within RESTART_WINDOW_S; after one more death the server gives up."""
RESTART_WINDOW_S = 600.0
HANG_S = {"cuda": 60.0}
"""Longest time without an answer of the engine while calls are open, by type of device."""
OTHER_HANG_S = 300.0
"""On a CPU, a step may have to read a long prompt."""
TICKS = 4
"""Looks within the time after which an engine hangs, at least. Counted in looks, so that a stall of our own does not count."""

LOADING_S = 900.0
"""Longest time until the model is loaded: enough for a large one from a slow disk."""
AGAIN_S = 1.0
"""Seconds between two tries if the process cannot even be started, e.g. as the system has too many."""

WAKE_S = 300.0
"""Longest time that a call waits for a model that was unloaded."""

Status = Literal["loading", "ready", "unloaded", "failed", "stopped"]
LOST = "the engine process ended while it spoke: ask again in a few seconds"


class EngineLink:
    """Start the engine process, pass messages, and start it again when it dies."""

    def __init__(
        self,
        command: tuple[str, ...],
        options: bytes,
        on_load: Callable[[Load], None] | None = None,
        hang_s: float | None = None,
        unload_s: float | None = None,
        loading_s: float = LOADING_S,
    ) -> None:
        """command: of the process; options: JSON that it reads from its first message (see worker.Options).

        hang_s: an engine that does not answer for this long while calls are open is killed. Default: HANG_S.
        unload_s: without a call for this long, the process is ended; the next call starts it and waits. Default: it stays.
        loading_s: a process that has not loaded the model after this long is killed, and counted like one that has ended.
        """
        self.command, self.options = command, options
        self.status: Status = "loading"
        self.failure: str | None = None  #: why the status is "failed"
        self.load = Load(0, 0, 0)
        self.channels: dict[int, Channel] = {}
        self.deaths: deque[float] = deque()
        self.restarts = 0
        self.answered = 0  #: pings
        self._hang_s = hang_s
        self._unanswered = 0  #: looks since the ping that was not answered; 0: there is none
        self._loading_s = loading_s
        self._loading_for = 0.0  #: seconds that the process has been loading at the last look
        self._starts = 0  #: since the model was loaded
        self._unload_s = unload_s
        self._used = time.monotonic()  #: when the last call was open
        self._waking = False  #: the process is started for a call that waits
        self._wanted = asyncio.Event()
        self._watching: list[asyncio.Task[None]] = []
        self._on_load = on_load or (lambda load: None)
        self._about: Ready | None = None
        self._numbers = itertools.count(1)
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def about(self) -> Ready:
        """Facts about the loaded model. Raises ApiError (503) before it was loaded for the first time."""
        if self._about is None:
            raise unavailable("the model is still being loaded: ask again in a few seconds")
        return self._about

    @property
    def loaded(self) -> bool:
        """Return True if the model was loaded at least once."""
        return self._about is not None

    @property
    def pid(self) -> int | None:
        """Process id of the engine process, None if there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def next_number(self) -> int:
        """Return a call number that was not used before."""
        return next(self._numbers)

    def check(self) -> None:
        """Raise ApiError (503) if the engine cannot take a call. One that was unloaded can: the call waits for it."""
        if self.status == "unloaded" or (self.status == "loading" and self._waking):
            return
        if self.status == "loading":
            raise unavailable("the model is being loaded: ask again in a few seconds", 3.0)
        if self.status != "ready":
            raise unavailable("the engine does not work any more: the server has to be started again", None)

    # -- calls ---------------------------------------------------------------------------------------------------------

    def send(self, message: ToEngine) -> None:
        """Send a message; one to a process that is gone is dropped."""
        if self._writer is not None and self.status == "ready":
            self._writer.write(packed(message))

    async def open(self, request: Speak) -> Channel:
        """Send a call; return its channel once the engine has accepted it. Raises ApiError if it is refused."""
        channel = Channel(request.call, self.channels)
        answer = await self._first(channel, request)
        assert isinstance(answer, Accepted)
        channel.accepted = answer
        return channel

    async def encode(self, clip: Clip, side: Literal["left", "right"] = "right") -> Latents:
        """Encode a clip in the engine process. Raises ApiError if it cannot be encoded."""
        channel = Channel(self.next_number(), self.channels)
        answer = await self._first(channel, Encode(channel.number, clip, side))
        channel.close()
        assert isinstance(answer, Encoded)
        return answer.latents

    async def _first(self, channel: Channel, request: Speak | Encode) -> Accepted | Audio | Encoded:
        await self._awake()
        self.channels[channel.number] = channel
        self.send(request)
        try:
            return await channel.answer()
        except BaseException:
            # Also when the client went away while the call was queued.
            channel.close()
            self.send(Cancel(channel.number))
            raise

    async def _awake(self) -> None:
        """Wait for an engine that was unloaded. Raises ApiError (503) if there is none after that."""
        if self.status == "unloaded":
            self._waking = True
            self._wanted.set()
        if self._waking:
            try:
                await asyncio.wait_for(self._ready.wait(), WAKE_S)
            except TimeoutError:
                raise unavailable("the model is still being loaded: ask again in a few seconds", 3.0) from None
        self.check()

    # -- the process ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the engine process and keep it running, in a background task."""
        self._task = asyncio.create_task(self._keep_running(), name="engine")
        self._task.add_done_callback(self._on_end)
        self._watching.append(asyncio.create_task(self._watch(), name="engine watch"))
        if self._unload_s is not None:
            self._watching.append(asyncio.create_task(self._watch_idle(self._unload_s), name="engine idle"))

    async def wait_ready(self) -> None:
        """Wait until the model is loaded, or the link has failed."""
        await self._ready.wait()

    async def stop(self) -> None:
        """End the process: it ends by itself when its pipe closes; it is killed if it does not within 5 seconds.

        Raises nothing for what went wrong before.
        """
        self.status = "stopped"
        tasks = [task for task in (*self._watching, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), 5.0)
            except TimeoutError:
                self.kill()
                await self._process.wait()

    def abandon(self) -> None:
        """Kill the process and start no other one."""
        self.status = "stopped"
        self.kill()

    def kill(self) -> None:
        """Kill the process at once."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _keep_running(self) -> None:
        while True:
            how, pause_s = await self._run_once()
            self._fail_all()
            if self.status == "stopped":
                return
            if self.status == "unloaded":
                await self._wanted.wait()
                continue
            if self.status == "failed" or not self._may_restart():
                self._give_up(f"it was started {RESTARTS + 1} times, and {how}")
                return
            self.restarts += 1
            log.error("the engine process %s: it is started again", how)
            if pause_s:
                await asyncio.sleep(pause_s)

    async def _run_once(self) -> tuple[str, float]:
        """Start the process and read to its end. Returns (how it ended, seconds until another one may be started)."""
        try:
            reader = await self._spawn()
        except OSError as error:
            return f"could not be started ({error.strerror or type(error).__name__})", AGAIN_S
        try:
            await self._read(reader)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError, msgspec.MsgspecError) as error:
            if not isinstance(error, (asyncio.IncompleteReadError, ConnectionError)):
                log.error("the engine process sent something that is not a message (%s)", type(error).__name__)
        assert self._process is not None
        self.kill()
        code = await self._process.wait()
        if self._loading_for > self._loading_s:
            return f"did not load the model within {self._loading_s:g} s", 0.0
        return f"ended (status {code})", 0.0

    def _give_up(self, why: str) -> None:
        self.status = "failed"
        self.failure = self.failure or why
        if self.loaded:  # otherwise the server ends and says why
            log.error("the engine process does not work: %s", self.failure)
        self._ready.set()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Give up if the task that keeps the process running has failed: otherwise the server would be loading without an end."""
        if task.cancelled() or (error := task.exception()) is None or self.status == "stopped":
            return
        self.kill()
        self._fail_all()
        self._give_up(f"its watch failed ({type(error).__name__})")

    async def _watch(self) -> None:
        """Kill an engine process that lives but does not answer while calls are open, or does not load the model.

        It is then started again.
        """
        while True:
            bound = self._bound()
            tick = min(bound, self._loading_s) / TICKS
            await asyncio.sleep(tick)
            if self.status == "loading" and self.pid is not None:
                self._loading_for += tick
                if self._loading_for > self._loading_s:
                    self.kill()
            if self.status != "ready" or not self.channels:
                self._unanswered = 0
                continue
            if self._unanswered == 0:
                self.send(Ping())
            self._unanswered += 1
            if (self._unanswered - 1) * tick >= bound:
                log.error("the engine process has not answered for %g s: it is ended", bound)
                self.kill()

    async def _watch_idle(self, unload_s: float) -> None:
        """End the engine process when there was no call for a time."""
        while True:
            await asyncio.sleep(min(unload_s / 4, 10.0))
            now = time.monotonic()
            if self.channels or self.status != "ready":
                self._used = now
            elif now - self._used >= unload_s:
                log.info("no request for %g s: the model is unloaded", unload_s)
                self.status = "unloaded"
                self._ready.clear()
                self._wanted.clear()
                self.kill()

    def _bound(self) -> float:
        if self._hang_s is not None:
            return self._hang_s
        return HANG_S.get(self._about.device.partition(":")[0] if self._about else "", OTHER_HANG_S)

    async def _spawn(self) -> asyncio.StreamReader:
        """Start the process and send its options. Raises OSError if the system cannot start it, or the link was abandoned."""
        if self.status == "stopped":
            raise ConnectionAbortedError
        self.status = "loading"
        self._unanswered, self._loading_for = 0, 0.0
        self._starts += 1
        self._ready.clear()
        ours, theirs = socket.socketpair()
        try:
            # A new session: Ctrl-C reaches the HTTP process only, which then drains.
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.stderr,
                start_new_session=True,
            )
            reader, self._writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            self.kill()
            raise
        finally:
            theirs.close()
        self._writer.write(len(self.options).to_bytes(PREFIX, "big") + self.options)
        return reader

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            body = await reader.readexactly(body_length(await reader.readexactly(PREFIX)))
            self._take(from_engine.decode(body))

    def _take(self, message: FromEngine) -> None:
        match message:
            case Ready():
                self._about = message
                self.status, self._waking, self._used, self._starts = "ready", False, time.monotonic(), 0
                self._set_load(Load(message.slots, 0, 0))
                self._ready.set()
            case Failed():
                self.status, self.failure = "failed", message.message
            case Load():
                self._set_load(message)
            case Pong():
                self._unanswered = 0
                self.answered += 1
            case _:
                channel = self.channels.get(message.call)
                if channel is not None:
                    channel.put(message)

    def _fail_all(self) -> None:
        """End all open calls: their clients get an error, never a clean end."""
        if self.status == "ready":
            self.status = "loading"
        self._ready.clear()
        self._set_load(Load(0, 0, 0))
        channels, self.channels = self.channels, {}
        for channel in channels.values():
            channel.fail(ApiError(503, LOST, "server_error", code="engine_lost", retry_after_s=3.0, retry=True))

    def _set_load(self, load: Load) -> None:
        self.load = load
        self._on_load(load)

    def _may_restart(self) -> bool:
        """Count a death. Returns False after too many, in a time or, as loading may take longer, since the last loaded model."""
        now = time.monotonic()
        self.deaths.append(now)
        while self.deaths and self.deaths[0] < now - RESTART_WINDOW_S:
            self.deaths.popleft()
        return len(self.deaths) <= RESTARTS and self._starts <= RESTARTS
