"""Compare inference of this package and the official one, in turns, on one checkpoint with random weights.

    python benchmarks/inference.py --upstream /path/to/venv/bin/python [--before FOLDER] [--rounds 5] [--dtypes float32]
                                   [--write docs/benchmarks.md]

The official package has the same import name, so it needs a separate environment: `make upstream-venv` makes it in
.upstream-venv. Every figure is the median over rounds in which the sides take turns, so that other load affects both.
--before: a checkout of this project at an earlier commit (`git worktree add`), which takes its turns too. On a processor without
instructions for bfloat16, `--dtypes float32` saves half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

FLOW = {"steps": 10, "cfg": 2.0}
#: (title, request, the issue's bound of the ratio or None)
CASES: list[tuple[str, dict[str, Any], float | None]] = [
    ("streaming codec, 160 ms chunk", {"case": "codec_chunk", "chunks": 4}, 2.8),
    ("streaming generation, per patch", {"case": "streaming", "patches": 8, **FLOW}, 1.8),
    ("first chunk of audio", {"case": "first_chunk", **FLOW}, None),
    ("prefill of 100 text positions", {"case": "prefill", "positions": 100}, 2.8),
    ("TSLM step, cache 8192, position 64", {"case": "tslm_step", "cache": 8192, "position": 64}, 1.6),
    ("latents, per patch", {"case": "latents", "patches": 9, **FLOW}, 1.1),
    ("latents at cfg 1, per patch", {"case": "latents", "patches": 9, "steps": 10, "cfg": 1.0}, None),
    ("4 requests, 8 patches each", {"case": "many", "batch": 4, "patches": 8, **FLOW}, None),
    ("8 requests, 8 patches each", {"case": "many", "batch": 8, "patches": 8, **FLOW}, 1.7),
]
#: Without the official package: it has no batches, and would take minutes for one turn.
MIXED = (
    "32 requests of 1 to 12 patches, 8 at once",
    {"case": "mixed", "requests": 32, "patches": 12, "batch": 8, **FLOW},
)


class Side:
    """One package in a separate process."""

    def __init__(self, python: str, script: str, checkpoint: Path, threads: int, *options: str) -> None:
        # The official package has the same import name: ours must not be on its path. Our script finds its own.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment = {**kept, "OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        # The process runs in another folder, so a relative path must be resolved here.
        python = str(Path(shutil.which(python) or python).absolute())
        self._process = subprocess.Popen(
            [python, str(HERE / "sides" / script), str(checkpoint), str(threads), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
            cwd="/",
        )
        self.peak_rss_mb = 0.0

    def ask(self, request: dict[str, Any]) -> float | None:
        """Return seconds; None, with a line on standard error, if the side cannot do it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended with status {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            sys.stderr.write(f"{request['case']}: {reply['error']}\n")
            return None
        self.peak_rss_mb = max(self.peak_rss_mb, reply["peak_rss_mb"])
        return float(reply["value"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)


def make_checkpoint(folder: Path, dtype: str = "float32") -> Path:
    """The mid configuration of the published measurements, with the full-width codec and random weights."""
    import torch

    from trainer.model.tokenizer import train_tokenizer
    from voxcpm.config import VoxCPM2Config
    from voxcpm.model.backbone import VoxCPM2
    from voxcpm.presets import config_dict
    from voxcpm.weights.checkpoint import build_codec, save_pretrained

    values = config_dict("toy", 8192)
    factors = [1.0] * 32
    values["lm_config"] |= {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_hidden_layers": 8,
        "num_key_value_heads": 2,
        "kv_channels": 64,
        "vocab_size": 8192,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": factors,
            "short_factor": factors,
            "original_max_position_embeddings": 8192,
        },
    }
    local = {"hidden_dim": 512, "ffn_dim": 2048, "num_heads": 8, "num_layers": 4, "kv_channels": 64}
    values |= {"residual_lm_num_layers": 4, "scalar_quantization_latent_dim": 256, "max_length": 2048, "dtype": dtype}
    values |= {"encoder_config": local, "dit_config": {**values["dit_config"], **local}}
    values["audio_vae_config"] |= {"encoder_dim": 128, "decoder_dim": 2048}
    config = VoxCPM2Config.from_dict(values)
    torch.manual_seed(0)
    codec = build_codec(config)
    assets = folder.parent / "tokenizer"
    train_tokenizer((ROOT / "README.md").read_text(encoding="utf-8").splitlines(), 2048, assets)
    return save_pretrained(
        folder, VoxCPM2.from_config(config, torch.Generator().manual_seed(0)), config, assets, codec, dtype
    )


def compare(ours: Side, theirs: Side, before: Side | None, rounds: int) -> list[dict[str, Any]]:
    """Return the median seconds of each case on all sides, measured in turns."""
    rows = []
    for title, request, bound in CASES:
        turns: list[list[float | None]] = []
        for _ in range(rounds + 1):
            turns.append([side.ask(request) if side else None for side in (theirs, ours, before)])
        found = _medians(turns[1:])  # the first round warms up
        if found is None:
            continue
        rows.append({"case": title, "bound": bound, **found})
        sys.stderr.write(
            f"{title}: {found['upstream_s'] * 1e3:.1f} ms, ours {found['ours_s'] * 1e3:.1f} ms, {found['ratio']:.2f}x"
            + (f", before {found['before_s'] * 1e3:.1f} ms\n" if found["before_s"] else "\n")
        )
    return rows


def _medians(turns: list[list[float | None]]) -> dict[str, Any] | None:
    """Return the medians of turns of (upstream, ours, before), and of the ratios to ours; None if a side cannot do it."""
    pairs = [(a, b) for a, b, _ in turns if a is not None and b is not None]
    if not pairs:
        return None
    upstream, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    older = [(c, b) for _, b, c in turns if b is not None and c is not None]
    return {
        "upstream_s": upstream,
        "ours_s": own,
        "ratio": statistics.median(a / b for a, b in pairs),
        "before_s": statistics.median(c for c, _ in older) if older else None,
        "before_ratio": statistics.median(c / b for c, b in older) if older else None,
    }


def compare_mixed(ours: Side, before: Side | None, rounds: int) -> str:
    """Return a line about many requests of mixed lengths, beside the earlier commit if there is one."""
    title, request = MIXED
    turns = [(ours.ask(request), before.ask(request) if before else None) for _ in range(rounds + 1)][1:]
    own = statistics.median(a for a, _ in turns if a is not None)
    ratios = [b / a for a, b in turns if a is not None and b is not None]
    return f"{title}: {own:.1f} s" + (f", {statistics.median(ratios):.2f}x the speed before." if ratios else ".")


def start_up(
    sides: Sequence[tuple[str, str]], checkpoint: Path, rounds: int, threads: int
) -> list[tuple[float, float]]:
    """Return (median seconds from process start to a loaded model, peak RSS in MB after one streamed sentence) of each side.

    sides: python and script. They take turns, so that files that are cached and other load affect all.
    """
    measured: list[list[tuple[float, float]]] = [[] for _ in sides]
    for _ in range(rounds):
        for (python, script), found in zip(sides, measured, strict=True):
            side = Side(python, script, checkpoint, threads)
            seconds = side.ask({"case": "ready"}) or 0.0
            side.ask({"case": "streaming", "patches": 8, **FLOW})
            found.append((seconds, side.peak_rss_mb))
            side.close()
    return [(statistics.median(s for s, _ in found), statistics.median(mb for _, mb in found)) for found in measured]


def machine() -> str:
    """Return a description of the machine: processor, torch, date."""
    import torch

    model = platform.processor() or "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    return f"{model}, torch {torch.__version__}, {date.today()}"


def main() -> None:
    """Run everything and print (or write) the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, help="python of the environment with the official package")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier commit, to be measured beside")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", default="float32,bfloat16", help="of the weights, with commas")
    parser.add_argument("--write", type=Path, help="markdown file whose inference section is replaced")
    arguments = parser.parse_args()
    lines = [f"{machine()}; {arguments.threads} thread, medians of {arguments.rounds} alternating rounds.", ""]
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in arguments.dtypes.split(","):
            checkpoint = make_checkpoint(Path(scratch) / dtype, dtype)
            theirs = Side(arguments.upstream, "upstream.py", checkpoint, arguments.threads)
            ours = Side(sys.executable, "ours.py", checkpoint, arguments.threads)
            script = str(arguments.before.resolve() / "benchmarks" / "sides" / "ours.py") if arguments.before else ""
            before = Side(sys.executable, script, checkpoint, arguments.threads) if script else None
            lines += _table(f"Mid configuration, {dtype}", compare(ours, theirs, before, arguments.rounds))
            lines += _floor(checkpoint, ours, arguments.rounds)
            if dtype == "float32":
                lines += _extras(arguments, checkpoint, ours, theirs)
                lines += [compare_mixed(ours, before, min(arguments.rounds, 3)), ""]
            for side in (ours, theirs, before):
                if side is not None:
                    side.close()
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _replace_section(arguments.write, "inference", text)


def _extras(arguments: argparse.Namespace, checkpoint: Path, ours: Side, theirs: Side) -> list[str]:
    """Measure start-up, memory, int8, and the ratio to the bare matrix products."""
    lines = []
    sides = [(arguments.upstream, "upstream.py"), (sys.executable, "ours.py")]
    upstream, own = start_up(sides, checkpoint, 5, arguments.threads)
    lines += [
        "",
        "| | upstream | ours | ours / upstream |",
        "|---|---|---|---|",
        f"| import and load, s | {upstream[0]:.2f} | {own[0]:.2f} | {own[0] / upstream[0]:.2f} (bound 0.7) |",
        f"| peak RSS, MB | {upstream[1]:.0f} | {own[1]:.0f} | {own[1] / upstream[1]:.2f} (bound 0.8) |",
        "",
    ]
    request = {"case": "latents", "patches": 9, **FLOW}
    int8 = Side(sys.executable, "ours.py", checkpoint, arguments.threads, "int8")
    pairs = [(theirs.ask(request), int8.ask(request)) for _ in range(arguments.rounds + 1)][1:]
    ratios = [a / b for a, b in pairs if a and b]
    int8.close()
    if ratios:
        lines += [
            f"int8 (off by default): latents {statistics.median(ratios):.2f}x upstream's float32 (bound 2.5).",
            "",
        ]
    for batch in (1, 16):
        whole = {"case": "latents", "patches": 5, "batch": batch, **FLOW}
        bare = {"case": "bare_products", "batch": batch, **FLOW}
        measured = [(ours.ask(whole), ours.ask(bare)) for _ in range(arguments.rounds + 1)][1:]
        multiple = statistics.median(a / b for a, b in measured if a and b)
        lines += [f"Batch {batch}: {multiple:.2f} times the bare matrix products of the same shapes (bound 1.35).", ""]
    return lines


def _floor(checkpoint: Path, ours: Side, rounds: int) -> list[str]:
    """Compare a patch's latents with the time of reading its weights once per pass, at the bandwidth measured beside it."""
    from benchmarks.patch_cost import patch_cost
    from voxcpm.config import VoxCPM2Config

    config = VoxCPM2Config.load(checkpoint)
    cost = patch_cost(config, positions=0, bytes_per_weight=4.0 if config.dtype == "float32" else 2.0)
    request = {"case": "latents", "patches": 9, **FLOW}
    pairs = [(ours.ask({"case": "read_bandwidth", "bytes": 2**29}), ours.ask(request)) for _ in range(rounds + 1)][1:]
    measured = [(rate, seconds) for rate, seconds in pairs if rate and seconds]
    if not measured:
        return []
    multiple = statistics.median(seconds * rate / cost.weight_bytes for rate, seconds in measured)
    rate = statistics.median(rate for rate, _ in measured)
    return [
        f"Latents: {multiple:.2f} times the floor, {cost.weight_bytes / 1e6:.0f} MB of weights per patch at {rate / 1e9:.1f} GB/s.",
        "",
    ]


def _table(title: str, rows: list[dict[str, Any]]) -> list[str]:
    """Return a table. The last two columns are there if an earlier commit was measured."""
    columns = ["", "upstream", "ours", "ratio", "bound"]
    earlier = any(row["before_s"] for row in rows)
    columns += ["before", "before / ours"] if earlier else []
    lines = [f"**{title}**", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        bound = f"{row['bound']:.1f}" if row["bound"] else ""
        cells = [row["case"], _ms(row["upstream_s"]), _ms(row["ours_s"]), f"{row['ratio']:.2f}", bound]
        if earlier:
            cells += [_ms(row["before_s"]), f"{row['before_ratio']:.2f}"] if row["before_s"] else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _replace_section(path: Path, name: str, text: str) -> None:
    """Replace the text between the section's marks."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
