"""Detection of copies and its false alarms: re-encoded real speech, as clips and through the first stages of the pipeline.

    python benchmarks/quality/duplicates.py            # about three minutes on one core
    python benchmarks/quality/duplicates.py --write    # also write the tables into docs/benchmarks.md

**Clips.** Debian's studio prompts (one voice per language; many begin or end alike) and the labeled clips of ../shared/corpora,
among them actors who say the same two sentences in every mood. A copy of every fourth clip, damaged in one way, is added to
all originals. Found: linked to its original. Wrong: linked to anything else.

**False alarms.** All originals are compared with each other. The matches are listed, because some packages hold one recording
twice.

**Segments.** Prompts are joined with pauses, and the recording is damaged as a whole. detect_speech and segment cut both, and
the copy's segments are searched among the original's. Found: seconds of the copy's segments that are linked to a segment of the
original that contains them.

Exits with 1 if less than 95 % of the clips that a codec has re-encoded are found.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from speech_damage import DAMAGES

from benchmarks.quality.tables import table, write_between
from pipeline.audio.pcm_windows import WindowMaker
from pipeline.duplicates.audio_print import audio_print
from pipeline.duplicates.groups import links_of
from pipeline.duplicates.match import Match, match_prints
from pipeline.records import PCM_RATE, Recording, Segment, Session, Source
from pipeline.stages import stage_class
from voxmill.demo_prompts import LANGUAGES, choose_prompts, unpack_packages
from voxmill.demo_recordings import _join

_ROOT = Path(__file__).resolve().parents[2]
_CORPORA = _ROOT.parent / "shared" / "corpora"

_WORDS = {
    "mp3_64k": "MP3, 64 kbit/s, 44.1 kHz",
    "opus_32k": "Opus, 32 kbit/s",
    "opus_12k": "Opus, 12 kbit/s, wide band",
    "aac_64k": "AAC, 64 kbit/s, 44.1 kHz",
    "telephone": "telephone: 8 kHz, 300-3400 Hz, mu-law",
    "gain": "12 dB quieter",
    "offset": "137 ms cut off before, 211 ms after",
    "noise_20db": "white noise, 20 dB below",
    "noise_10db": "white noise, 10 dB below",
    "chain": "telephone, MP3, noise 20 dB, 12 dB quieter, cut at both ends",
}

_CODECS = ("mp3_64k", "opus_32k", "opus_12k", "aac_64k")
_FOUND = 0.95


@dataclass(frozen=True)
class Clip:
    """A clip: float32 [S] at 16 kHz, its speaker and its transcript."""

    voice: str
    text: str
    samples: np.ndarray


def prompts(seconds: float, seed: int) -> list[Clip]:
    """Debian's prompts, `seconds` of audio per language."""
    root = unpack_packages(lambda line: None)
    return [
        Clip(f"prompts {language}", prompt.text, prompt.samples)
        for language in LANGUAGES
        for prompt in choose_prompts(root, language, seconds, random.Random(f"{seed}{language}"))
    ]


def labelled() -> list[Clip]:
    """Read the clips of the shared corpora that name a speaker; none if the corpora are missing."""
    clips = []
    for folder in (_CORPORA, _CORPORA / "world"):
        if not (folder / "manifest.jsonl").is_file():
            continue
        for row in map(json.loads, (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()):
            path = folder / row["path"]
            # made-here holds planted faults, an exact copy among them.
            if (
                not row.get("speaker")
                or not row["duration_s"]
                or row["corpus"] == "made-here"
                or row["duration_s"] > 60
            ):
                continue
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            mono = soxr.resample(samples.mean(axis=1), rate, PCM_RATE).astype(np.float32)
            if len(mono) > 0.65 * PCM_RATE and np.any(mono):
                clips.append(Clip(row["speaker"], row.get("text") or row.get("transcript") or "", mono))
    return clips


def measure_clips(clips: Sequence[Clip]) -> tuple[str, list[Match], float, list[str]]:
    """Return (table of the found copies per damage, matches among the originals, their seconds of work, missed bounds)."""
    prints = [audio_print(clip.samples) for clip in clips]
    started = time.perf_counter()
    among = match_prints(prints)
    took = time.perf_counter() - started
    twins = {frozenset((match.first, match.second)) for match in among}
    rows, missed = [], []
    for name, damage in DAMAGES.items():
        chosen = range(0, len(clips), 4)
        copies = [audio_print(damage(clips[place].samples)) for place in chosen]
        matches = [m for m in match_prints(prints + copies) if m.first < len(clips) <= m.second]
        right, wrong = {}, 0
        for match in matches:
            original = chosen[match.second - len(clips)]
            if match.first == original:
                right[original] = match
            elif frozenset((match.first, original)) not in twins:
                wrong += 1
        if name in _CODECS and len(right) < _FOUND * len(chosen):
            missed.append(f"{_WORDS[name]}: {len(right) / len(chosen):.1%} found")
        whole = sum(link.kind == "reencode" for link in links_of(right.values()))
        errors = [match.errors for match in right.values()]
        rows.append(
            (
                _WORDS[name],
                len(chosen),
                f"{len(right) / len(chosen):.1%}",
                f"{whole / len(chosen):.1%}",
                wrong,
                f"{np.median(errors):.3f}",
            )
        )
        print(rows[-1], file=sys.stderr)
    return (
        table(
            ["what was done to it", "copies", "found", "as the whole clip", "wrong", "bits that differ (median)"], rows
        ),
        among,
        took,
        missed,
    )


def cut(samples: np.ndarray, name: str, stages: Sequence[object]) -> Session:
    """Return the segments of one recording, as the pipeline cuts them, with their fingerprints."""
    source = Source(name, f"/{name}.wav", f"{name}.wav", name, 0, "")
    session = Session(name, "benchmark", "/nowhere", [Recording(source, len(samples) / PCM_RATE, PCM_RATE, 1, "pcm")])
    maker = WindowMaker(name)
    maker.add(samples)
    session.windows = maker.finish()
    for stage in stages:
        session = stage(session)  # type: ignore[operator]
    return session


def measure_segments(seconds: float, seed: int) -> str:
    """Return the table of the seconds of damaged recordings that are found in the originals."""
    stages = [
        stage_class(name)(stage_class(name).config_type()) for name in ("detect_speech", "segment", "fingerprint_audio")
    ]
    for stage in stages:
        stage.load()
    root = unpack_packages(lambda line: None)
    recordings = {
        language: _join(
            choose_prompts(root, language, seconds, random.Random(f"{seed}{language}")), random.Random(seed)
        )[0]
        for language in LANGUAGES
    }
    originals = [segment for name, samples in recordings.items() for segment in cut(samples, name, stages).alive()]
    rows = []
    for name in ("mp3_64k", "opus_32k", "aac_64k", "telephone", "noise_20db", "chain"):
        copies: list[Segment] = []
        for language, samples in recordings.items():
            copies += cut(DAMAGES[name](samples), f"{language} copy", stages).alive()
        matches = match_prints([s.audio_print for s in originals] + [s.audio_print for s in copies])  # type: ignore[misc]
        found, wrong = {}, 0
        for match in matches:
            if match.first < len(originals) <= match.second:
                one, two = originals[match.first], copies[match.second - len(originals)]
                # A chain also cuts the recording: its times are 0.137 s early; those of codecs are up to 0.07 s late.
                same = one.source_id == two.source_id.split()[0]
                if same and one.start_s < two.end_s + 0.3 and two.start_s < one.end_s + 0.3:
                    found[match.second] = two.duration_s
                else:
                    wrong += 1
        total = sum(segment.duration_s for segment in copies)
        rows.append((_WORDS[name], len(copies), f"{sum(found.values()) / total:.1%}", wrong))
        print(rows[-1], file=sys.stderr)
    return table(["what was done to the recording", "segments", "seconds found", "wrong"], rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=400, help="prompts a language, for the clips")
    parser.add_argument("--session-seconds", type=float, default=90, help="prompts a language, for the segments")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    clips = prompts(arguments.seconds, arguments.seed) + labelled()
    hours = sum(len(clip.samples) for clip in clips) / PCM_RATE / 3600
    found, among, took, missed = measure_clips(clips)
    pairs = len(clips) * (len(clips) - 1) // 2
    listed = "\n".join(
        f"* {clips[m.first].voice}: “{clips[m.first].text}” / {clips[m.second].voice}: “{clips[m.second].text}”"
        f" ({link.kind}, {m.errors:.3f} of the bits differ)"
        for m, link in zip(among, links_of(among), strict=True)
    )
    text = (
        f"`benchmarks/quality/duplicates.py --seconds {arguments.seconds:g} --seed {arguments.seed}`: {len(clips)} clips of"
        f" {len({clip.voice for clip in clips})} voices, {hours:.1f} hours; all against all in {took:.2f} s on one core."
        f"\n\n{found}\n\nAmong the {pairs:,} pairs of originals {len(among)} were linked:\n\n{listed or '(none)'}\n\n"
        f"Through detect_speech and segment:\n\n{measure_segments(arguments.session_seconds, arguments.seed)}"
    )
    print(text)
    if arguments.write:
        write_between("duplicates", "Duplicates", text)
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
