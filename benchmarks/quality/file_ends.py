"""The ends of files cut by their makers: clips of corpora that are cut close to the voice, but not within a word.

The results of `cuts.py` for ends made by the pipeline do not hold for them: a file may begin with the first 30 ms of a whole
word. Each clip is a recording; it goes through detect_speech, segment and refine_cuts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from benchmarks.quality.words import session_of, stage
from catalogs.corpus.thresholds import Thresholds
from pipeline.records import PCM_RATE, Source
from voxmill.demo_prompts import LANGUAGES, read_g722

_CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"
CUT_BY_THEIR_MAKERS = ("LJSpeech", "TESS", "RAVDESS", "EmoDB", "nEMO")
_PROMPTS = 40
_AT_END_S = 0.05


@dataclass
class FileEnds:
    """Counts of segment ends that are ends of files: all, with voice above the limit, and rejected."""

    corpus: str
    clips: int = 0
    ends: int = 0
    voiced: int = 0
    rejected: int = 0

    def row(self) -> str:
        """Return a line of a Markdown table."""
        share = f" ({self.rejected / self.ends:.1%})" if self.ends else ""
        return f"| {self.corpus} | {self.clips} | {self.ends} | {self.voiced} | {self.rejected}{share} |"


def judge_file_ends(corpus: str, clips: Sequence[np.ndarray], thresholds: Thresholds) -> FileEnds:
    """Return the counts for clips, float32 [S] at 16 kHz each."""
    found = FileEnds(corpus, len(clips))
    sources = [Source(f"{i}", f"/{i}", f"{i}", corpus, 0, "") for i in range(len(clips))]
    session = session_of(corpus, clips, sources)
    for name in ("detect_speech", "segment", "refine_cuts"):
        session = stage(name)(session)
    for segment in session.alive():
        reasons = thresholds.reasons(vars(segment))
        after = session.recording(segment.source_id).duration_s - segment.end_s
        ends = (
            (segment.start_s, segment.head_edge, thresholds.max_head_edge, "head_cut_off"),
            (after, segment.tail_edge, thresholds.max_tail_edge, "tail_cut_off"),
        )
        for distance, edge, limit, reason in ends:
            if distance <= _AT_END_S:
                found.ends += 1
                found.voiced += limit is not None and (edge or 0.0) > limit
                found.rejected += reason in reasons
    return found


def cut_clips(prompts: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield (corpus, its clips) of the available corpora, and of Debian's prompts of five languages in the unpacked packages."""
    clips: dict[str, list[np.ndarray]] = {name: [] for name in CUT_BY_THEIR_MAKERS}
    for manifest in (_CORPORA / "manifest.jsonl", _CORPORA / "world" / "manifest.jsonl"):
        if not manifest.is_file():
            print(f"  {manifest} is not here", file=sys.stderr)
            continue
        for row in map(json.loads, manifest.read_text(encoding="utf-8").splitlines()):
            if row.get("corpus") in clips and not row.get("fault"):
                samples, rate = soundfile.read(manifest.parent / row["path"], dtype="float32", always_2d=True)
                clips[row["corpus"]].append(soxr.resample(samples.mean(axis=1), rate, PCM_RATE))
    yield from ((name, own) for name, own in clips.items() if own)
    sounds = prompts / "usr/share/asterisk/sounds"
    paths = [sorted(sounds.glob(f"{language}_*/*.g722"))[::10][:_PROMPTS] for language in LANGUAGES]
    yield "Debian prompts", [read_g722(path) for own in paths for path in own]


def report_file_ends(found: Sequence[FileEnds]) -> str:
    """Return the table as Markdown."""
    head = "| files that came cut | clips | ends at the file's own | with voice | rejected |\n|---|---|---|---|---|\n"
    return head + "\n".join(one.row() for one in found)
