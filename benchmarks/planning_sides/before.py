"""Plan steps with the trainer of an older commit, whose tree is first on PYTHONPATH; print CPU seconds per step as JSON.

python before.py TOKENIZER_FOLDER ROWS_PER_STEP STEPS SEGMENTS
"""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent))

from clips import PATCH_SAMPLES, phase_settings, synthetic_clips

# Names of that commit, which are not those of today's tree.
from trainer.config import Phase  # isort: skip
from trainer.data import Planner, RowStream  # isort: skip
from trainer.mixture import Candidate, Mixture  # isort: skip
from voxcpm.text import TextTokenizer  # isort: skip


def main() -> None:
    """Plan rows as in a run, after one step that fills the caches."""
    folder, rows, steps, segments = sys.argv[1], *map(int, sys.argv[2:])
    candidates = [Candidate(*clip) for clip in synthetic_clips(segments)]
    phase = Phase.model_validate(phase_settings(rows))
    config: Any = SimpleNamespace(patch_samples=PATCH_SAMPLES)
    stream = RowStream(Mixture(candidates, phase, "all", 1), Planner(TextTokenizer.load(folder), config), phase, {})
    samples = sum(map(len, islice(stream, rows)))
    started, at = time.process_time(), time.perf_counter()
    samples = sum(sum(map(len, islice(stream, rows))) for _ in range(steps))
    print(
        json.dumps(
            {
                "cpu_s": (time.process_time() - started) / steps,
                "wall_s": (time.perf_counter() - at) / steps,
                "samples": samples / steps,
            }
        )
    )


if __name__ == "__main__":
    main()
