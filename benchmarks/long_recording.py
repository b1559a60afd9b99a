"""Memory of `prepare` on one long recording: three hours with one prompt per minute, in one process and on Ray.

    python benchmarks/long_recording.py [--hours 3] [--write docs/benchmarks.md]

It measures the peak resident set of the process (inline) or of the largest process (Ray), and compares with a tenth of the
length. Only the 16 kHz int16 audio, 115 MB per hour, should grow with the recording.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from inference import _replace_section  # noqa: E402

from voxmill.demo_recordings import make_demo_recordings  # noqa: E402

RATE = 16_000


def make_recording(path: Path, hours: float, scratch: Path) -> Path:
    """Write one prompt per minute over faint room noise."""
    demo = make_demo_recordings(scratch / "prompts", minutes_per_language=2.0, say=lambda line: None)
    spoken = []
    for prompt in demo.gold:
        audio, rate = (
            soundfile.read(demo.folder / prompt.path) if prompt.path.endswith((".wav", ".flac")) else (None, 0)
        )
        if audio is not None and rate == RATE:
            spoken.append(audio[round(prompt.start_s * rate) : round(prompt.end_s * rate)].astype(np.float32))
    dice = np.random.default_rng(1)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for minute in range(round(hours * 60)):
            block = (10 ** (-66 / 20) * dice.standard_normal(60 * RATE)).astype(np.float32)
            words = spoken[minute % len(spoken)][: 50 * RATE]
            start = int(dice.integers(len(block) - len(words)))
            block[start : start + len(words)] += words
            file.write(block)
    return path


def prepare(recording: Path, corpus: Path, executor: str) -> tuple[float, float, float]:
    """Return (peak MB of the largest process, peak MB of all processes' private memory, seconds) of one run."""
    command = [sys.executable, "-m", "voxmill.cli", "prepare", str(recording), "-o", str(corpus)]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--set", f"engine.executor={executor}", "--set", "describe=none"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    largest = whole = 0.0
    while process.poll() is None:
        sizes = [_memory_mb(pid) for pid in _family(process.pid)]
        largest = max([largest, *(resident for resident, _ in sizes)])
        whole = max(whole, sum(private for _, private in sizes))
        time.sleep(0.25)
    if process.returncode:
        sys.exit(process.stderr.read() if process.stderr else "prepare failed")
    return largest, whole, time.perf_counter() - started


def _family(root: int) -> list[int]:
    """A process and all its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    family = [root]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _memory_mb(pid: int) -> tuple[float, float]:
    """Return (resident, its anonymous part); all processes share the pages of the object store and of libraries."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "RssAnon"))}
    return sizes.get("VmRSS", 0.0), sizes.get("RssAnon", 0.0)


def main() -> None:
    """Run both executors on both lengths and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--executors", default="inline,ray")
    parser.add_argument("--write", type=Path, help="markdown file whose long section is replaced")
    arguments = parser.parse_args()
    lines = [
        "| executor | recording | largest process, MB | all processes, private, MB | seconds |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for executor in arguments.executors.split(","):
            for hours in (arguments.hours / 10, arguments.hours):
                recording = scratch / f"{hours:g}h.flac"
                if not recording.is_file():
                    make_recording(recording, hours, scratch)
                largest, whole, seconds = prepare(recording, scratch / f"{executor}-{hours:g}", executor)
                lines.append(f"| {executor} | {hours:g} h | {largest:.0f} | {whole:.0f} | {seconds:.0f} |")
                print(lines[-1], flush=True)
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _replace_section(arguments.write, "long", text)


if __name__ == "__main__":
    main()
