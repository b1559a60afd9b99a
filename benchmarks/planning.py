"""The cost of planning per step, and the time to open a corpus of millions of segments for training.

    python benchmarks/planning.py [--segments 1000000,10000000] [--before COMMIT] [--write docs/benchmarks.md]

Steps of 8 and of 512 rows are planned from a table of synthetic clips on one core, and compared with the trainer of an older
commit (from this repository's history). Then the 512-row steps are planned in the prefetch thread during 200 ms of waiting, as
for a GPU. Then candidate tables of the given sizes are written (columns of random values, no audio), and a process opens each as
`voxmill train` does, up to the first row. Prints a table; exits with 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SIDES = ROOT / "benchmarks" / "planning_sides"
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(SIDES)]

from clips import LANGUAGES, PATCH_SAMPLES, phase_settings, synthetic_clips  # noqa: E402
from inference import _replace_section, machine  # noqa: E402

from catalogs.candidates.build import table_key  # noqa: E402
from catalogs.candidates.captions import ADDED  # noqa: E402
from catalogs.candidates.table import BRIEF, FULL, TEXT, Writer  # noqa: E402
from catalogs.corpus.commit import create_corpus  # noqa: E402
from trainer.config import Phase  # noqa: E402
from trainer.data.candidates import Candidate  # noqa: E402
from trainer.data.corpora import Corpora  # noqa: E402
from trainer.data.mixture import Mixture  # noqa: E402
from trainer.data.rows import Planner, RowStream  # noqa: E402
from trainer.data.samples import step_maker  # noqa: E402
from trainer.model.tokenizer import train_tokenizer  # noqa: E402
from trainer.runtime.prefetch import Prefetcher  # noqa: E402
from voxcpm.sequence.text_tokenizer import TextTokenizer  # noqa: E402

PLANNED = 20_000
"""Number of segments that steps are planned from: as many as both sides can hold."""
COMPUTE_S = 0.2
SHARDS = 2000
REFERENCES = 4
CHUNK = 1_000_000
BOUNDS = {1_000_000: (6.0, 2.0), 10_000_000: (60.0, 2.0)}
"""Segments -> (seconds, GB) until training can begin."""


@dataclass(frozen=True)
class Line:
    """A line of the table. bound: maximum of `value`; None: not bounded."""

    what: str
    unit: str
    value: float
    bound: float | None = None
    more: str = ""

    @property
    def missed(self) -> bool:
        """Return True if the value is above its bound."""
        return self.bound is not None and self.value > self.bound

    def __str__(self) -> str:
        bound = "" if self.bound is None else f"{self.bound:g} {self.unit}" + (" (missed)" if self.missed else "")
        return f"| {self.what} | {self.value:.4g} {self.unit} | {bound} | {self.more} |"


def stream_of(folder: Path, rows: int) -> RowStream:
    """Rows of the synthetic clips."""
    candidates = [Candidate(*clip) for clip in synthetic_clips(PLANNED)]
    phase = Phase.model_validate(phase_settings(rows))
    config: Any = SimpleNamespace(patch_samples=PATCH_SAMPLES)
    planner = Planner(TextTokenizer.load(folder), config)
    return RowStream(Mixture(candidates, phase, "all", 1), planner, phase, {})


def planning(folder: Path, rows: int, steps: int) -> tuple[float, float, float, float]:
    """Return (mean CPU seconds, mean wall seconds, most CPU seconds, samples) of planning a step, token counting included."""
    stream = stream_of(folder, rows)
    list(islice(stream, rows))
    cpu, wall, samples = [], [], 0
    for _ in range(steps):
        started, at = time.process_time(), time.perf_counter()
        planned = list(islice(stream, rows))
        stream.state()
        samples += stream.tally(planned).samples
        cpu.append(time.process_time() - started)
        wall.append(time.perf_counter() - at)
    return sum(cpu) / steps, sum(wall) / steps, max(cpu), samples / steps


def before(commit: str, folder: Path, rows: int, steps: int, scratch: Path) -> float | None:
    """Return CPU seconds per step of an older trainer; None if the history does not have it."""
    tree = scratch / commit
    if not tree.is_dir():
        tree.mkdir()
        packed = subprocess.run(
            ["git", "-C", str(ROOT), "archive", commit, "trainer", "catalogs", "voxcpm"], capture_output=True
        )
        if packed.returncode:
            return None
        subprocess.run(["tar", "-x", "-C", str(tree)], input=packed.stdout, check=True)
    done = subprocess.run(
        [sys.executable, str(SIDES / "before.py"), str(folder), str(rows), str(steps), str(PLANNED)],
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"the trainer of {commit} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout)["cpu_s"])


def ahead(folder: Path, rows: int, steps: int) -> float:
    """Return the mean wall seconds of steps that wait for COMPUTE_S, as for a GPU, while the next step is planned."""
    stream = stream_of(folder, rows)
    make = step_maker(stream, rows, lambda step, planned: [])
    with Prefetcher() as prefetch:
        for number, made in enumerate(prefetch.steps(make, range(steps + 2))):
            made()
            if number == 1:
                started = time.perf_counter()
            time.sleep(COMPUTE_S)
        return (time.perf_counter() - started) / (steps + 1)


def write_corpus(root: Path, segments: int) -> None:
    """Write a corpus without units, with shards that can be opened; its candidate table has `segments` rows of random values."""
    import pyarrow as pa

    create_corpus(root)
    one = root / "segments" / "one.arrow"
    one.parent.mkdir(exist_ok=True)
    with pa.ipc.new_file(str(one), pa.schema([("x", pa.int8())])):
        pass
    for number in range(SHARDS):
        os.link(one, root / "segments" / f"{number}.arrow")
    folder = root / "candidates" / table_key(Corpora([root]).parts)
    writer = Writer(folder)
    dice = np.random.default_rng(1)
    ids = np.sort(dice.integers(0, 2**63, segments).astype(np.uint64))
    counts = {words: _Counts(folder, words) for words in ("text", "full", "brief")}
    for start in range(0, segments, CHUNK):
        _write_chunk(writer, counts, dice, ids[start : start + CHUNK], start, segments)
    writer.numbers("pairs_at", np.arange(segments + 1) * REFERENCES)
    for each in counts.values():
        each.close()
    writer.close(LANGUAGES, [(0, f"segments/{number}.arrow") for number in range(SHARDS)])


class _Counts:
    """Write a file of token counts, for the digest of the tokenizer of `open_one`."""

    def __init__(self, folder: Path, words: str) -> None:
        self._sink, self._sum = (folder / f"tokens-{DIGEST}-{words}.i32").open("wb"), 0

    def put(self, values: np.ndarray) -> None:
        data = values.astype("<i4").tobytes()
        self._sum = zlib.crc32(data, self._sum)
        self._sink.write(data)

    def close(self) -> None:
        self._sink.write(np.array([self._sum], "<u4").tobytes())
        self._sink.close()


DIGEST = "0" * 16


def _write_chunk(
    writer: Writer, counts: dict[str, _Counts], dice: np.random.Generator, ids: np.ndarray, start: int, segments: int
) -> None:
    count = len(ids)
    rows = np.arange(start, start + count)
    seconds = dice.lognormal(np.log(6), 0.6, count).clip(1, 30).round(4)
    described = dice.random(count) < 0.5
    text = (seconds * 13).astype(np.int64) + 1
    writer.numbers("seconds", seconds)
    writer.numbers("flags", TEXT + described * (FULL + BRIEF))
    writer.numbers("language", rng_languages(dice, count))
    writer.numbers("shard", rows * SHARDS // segments)
    writer.numbers("row", rows % (segments // SHARDS + 1))
    writer.numbers("group", rows)
    writer.numbers("described_group", np.full(count, -1))
    writer.numbers("draw", dice.random(count))
    for name in ("id_hash", "digest"):
        writer.numbers(name, dice.integers(0, 2**63, count).astype(np.uint64))
    near = np.clip(rows[:, None] + dice.integers(-50, 50, (count, REFERENCES)), 0, segments - 1)
    writer.numbers("pairs", near.ravel())
    hexadecimal = np.frombuffer(b"0123456789abcdef", np.uint8)
    octets = ids.astype(">u8").view(np.uint8)
    writer.strings("ids", np.full(count, 16), hexadecimal[np.stack((octets >> 4, octets & 15), -1).ravel()].tobytes())
    writer.strings("texts", text, b"a" * int(text.sum()))
    for name, size in (("full", 80), ("brief", 12), *((name, 0) for name in (*ADDED, "described"))):
        sizes = described * size
        writer.strings(name, sizes, b"b" * int(sizes.sum()))
    counts["text"].put(text // 3)
    counts["full"].put(described * (text // 3 + 28))
    counts["brief"].put(described * (text // 3 + 5))


def rng_languages(dice: np.random.Generator, count: int) -> np.ndarray:
    """Return language codes, seven of ten for the first language."""
    return dice.choice(len(LANGUAGES), count, p=[0.7, 0.15, 0.1, 0.05])


def open_one(root: Path) -> None:
    """Open a corpus as a rank of `voxmill train` does, up to its first row; print seconds and memory as JSON."""
    import resource

    import trainer.dryrun.checks
    from trainer.config import TrainConfig

    config = TrainConfig.model_validate(
        {
            "corpus": str(root), "output": str(root / "out"), "phases": {"all": phase_settings(8)},
            "validation": {"every": 1000, "share": 0.001},
        }
    )  # fmt: skip
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started, at = time.process_time(), time.perf_counter()
    data = trainer.dryrun.checks.read_data(config)
    tokenizer: Any = SimpleNamespace(digest=DIGEST)
    shape: Any = SimpleNamespace(patch_samples=PATCH_SAMPLES)
    samples = len(next(RowStream(data.mixtures["all"], Planner(tokenizer, shape), config.phases["all"], {})))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"wall_s": time.perf_counter() - at, "cpu_s": time.process_time() - started, "peak": peak, "loaded": loaded}
    print(json.dumps(found | {"segments": len(data.candidates["all"]), "held": len(data.held), "samples": samples}))


def opening(segments: int, scratch: Path) -> list[Line]:
    """Return the lines for one size of corpus."""
    root = scratch / "corpus"
    write_corpus(root, segments)
    done = subprocess.run(
        [sys.executable, __file__, "--open", str(root)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    size = sum(path.stat().st_size for path in (root / "candidates").rglob("*") if path.is_file())
    shutil.rmtree(root)
    found = json.loads(done.stdout)
    seconds, gigabytes = BOUNDS.get(segments, (None, None))
    more = f"CPU {found['cpu_s']:.1f} s; {found['held']:,} held out; {size / 1e9:.2f} GB on the disk"
    loaded = f"of which {found['loaded'] / 1e9:.2f} GB before, with torch"
    return [
        Line(f"{segments:,} segments: open to the first row", "s", found["wall_s"], seconds, more),
        Line(f"{segments:,} segments: most memory of the process", "GB", found["peak"] / 1e9, gigabytes, loaded),
    ]


def measure(sizes: list[int], commit: str, scratch: Path) -> list[Line]:
    """Return all lines."""
    dice = np.random.default_rng(2)
    texts = [clip[2] for clip in synthetic_clips(2000)]
    train_tokenizer((texts[int(i)] for i in dice.permutation(len(texts))), 2000, scratch / "tokenizer")
    lines = []
    for rows, steps, bound in ((512, 6, 150.0), (8, 300, 5.0)):
        cpu, wall, most, samples = planning(scratch / "tokenizer", rows, steps)
        old = before(commit, scratch / "tokenizer", rows, max(1, min(steps, 16 // (rows // 8))), scratch)
        beside = "" if old is None else f"{old * 1e3:,.0f} ms at {commit}: {old / cpu:.0f} times as fast; "
        more = f"{beside}wall {wall * 1e3:.1f} ms, worst CPU {most * 1e3:.1f} ms"
        lines.append(Line(f"a step of {rows} rows ({samples:,.0f} samples), CPU", "ms", cpu * 1e3, bound, more))
        print(lines[-1], flush=True)
    step = ahead(scratch / "tokenizer", 512, 20)
    bound = (COMPUTE_S + 0.01) * 1e3
    lines.append(Line("a step of 512 rows beside 200 ms of a GPU's work, wall", "ms", step * 1e3, bound))
    print(lines[-1], flush=True)
    for segments in sizes:
        lines += opening(segments, scratch)
        print("\n".join(map(str, lines[-2:])), flush=True)
    return lines


def main() -> None:
    """The lines, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", default="1000000,10000000", help="sizes of the corpora that are opened")
    parser.add_argument("--before", default="fae81e6", help="the commit that is compared with")
    parser.add_argument("--scratch", type=Path, help="a folder with room for some 4 GB (default: a temporary one)")
    parser.add_argument("--write", type=Path, help="markdown file whose planning section is replaced")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        open_one(arguments.open)
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        lines = measure([int(size) for size in arguments.segments.split(",")], arguments.before, Path(scratch))
    text = "\n".join(["| What | Measured | At most | |", "|---|---:|---:|---|", *map(str, lines)])
    text = f"{machine()}, one core; load {os.getloadavg()[0]:.1f} at the end.\n\n{text}\n"
    print(f"\n{text}")
    if arguments.write:
        _replace_section(arguments.write, "planning", text)
    sys.exit(any(line.missed for line in lines))


if __name__ == "__main__":
    main()
