"""Load on the speech server: throughput, first audio, underruns, beside the official package behind a lock.

    python benchmarks/serving.py [--checkpoint DIR] [--upstream PYTHON] [--users 8] [--seconds 30] [--write docs/benchmarks.md]

Without --checkpoint: the mid configuration of benchmarks/inference.py with random weights. All requests have fixed lengths (2 to
8 s of speech), so that the work is equal on all servers. First audio is from sending to the first body bytes; the real-time factor
is the whole request over its audio; a player starts with the first chunk, and an underrun is its largest deficit.

* closed: --users clients, each asks again when it has its answer, which is needed whole: throughput. Each client of ours asks
  --rounds times at least, so that the requests at the end, which have slots free beside them, are few. The official package answers
  one at a time from the first to the last, so --seconds suffice. Both are loaded in --turns.
* open: Poisson arrivals at half and at 90 % of the closed rate.
* burst: 2 x --users requests at once.
* live: most streams at once without an underrun above 0.1 s, beside what the engine's steps allow (`floor`).
* first audio with a stored voice, on an idle server, beside the first chunk of the same call in this process.
* share of the CPU time that the HTTP process takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import httpx2  # noqa: E402

if TYPE_CHECKING:
    from sides.in_process import InProcess

PATCH_S = 0.16
LENGTHS = tuple(range(12, 51, 3))
"""Patches of the requests, in turns: 2 to 8 s."""
TEXT = "the quick brown fox jumps over the lazy dog and runs away to the far hills"
ALLOWED_S = 0.1


@dataclass
class Heard:
    """One answer: when bytes came, in seconds after sending, and how many."""

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    rate: int = 48_000
    failed: str | None = None

    @property
    def audio_s(self) -> float:
        """Seconds of audio."""
        return sum(count for _, count in self.arrivals) / (2 * self.rate)

    @property
    def first_s(self) -> float:
        """Seconds until the first bytes."""
        return self.arrivals[0][0]

    @property
    def rtf(self) -> float:
        """Seconds of the whole request per second of audio."""
        return self.arrivals[-1][0] / self.audio_s

    @property
    def underrun_s(self) -> float:
        """Largest deficit of a player that starts with the first chunk, seconds."""
        worst, have = 0.0, 0.0
        for at, count in self.arrivals:
            worst = max(worst, at - self.first_s - have)
            have += count / (2 * self.rate)
        return worst


class Server:
    """A server in a process, ready when it answers."""

    def __init__(self, command: Sequence[str], port: int, ready: str, checkpoint_rate: int, ours: bool = True) -> None:
        self.url, self.rate = f"http://127.0.0.1:{port}", checkpoint_rate
        # The official package has the same import name: ours must not be on its path.
        paths = {"PYTHONPATH": str(ROOT)} if ours else {}
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment = {**kept, **paths, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended: {' '.join(command)}")
            try:
                if httpx2.get(self.url + ready).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.2)
        raise RuntimeError("the server is not ready after two minutes")

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU seconds of the HTTP process and of its children so far (Linux)."""
        own = _cpu_s(self.process.pid)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return own, sum(_cpu_s(int(child)) for child in children)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def ask(
    client: httpx2.AsyncClient, server: Server, number: int, voice: str | None = None, live: bool = True
) -> Heard:
    """Ask for request `number` and listen to its end. live: it is played while it is made, otherwise needed at its end."""
    patches = LENGTHS[number % len(LENGTHS)]
    body: dict[str, Any] = {
        "input": TEXT, "seed": number, "min_len": patches, "max_new_tokens": patches, "response_format": "pcm",
        "sample_rate": server.rate,
    }  # fmt: skip
    body |= {"stream_format": "audio"} if live else {"stream": False}
    if voice:
        body["voice"] = voice
    heard, started = Heard(rate=server.rate), time.perf_counter()
    try:
        async with client.stream("POST", server.url + "/v1/audio/speech", json=body) as answer:
            if answer.status_code != 200:
                heard.failed = str(answer.status_code)
                return heard
            async for data in answer.aiter_bytes():
                heard.arrivals.append((time.perf_counter() - started, len(data)))
    except httpx2.TransportError as error:
        heard.failed = type(error).__name__
    return heard


async def closed(server: Server, users: int, seconds: float, rounds: int = 1) -> tuple[list[Heard], float]:
    """Let `users` clients ask one after the other for a time, each at least `rounds` times.

    Returns the answers and the seconds until the last ended. At the end fewer and fewer ask, which many rounds outweigh.
    """
    heard: list[Heard] = []
    started = time.perf_counter()
    numbers = iter(range(10_000))

    async with _client() as client:

        async def user() -> None:
            asked = 0
            while asked < rounds or time.perf_counter() - started < seconds:
                heard.append(await ask(client, server, next(numbers), live=False))
                asked += 1

        await asyncio.gather(*(user() for _ in range(users)))
    return heard, time.perf_counter() - started


async def opened(server: Server, rate: float, seconds: float) -> tuple[list[Heard], float]:
    """Send requests at Poisson times, `rate` in a second."""
    draw = random.Random(0)
    started = time.perf_counter()
    async with _client() as client:
        tasks = []
        while time.perf_counter() - started < seconds:
            tasks.append(asyncio.create_task(ask(client, server, len(tasks))))
            await asyncio.sleep(draw.expovariate(rate))
        heard = list(await asyncio.gather(*tasks))
    return heard, time.perf_counter() - started


async def burst(server: Server, count: int) -> tuple[list[Heard], float]:
    """Send `count` requests at once."""
    started = time.perf_counter()
    async with _client() as client:
        heard = list(await asyncio.gather(*(ask(client, server, number) for number in range(count))))
    return heard, time.perf_counter() - started


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=600, limits=httpx2.Limits(max_connections=500))


def figures(name: str, heard: Sequence[Heard], wall_s: float) -> dict[str, Any]:
    """Return one row of the table."""
    good = [one for one in heard if one.failed is None and one.arrivals]
    first = sorted(one.first_s for one in good)
    return {
        "load": name,
        "requests": len(heard),
        "failed": len(heard) - len(good),
        "audio_s_per_s": sum(one.audio_s for one in good) / wall_s,
        "first_p50_s": statistics.median(first) if first else None,
        "first_p95_s": first[min(len(first) - 1, int(0.95 * len(first)))] if first else None,
        "rtf": statistics.median(one.rtf for one in good) if good else None,
        "no_underrun": sum(one.underrun_s <= ALLOWED_S for one in good) / len(good) if good else None,
    }


def run(load: Callable[[], Awaitable[tuple[list[Heard], float]]], name: str) -> dict[str, Any]:
    """Apply a load and print its row."""

    async def all_of_it() -> tuple[list[Heard], float]:
        return await load()

    row = figures(name, *asyncio.run(all_of_it()))
    print(json.dumps(row), flush=True)
    return row


def live_streams(server: Server, most: int) -> int:
    """Return the most streams at once without an underrun, up to `most`."""
    for count in range(1, most + 1):
        heard, _ = asyncio.run(burst(server, count))
        if any(one.failed or one.underrun_s > ALLOWED_S for one in heard):
            return count - 1
    return most


def _clip(folder: Path) -> Path:
    """Write 3 s of a voice-like sound."""
    import numpy as np
    import soundfile

    path = folder / "voice.wav"
    t = np.arange(48_000) / 16_000
    wave = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12)) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
    soundfile.write(path, (0.1 * wave).astype("float32"), 16_000)
    return path


def stored_voice(server: Server, folder: Path) -> None:
    """Store the clip as the voice `bench`."""
    clip = _clip(folder)
    answer = httpx2.post(
        server.url + "/v1/audio/voices",
        data={"name": "bench", "consent": "a synthetic sound"},
        files={"audio_sample": ("voice.wav", clip.read_bytes(), "audio/wav")},
        timeout=120,
    )
    answer.raise_for_status()


def main() -> None:
    """Measure and print; write the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint folder (the mid configuration, random weights)")
    parser.add_argument("--dtype", default="float32", help="of the made checkpoint")
    parser.add_argument("--upstream", help="Python of the environment of the official package")
    parser.add_argument("--users", type=int, default=8, help="clients of the closed load (8)")
    parser.add_argument(
        "--slots", type=int, help="slots of our server (for all users; a quarter is kept for live requests)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of each model (2)")
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of each load (30)")
    parser.add_argument("--rounds", type=int, default=3, help="least requests of a client of our closed load (3)")
    parser.add_argument(
        "--turns", type=int, default=2, help="turns of the closed load, ours and the official package's (2)"
    )
    parser.add_argument("--most", type=int, default=8, help="most live streams that are tried (8)")
    parser.add_argument("--write", type=Path, help="a page whose section <!-- serving --> gets the table")
    arguments = parser.parse_args()
    arguments.slots = arguments.slots or arguments.users * 3 // 2
    from inference import _replace_section, machine, make_checkpoint
    from sides.in_process import InProcess

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint = arguments.checkpoint or make_checkpoint(folder / "mid", arguments.dtype)
        rate = int(
            json.loads((checkpoint / "config.json").read_text())["audio_vae_config"].get("out_sample_rate", 48_000)
        )
        alone = InProcess(checkpoint, arguments.threads, TEXT, _clip(folder))
        steps = alone.steps(arguments.most, PATCH_S)
        print(json.dumps({"step_s": steps}), flush=True)
        floor = max((rows for rows, seconds in steps.items() if seconds <= PATCH_S), default=0)
        official = _official(arguments, checkpoint, rate) if arguments.upstream else None
        try:
            rows, theirs, share, live, first = _measure(arguments, checkpoint, folder, rate, official, alone)
        finally:
            if official is not None:
                official.stop()
    text = report(rows, theirs, live, floor, first, share)
    print(text)
    if arguments.write:
        _replace_section(arguments.write, "serving", f"Machine: {machine()}, {arguments.threads} threads.\n\n{text}")


def _official(arguments: argparse.Namespace, checkpoint: Path, rate: int) -> Server:
    port = free_port()
    script = str(ROOT / "benchmarks" / "sides" / "official_server.py")
    command = [arguments.upstream, script, str(checkpoint), str(arguments.threads), str(port)]
    return Server(command, port, "/", rate, ours=False)


def _measure(
    arguments: argparse.Namespace, checkpoint: Path, folder: Path, rate: int, official: Server | None, alone: InProcess
) -> tuple[list[dict[str, Any]], dict[str, Any] | None, float, int, tuple[float, float]]:
    port = free_port()
    command = [sys.executable, "-m", "voxcpm", "serve", str(checkpoint), "--port", str(port), "--slots", str(arguments.slots),
               "--voices", str(folder / "voices"), "--deadline", "600", "--threads", str(arguments.threads)]  # fmt: skip
    server = Server(command, port, "/ready", rate)
    try:
        asyncio.run(burst(server, 1))
        before = server.cpu_s()
        ours, theirs = _in_turns(arguments, server, official)
        rows = [ours]
        after = server.cpu_s()
        share = (after[0] - before[0]) / max(sum(after) - sum(before), 1e-9)
        mean_s = statistics.mean(LENGTHS) * PATCH_S
        for part in (0.5, 0.9):
            per_s = part * rows[0]["audio_s_per_s"] / mean_s
            rows.append(run(lambda: opened(server, per_s, arguments.seconds), f"open, {part:.0%} of it"))  # noqa: B023
        rows.append(run(lambda: burst(server, 2 * arguments.users), f"burst of {2 * arguments.users}"))
        live = live_streams(server, arguments.most)
        stored_voice(server, folder)
        asyncio.run(_with_voice(server))
        firsts = [(asyncio.run(_with_voice(server)), alone.first_chunk()) for _ in range(9)]
        first = statistics.median(served for served, _ in firsts), statistics.median(chunk for _, chunk in firsts)
    finally:
        server.stop()
    return rows, theirs, share, live, first


def _in_turns(
    arguments: argparse.Namespace, server: Server, official: Server | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Apply the closed load to both servers in turns, because a machine that others use is not steady."""
    users, seconds = arguments.users, arguments.seconds
    heard: dict[Server, list[Heard]] = {server: [], **({official: []} if official else {})}
    wall_s = dict.fromkeys(heard, 0.0)
    for _ in range(arguments.turns):
        for side in heard:
            answers, took_s = asyncio.run(closed(side, users, seconds, arguments.rounds if side is server else 1))
            heard[side] += answers
            wall_s[side] += took_s
            print(json.dumps(figures("turn", answers, took_s)), flush=True)
    ours = figures(f"closed, {users} users", heard[server], wall_s[server])
    return ours, figures("closed, official behind a lock", heard[official], wall_s[official]) if official else None


async def _with_voice(server: Server) -> float:
    async with _client() as client:
        return (await ask(client, server, 0, "bench")).first_s


def report(
    rows: Sequence[dict[str, Any]],
    theirs: dict[str, Any] | None,
    live: int,
    floor: int,
    first: tuple[float, float],
    share: float,
) -> str:
    """Return the tables as Markdown."""
    lines = [
        "| load | requests | failed | audio-s/s | first audio p50, p95 | RTF | without underrun |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in [*rows, *([theirs] if theirs else [])]:
        lines.append(
            f"| {row['load']} | {row['requests']} | {row['failed']} | {row['audio_s_per_s']:.2f} | {row['first_p50_s']:.2f},"
            f" {row['first_p95_s']:.2f} s | {row['rtf']:.2f} | {row['no_underrun']:.0%} |"
        )
    lines += ["", "| | measured | beside |", "|---|---|---|"]
    if theirs:
        ours = rows[0]["audio_s_per_s"]
        lines.append(
            f"| audio-s/s, closed | {ours:.2f} | {ours / theirs['audio_s_per_s']:.1f} x the official package |"
        )
    lines.append(f"| live streams without an underrun | {live} | floor {floor} (engine's steps) |")
    lines.append(
        f"| first audio with a stored voice | {first[0] * 1000:.0f} ms | {first[0] / first[1]:.2f} x the first chunk"
        f" in process ({first[1] * 1000:.0f} ms, in turns) |"
    )
    lines.append(f"| HTTP process' share of the CPU | {share:.1%} | bound 3 % |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
