"""Time and memory of the search for duplicates in synthetic corpora: a first pass, and one after one more unit.

    python benchmarks/duplicates_scale.py --segments 100000 --folder /tmp/scale_duplicates

Units have 50 segments of 4.8 s on average with random fingerprints. 2 % of the segments are exact copies of an earlier one of
the last 5000, 3 % copies in which 6 % of the bits differ, and 5 % repeat one of 5000 texts; there are 200 voices. Audio is left
out: the search does not read it. Each pass runs in a separate process, of which the peak memory is taken.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catalogs.corpus.commit import create_corpus
from catalogs.corpus.ids import short_hash
from catalogs.corpus.schema import SEGMENTS, segments_schema
from pipeline.duplicates.mark import mark_duplicates

_ROWS = 50
_FINGERPRINT = "f" * 16


def write_units(root: Path, first: int, count: int) -> None:
    """Write units `first` to `first + count`, each with a shard and a record."""
    dice = np.random.default_rng(first)
    voices = np.random.default_rng(0).normal(size=(200, 256)).astype(np.float32)
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    recent: list[tuple[np.ndarray, str]] = []
    for number in range(first, first + count):
        rows = []
        for seq in range(_ROWS):
            kind = dice.random()
            words = dice.integers(1, 2**16, int(dice.integers(50, 250)), dtype=np.uint16)
            name = short_hash("segment", number, seq)
            sha = short_hash("sha", name) * 4
            if recent and kind < 0.05:
                words, old = recent[int(dice.integers(len(recent)))]
                if kind < 0.02:
                    sha = old
                else:
                    flips = (dice.random((len(words), 16)) < 0.06) @ (1 << np.arange(16))
                    words = np.maximum(words ^ flips.astype(np.uint16), 1)
            elif len(recent) < 5000:
                recent.append((words, sha))
            else:
                recent[int(dice.integers(5000))] = (words, sha)
            text = int(dice.integers(5000)) if dice.random() < 0.05 else f"{number} {seq}"
            rows.append((name, seq, words.tobytes(), sha, f"the sentence with number {text}", int(dice.integers(200))))
        _write_unit(root, number, rows, voices)


def _write_unit(root: Path, number: int, rows: list[tuple[str, int, bytes, str, str, int]], voices: np.ndarray) -> None:
    unit = short_hash("unit", number)
    names, seqs, prints, hashes, texts, of = zip(*rows, strict=True)
    given = {
        "segment_id": names,
        "session_id": [f"session {number}"] * len(rows),
        "source_id": [short_hash("source", number)] * len(rows),
        "seq": seqs,
        "text": texts,
        "audio_sha256": hashes,
        "audio_print": prints,
        "embedding": list(voices[list(of)]),
    }
    columns = [
        pa.array(given[field.name], field.type) if field.name in given else pa.nulls(len(rows), field.type)
        for field in SEGMENTS
    ]
    shard = f"segments/{unit[:2]}/{unit}.00000000.arrow"
    (root / shard).parent.mkdir(exist_ok=True)
    with pa.ipc.new_file(str(root / shard), segments_schema(_FINGERPRINT)) as writer:
        writer.write_table(pa.table(columns, schema=segments_schema(_FINGERPRINT)), max_chunksize=64)
    record = {
        "unit_id": unit,
        "fingerprint": _FINGERPRINT,
        "generation": 0,
        "source_ids": [short_hash("source", number)],
        "segments": len(rows),
        "at": "2026-01-01",
        "files": [{"kind": "segments", "path": shard, "sha256": "", "bytes": 0, "rows": len(rows)}],
        "stats": {},
    }
    path = root / "units" / unit[:2] / f"{unit}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record))


def measure(root: Path) -> None:
    """Run one pass here and print what it took."""
    started = time.perf_counter()
    found = mark_duplicates(root, 0.7)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{found.segments} marked {found.kinds}: {time.perf_counter() - started:.1f} s,"
        f" {used.ru_utime + used.ru_stime:.1f} s CPU, {used.ru_maxrss / 1e6:.2f} GB"
    )


def main() -> None:
    """Make a corpus if there is none, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/scale_duplicates"))
    parser.add_argument("--pass", dest="only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    root = arguments.folder / str(arguments.segments)
    if arguments.only:
        measure(root)
        return
    units = arguments.segments // _ROWS
    if not root.is_dir():
        create_corpus(root)
        write_units(root, 0, units)
    own = [sys.executable, __file__, "--segments", str(arguments.segments), "--folder", str(arguments.folder), "--pass"]
    subprocess.run(own, check=True)
    write_units(root, units + int(time.time()), 1)
    subprocess.run(own, check=True)
    work = sum(path.stat().st_size for path in (root / "annotations" / "duplicates" / "work").iterdir())
    print(f"{work / 1e6:.0f} MB of work files")


if __name__ == "__main__":
    main()
