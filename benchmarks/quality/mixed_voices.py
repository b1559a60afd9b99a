"""Two voices in one clip without a pause between them: how many `speaker_purity` detects, and its false alarms.

Clips of one voice each (corpora of `CORPORA`, cut by detect_speech, find_turns and segment) give the false alarms: segments of
more than 2.4 s below the limit of the thresholds. These are made from the same clips, half of them with both voices from one
corpus:

* *one after the other*: 2 to 8 s of each, at the same level, without a pause;
* *0.5 s of both at the change*: the same, but the second one starts half a second early;
* *the second within the first*: another voice at the same level over up to 60 % of a clip;
* *one voice, two utterances*, for comparison: the effect of a cut between two clips of one voice.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from benchmarks.quality.tables import table
from benchmarks.quality.words import session_of, stage
from catalogs.corpus.thresholds import Thresholds
from pipeline.records import PCM_RATE, Segment, Session, Source

_CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"
CORPORA = (
    "RAVDESS", "EmoDB", "nEMO", "FLEURS", "LibriSpeech", "AISHELL-3", "VCTK", "KAIST-Selvas-Emotional",
    "KAIST-Selvas-Personality", "KAIST-Selvas-Main", "TESS", "LJSpeech",
)  # fmt: skip
LEAST_S = 2.4
_SPLICED = "one after the other"
_CAUGHT, _ALARMS = 0.80, 0.02
_LEVEL = 0.05


@dataclass(frozen=True)
class Clip:
    """A clip of one voice: float32 [S] at 16 kHz, its corpus and speaker."""

    corpus: str
    speaker: str
    samples: np.ndarray


def corpus_clips(most: int, dice: random.Random) -> list[Clip]:
    """Return at most `most` clips of each available corpus; each clip without a named speaker counts as another speaker."""
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for manifest in (_CORPORA / "manifest.jsonl", _CORPORA / "world" / "manifest.jsonl"):
        for row in map(json.loads, manifest.read_text(encoding="utf-8").splitlines()) if manifest.is_file() else ():
            if row.get("corpus") in CORPORA and not row.get("fault") and 1.5 < row["duration_s"] < 30:
                speaker = f"{row['corpus']} {row.get('speaker') or row['path']}"
                found[row["corpus"]].append((speaker, manifest.parent / row["path"]))
    clips = []
    for corpus, rows in found.items():
        for speaker, path in dice.sample(rows, min(most, len(rows))):
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            clips.append(Clip(corpus, speaker, soxr.resample(samples.mean(axis=1), rate, PCM_RATE)))
    return clips


def single_voices(clips: Sequence[Clip]) -> list[Segment]:
    """Return the pipeline's segments of clips of one voice, with their purity."""
    session = _session([clip.samples for clip in clips])
    for name in ("detect_speech", "find_turns", "segment", "embed_speaker"):
        session = stage(name)(session)
    return [segment for segment in session.alive() if segment.duration_s > LEAST_S]


def purities(clips: Sequence[np.ndarray]) -> list[float | None]:
    """Return `speaker_purity` of clips that are one segment each."""
    session = _session(clips)
    for number, recording in enumerate(session.recordings):
        session.segments.append(Segment(recording.source.source_id, number, 0.0, recording.duration_s))
    return [segment.speaker_purity for segment in stage("embed_speaker")(session).segments]


def plant_voices(clips: Sequence[Clip], count: int, dice: random.Random) -> dict[str, list[np.ndarray]]:
    """Make `count` clips of each kind in the module docstring."""
    voices: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if len(clip.samples) > 2 * PCM_RATE:
            voices[clip.speaker].append(clip)
    names = sorted(voices)
    made: dict[str, list[np.ndarray]] = defaultdict(list)
    for number in range(count):
        one = voices[dice.choice(names)]
        others = [name for name in names if name != one[0].speaker]
        near = [name for name in others if voices[name][0].corpus == one[0].corpus]
        other = voices[dice.choice(near if near and number % 2 else others)]
        first, second = (_spoken(dice.choice(own).samples, dice) for own in (one, other))
        made[_SPLICED].append(np.concatenate([first, second]))
        made["0.5 s of both at the change"].append(_over(first, second, len(first) - PCM_RATE // 2))
        within = second[: len(first) * 6 // 10]
        made["the second within the first"].append(_over(first, within, (len(first) - len(within)) // 2))
        same = voices[dice.choice([name for name in names if len(voices[name]) > 1])]
        made["one voice, two utterances"].append(
            np.concatenate([_spoken(clip.samples, dice) for clip in dice.sample(same, 2)])
        )
    return dict(made)


def report_mixed(clips: Sequence[Clip], count: int, dice: random.Random) -> tuple[str, bool]:
    """Return both tables as Markdown, and whether the bounds are met.

    The bounds: 80 % of the clips of one voice after the other are caught, at most 2 % false alarms.
    """
    limit = Thresholds().min_speaker_purity
    assert limit is not None
    rows = []
    every: list[float | None] = []
    for corpus in dict.fromkeys(clip.corpus for clip in clips):
        own = [segment.speaker_purity for segment in single_voices([c for c in clips if c.corpus == corpus])]
        every += own
        rows.append([corpus, len(own), _below(own, limit), _quantile(own, 0.05)])
    rows.append(["**all**", len(every), _below(every, limit), _quantile(every, 0.05)])
    head = ["segments of one voice, over 2.4 s", "number", f"false alarms (limit {limit:g})", "5 % quantile"]
    text = table(head, rows)
    heard = {kind: purities(own) for kind, own in plant_voices(clips, count, dice).items()}
    mixed = [[kind, len(own), _below(own, limit), _quantile(own, 0.5)] for kind, own in heard.items()]
    # Clips of one window have no purity: NaN is not below the limit.
    caught = np.mean(np.array(heard[_SPLICED], dtype=float) < limit)
    alarms = np.mean(np.array(every, dtype=float) < limit)
    text += "\n\n" + table(["planted", "clips", f"below {limit:g}", "median"], mixed)
    return text, bool(caught >= _CAUGHT and alarms <= _ALARMS)


def _session(clips: Sequence[np.ndarray]) -> Session:
    return session_of("mixed", clips, [Source(f"{i}", f"/{i}", f"{i}", "mixed", 0, "") for i in range(len(clips))])


def _spoken(samples: np.ndarray, dice: random.Random) -> np.ndarray:
    """Return 2 to 8 s of a clip from its first sound, scaled to a fixed level."""
    envelope = np.convolve(np.abs(samples), np.ones(400) / 400, "same")
    loud = np.flatnonzero(envelope > 0.08 * envelope.max())
    cut = samples[loud[0] : loud[-1]][: dice.randint(2, 8) * PCM_RATE]
    return (cut * (_LEVEL / max(float(np.sqrt(np.mean(np.square(cut)))), 1e-9))).astype(np.float32)


def _over(first: np.ndarray, second: np.ndarray, start: int) -> np.ndarray:
    start = max(0, start)
    mixed = np.zeros(max(len(first), start + len(second)), dtype=np.float32)
    mixed[: len(first)] += first
    mixed[start : start + len(second)] += second
    return mixed


def _below(values: Iterable[float | None], limit: float) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(np.array(known) < limit):.1%}" if known else "-"


def _quantile(values: Iterable[float | None], share: float) -> str:
    known = [value for value in values if value is not None]
    return f"{np.quantile(known, share):.2f}" if known else "-"
