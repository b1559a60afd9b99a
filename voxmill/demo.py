"""`voxmill demo`: the whole road on real recordings, ending with one honest table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from voxmill.terminal import Terminal

QUERIES = (
    (
        "hours and segments by language",
        "select language, count(*) as segments, round(sum(duration_s) / 60, 2) as minutes,"
        " round(avg(dnsmos_ovr), 2) as dnsmos from segments where kept group by 1 order by 1",
    ),
    ("where every second went", "select * from funnel"),
    (
        "a reference pair of each session",
        "select s.session_id, p.segment_id, p.reference_id, round(max(p.cosine), 3) as cosine, any_value(p.gap) as gap"
        " from reference_pairs p join segments s using (segment_id) group by all order by cosine desc limit 5",
    ),
    ("what the voices sound like", 'select segment_id, brief, "full" from descriptions order by segment_id limit 3'),
)

SENTENCE = "The quick brown fox jumps over the lazy dog."


def run_demo(out: Path, terminal: Terminal, minutes: float, steps: int | None, executor: str) -> dict[str, Any]:
    """Everything from recordings to a spoken WAV in the folder `out`; returns the figures of the table."""
    from catalogs import models

    clock: dict[str, float] = {}
    started = time.perf_counter()
    with _step(terminal, clock, "weights", "1/7 weights of the profile small"):
        models.pull(models.profile("small"), progress=lambda name, line: terminal.say(f"  {name}: {line}"))
    with _step(terminal, clock, "recordings", "2/7 recordings: real prompts in five languages, joined into sessions"):
        recordings = _recordings(out, minutes, terminal)
    with _step(terminal, clock, "prepare", "3/7 voxmill prepare"):
        summary = _prepare(recordings.folder, out / "corpus", executor, terminal)
    with _step(terminal, clock, "catalog", "4/7 voxmill catalog, voxmill query"):
        _ask(out / "corpus", terminal)
    with _step(terminal, clock, "report", "5/7 voxmill report"):
        from catalogs.report import build_report

        page = build_report(out / "corpus", out / "report.html")
    with _step(terminal, clock, "train", "6/7 voxmill train: a toy VoxCPM2 with a toy codec"):
        trained = _train(out, steps, terminal)
    with _step(terminal, clock, "speak", "7/7 voxmill speak, in every layout"):
        spoken = _speak(out, Path(trained.checkpoint), recordings, terminal)
    with _step(terminal, clock, "score", "word error rates against the known transcripts"):
        scores = _scores(out / "corpus", recordings)
    clock["total"] = time.perf_counter() - started
    _table(terminal, out, page, summary, scores, trained, spoken, clock)
    return {
        "summary": vars(summary),
        "wer": [vars(score) for score in scores],
        "train": {"checkpoint": str(trained.checkpoint), "first": trained.first_loss, "last": trained.last_loss},
        "spoken": [str(path) for path in spoken],
        "seconds": clock,
    }
