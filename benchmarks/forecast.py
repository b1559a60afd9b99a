"""Compare the forecast of `prepare --dry-run` with the run, on two inputs.

    python benchmarks/forecast.py [--minutes 30] [--write docs/benchmarks.md]

The inputs: two-minute recordings of prompts in five languages, and read, acted and long recordings of ../shared/corpora in
their original formats (if available). Each is forecast, then run. Exits with 1 if a forecast is off by more than 25 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_BOUND = 0.25

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from inference import _replace_section, machine  # noqa: E402
from prompt_recordings import make_recordings  # noqa: E402


def voxmill(*arguments: str) -> Any:
    """Return the JSON result of a command; end the benchmark if it fails."""
    done = subprocess.run([sys.executable, "-m", "voxmill.cli", *arguments, "--json"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"voxmill {' '.join(arguments[:3])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def compare(name: str, sources: list[str], corpus: Path) -> tuple[list[str], float]:
    """Return the table rows of one input (forecast, interval, real, error) and the largest error."""
    same = ["prepare", *sources, "-o", str(corpus), "--set", "describe=none"]
    forecast = voxmill(*same, "--dry-run")
    real = voxmill(*same)
    size = sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file())
    measured = {"wall_s": real["wall_s"], "kept_s": real["kept_s"], "segments": real["segments"], "disk_bytes": size}
    rows, worst = [], 0.0
    for key, value in measured.items():
        estimate = forecast[key]
        error = estimate["value"] / max(value, 1e-9) - 1
        worst = max(worst, abs(error))
        scale, unit = (1e6, "MB") if key == "disk_bytes" else (1, "" if key == "segments" else "s")
        rows.append(
            f"| {name} | {key.split('_')[0]} {unit} | {estimate['value'] / scale:.0f} "
            f"| {estimate['low'] / scale:.0f} - {estimate['high'] / scale:.0f} | {value / scale:.0f} "
            f"| {error:+.0%} |"
        )
        print(rows[-1], flush=True)
    return rows, worst


def main() -> None:
    """Measure both inputs, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--write", type=Path, help="markdown file whose forecast section is replaced")
    arguments = parser.parse_args()
    lines = [machine(), "", "| input | | forecast | 80 % interval | real | error |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = make_recordings(scratch / "prompts", arguments.minutes)
        rows, worst = compare("prompts", [str(file) for file in files], scratch / "one")
        lines += rows
        corpora = ROOT.parent / "shared" / "corpora"
        if corpora.is_dir():
            folders = [
                str(corpora / part) for part in ("read", "long", "multi", "ravdess") if (corpora / part).is_dir()
            ]
            rows, other = compare("corpora", folders, scratch / "two")
            lines, worst = lines + rows, max(worst, other)
    text = "\n".join(lines)
    if arguments.write:
        _replace_section(arguments.write, "forecast", text)
    sys.exit(int(worst > _BOUND))


if __name__ == "__main__":
    main()
