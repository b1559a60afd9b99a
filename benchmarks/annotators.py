"""Measure how fast a paid pass is when the service is not what limits it, and that an interruption costs nothing.

    python benchmarks/annotators.py [--clips 10000] [--latency-ms 5] [--size 8] [--write docs/benchmarks.md]

A corpus of real speech (../shared/corpora, each clip changed a little so that all differ) is described through a local service in
a process of its own, which decodes every clip that it gets and counts money. One run is killed (SIGKILL) at about half, and the
same command is run again. A second run of another pass is not interrupted. Exits with 1 if a bound is missed: 50 clips per
second in both, no stored reply asked again, and a peak memory that does not grow from a tenth of the corpus to all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LEAST_CLIPS_PER_S = 50.0
MOST_GROWTH = 1.25
"""Peak memory of the whole corpus against a tenth of it."""
PER_UNIT = 500
ROOT = Path(__file__).resolve().parent.parent
TESTS = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests"), str(ROOT / "tests" / "catalogs")]
sys.path[:0] = TESTS
CORPORA = ROOT.parent / "shared" / "corpora"


def build(folder: Path, clips: int, corpora: Path) -> None:
    """Commit a corpus of `clips` clips of 2 to 5 s at their native rates."""
    import numpy as np
    import soundfile
    from corpus_builders import FINGERPRINT, flac, make_unit

    from catalogs.corpus.commit import bind_fingerprint, commit_unit, create_corpus

    lines = [json.loads(line) for line in (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    sources = []
    for entry in lines:
        if entry["path"].split("/")[0] in ("ravdess", "emodb"):
            samples, rate = soundfile.read(corpora / entry["path"], dtype="int16", always_2d=True)
            sources.append((entry["speaker"], samples[: 5 * rate, 0], rate))
    sources.sort(key=lambda source: source[0])
    create_corpus(folder)
    bind_fingerprint(folder, FINGERPRINT)
    for start in range(0, clips, PER_UNIT):
        count = min(PER_UNIT, clips - start)
        unit = make_unit(f"unit{start}", count + 1, 1.5)
        for number, row in enumerate(unit.rows[:-1], start):
            speaker, samples, rate = sources[number % len(sources)]
            # Another sample at the beginning makes another clip.
            samples = np.concatenate([np.full(1 + number // len(sources), 1 + number % 7, np.int16), samples])
            row |= {"audio": flac(samples, rate), "sample_rate": rate, "duration_s": len(samples) / rate}
            row["speaker"] = speaker
        commit_unit(folder, unit)


def serve(latency_s: float) -> None:
    """Serve until the standard input ends; print the address, then the counts at each line of it."""
    from fakes.paid_server import PaidServer

    with PaidServer(latency_s=latency_s) as server:
        print(server.url, flush=True)
        for line in sys.stdin:
            seen = server.seen
            if line.strip() == "forget":
                server.seen = type(seen)()
            counts = {
                "requests": seen.requests,
                "asked": seen.asked.total(),
                "clips": len(seen.asked),
                "billed": seen.billed,
            }
            print(json.dumps(counts), flush=True)


def describe(corpus: Path, url: str, size: int, name: str, prices: Path) -> None:
    """Run one pass; print its counts and peak memory."""
    from fakes.paid_provider import LocalProvider

    from annotators.paid.paid_pass import describe_paid
    from annotators.paid.pass_options import PassOptions

    started = time.perf_counter()
    stats = describe_paid(corpus, LocalProvider(url, size), PassOptions(cap_usd=1000, prices=prices, name=name))
    wall = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "clips": dict(stats.clips),
        "requests": stats.requests,
        "wall_s": wall,
        "peak_mib": _peak_mib(),
    }
    assert stats.totals is not None
    figures |= {"cpu_s": usage.ru_utime + usage.ru_stime, "spent": stats.totals.spent, "unknown": stats.totals.unknown}
    print(json.dumps(figures), flush=True)


def _peak_mib() -> float:
    """Return the peak resident memory. Unlike ru_maxrss, VmHWM does not begin with that of the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


class Service:
    """The service in a process of its own."""

    def __init__(self, latency_s: float) -> None:
        command = [sys.executable, __file__, "--serve", str(latency_s)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def counts(self, forget: bool = False) -> dict[str, int]:
        """Return what it has seen."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("forget\n" if forget else "look\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def worker(corpus: Path, url: str, size: int, name: str, prices: Path) -> subprocess.Popen[str]:
    """Start a pass in a process."""
    command = [sys.executable, __file__, "--describe", str(corpus), url, str(size), name, str(prices)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the figures of a pass; end the benchmark if it failed."""
    said, _ = process.communicate()
    if process.returncode:
        sys.exit("a pass failed")
    return json.loads(said.splitlines()[-1])


def interrupted(corpus: Path, service: Service, size: int, prices: Path, clips: int) -> dict[str, Any]:
    """Kill a pass at about half and run it again; return the figures of both together."""
    service.counts(forget=True)
    started = time.perf_counter()
    first = worker(corpus, service.url, size, "killed", prices)
    while service.counts()["asked"] < clips // 2 and first.poll() is None:
        time.sleep(0.05)
    first.kill()
    first.communicate()
    at_kill = service.counts()["asked"]
    second = finished(worker(corpus, service.url, size, "killed", prices))
    wall = time.perf_counter() - started
    seen = service.counts()
    return second | {"wall_s": wall, "at_kill": at_kill, "asked_twice": seen["asked"] - seen["clips"], "seen": seen}


def measure(options: argparse.Namespace) -> int:
    """Run everything; return the exit code."""
    from fakes.paid_provider import PRICES
    from inference import _replace_section, machine

    folder = Path(tempfile.mkdtemp(prefix="annotators-"))
    prices = folder / "prices.toml"
    prices.write_text(PRICES)
    try:
        build(folder / "small", options.clips // 10, options.corpora)
        build(folder / "corpus", options.clips, options.corpora)
        service = Service(options.latency_ms / 1000)
        small = finished(worker(folder / "small", service.url, options.size, "small", prices))
        service.counts(forget=True)
        whole = finished(worker(folder / "corpus", service.url, options.size, "whole", prices))
        billed = service.counts()["billed"]
        cut = interrupted(folder / "corpus", service, options.size, prices, options.clips)
        service.end()
        ledger_mb = (folder / "corpus" / "annotations" / "whole" / "ledger.sqlite").stat().st_size / 1e6
    finally:
        shutil.rmtree(folder)
    rate, cut_rate = options.clips / whole["wall_s"], options.clips / cut["wall_s"]
    growth = whole["peak_mib"] / small["peak_mib"]
    lines = [
        "| Pass | clips/s | wall s | CPU s | requests | peak MiB | asked twice |",
        "|---|---|---|---|---|---|---|",
        f"| {options.clips // 10:,} clips | {options.clips / 10 / small['wall_s']:.0f} | {small['wall_s']:.1f} "
        f"| {small['cpu_s']:.1f} | {small['requests']} | {small['peak_mib']:.0f} | 0 |",
        f"| {options.clips:,} clips | {rate:.0f} | {whole['wall_s']:.1f} | {whole['cpu_s']:.1f} | {whole['requests']} "
        f"| {whole['peak_mib']:.0f} | 0 |",
        f"| {options.clips:,} clips, killed once at {cut['at_kill']:,} and resumed | {cut_rate:.0f} | {cut['wall_s']:.1f} "
        f"| | {cut['seen']['requests']} | {cut['peak_mib']:.0f} | {cut['asked_twice']} |",
        "",
        f"{options.size} clips per request, {options.latency_ms:g} ms of latency, the service on the same machine. Ledger: "
        f"{ledger_mb:.1f} MB. Spent by the ledger and billed by the service: {whole['spent']:,} and {billed:,} micro-dollars; "
        f"after the kill {cut['unknown']:,} of {cut['spent']:,} are counted as perhaps billed. "
        f"The pass alone takes {1000 * whole['cpu_s'] / options.clips:.1f} ms of CPU per clip.",
        "",
        f"Machine: {machine()}.",
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        _replace_section(Path(options.write), "annotators", text)
    most_twice = 2 * 16 * options.size
    good = (
        min(rate, cut_rate) >= LEAST_CLIPS_PER_S
        and growth <= MOST_GROWTH
        and whole["spent"] == billed
        and cut["asked_twice"] <= most_twice
        and whole["clips"] == cut["clips"] == {"ok": options.clips}
    )
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--latency-ms", type=float, default=5.0)
    parser.add_argument("--size", type=int, default=8, help="clips per request")
    parser.add_argument("--corpora", type=Path, default=CORPORA)
    parser.add_argument("--write", metavar="FILE")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--describe", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return 0
    if options.describe:
        corpus, url, size, name, prices = options.describe
        describe(Path(corpus), url, int(size), name, Path(prices))
        return 0
    os.environ["PYTHONPATH"] = os.pathsep.join(TESTS)
    return measure(options)


if __name__ == "__main__":
    sys.exit(main())
