"""Compare `voxmill prepare` with a plain script, in turns on the same recordings with the same models.

    python benchmarks/pipeline.py [--minutes 30] [--rounds 3] [--write docs/benchmarks.md]

The input: sessions of the Debian prompts in five languages, two minutes per file. Measured: wall seconds of both from process
start to end, and for ours the stages' CPU seconds (all threads of the worker while a stage ran, from run.json) over wall x
cores. The rest up to 1 is start-up, loading, Ray, commits and idle cores. The inverse is the ratio to the bound from the stages'
time alone. The plain script lets Whisper compute its whole 30 s window, as every caller of the library does; ours stops 6 s
after a clip. This command does the same work on both sides:

    python benchmarks/pipeline.py --set transcribe.window_margin_s=null --write docs/benchmarks.md --section pipeline-whole

Exits with 1 if a bound is missed: 85 % of the cores' time for the stages, 15 % over the time that the stages alone would
take, 1.3 times as fast as the plain script.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LEAST_SHARE, MOST_OVER_STAGES, LEAST_RATIO = 0.85, 1.15, 1.3
"""The bounds: the benchmark exits with 1 if one is missed."""

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from inference import _replace_section, machine  # noqa: E402
from prompt_recordings import make_recordings  # noqa: E402


def run(command: list[str]) -> tuple[float, str]:
    """Return (wall seconds, standard output) of a process; end the benchmark if it fails."""
    started = time.perf_counter()
    # Each side chooses its number of threads.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} ... failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return time.perf_counter() - started, done.stdout


def ours(files: list[Path], corpus: Path, settings: list[str]) -> dict[str, Any]:
    """Run `voxmill prepare` once; return its run.json and the wall seconds of the whole process."""
    shutil.rmtree(corpus, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "voxmill.cli",
        "prepare",
        *map(str, files),
        "-o",
        str(corpus),
        "--set",
        "describe=none",
    ]
    for setting in settings:
        command += ["--set", setting]
    wall, _ = run(command)
    report: dict[str, Any] = json.loads((corpus / "run.json").read_text())
    return report | {"whole_s": wall}


def plain(files: list[Path], out: Path) -> dict[str, Any]:
    """Run the plain script once."""
    shutil.rmtree(out, ignore_errors=True)
    wall, printed = run([sys.executable, str(ROOT / "benchmarks/pipeline_sides/plain.py"), str(out), *map(str, files)])
    report: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return report | {"whole_s": wall}


def missed_bounds(share: float, over_stages: float, ratio: float | None) -> list[str]:
    """Return a message for each missed bound.

    share: the stages' CPU seconds over wall x cores. over_stages: wall over the time that the stages' seconds would take on all
    cores. ratio: speed relative to the plain script, None if that was not run.
    """
    missed = []
    if share < LEAST_SHARE:
        missed.append(f"{share:.2f} of the cores' time is the stages', not {LEAST_SHARE}")
    if over_stages > MOST_OVER_STAGES:
        missed.append(f"{over_stages:.2f} times the stages' own time, not {MOST_OVER_STAGES}")
    if ratio is not None and ratio < LEAST_RATIO:
        missed.append(f"{ratio:.2f} times as fast as the plain script, not {LEAST_RATIO}")
    return missed


def main() -> None:
    """Run both in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="a setting of ours, as for prepare")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--write", type=Path, help="markdown file whose section is replaced")
    parser.add_argument("--section", default="pipeline", help="of that file: `<!-- NAME -->` to `<!-- /NAME -->`")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = make_recordings(scratch / "recordings", arguments.minutes)
        pairs = []
        for number in range(arguments.rounds):
            other = {"whole_s": float("nan"), "segments": 0} if arguments.ours_only else plain(files, scratch / "plain")
            own = ours(files, scratch / "corpus", arguments.settings)
            pairs.append((other, own))
            busy = sum(own["stage_cpu_s"].values())
            sys.stderr.write(
                f"round {number + 1}: plain {other['whole_s']:.0f} s, ours {own['whole_s']:.0f} s, "
                f"stages {busy:.0f} CPU s, {busy / own['whole_s'] / cores:.2f} of {cores} cores\n"
            )
    wall = statistics.median(own["whole_s"] for _, own in pairs)
    busy = statistics.median(sum(own["stage_cpu_s"].values()) for _, own in pairs)
    share = statistics.median(sum(own["stage_cpu_s"].values()) / own["whole_s"] / cores for _, own in pairs)
    ratio = statistics.median(other["whole_s"] / own["whole_s"] for other, own in pairs)
    other, own = pairs[-1]
    lines = [
        f"{machine()}; {cores} cores, {own['audio_s'] / 60:.0f} minutes in {len(files)} recordings; medians of "
        f"{arguments.rounds} rounds in turns.",
        "",
        "| | plain script | voxmill | ratio | bound |",
        "|---|---|---|---|---|",
        f"| wall, s | {statistics.median(o['whole_s'] for o, _ in pairs):.0f} | {wall:.0f} | {ratio:.2f} | {LEAST_RATIO} |",
        f"| times real time | {own['audio_s'] / statistics.median(o['whole_s'] for o, _ in pairs):.1f} "
        f"| {own['audio_s'] / wall:.1f} | | |",
        f"| segments | {other['segments']} | {own['segments']} | | |",
        f"| stages' CPU s / (wall x cores) | | {share:.2f} | | {LEAST_SHARE} |",
        f"| wall / (stages' CPU s / cores) | | {wall / (busy / cores):.2f} | | {MOST_OVER_STAGES} |",
        "",
        "Stages' CPU seconds: "
        + ", ".join(
            f"{stage} {worked:.0f}" for stage, worked in sorted(own["stage_cpu_s"].items(), key=lambda i: -i[1])
        )
        + ".",
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _replace_section(arguments.write, arguments.section, text)
    plain_ratio = None if arguments.ours_only else ratio
    missed = missed_bounds(share, wall / (busy / cores), plain_ratio)
    sys.exit(f"missed: {'; '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
