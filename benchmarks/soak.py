"""Soak of the speech server: does it stay as it was under clients that come, go, stall and send garbage?

    python benchmarks/soak.py [CHECKPOINT] [--minutes 10] [--acts 1000] [--seed 0]

A real `voxcpm serve` of a small checkpoint (by default the golden one in ../shared) gets `--acts` random acts at Poisson times:
whole and streamed answers, events, clips, clients that leave before, in the middle and after reading slowly, bodies that are
garbage or never complete, cancels from elsewhere, WebSocket sessions that are cancelled or cut, and Wyoming connections.

It fails (status 1) if an answer is 5xx other than 503, if a slot is not free at the end, if the engine process was started again,
if file descriptors of the HTTP process are left, or if the memory of one of both processes grows: a straight line through its RSS
over the last two thirds of the time may rise by at most 5 % of its mean, and at least 8 MiB are allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import httpx2  # noqa: E402
import websockets  # noqa: E402
from serving import Server, free_port  # noqa: E402

TEXT = "the quick brown fox jumps over the lazy dog and runs away to the far hills"
FORMATS = ("mp3", "pcm", "wav", "flac", "opus", "aac")
MOST_AT_ONCE = 24
"""Acts at the same time; a further one waits."""
SAMPLE_S = 1.0
GROWTH, GROWTH_MIB = 0.05, 8.0
"""Allowed rise of the line through the memory: share of its mean, and MiB."""
SETTLE_S = 60.0
"""Longest wait for the last slots to be free."""


class Soak:
    """The clients. Counts what the server answered."""

    def __init__(self, server: Server, wyoming: int, draw: random.Random) -> None:
        self.url, self.port, self.wyoming = server.url, int(server.url.rpartition(":")[2]), wyoming
        self.statuses: Counter[int] = Counter()
        self.acts: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()  # what was cut by the server: kinds of exceptions by act
        self._draw = draw
        self._client = httpx2.AsyncClient(timeout=120, limits=httpx2.Limits(max_connections=200))
        self._kinds: dict[Callable[[], Awaitable[None]], int] = {
            self.whole: 4, self.streamed: 4, self.clip: 1, self.leaves: 3, self.reads_and_leaves: 3, self.slow: 2,
            self.garbage: 3, self.half_a_body: 2, self.cancelled: 2, self.session: 3, self.home: 2,
        }  # fmt: skip

    async def act(self) -> None:
        """Do something at random."""
        (kind,) = self._draw.choices(list(self._kinds), list(self._kinds.values()))
        name = kind.__name__  # type: ignore[attr-defined]
        self.acts[name] += 1
        try:
            await kind()
        except (httpx2.TransportError, websockets.WebSocketException, OSError, EOFError) as error:
            self.broken[f"{name}: {type(error).__name__}"] += 1

    def body(self, **fields: Any) -> dict[str, Any]:
        """Return a request of 1 to 12 patches."""
        words = TEXT.split()
        text = " ".join(words[: self._draw.randint(1, len(words))])
        return {
            "input": text,
            "max_new_tokens": self._draw.randint(1, 12),
            "response_format": self._draw.choice(FORMATS),
            **fields,
        }

    async def _post(self, body: Any, **more: Any) -> None:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        answer = await self._client.post(self.url + "/v1/audio/speech", **content, **more)
        self.statuses[answer.status_code] += 1

    async def whole(self) -> None:
        await self._post(self.body(stream=False, speed=self._draw.choice([1.0, 1.0, 1.3])))

    async def streamed(self) -> None:
        await self._post(self.body(stream_format=self._draw.choice(["sse", "audio"])))

    async def clip(self) -> None:
        """A clip that was never sent before: nothing may be kept without a bound."""
        import numpy as np
        import soundfile

        sink = io.BytesIO()
        seconds = self._draw.uniform(1.0, 3.0)
        noise = np.random.default_rng(self._draw.randrange(2**32)).normal(0, 0.1, int(16_000 * seconds))
        soundfile.write(sink, noise, 16_000, format="WAV", subtype="PCM_16")
        url = "data:audio/wav;base64," + base64.b64encode(sink.getvalue()).decode()
        await self._post(self.body(ref_audio=url))

    async def leaves(self) -> None:
        """Send a request and leave."""
        _, writer = await self._sent(json.dumps(self.body(max_new_tokens=400, min_len=300)).encode())
        await asyncio.sleep(self._draw.uniform(0, 0.3))
        writer.transport.abort()

    async def reads_and_leaves(self) -> None:
        """Leave in the middle of an answer."""
        reader, writer = await self._sent(
            json.dumps(self.body(response_format="pcm", min_len=100, max_new_tokens=400)).encode()
        )
        await reader.read(self._draw.randint(1, 60_000))
        writer.transport.abort()

    async def slow(self) -> None:
        """Read a little now and then, or nothing, and leave."""
        reader, writer = await self._sent(
            json.dumps(self.body(response_format="pcm", min_len=60, max_new_tokens=400)).encode()
        )
        silent = self._draw.random() < 0.4
        for _ in range(self._draw.randint(4, 16)):
            if not silent and not await reader.read(2048):
                break
            await asyncio.sleep(0.5)
        writer.transport.abort()

    async def garbage(self) -> None:
        """Send bytes that are not a request, or a body that is not one."""
        kind = self._draw.randrange(3)
        if kind == 0:
            await self._post(self._draw.randbytes(self._draw.randint(0, 4000)))
        elif kind == 1:
            fields = {
                self._draw.choice(["voice", "speed", "seed", "input", "ref_audio"]): self._draw.choice(
                    [[], {}, -1, "x", True]
                )
            }
            await self._post(self.body(**fields))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(self._draw.randbytes(2000) + b"\r\n\r\n")
            await reader.read()
            writer.close()

    async def half_a_body(self) -> None:
        """Announce more than is sent, and leave."""
        _, writer = await self._sent(b'{"input": "', more=5000)
        await asyncio.sleep(self._draw.uniform(0, 1))
        writer.transport.abort()

    async def cancelled(self) -> None:
        """Cancel a request from elsewhere."""
        name = f"soak-{self._draw.randrange(2**60)}"
        body = self.body(min_len=200, max_new_tokens=400, stream=False)
        asked = asyncio.create_task(self._post(body, headers={"X-Request-Id": name}))
        await asyncio.sleep(self._draw.uniform(0, 0.5))
        for _ in range(600):
            if asked.done():
                break
            # 404 until the request is known.
            await self._client.delete(f"{self.url}/v1/audio/speech/{name}")
            await asyncio.sleep(0.1)
        await asked

    async def session(self) -> None:
        """Talk through a WebSocket: to the end, with a cancel, with garbage, or cut."""
        end = self._draw.choice(["done", "cancel", "cut", "garbage"])
        async with websockets.connect(f"ws://127.0.0.1:{self.port}/v1/audio/speech/stream", max_size=None) as socket:
            config = {"split_granularity": "sentence", "stream_audio": self._draw.random() < 0.7, "max_new_tokens": 8}
            await socket.send(json.dumps({"type": "session.config", **config}))
            for _ in range(self._draw.randint(1, 3)):
                await socket.send(json.dumps({"type": "input.text", "text": TEXT.capitalize() + ". "}))
            last = {"done": "input.done", "cancel": "input.cancel", "cut": "input.commit"}
            await socket.send("{" if end == "garbage" else json.dumps({"type": last[end]}))
            if end == "cut":
                await asyncio.sleep(self._draw.uniform(0, 0.5))
                socket.transport.abort()
                return
            until = {"done": "session.done", "cancel": "audio.cancelled", "garbage": "error"}[end]
            async with asyncio.timeout(120):
                while True:
                    message = await socket.recv()
                    if isinstance(message, str) and json.loads(message)["type"] == until:
                        return

    async def home(self) -> None:
        """Speak as Home Assistant does, or send it garbage."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.wyoming)
        kind = self._draw.choice(["spoken", "cut", "garbage"])
        data = json.dumps({"text": TEXT, "voice": {"name": "default"}}).encode()
        line = json.dumps({"type": "synthesize", "data_length": len(data)}).encode() + b"\n"
        writer.write(self._draw.randbytes(500) + b"\n" if kind == "garbage" else line + data)
        if kind == "cut":
            await asyncio.sleep(self._draw.uniform(0, 1))
            writer.transport.abort()
            return
        heard = b""
        while b'"audio-stop"' not in heard[-4096:] and (more := await reader.read(65_536)):
            heard += more
        writer.close()

    async def _sent(self, body: bytes, more: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) + more}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        return reader, writer

    async def run(self, acts: int, seconds: float) -> None:
        """Do all acts at Poisson times."""
        free = asyncio.Semaphore(MOST_AT_ONCE)
        tasks: set[asyncio.Task[None]] = set()

        async def one() -> None:
            try:
                await self.act()
            finally:
                free.release()

        started = time.monotonic()
        for number in range(acts):
            await free.acquire()
            tasks.add(task := asyncio.create_task(one()))
            task.add_done_callback(tasks.discard)
            ahead = started + (number + 1) / acts * seconds - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(min(self._draw.expovariate(acts / seconds), ahead + 2.0))
        await asyncio.gather(*tasks)

    async def load(self) -> dict[str, Any]:
        """Return the numbers of /ready."""
        found: dict[str, Any] = (await self._client.get(self.url + "/ready")).json()
        return found

    async def metric(self, name: str) -> float:
        """Return a figure of /metrics without labels."""
        text = (await self._client.get(self.url + "/metrics")).text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


class Memory:
    """RSS of processes over time, MiB."""

    def __init__(self, processes: dict[str, int]) -> None:
        self.processes = processes
        self.samples: dict[str, list[tuple[float, float]]] = {name: [] for name in processes}

    async def watch(self) -> None:
        """Take samples until cancelled."""
        while True:
            for name, pid in self.processes.items():
                with contextlib.suppress(OSError):
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    self.samples[name].append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))
            await asyncio.sleep(SAMPLE_S)

    def figures(self, name: str) -> dict[str, Any]:
        """Return mean, first and last MiB, the rise of a straight line over the last two thirds, and 20 sizes over the time."""
        found = self.samples[name]
        late = found[len(found) // 3 :]
        sizes = [round(size) for _, size in found[:: max(1, len(found) // 20)]]
        line = statistics.linear_regression([at for at, _ in late], [size for _, size in late])
        span = late[-1][0] - late[0][0]
        mean = statistics.mean(size for _, size in late)
        rise = line.slope * span
        return {
            "first_mib": found[0][1], "last_mib": found[-1][1], "mean_mib": mean, "rise_mib": rise,
            "mib_per_hour": line.slope * 3600, "allowed_mib": max(GROWTH * mean, GROWTH_MIB), "sizes_mib": sizes,
        }  # fmt: skip


def open_files(pid: int) -> int:
    """Return the number of a process's file descriptors."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def soak(server: Server, wyoming: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the acts; return the figures, with a list of faults."""
    clients = Soak(server, wyoming, random.Random(arguments.seed))
    await clients.run(12, 1.0)  # warm: libraries, caches, pools of threads
    http = server.process.pid
    (engine,) = map(int, Path(f"/proc/{http}/task/{http}/children").read_text().split())
    await asyncio.sleep(1.0)
    before = open_files(http)
    memory = Memory({"http": http, "engine": engine})
    watching = asyncio.create_task(memory.watch())
    await clients.run(arguments.acts, arguments.minutes * 60)
    watching.cancel()
    end = time.monotonic() + SETTLE_S
    while (load := await clients.load())["running"] or load["waiting"]:
        if time.monotonic() > end:
            break
        await asyncio.sleep(0.2)
    await clients._client.aclose()
    clients._client = httpx2.AsyncClient(timeout=120)
    found: dict[str, Any] = {
        "acts": dict(clients.acts), "statuses": dict(sorted(clients.statuses.items())), "cut": dict(clients.broken), "load": load,
        "restarts": await clients.metric("voxcpm_engine_restarts"),
        "files": {"before": before, "after": open_files(http)},
        "memory": {name: memory.figures(name) for name in memory.samples},
    }  # fmt: skip
    await clients._client.aclose()
    return found | {"faults": faults(found)}


def faults(found: dict[str, Any]) -> list[str]:
    """Return what must not be, one line each."""
    statuses = found["statuses"].items()
    wrong = [f"{count} answers have status {status}" for status, count in statuses if status >= 500 and status != 503]
    if found["load"]["running"] or found["load"]["waiting"]:
        wrong.append(f"slots are not free at the end: {found['load']}")
    if found["restarts"]:
        wrong.append(f"the engine process was started again {found['restarts']:g} times")
    if found["files"]["after"] > found["files"]["before"] + 8:
        wrong.append(f"file descriptors are left: {found['files']}")
    for name, size in found["memory"].items():
        if size["rise_mib"] > size["allowed_mib"]:
            wrong.append(f"the memory of {name} grows: {size['rise_mib']:.1f} MiB, {size['allowed_mib']:.1f} allowed")
    return wrong


def main() -> None:
    """Run the soak and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(os.environ.get("VOXMILL_SHARED", ROOT.parent / "shared"))
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, default=shared / "golden" / "checkpoint", help="a small checkpoint"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="duration (10)")
    parser.add_argument("--acts", type=int, default=1000, help="number of acts (1000)")
    parser.add_argument("--slots", type=int, default=4, help="slots of the server (4)")
    parser.add_argument("--threads", type=int, default=1, help="of torch: two or more share the rows of a step (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the random choices (0)")
    arguments = parser.parse_args()
    port, wyoming = free_port(), free_port()
    command = [sys.executable, "-m", "voxcpm", "serve", str(arguments.checkpoint), "--port", str(port), "--deadline", "600",
               "--slots", str(arguments.slots), "--threads", str(arguments.threads), "--wyoming", str(wyoming)]  # fmt: skip
    server = Server(command, port, "/ready", 48_000)
    try:
        found = asyncio.run(soak(server, wyoming, arguments))
    finally:
        server.stop()
    print(json.dumps(found, indent=1))
    sys.exit("; ".join(found["faults"]) or 0)


if __name__ == "__main__":
    main()
