"""The voices of a consent: how often the check accepts another speaker, and how often it rejects the right one.

    nice python benchmarks/quality/consent.py            # three minutes on one core
    nice python benchmarks/quality/consent.py --fit      # also fit the limits of pipeline/voice/consent/limits.toml
    nice python benchmarks/quality/consent.py --write    # also write the table into docs/benchmarks.md
    nice python benchmarks/quality/consent.py --clips 30 --draws 4 --splices  # only references that are half another voice

Speakers of RAVDESS, EmoDB and nEMO, who act every mood. A statement and a reference are runs of speech without pauses, from
different clips, of several lengths. Impostors are of the same sex and the same corpus. *Any mood*: both are of clips in any order.
*Calm*: the statement is of neutral or calm clips, the reference of the others. The encoders are those whose weights are here.
The clips are the ones that the limits are fitted on, so that the figures are optimistic.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.labeled import rows
from benchmarks.quality.tables import table, write_between
from catalogs.weights.registry import resolve
from catalogs.weights.verify import WeightsMissing
from pipeline.records import PCM_RATE
from pipeline.voice.consent.clips import SpeechFinder
from pipeline.voice.consent.voices import least_of_stretches, limit
from pipeline.voice.encoders import EncoderName, load_encoder

CORPORA = ("RAVDESS", "EmoDB", "nEMO")
CALM = ("neutral", "calm")
LENGTHS = ((4, 3), (4, 6), (4, 10), (6, 6), (6, 10), (10, 6), (10, 10), (15, 10))
"""Seconds of speech of the statement and of the reference."""
WINDOW_S: dict[str, float] = {"ge2e": 1.6, "ecapa": 3.0}
"""Seconds of a window of each encoder; the windows begin every half of it."""
GAP = 3
"""Windows between a statement and its reference, which mostly end within another clip."""
LONGEST_S = 32.0
"""Speech of a speaker per order of the clips."""
SPLICED = ((6, 6), (6, 10), (10, 10), (10, 20), (15, 10), (15, 20), (10, 30))
"""Seconds of speech of a statement and of a reference that may be spliced."""
SPLICED_S = 60.0
"""Speech of a speaker for splices."""
REJECTED = 0.05
"""Share of rightful speakers that the fitted limit rejects."""

Speaker = tuple[str, str, str]


@dataclass(frozen=True)
class Trial:
    """One comparison. Lengths in seconds of speech."""

    kind: str
    lengths: tuple[int, int]
    genuine: bool
    cosine: float


def speech_by_speaker(most: int) -> dict[Speaker, list[tuple[str, np.ndarray]]]:
    """Return (mood, speech float32 [S] at 16 kHz) of `most` clips by (corpus, gender, speaker), up to half of them calm."""
    found = defaultdict(list)
    for path, row in rows():
        if row["corpus"] in CORPORA and row.get("speaker") and path.is_file():
            found[row["corpus"], row["gender"], row["speaker"]].append((row["emotion"], path))
    finder, dice, speech = SpeechFinder(), random.Random(1), {}
    for speaker, clips in found.items():
        dice.shuffle(clips)
        calm = [clip for clip in clips if clip[0] in CALM][: most // 2]
        others = [clip for clip in clips if clip[0] not in CALM]
        heard = [(mood, finder.find(_load(path)).samples) for mood, path in (*calm, *others)[:most]]
        speech[speaker] = [(mood, samples) for mood, samples in heard if len(samples) >= PCM_RATE // 2]
    return speech


def _load(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, PCM_RATE), np.float32)


def trials(
    name: EncoderName, speakers: dict[Speaker, list[tuple[str, np.ndarray]]], repeats: int, draws: int
) -> list[Trial]:
    """Compare each speaker with himself and with all others of his sex and corpus."""
    encoder, dice, found = load_encoder(name, "cpu"), random.Random(1), []
    hop = WINDOW_S[name] / 2
    for _ in range(repeats):
        for kind in ("any mood", "calm"):
            prints, calm = {}, {}
            for speaker, clips in speakers.items():
                order = list(clips)
                dice.shuffle(order)
                if kind == "calm":
                    order.sort(key=lambda clip: clip[0] not in CALM)
                joined = np.concatenate([speech for _, speech in order])[: int(LONGEST_S * PCM_RATE)]
                prints[speaker] = encoder.partials([joined])[0]
                calm_s = sum(len(speech) for mood, speech in order if mood in CALM) / PCM_RATE
                calm[speaker] = int(calm_s / hop) if kind == "calm" else None
            for lengths in LENGTHS:
                counts = [max(1, int((seconds - 2 * hop) / hop) + 1) for seconds in lengths]
                for _ in range(draws):
                    found += _compared(kind, lengths, (counts[0], counts[1]), prints, calm, dice)
    return found


def _compared(
    kind: str,
    lengths: tuple[int, int],
    counts: tuple[int, int],
    prints: dict[Speaker, np.ndarray],
    calm: dict[Speaker, int | None],
    dice: random.Random,
) -> list[Trial]:
    """Compare a run of windows of each speaker with another run of each. calm: how many windows at the head are calm."""
    statements, references = {}, {}
    first, second = counts
    for speaker, own in prints.items():
        # The windows overlap by half: two between the runs share nothing with either.
        last = len(own) - first - GAP - second if calm[speaker] is None else int(calm[speaker] or 0) - first
        if last < 0:
            continue
        start = dice.randint(0, last)
        least = max(start + first + GAP, calm[speaker] or 0)
        if least > len(own) - second:
            continue
        begin = dice.randint(least, len(own) - second)
        one, other = _mean(own[start : start + first]), _mean(own[begin : begin + second])
        statements[speaker], references[speaker] = one, other
    return [
        Trial(kind, lengths, one == other, float(statements[one] @ references[other]))
        for one in statements
        for other in references
        if one[:2] == other[:2]
    ]


def _mean(prints: np.ndarray) -> np.ndarray:
    mean = prints.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def splices(name: EncoderName, speakers: dict[Speaker, list[tuple[str, np.ndarray]]], draws: int) -> list[list[str]]:
    """Return rows: who is accepted by the mean alone, and with the least stretch, whole references and half spliced ones."""
    encoder, dice, hop, bound = load_encoder(name, "cpu"), random.Random(1), WINDOW_S[name] / 2, limit(name)
    lines = []
    for kind in ("any mood", "calm"):
        prints = {}
        for speaker, clips in speakers.items():
            order = dice.sample(clips, len(clips))
            if kind == "calm":
                order.sort(key=lambda clip: clip[0] not in CALM)
            joined = np.concatenate([speech for _, speech in order])[: int(SPLICED_S * PCM_RATE)]
            prints[speaker] = encoder.partials([joined])[0]
        found = defaultdict(list)
        for said_s, heard_s in SPLICED:
            said, heard = int(said_s / hop) - 1, int(heard_s / hop) - 1
            for speaker, own in prints.items():
                for _ in range(draws if len(own) >= said + GAP + heard else 0):
                    start = dice.randint(0, len(own) - said - GAP - heard) if kind == "any mood" else 0
                    begin = dice.randint(start + said + GAP, len(own) - heard)
                    statement, reference = _mean(own[start : start + said]), own[begin : begin + heard]
                    clips_heard = [("own voice", reference)]
                    for other, theirs in prints.items():
                        if other != speaker and len(theirs) >= heard:
                            near = "half of same sex and corpus" if other[:2] == speaker[:2] else "half of others"
                            first = dice.randint(0, len(theirs) - heard // 2)
                            mixed = np.concatenate([theirs[first : first + heard // 2], reference[heard // 2 :]])
                            clips_heard.append((near, mixed))
                    for what, windows in clips_heard:
                        by_mean = float(statement @ _mean(windows)) >= bound.least_cosine(said_s, heard_s)
                        steady = least_of_stretches(statement, windows, bound.stretch) >= bound.stretch_cosine
                        found[what].append((by_mean, by_mean and steady))
        for what, outcomes in found.items():
            before, after = np.mean(outcomes, axis=0)
            lines.append([name, kind, what, str(len(outcomes)), f"{before:.1%}", f"{after:.1%}"])
    return lines


def rates(found: Sequence[Trial], name: EncoderName) -> list[list[str]]:
    """Return the rows of the table."""
    lines = []
    for kind in ("any mood", "calm"):
        for lengths in LENGTHS:
            own = [one for one in found if one.kind == kind and one.lengths == lengths]
            right = np.array([one.cosine for one in own if one.genuine])
            wrong = np.array([one.cosine for one in own if not one.genuine])
            if len(right) < 10 or len(wrong) < 10:
                continue
            least = limit(name).least_cosine(*lengths)
            lines.append(
                [
                    name, kind, f"{lengths[0]} s", f"{lengths[1]} s", str(len(right)), str(len(wrong)), f"{_eer(right, wrong):.0%}",
                    f"{least:.2f}", f"{np.mean(right < least):.0%}", f"{np.mean(wrong >= least):.0%}",
                ]
            )  # fmt: skip
    return lines


def _eer(right: np.ndarray, wrong: np.ndarray) -> float:
    """Return the error rate at the threshold where false accepts and false rejects are equally frequent."""
    cuts = np.unique(np.concatenate([right, wrong]))
    rejected = np.array([(right < cut).mean() for cut in cuts])
    accepted = np.array([(wrong >= cut).mean() for cut in cuts])
    best = int(np.argmin(np.abs(rejected - accepted)))
    return float((rejected[best] + accepted[best]) / 2)


def fit(found: Sequence[Trial]) -> tuple[float, float]:
    """Return (base, slope) of a limit that rejects 5 % of the rightful at each length, by least squares over the lengths."""
    lines, cuts = [], []
    for lengths in LENGTHS:
        right = [one.cosine for one in found if one.lengths == lengths and one.genuine]
        if len(right) >= 20:
            lines.append([1.0, -sum(1 / min(seconds, 15) for seconds in lengths)])
            cuts.append(np.quantile(right, REJECTED))
    base, slope = np.linalg.lstsq(np.array(lines), np.array(cuts), rcond=None)[0]
    return float(base), float(slope)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1, help="orders of each speaker's clips")
    parser.add_argument("--draws", type=int, default=8, help="places of a statement and a reference in each order")
    parser.add_argument("--clips", type=int, default=18, help="of each speaker, at most")
    parser.add_argument("--fit", action="store_true", help="print fitted limits")
    parser.add_argument("--splices", action="store_true", help="measure references of two voices, and nothing else")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    speakers = speech_by_speaker(arguments.clips)
    print(f"{len(speakers)} speakers, {sum(len(clips) for clips in speakers.values())} clips", file=sys.stderr)
    lines, names = [], [*WINDOW_S]
    for name in names:
        try:
            resolve(name)
        except WeightsMissing as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        if arguments.splices:
            lines += splices(name, speakers, arguments.draws)  # type: ignore[arg-type]
            continue
        found = trials(name, speakers, arguments.repeats, arguments.draws)  # type: ignore[arg-type]
        lines += rates(found, name)  # type: ignore[arg-type]
        if arguments.fit:
            print("{}: base = {:.3f}, slope = {:.3f}".format(name, *fit(found)))
    head = [
        "encoder", "moods", "statement", "reference", "same voice", "other voice", "EER", "least cosine",
        "rightful rejected", "others accepted",
    ]  # fmt: skip
    if arguments.splices:
        print(table(["encoder", "moods", "reference", "trials", "accepted by the mean", "accepted"], lines))
        return
    text = table(head, lines)
    print(text)
    if arguments.write:
        write_between("consent", "The voices of a consent", text)


if __name__ == "__main__":
    main()
