"""Speakers: the purity of a session's speaker clusters, and the share of reference pairs with one voice.

    python benchmarks/quality/speakers.py            # about two minutes on one core
    python benchmarks/quality/speakers.py --write    # also write the table into docs/benchmarks.md

Sessions have several voices in turns, one utterance after the other with pauses of 0.3 to 2 s: the five voices of Debian's
prompts (five languages), and actors of the labeled corpora in every mood: four of RAVDESS, the five of EmoDB, four of nEMO. They
go through detect_speech, find_turns, segment, embed_speaker and mine_references with default settings. The true speaker of a
segment is the one who speaks most of it.

*Pure*: the share of the segments' seconds that belong to the main voice of their cluster. *Found together*: the share of each
voice's seconds that are in its largest cluster. *Pairs*: the share of reference clips with the segment's voice. Exits with 1 if
clusters are less than 95 % pure or pairs less than 98 % right.

`mixed_voices.py` measures clips with two voices without a pause, with separate bounds.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.mixed_voices import corpus_clips, report_mixed
from benchmarks.quality.tables import table, write_between
from benchmarks.quality.words import session_of, stage
from pipeline.records import PCM_RATE, Segment, Session, Source
from voxmill.demo_prompts import LANGUAGES, choose_prompts, unpack_packages

_CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"
_PURE, _PAIRS = 0.95, 0.98


@dataclass(frozen=True)
class Utterance:
    """An utterance: samples, float32 [S] at 16 kHz, and their speaker."""

    speaker: str
    samples: np.ndarray


@dataclass
class Tally:
    """Seconds and pairs over the sessions of one kind."""

    name: str
    sessions: int = 0
    voices: int = 0
    clusters: int = 0
    pure_s: float = 0.0
    together_s: float = 0.0
    all_s: float = 0.0
    pairs: int = 0
    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add the figures of another one."""
        for key in ("sessions", "voices", "clusters", "pure_s", "together_s", "all_s", "pairs", "right"):
            setattr(self, key, getattr(self, key) + getattr(other, key))

    def row(self) -> list[str]:
        """Return the figures for the table."""
        pairs = f"{self.right / self.pairs:.1%}" if self.pairs else "-"
        return [
            self.name, str(self.sessions), str(self.voices), f"{self.all_s / 60:.1f}", str(self.clusters),
            f"{self.pure_s / self.all_s:.1%}", f"{self.together_s / self.all_s:.1%}", str(self.pairs), pairs,
        ]  # fmt: skip


def prompts(seconds: float, dice: random.Random) -> list[list[Utterance]]:
    """Make one session of the five languages' voices."""
    root = unpack_packages(lambda line: print(line, file=sys.stderr))
    chosen = [
        Utterance(language, prompt.samples)
        for language in LANGUAGES
        for prompt in choose_prompts(root, language, seconds, dice)
    ]
    return [chosen]


def actors(manifest: Path, corpus: str, together: int, most: int, dice: random.Random) -> list[list[Utterance]]:
    """Make sessions of `together` speakers of a corpus, at most `most` clips each."""
    clips = defaultdict(list)
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["corpus"] == corpus and row.get("speaker") and (manifest.parent / row["path"]).is_file():
            clips[row["speaker"]].append(manifest.parent / row["path"])
    speakers = sorted(name for name, paths in clips.items() if len(paths) >= 4)
    dice.shuffle(speakers)
    sessions = []
    for start in range(0, len(speakers) - together + 1, together):
        session = []
        for speaker in speakers[start : start + together]:
            for path in dice.sample(clips[speaker], min(most, len(clips[speaker]))):
                samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
                session.append(Utterance(speaker, soxr.resample(samples.mean(axis=1), rate, PCM_RATE)))
        sessions.append(session)
    return sessions


def hear(
    utterances: Sequence[Utterance], name: str, dice: random.Random
) -> tuple[Session, list[tuple[float, float, str]]]:
    """Return a session of the utterances in random order, after its stages, and the speaker of each time span (s)."""
    order = list(utterances)
    dice.shuffle(order)
    parts, said = [np.zeros(PCM_RATE // 2, dtype=np.float32)], []
    length = len(parts[0])
    for utterance in order:
        said.append((length / PCM_RATE, (length + len(utterance.samples)) / PCM_RATE, utterance.speaker))
        parts += [utterance.samples, np.zeros(round(dice.uniform(0.3, 2.0) * PCM_RATE), dtype=np.float32)]
        length += len(parts[-2]) + len(parts[-1])
    joined = np.concatenate(parts)
    noise = np.random.default_rng(dice.randrange(2**32)).normal(0, 10 ** (-66 / 20), len(joined))
    samples = np.clip(joined + noise.astype(np.float32), -1, 1)
    session = session_of(name, [samples], [Source(name, f"/{name}", name, None, 0, "")])
    for step in ("detect_speech", "find_turns", "segment", "embed_speaker", "mine_references"):
        session = stage(step)(session)
    return session, said


def shares(segment: Segment, said: Sequence[tuple[float, float, str]]) -> Counter[str]:
    """Return the seconds of each voice in a segment."""
    found: Counter[str] = Counter()
    for start, end, speaker in said:
        shared = min(end, segment.end_s) - max(start, segment.start_s)
        if shared > 0:
            found[speaker] += shared
    return found


def judge(session: Session, said: Sequence[tuple[float, float, str]], name: str) -> Tally:
    """Return the figures of one session."""
    tally = Tally(name, sessions=1, voices=len({speaker for _, _, speaker in said}))
    clusters: dict[str, Counter[str]] = defaultdict(Counter)
    voices: dict[str, Counter[str]] = defaultdict(Counter)
    owner = {}
    for segment in session.alive():
        own = shares(segment, said)
        if not own or segment.speaker is None:
            continue
        owner[segment.segment_id] = own.most_common(1)[0][0]
        for speaker, seconds in own.items():
            clusters[segment.speaker][speaker] += seconds
            voices[speaker][segment.speaker] += seconds
    tally.clusters = len(clusters)
    tally.all_s = sum(own.total() for own in clusters.values())
    tally.pure_s = sum(max(own.values()) for own in clusters.values())
    tally.together_s = sum(max(own.values()) for own in voices.values())
    for pair in session.references:
        if pair.segment_id in owner and pair.reference_id in owner:
            tally.pairs += 1
            one, other = owner[pair.segment_id], owner[pair.reference_id]
            tally.right += one == other
            if one != other:
                tally.wrong[f"{one} <- {other}"] += 1
    return tally


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90, help="speech of each prompt voice")
    parser.add_argument("--clips", type=int, default=15, help="of each actor, at most")
    parser.add_argument(
        "--mixed", type=int, default=60, help="clips of each corpus, half as many as planted ones of each kind"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    dice = random.Random(f"speakers{arguments.seed}")
    kinds = {"prompts, 5 languages": prompts(arguments.seconds, dice)}
    for corpus, together, folder in (("RAVDESS", 4, ""), ("EmoDB", 5, ""), ("nEMO", 4, "world")):
        manifest = _CORPORA / folder / "manifest.jsonl"
        if manifest.is_file():
            kinds[f"{corpus}, acted"] = actors(manifest, corpus, together, arguments.clips, dice)
    tallies = []
    for name, sessions in kinds.items():
        tally = Tally(name)
        for number, utterances in enumerate(sessions):
            tally.add(judge(*hear(utterances, f"{name}{number}", dice), name))
        if tally.sessions:
            tallies.append(tally)
            print(" | ".join(tally.row()), file=sys.stderr)
    total = Tally("**all**")
    for tally in tallies:
        total.add(tally)
    head = ["sessions", "number", "voices", "minutes", "clusters", "pure", "found together", "pairs", "of one voice"]
    text = (
        "`benchmarks/quality/speakers.py`: sessions of several voices in turns. *Pure*: seconds of the voice that has most of its"
        " cluster; *found together*: a voice's seconds in its largest cluster.\n\n"
    )
    text += table(head, [tally.row() for tally in (*tallies, total)])
    mixed, met = report_mixed(corpus_clips(arguments.mixed, dice), 2 * arguments.mixed, dice)
    text += (
        "\n\nTwo voices in one clip (`mixed_voices.py`): `speaker_purity` of segments of one voice, and of clips in which a second"
        f" one was planted without a pause, half of them with both voices of one corpus.\n\n{mixed}"
    )
    print(text)
    if arguments.write:
        write_between("speakers", "The voices", text)
    missed = not met or total.pure_s < _PURE * total.all_s or total.right < _PAIRS * total.pairs
    sys.exit("a bound is missed" if missed else 0)


if __name__ == "__main__":
    main()
