"""How well the verification of content-decoupled samples tells right clips from planted wrong ones, on real acted speech.

    python benchmarks/quality/decoupled_checks.py WORK [--shared ../shared]

No clone is needed: a right clip is another recording of the same actor in the same emotion and intensity that says another
sentence, which is what a perfect clone would be. Sources are emotional takes that `decouple` would clone (`expressive_p` from 0.5).
Planted errors, each of the same sources:

* other text: the right clip, said to be of a third sentence;
* other voice: another actor of the same gender, same emotion, right text;
* flat copy: the same actor, neutral, right text;
* cut end: the right clip without its last 45 %;
* silence: as long as the right clip.

The recordings are RAVDESS (English) and EmoDB (German), prepared into WORK/corpus once (about four minutes). Half of the sources,
by a hash, were used to set the bounds (`tune`); the figures to believe are those of the other half (`test`). Exits with 1 if fewer
than 95 % of the planted errors are rejected, or more than 5 % of the right clips.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from catalogs.candidates.held_out import hash_number  # noqa: E402
from catalogs.corpus.reader import Corpus  # noqa: E402
from catalogs.query.views import connect, result_rows  # noqa: E402
from pipeline.engine.worker import Worker  # noqa: E402
from pipeline.synthesis.bounds import BOUND_RULES, FAULTS, Bounds, reasons_against  # noqa: E402
from pipeline.synthesis.compare_speech import CompareSpeech  # noqa: E402
from pipeline.synthesis.forecast import wilson  # noqa: E402
from pipeline.synthesis.generate_speech import store_speech  # noqa: E402
from pipeline.synthesis.pairs import DecoupleSession, Pair, pair_id  # noqa: E402
from pipeline.synthesis.requests import SpeechRequest, speech_recordings  # noqa: E402
from pipeline.synthesis.settings import DecoupleSettings, PairingConfig  # noqa: E402
from pipeline.synthesis.voices import Voices  # noqa: E402

KINDS = ("right", "other text", "other voice", "flat copy", "cut end", "silence")
_CALM = ("neutral", "calm")
_CUT = 0.45


@dataclass(frozen=True)
class Take:
    """A recording of an actor, as its label says, and its segment's measures."""

    segment_id: str
    language: str
    voice: str
    gender: str
    emotion: str
    intensity: str
    text: str
    row: Mapping[str, Any]


def main() -> None:
    """Print the table of rejections by kind, and of the reasons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--most", type=int, default=10_000, help="sources, drawn by a hash")
    parser.add_argument("--json", type=Path, help="also write all scores there")
    arguments = parser.parse_args()
    corpus = prepared(arguments.work, arguments.shared)
    takes = labeled_takes(corpus, arguments.shared)
    rows = measured(corpus, list(planted(corpus, takes, arguments.most)))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows), encoding="utf-8")
    sys.exit(0 if report(rows, Bounds()) else 1)


def prepared(work: Path, shared: Path) -> Path:
    """Return the corpus of the acted recordings, made if it is not there."""
    corpus = work.absolute() / "corpus"
    if not (corpus / "run.json").is_file():
        work.mkdir(parents=True, exist_ok=True)
        lines = [
            {"path": str((shared / "corpora" / r["path"]).absolute()), "session": r["session"] or r["speaker"]}
            | {key: r[key] for key in ("text", "language", "license")}
            for r in labels(shared)
        ]
        (work / "acted.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        command = [sys.executable, "-m", "voxmill.cli", "prepare", str(work / "acted.jsonl"), "--out", str(corpus)]
        subprocess.run([*command, "--executor", "inline", "--set", "separate.mode=off"], check=True, cwd=ROOT)
    return corpus


def labels(shared: Path) -> list[dict[str, Any]]:
    """Return the labels of the acted recordings."""
    lines = (shared / "corpora" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["corpus"] in ("RAVDESS", "EmoDB")]


def labeled_takes(corpus: Path, shared: Path) -> list[Take]:
    """Return the recordings that are one kept segment each, with their labels."""
    by_path = {str((shared / "corpora" / row["path"]).absolute()): row for row in labels(shared)}
    with connect(corpus) as catalog:
        rows = result_rows(
            catalog,
            "SELECT s.*, r.path, quantile_cont(pitch_hz, 0.25) OVER (PARTITION BY s.session_id, s.speaker) AS rest_hz,"
            " count(*) OVER (PARTITION BY source_id) AS parts FROM segments s JOIN recordings r USING (source_id)"
            ' WHERE s."row" IS NOT NULL AND s.pitch_hz IS NOT NULL ORDER BY segment_id',
        )
    found = []
    for row in rows:
        label = by_path.get(row["path"])
        if label and row["parts"] == 1:
            voice, text = label["speaker"], label["text"]
            found.append(
                Take(row["segment_id"], label["language"], voice, label["gender"] or "", label["emotion"] or "",
                     label["intensity"] or "", text, row)
            )  # fmt: skip
    return found


def planted(corpus: Path, takes: Sequence[Take], most: int) -> Iterator[tuple[str, Take, str, np.ndarray, int]]:
    """Yield (kind, source, text, audio [S], Hz) for each emotional take that has a right clip."""
    opened = Corpus(corpus)
    least = PairingConfig().min_expressive
    emotional = [take for take in takes if take.emotion not in _CALM and (take.row["expressive_p"] or 0) >= least]
    for source in sorted(emotional, key=lambda take: hash_number("source", take.segment_id))[:most]:
        alike = [t for t in takes if t.language == source.language and t.text != source.text]
        own = [t for t in alike if t.voice == source.voice]
        right = drawn(
            "right", source, [t for t in own if (t.emotion, t.intensity) == (source.emotion, source.intensity)]
        )
        if right is None:
            continue
        samples, rate = opened.read_audio(right.segment_id)
        yield "right", source, right.text, samples, rate
        texts = sorted({t.text for t in takes if t.language == source.language} - {right.text, source.text}) or [
            source.text
        ]
        yield "other text", source, texts[hash_number("text", source.segment_id) % len(texts)], samples, rate
        yield "cut end", source, right.text, samples[: round(len(samples) * (1 - _CUT))], rate
        yield "silence", source, right.text, np.zeros_like(samples), rate
        others = {
            "other voice": [
                t
                for t in alike
                if t.voice != source.voice and t.gender == source.gender and t.emotion == source.emotion
            ],
            "flat copy": [t for t in own if t.emotion in _CALM],
        }
        for kind, fits in others.items():
            if chosen := drawn(kind, source, fits):
                samples, rate = opened.read_audio(chosen.segment_id)
                yield kind, source, chosen.text, samples, rate


def drawn(kind: str, source: Take, fits: Sequence[Take]) -> Take | None:
    """Return one of the takes, drawn by a hash; None if there is none."""
    return min(fits, key=lambda take: hash_number(kind, source.segment_id, take.segment_id), default=None)


def measured(corpus: Path, clips: Sequence[tuple[str, Take, str, np.ndarray, int]]) -> list[dict[str, Any]]:
    """Return the scores of clips, by the stages that a run has."""
    groups = DecoupleSettings().groups()[1:]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        workers = [Worker(group.stages, folder) for group in groups]
        for worker in workers:
            worker.load()
        voices = Voices(corpus)
        for start in range(0, len(clips), 32):
            session = _session(corpus, clips[start : start + 32], Path(folder) / str(start))
            session.voiceprints = voices.of({pair.voice for pair in session.pairs.values()})
            for worker in workers:
                session, _ = worker.run(session, marked=False)  # type: ignore[assignment]
            for at, (kind, source, _, _, _) in enumerate(clips[start : start + 32]):
                row = session.found[f"{at:04d}"]
                half = "tune" if hash_number("half", source.segment_id) % 2 else "test"
                rows.append({"kind": kind, "half": half, "emotion": source.emotion, "language": source.language} | row)
            print(f"{start + 32}/{len(clips)}", flush=True)
    assert CompareSpeech.name  # the last group compares
    return rows


def _session(corpus: Path, clips: Sequence[tuple[str, Take, str, np.ndarray, int]], folder: Path) -> DecoupleSession:
    folder.mkdir()
    pairs, requests = {}, {}
    for at, (_, source, text, _, _) in enumerate(clips):
        row = source.row
        measures = {
            n: row[n] for n in ("pitch_hz", "pitch_range_st", "rate_sps", "energy_db", "expressive_p", "rest_hz")
        }
        place = (row["shard"], row["row"])
        clips_of = {
            "described_shard": place[0],
            "described_row": place[1],
            "timbre_shard": place[0],
            "timbre_row": place[1],
        }
        voice = str(row["speaker"] or row["session_id"])
        name = pair_id(source.segment_id, text)
        pairs[f"{at:04d}"] = Pair(
            name, source.segment_id, source.language, text=text, voice=voice, **clips_of, **measures
        )
        requests[f"{at:04d}"] = SpeechRequest(text, 0, source.language)
    session = DecoupleSession(
        folder.name, "", str(folder), speech_recordings(requests, folder.name, "planted"),
        requests=requests, corpus=str(corpus), pairs=pairs, found={},
    )  # fmt: skip
    for recording, (_, _, _, samples, rate) in zip(session.recordings, clips, strict=True):
        store_speech(session, recording, samples, rate, "stop", folder)
    return session


def report(rows: Sequence[Mapping[str, Any]], bounds: Bounds) -> bool:
    """Print rejections by kind, half and language; return True if the test half meets the bars."""
    print(f"\n{'':14}{'half':6}{'clips':>6}{'rejected':>10}  95 %             reasons")
    shares: dict[tuple[str, str], tuple[int, int]] = {}
    for kind in KINDS:
        for half in ("tune", "test"):
            mine = [row for row in rows if row["kind"] == kind and row["half"] == half]
            counts: dict[str, int] = defaultdict(int)
            rejected = 0
            for row in mine:
                reasons = row["reasons"] if row["cer"] is None else reasons_against(row, bounds)
                rejected += bool(reasons)
                for reason in reasons:
                    counts[reason] += 1
            shares[kind, half] = rejected, len(mine)
            low, high = wilson(rejected, max(len(mine), 1))
            most = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])[:5])
            print(
                f"{kind:14}{half:6}{len(mine):6}{rejected / max(len(mine), 1):10.1%}  {low:.1%} to {high:.1%}   {most}"
            )
    wrong = [shares[kind, "test"] for kind in KINDS[1:]]
    found = sum(n for n, _ in wrong) / max(sum(of for _, of in wrong), 1)
    lost = shares["right", "test"][0] / max(shares["right", "test"][1], 1)
    print(f"test: planted errors rejected {found:.1%} (bar 95 %), right clips rejected {lost:.1%} (bar 5 %)")
    assert {rule.reason for rule in BOUND_RULES}.isdisjoint(FAULTS)
    return found >= 0.95 and lost <= 0.05


def quantiles(rows: Sequence[Mapping[str, Any]], half: str = "tune") -> None:
    """Print the quantiles of each score by kind, for setting bounds."""
    for rule in BOUND_RULES:
        for kind in KINDS:
            values = [
                row[rule.score]
                for row in rows
                if row["kind"] == kind and row["half"] == half and row[rule.score] is not None
            ]
            if values:
                edges = np.quantile(values, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99))
                print(f"{rule.score:14}{kind:12}{len(values):5} ", " ".join(f"{edge:7.2f}" for edge in edges))


if __name__ == "__main__":
    main()
