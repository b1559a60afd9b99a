"""Cuts within words: where the pipeline cuts sessions of known words, and how many planted cuts are detected.

    python benchmarks/quality/cuts.py                     # five languages, three minutes each; about four minutes of work
    python benchmarks/quality/cuts.py --write             # also write the tables into docs/benchmarks.md

**Where the pipeline cuts.** Debian's studio prompts (en, es, fr, it, ru) are joined into one session per language, once with
pauses of 0.3 to 2 s and once with pauses of 0.03 to 0.2 s. A speech detector does not detect the short pauses, so that session
is one span that has to be split. The sessions go through detect_speech and segment. Each end of a segment is compared with the
words of its prompt. Whisper gives their times for the prompt alone, cut at its true times. *In a word* is an end more than 30 ms
within a word. *With voice* are those of them at which 30 ms of the prompt are above 0.3 on the scale of `measure_edges` (the
errors of the words' times are larger than the pauses, and a word may span a pause). *Speech lost* is audio louder than that
in no segment.

**Planted cuts.** Segments of the first sessions are cut again within a word (in its middle half; words of at least 0.15 s with
a probability of at least 0.5 from Whisper), half of them at the tail and half at the head. A cut is caught if its value from
`measure_edges` is above the limit of the thresholds. The false alarms are the ends that the pipeline cut. The same is measured
with added noise. *As a file's end* counts the cuts that are still caught at the end of a file: there, a voice that rises (or
falls) as at the edge of a word does not reject the segment.

**Files cut by their makers** (`file_ends.py`). In real corpora many ends are within 30 ms of the voice: how many are rejected.

Exits with 1 if less than 90 % of the planted cuts are caught (85 % as a file's end), more than 5 % of the ends are false alarms,
in the sessions or in a corpus, or an end lies within a word with voice.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.file_ends import FileEnds, cut_clips, judge_file_ends, report_file_ends
from benchmarks.quality.tables import write_between
from benchmarks.quality.words import session_of, stage
from catalogs.corpus.thresholds import Thresholds
from pipeline.quality.edges import Levels, begins_softly, measure_edges, measure_levels
from pipeline.records import PCM_RATE, Session, Source, Word
from voxmill.demo_prompts import LANGUAGES, SpokenPrompt, choose_prompts, unpack_packages

_CAUGHT, _CAUGHT_IN_FILES, _ALARMS = 0.90, 0.85, 0.05
PAUSES = {"0.3 to 2 s": (0.3, 2.0), "0.03 to 0.2 s": (0.03, 0.2)}
NOISES_DB = (None, 30.0, 20.0, 10.0)
_WITHIN_S = 0.03


@dataclass
class Placed:
    """A prompt in a session: its place (s), its samples, and its words with times from its start."""

    start_s: float
    samples: np.ndarray
    words: list[Word]

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.samples) / PCM_RATE


@dataclass
class Cuts:
    """Counts of the ends of one session's segments."""

    language: str
    pauses: str
    segments: int = 0
    ends: int = 0
    in_prompt: int = 0
    in_word: int = 0
    with_voice: int = 0
    speech_s: float = 0.0
    lost_s: float = 0.0


@dataclass(frozen=True)
class Edge:
    """An end of a clip: the added noise (dB below the speech), whether it was planted, the value of `measure_edges`, and
    whether the voice rises there as at the edge of a word."""

    language: str
    noise_db: float | None
    planted: bool
    voice: float | None
    soft: bool

    def caught(self, limit: float) -> bool:
        """Return True if it counts as cut off."""
        return (self.voice or 0.0) > limit


@dataclass
class Tables:
    """All measurements."""

    cuts: list[Cuts] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    files: list[FileEnds] = field(default_factory=list)


def join(
    prompts: Sequence[SpokenPrompt], pauses: tuple[float, float], dice: random.Random
) -> tuple[np.ndarray, list[float]]:
    """Join prompts with pauses (s) and a faint noise: float32 [S] at 16 kHz, and the start of each prompt (s)."""
    parts, starts = [np.zeros(PCM_RATE // 2, dtype=np.float32)], []
    for prompt in prompts:
        starts.append(sum(map(len, parts)) / PCM_RATE)
        parts += [prompt.samples, np.zeros(round(dice.uniform(*pauses) * PCM_RATE), dtype=np.float32)]
    joined = np.concatenate(parts)
    noise = np.random.default_rng(dice.randrange(2**32)).normal(0, 10 ** (-66 / 20), len(joined))
    return np.clip(joined + noise.astype(np.float32), -1, 1), starts


def loud(samples: np.ndarray, levels: Levels, place: int, limit: float) -> bool:
    """Return True if 30 ms around a place of float32 [S] have more voice than the limit."""
    half = round(0.015 * PCM_RATE)
    return (levels.place(samples[max(0, place - half) : place + half]) or 0.0) > limit


def judge_cuts(session: Session, samples: np.ndarray, prompts: Sequence[Placed], limit: float, cuts: Cuts) -> None:
    """Record the places of the ends of a session's segments."""
    inside = np.zeros(len(samples), dtype=bool)
    for segment in session.alive():
        inside[round(segment.start_s * PCM_RATE) : round(segment.end_s * PCM_RATE)] = True
        cuts.segments += 1
        for end in (segment.start_s, segment.end_s):
            cuts.ends += 1
            prompt = next((p for p in prompts if p.start_s < end < p.end_s), None)
            if prompt is None:
                continue
            cuts.in_prompt += 1
            at = end - prompt.start_s
            if any(word.start + _WITHIN_S < at < word.end - _WITHIN_S for word in prompt.words):
                cuts.in_word += 1
                cuts.with_voice += loud(prompt.samples, measure_levels(prompt.samples), round(at * PCM_RATE), limit)
    for prompt in prompts:
        levels, start = measure_levels(prompt.samples), round(prompt.start_s * PCM_RATE)
        for place in range(0, len(prompt.samples) - 160, 160):
            if (levels.place(prompt.samples[place : place + 160]) or 0.0) > limit:
                cuts.speech_s += 0.01
                cuts.lost_s += 0.01 * (not inside[start + place : start + place + 160].all())


def planted(session: Session, prompts: Sequence[Placed], dice: random.Random) -> Iterator[tuple[np.ndarray, bool]]:
    """Return (samples, whether the cut is at the tail) of segments cut again within words."""
    for prompt in prompts:
        words = [word for word in prompt.words if word.end - word.start >= 0.15 and word.p >= 0.5]
        for word in words:
            if dice.random() > 0.4:
                continue
            at = prompt.start_s + word.start + (word.end - word.start) * dice.uniform(0.25, 0.75)
            for segment in session.alive():
                if segment.start_s + 0.3 < at < segment.end_s - 0.3:
                    audio, place = session.audio(segment), round((at - segment.start_s) * PCM_RATE)
                    is_tail = dice.random() < 0.5
                    yield (audio[:place] if is_tail else audio[place:]), is_tail


def measure(seconds: float, seed: int, model: str, limit: float, tables: Tables) -> Iterator[None]:
    """Do both measurements; yield after each language."""
    from pipeline.speech.whisper import Recognizer

    root = unpack_packages(lambda line: print(line, file=sys.stderr))
    recognizer = Recognizer(model, "cpu", "default", 1, 6.0)
    steps = [stage(name) for name in ("detect_speech", "find_turns", "segment")]
    for language in LANGUAGES:
        dice = random.Random(f"cuts{seed}{language}")
        chosen = choose_prompts(root, language, seconds, dice)
        words = [recognizer.transcribe(prompt.samples, language, 5).words for prompt in chosen]
        for name, pauses in PAUSES.items():
            samples, starts = join(chosen, pauses, dice)
            session = session_of(language, [samples], [Source(language, f"/{language}", language, language, 0, "")])
            for step in steps:
                session = step(session)
            prompts = [Placed(start, p.samples, heard) for start, p, heard in zip(starts, chosen, words, strict=True)]
            tables.cuts.append(Cuts(language, name))
            judge_cuts(session, samples, prompts, limit, tables.cuts[-1])
            if pauses == PAUSES["0.3 to 2 s"]:
                tables.edges += list(_edges(language, session, prompts, dice))
        print(f"  {language}: {tables.cuts[-2]}", file=sys.stderr)
        yield
    for corpus, clips in cut_clips(root):
        tables.files.append(judge_file_ends(corpus, clips, Thresholds(max_head_edge=limit, max_tail_edge=limit)))


def _edges(language: str, session: Session, prompts: Sequence[Placed], dice: random.Random) -> Iterator[Edge]:
    """Rows of `Tables.edges` of one session, clean and with noise."""
    wrong = list(planted(session, prompts, dice))
    right = [session.audio(segment) for segment in session.alive()]
    for snr in NOISES_DB:
        rng = np.random.default_rng(dice.randrange(2**32))
        for audio in right:
            yield from (Edge(language, snr, False, end, False) for end in measure_edges(_noisy(audio, snr, rng)))
        for audio, is_tail in wrong:
            noisy = _noisy(audio, snr, rng)
            soft = begins_softly(noisy[::-1] if is_tail else noisy)
            yield Edge(language, snr, True, measure_edges(noisy)[is_tail], soft)


def _noisy(audio: np.ndarray, snr_db: float | None, rng: np.random.Generator) -> np.ndarray:
    if snr_db is None:
        return audio
    level = 10 ** ((measure_levels(audio).speech_db - snr_db) / 20)
    return audio + rng.normal(0, level, len(audio)).astype(np.float32)


def report(tables: Tables, limit: float) -> str:
    """Return the tables as Markdown."""
    lines = [
        "| language | pauses | segments | ends | within a prompt | in a word | with voice | speech lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in PAUSES:
        rows = [row for row in tables.cuts if row.pauses == name]
        total = Cuts("**all**", name)
        for row in rows:
            for key in ("segments", "ends", "in_prompt", "in_word", "with_voice", "speech_s", "lost_s"):
                setattr(total, key, getattr(total, key) + getattr(row, key))
        for row in (*rows, total):
            lines.append(
                f"| {row.language} | {name} | {row.segments} | {row.ends} | {row.in_prompt} | {row.in_word} "
                f"| {row.with_voice} | {row.lost_s:.2f} of {row.speech_s:.0f} s |"
            )
    lines += [
        "",
        f"| planted cuts (limit {limit:g}) | cut within a word | caught | as a file's end | ends in pauses | false alarms |",
        "|---|---|---|---|---|---|",
    ]
    groups = [(language, None) for language in LANGUAGES] + [("all", snr) for snr in NOISES_DB]
    for language, snr in groups:
        edges = [edge for edge in tables.edges if edge.noise_db == snr and language in (edge.language, "all")]
        wrong, right = ([edge.caught(limit) for edge in edges if edge.planted is kind] for kind in (True, False))
        files = [edge.caught(limit) and not edge.soft for edge in edges if edge.planted]
        if wrong and right:
            name = language if snr is None else f"{language}, noise {snr:g} dB below the speech"
            lines.append(
                f"| {name} | {len(wrong)} | {np.mean(wrong):.1%} | {np.mean(files):.1%} "
                f"| {len(right)} | {sum(right)} ({np.mean(right):.1%}) |"
            )
    if tables.files:
        lines += ["", report_file_ends(tables.files)]
    return "\n".join(lines)


def misses(tables: Tables, limit: float) -> list[str]:
    """Return the missed bounds."""
    clean = [edge for edge in tables.edges if edge.noise_db is None]
    caught = [edge.caught(limit) for edge in clean if edge.planted]
    in_files = [edge.caught(limit) and not edge.soft for edge in clean if edge.planted]
    alarms = [edge.caught(limit) for edge in clean if not edge.planted]
    found = {
        f"{np.mean(caught):.1%} of the planted cuts caught": np.mean(caught) < _CAUGHT,
        f"{np.mean(in_files):.1%} caught as a file's end": np.mean(in_files) < _CAUGHT_IN_FILES,
        f"{np.mean(alarms):.1%} false alarms": np.mean(alarms) > _ALARMS,
        "an end within a word, with voice": any(row.with_voice for row in tables.cuts),
    } | {
        f"{one.rejected} of {one.ends} ends of {one.corpus}": one.rejected > _ALARMS * one.ends for one in tables.files
    }
    return [name for name, missed in found.items() if missed]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180, help="speech a language")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--limit", type=float, default=getattr(Thresholds(), "max_head_edge", None) or 0.3)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    tables = Tables()
    for _ in measure(arguments.seconds, arguments.seed, arguments.model, arguments.limit, tables):
        # Print after each language, so that an interrupted run has results.
        print(report(tables, arguments.limit), file=sys.stderr)
    text = report(tables, arguments.limit)
    print(text)
    if arguments.write:
        write_between("cuts", "The cuts", text)
    if missed := misses(tables, arguments.limit):
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
