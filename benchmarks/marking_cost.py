"""What the marks cost: speech with the watermark and the statements, and without, in turns in one run.

    python benchmarks/marking_cost.py [--rounds 6] [--users 3] [--write docs/benchmarks.md]

`generate` in this process, with and without the watermark; two servers of the same checkpoint (mid configuration, random weights),
one as shipped and one with --no-watermark and --no-mark. A round asks each side for the same requests; the ratios are of CPU
seconds, summed over the processes of a side, because wall time also shows what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from serving import Server, ask, free_port  # noqa: E402

TEXT = "the quick brown fox jumps over the lazy dog and runs away to the far hills"


def generate_ratios(checkpoint: Path, rounds: int) -> list[float]:
    """Return, for each round, the CPU seconds of marked speech over those of the same speech without a mark."""
    import torch

    from voxcpm import VoxCPM

    torch.set_num_threads(1)
    model = VoxCPM.from_pretrained(checkpoint, load_denoiser=False, device="cpu")

    def cpu_s(seed: int, marked: bool) -> float:
        start = time.process_time()
        model.generate(TEXT, seed=seed, min_len=24, max_len=24, retry_badcase=False, watermark=marked)
        return time.process_time() - start

    for marked in (False, True):
        cpu_s(0, marked)  # The first marked call hashes the weights.
    found = []
    for number in range(rounds):
        order = (True, False) if number % 2 else (False, True)
        taken = {marked: cpu_s(number, marked) for marked in order}
        found.append(taken[True] / taken[False])
    return found


def server_rounds(checkpoint: Path, rate: int, rounds: int, users: int) -> list[dict[str, Any]]:
    """Return the CPU seconds of the HTTP process and of the engine of both servers in each round."""
    servers: dict[str, Server] = {}
    try:
        for name, more in (("marked", ()), ("plain", ("--no-watermark", "--no-mark"))):
            port = free_port()
            command = [sys.executable, "-m", "voxcpm", "serve", str(checkpoint), "--port", str(port), *more]
            servers[name] = Server(
                [*command, "--slots", str(users), "--threads", "1", "--device", "cpu"], port, "/ready", rate
            )
        found = []
        for number in range(-1, rounds):
            order = ("marked", "plain") if number % 2 else ("plain", "marked")
            taken = {name: _round(servers[name], number + 1, users) for name in order}
            # The first round warms both up.
            found += [taken] if number >= 0 else []
        return found
    finally:
        for server in servers.values():
            server.stop()


def _round(server: Server, number: int, users: int) -> tuple[float, float]:
    """Ask for `users` answers at once; return the CPU seconds of the HTTP process and of the engine."""
    import httpx2

    async def load() -> None:
        async with httpx2.AsyncClient(timeout=600) as client:
            heard = await asyncio.gather(
                *(ask(client, server, number * users + one, live=False) for one in range(users))
            )
        assert not any(one.failed for one in heard), [one.failed for one in heard]

    before = server.cpu_s()
    asyncio.run(load())
    after = server.cpu_s()
    return after[0] - before[0], after[1] - before[1]


def report(ratios: list[float], rounds: list[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    whole = [sum(one["marked"]) / sum(one["plain"]) for one in rounds]
    http = [one["marked"][0] - one["plain"][0] for one in rounds]
    share = [extra / sum(one["plain"]) for extra, one in zip(http, rounds, strict=True)]

    def line(name: str, values: list[float]) -> str:
        low, high = min(values), max(values)
        return f"| {name} | {statistics.median(values) - 1:+.1%} | {low - 1:+.1%} to {high - 1:+.1%} |"

    return "\n".join(
        (
            f"{len(ratios)} and {len(rounds)} rounds, sides in turns, CPU seconds.",
            "",
            "| | more CPU with marks, median | range of rounds |",
            "| --- | --- | --- |",
            line("`generate`, one thread", ratios),
            line("server, HTTP process and engine", whole),
            f"| of the server, the HTTP process alone | {statistics.median(share):+.1%} of all "
            f"| {min(share):+.1%} to {max(share):+.1%} |",
        )
    )


def main() -> None:
    """Measure and print; write the table if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--users", type=int, default=3, help="answers at once (3)")
    parser.add_argument("--write", type=Path, help="a page whose section <!-- marking-cost --> gets the table")
    arguments = parser.parse_args()
    from inference import _replace_section, machine, make_checkpoint

    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = make_checkpoint(Path(scratch) / "mid")
        ratios = generate_ratios(checkpoint, arguments.rounds)
        rounds = server_rounds(checkpoint, 48_000, arguments.rounds, arguments.users)
    text = report(ratios, rounds)
    print(text)
    if arguments.write:
        _replace_section(arguments.write, "marking-cost", f"Machine: {machine()}.\n\n{text}")


if __name__ == "__main__":
    main()
