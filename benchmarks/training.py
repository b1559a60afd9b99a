"""Compare training with this package's trainer and with the official package's code, in turns, on one checkpoint.

    python benchmarks/training.py --upstream /path/to/venv/bin/python [--rounds 3] [--write docs/benchmarks.md]

`make upstream-venv` makes the environment of the official package. Model: the mid configuration (74 million weights) with the
full-width codec, random weights, float32. Clips: real speech with transcripts, uncut (median about 7 s) and cut to one length.
A step is one optimizer step over the same four clips on both sides. The figure is target patches per second, the median over
rounds in which the sides take turns, so that other load affects both. Exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from inference import Side, _replace_section, machine, make_checkpoint  # noqa: E402
from training_sides.clips import equal_batches, natural_batches, read_clips, write_sets  # noqa: E402

BATCHES = {"equal": 1, "natural": 2}
#: (title, clips, whether upstream encodes, what ours does, the issue's bound)
CASES: list[tuple[str, str, bool, dict[str, str], float | None]] = [
    ("equal-length clips, model only", "equal", False, {"latents": "warm"}, 1.35),
    ("clips of natural length, model only", "natural", False, {"latents": "warm"}, 2.3),
    ("the same, ours in bfloat16", "natural", False, {"latents": "warm", "dtype": "bfloat16"}, None),
    (
        "natural length, ours from stored latents, upstream encodes as it does",
        "natural",
        True,
        {"latents": "stored"},
        3.5,
    ),
    ("natural length, both encode", "natural", True, {"latents": "encode"}, None),
]
MEMORY_BOUND = 0.8
CURVE_EVERY, CURVE_LR = 3, 3e-4


class Sides:
    """Both packages, each in a separate process."""

    def __init__(self, python: str, checkpoint: Path, data: Path, threads: int, *options: str) -> None:
        scripts = [(python, "../training_sides/upstream.py"), (sys.executable, "../training_sides/ours.py")]
        self.theirs, self.ours = (Side(p, s, checkpoint, threads, str(data), *options) for p, s in scripts)

    def ask(self, side: Side, request: dict[str, Any]) -> float:
        value = side.ask(request)
        if value is None:
            raise SystemExit(f"a side cannot do {request}")
        return value

    def both(self, request: dict[str, Any], theirs: dict[str, Any], ours: dict[str, Any]) -> tuple[float, float]:
        """Return the seconds of upstream and of ours."""
        return self.ask(self.theirs, {**request, **theirs}), self.ask(self.ours, {**request, **ours})

    def close(self) -> None:
        self.theirs.close()
        self.ours.close()


def make_data(folder: Path, corpora: Path) -> Path:
    """Make checkpoint, clips and corpora; return the checkpoint. `corpus` has stored latents, `plain` has none."""
    from trainer.encode_corpus import encode_corpus
    from trainer.model.tokenizer import train_tokenizer
    from voxcpm.sequence.text_tokenizer import TextTokenizer

    checkpoint = make_checkpoint(folder / "model")
    clips = read_clips(corpora)
    # About four tokens per second, as with the released tokenizer. With a tokenizer that spells these languages in bytes, most
    # positions would be text.
    train_tokenizer([clip.text for clip in clips], 2048, checkpoint)
    tokenizer = TextTokenizer.load(checkpoint)
    sets = {
        "equal": equal_batches(clips, BATCHES["equal"], tokenizer),
        "natural": natural_batches(clips, BATCHES["natural"]),
    }
    write_sets(folder / "data", sets)
    shutil.copytree(folder / "data" / "corpus", folder / "data" / "plain")
    encode_corpus(folder / "data" / "corpus", checkpoint)
    return checkpoint


def speeds(sides: Sides, rounds: int, only: str = "") -> list[dict[str, Any]]:
    """Return target patches per second of each case (with `only` in its title) on both sides, measured in turns."""
    patches = {
        (name, batch): sides.ask(sides.ours, {"case": "targets", "set": name, "batch": batch})
        for name, count in BATCHES.items()
        for batch in range(count)
    }
    for (name, batch), wanted in patches.items():
        found = sides.ask(sides.theirs, {"case": "targets", "set": name, "batch": batch})
        if found != wanted:
            raise SystemExit(f"{name} batch {batch}: upstream learns {found:.0f} patches, ours {wanted:.0f}")
    rows = []
    for title, name, encode, own_way, bound in CASES:
        if only not in title:
            continue
        learnt = sum(patches[name, batch] for batch in range(BATCHES[name]))
        pairs = []
        for attempt in range(rounds + 1):
            seconds = [0.0, 0.0]
            for batch in range(BATCHES[name]):
                request = {"case": "step", "set": name, "batch": batch}
                pair = sides.both(request, {"encode": encode}, own_way)
                seconds = [total + own for total, own in zip(seconds, pair, strict=True)]
                if not attempt:
                    break  # the first round warms up: one step is enough
            if attempt:
                pairs.append(seconds)
        theirs, ours = (learnt / statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        rows.append({"case": title, "upstream": theirs, "ours": ours, "ratio": ratio, "bound": bound})
        sys.stderr.write(f"{title}: {theirs:.1f} patches/s, ours {ours:.1f}, {ratio:.2f}x\n")
    return rows


def wasted(sides: Sides) -> str:
    """Return the number of positions that each side computes for the natural clips."""
    computed = [
        sum(
            sides.ask(side, {"case": "positions", "set": "natural", "batch": batch})
            for batch in range(BATCHES["natural"])
        )
        for side in (sides.theirs, sides.ours)
    ]
    learnt = sum(
        sides.ask(sides.ours, {"case": "targets", "set": "natural", "batch": b}) for b in range(BATCHES["natural"])
    )
    return (
        f"The natural batches have {learnt:.0f} target patches; upstream puts {computed[0]:.0f} positions through every tower,"
        f" ours {computed[1]:.0f} through the language models, {learnt:.0f} through LocEnc and LocDiT."
    )


def memory(
    python: str, checkpoint: Path, data: Path, threads: int, options: tuple[str, ...] = ()
) -> tuple[float, float]:
    """Return the peak resident MB of new processes that take a step over each natural batch, as each side is used."""
    sides = Sides(python, checkpoint, data, threads, *options)
    for batch in range(BATCHES["natural"]):
        request = {"case": "step", "set": "natural", "batch": batch}
        sides.both(request, {"encode": True}, {"latents": "stored"})
    peaks = sides.theirs.peak_rss_mb, sides.ours.peak_rss_mb
    sides.close()
    return peaks


def curves(python: str, checkpoint: Path, data: Path, threads: int, steps: int) -> list[dict[str, float]]:
    """Return the diffusion loss over the clips of one length against seconds of training: same clips, same order, same rate.

    Each side is used as usual: upstream encodes, ours reads stored latents. The time of scoring is not counted.
    """
    sides = Sides(python, checkpoint, data, threads)
    spent = [0.0, 0.0]
    points: list[dict[str, float]] = []
    for step in range(steps + 1):
        if step % CURVE_EVERY == 0:
            scored = {"case": "loss", "set": "equal", "batches": BATCHES["equal"]}
            losses = sides.both(scored, {}, {})
            points.append(
                {"step": step, "upstream_s": spent[0], "ours_s": spent[1], "upstream": losses[0], "ours": losses[1]}
            )
            sys.stderr.write(f"{points[-1]}\n")
        request = {"case": "step", "set": "equal", "batch": step % BATCHES["equal"], "lr": CURVE_LR}
        seconds = sides.both(request, {"encode": True}, {"latents": "stored"})
        spent = [total + own for total, own in zip(spent, seconds, strict=True)]
    sides.close()
    return points


def seconds_to(points: list[dict[str, float]], side: str, wanted: float) -> float | None:
    """Return the seconds after which a side's loss is `wanted`, by linear interpolation between scored steps."""
    for before, after in pairwise(points):
        if after[side] <= wanted:
            share = (before[side] - wanted) / (before[side] - after[side]) if before[side] > wanted else 0.0
            return before[f"{side}_s"] + share * (after[f"{side}_s"] - before[f"{side}_s"])
    return None


def main() -> None:
    """Run everything and print (or write) the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, help="python of the environment with the official package")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=15, help="of the learning curve; 0: none")
    parser.add_argument(
        "--only", default="", help="measure the cases with these words in their title, and nothing else"
    )
    parser.add_argument("--corpora", type=Path, default=HERE.parent.parent / "shared" / "corpora")
    parser.add_argument("--data", type=Path, help="keep checkpoint and clips here, and take them from here")
    parser.add_argument("--write", type=Path, help="markdown file whose training section is replaced")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.data or Path(scratch)
        done = folder / "complete"
        if not done.is_file():
            make_data(folder, arguments.corpora)
            done.touch()
        checkpoint, data = folder / "model", folder / "data"
        where = (arguments.upstream, checkpoint, data, arguments.threads)
        sides = Sides(*where)
        rows = speeds(sides, arguments.rounds, arguments.only)
        note = wasted(sides)
        sides.close()
        lines = [f"{machine()}; {arguments.threads} thread, medians of {arguments.rounds} alternating rounds.", ""]
        lines += _table(rows)
        lines += [note, ""]
        missed = [f"{row['case']}: {row['ratio']:.2f}x" for row in rows if row["bound"] and row["ratio"] < row["bound"]]
        if not arguments.only:
            theirs, ours = memory(*where)
            lines += _memory_table(theirs, ours)
            if ours > MEMORY_BOUND * theirs:
                missed.append(f"memory: {ours / theirs:.2f} of upstream's")
        if arguments.steps and not arguments.only:
            lines += _curve_table(curves(*where, arguments.steps))
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _replace_section(arguments.write, "training", text)
    if missed:
        sys.exit(f"bounds missed: {'; '.join(missed)}")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| target patches a second | upstream | ours | ratio | bound |", "|---|---|---|---|---|"]
    for row in rows:
        bound = f"{row['bound']:.2f}" if row["bound"] else ""
        lines.append(f"| {row['case']} | {row['upstream']:.1f} | {row['ours']:.1f} | {row['ratio']:.2f} | {bound} |")
    return [*lines, ""]


def _memory_table(theirs: float, ours: float) -> list[str]:
    return [
        "| | upstream | ours | ours / upstream |",
        "|---|---|---|---|",
        f"| peak RSS, natural length, MB | {theirs:.0f} | {ours:.0f} | {ours / theirs:.2f} (bound {MEMORY_BOUND}) |",
        "",
    ]


def _curve_table(points: list[dict[str, float]]) -> list[str]:
    lines = [
        f"Diffusion loss on the same clips (AdamW, rate {CURVE_LR:g}; upstream encodes, ours reads stored latents):",
        "",
        "| step | upstream, s | loss | ours, s | loss |",
        "|---|---|---|---|---|",
    ]
    for p in points:
        lines.append(
            f"| {p['step']:.0f} | {p['upstream_s']:.0f} | {p['upstream']:.3f} | {p['ours_s']:.0f} | {p['ours']:.3f} |"
        )
    # The lowest loss that both have reached.
    wanted = max(min(p["upstream"] for p in points), min(p["ours"] for p in points))
    theirs, ours = (seconds_to(points, side, wanted) for side in ("upstream", "ours"))
    if theirs and ours:
        lines += [
            "",
            f"Loss {wanted:.3f}: upstream after {theirs:.0f} s, ours after {ours:.0f} s, {theirs / ours:.1f}x.",
        ]
    return [*lines, ""]


if __name__ == "__main__":
    main()
