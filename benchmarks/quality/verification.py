"""Verification of descriptions: planted contradictions in attributes and prose, on measured clips and captions written by hand.

    python benchmarks/quality/verification.py [--measures FILE] [--show dev|test|both]    # about three minutes on one core

Clips: every clip of ../shared/corpora with a labeled speaker, measured by the pipeline's own functions and grouped by
speaker. Captions: benchmarks/quality/captions/{en,zh}.txt, written by hand in all registers, with what each says of the
voice. Half of them, by hash, is `dev`: the lexicons were mended on it. `late` was
written after that: of its prose 93.0 % (en) and 92.0 % (zh) was found at first sight; then it was used to mend, too. The misses of
`test` were never looked at: its figures are the ones that count.

A contradiction is planted by giving a caption (prose), an attribute (json) or both to a clip whose evidence refutes it. Nothing
of the corpora labels age: each voice gets a band by hash, as a sure expert would give it. A false alarm is a contradiction in a
caption none of whose claims is refuted: written by hand, or rendered from what the evidence finds. `spurious` counts hand-written
captions in which the lexicon finds a claim of a measured attribute that is not there. Exits with 1 if a bound of the test half is
missed: 95 % caught, 2 % false alarms, all repaired ones clean, nothing changed that is not refuted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from written import HALVES, MEASURED, Said, Written, spurious, written

from annotators.experts.emotion import resting_pitch
from annotators.experts.gender import Gender
from annotators.schema import Attributes, Clip, VoiceDescription
from annotators.verification.evidence import Finding, age_finding, clip_findings
from annotators.verification.scales import COLUMNS, Scales, learn
from annotators.verification.verdicts import check
from annotators.verification.voting import vote_gender
from annotators.words.render import render
from catalogs.vocabulary.voices import AGES, CAPTION_LANGUAGES, CLOSED, QUADRANTS, TEXTURES, THREE, UNSURE

_CORPORA = Path(__file__).resolve().parents[3] / "shared" / "corpora"
_ROWS = 3
"""Clips per claim: the same words are found or missed whatever the clip."""
LEAST_CAUGHT, MOST_ALARMS = 0.95, 0.02


# ---- measured clips


def measured_rows() -> list[dict[str, Any]]:
    """Measure the clips of the corpora; INDEX columns."""
    import numpy as np
    import soundfile
    import soxr

    from pipeline.records import PCM_RATE
    from pipeline.stages.classify_emotion import expressive_p
    from pipeline.text.counts import count_syllables
    from pipeline.voice.prosody import measure_prosody, track_pitch
    from pipeline.voice.tract import measure_tract

    rows, prosodies = [], []
    for base in (_CORPORA, _CORPORA / "world"):
        for line in (base / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if (
                not entry.get("speaker")
                or not 1.0 < (entry["duration_s"] or 0.0) < 30.0
                or entry["corpus"] == "made-here"
            ):
                continue
            samples, rate = soundfile.read(base / entry["path"], dtype="float32", always_2d=True)
            mono = soxr.resample(samples.mean(axis=1), rate, PCM_RATE).astype(np.float32)
            pitch = track_pitch(mono)
            prosody, tract = measure_prosody(mono, pitch), measure_tract(mono, pitch)
            if prosody is None or tract is None:
                continue
            voiced = np.flatnonzero(pitch > 0)
            spoken = 0.01 * (voiced[-1] - voiced[0]) + 0.2
            rows.append({
                "segment_id": hashlib.sha256(entry["path"].encode()).hexdigest()[:16], "session_id": entry["corpus"],
                "speaker": entry["speaker"], "language": (entry["language"] or "").split("-")[0] or None,
                "duration_s": len(mono) / PCM_RATE, "pitch_hz": prosody.pitch_hz,
                "pitch_low_hz": prosody.pitch_low_hz, "pitch_range_st": prosody.pitch_range_st,
                "voiced_share": prosody.voiced_share, "formant_hz": tract.formant_hz, "effort_db": tract.effort_db,
                "rate_sps": count_syllables(entry["text"]) / spoken if entry.get("text") else None,
            })  # fmt: skip
            prosodies.append(prosody)
    for voice in by_voice(rows).values():
        rest = float(np.percentile([row["pitch_hz"] for row in voice], 25))
        for row in voice:
            row["expressive_p"] = expressive_p(prosodies[rows.index(row)], rest)
    return rows


def by_voice(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each voice."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[f"{row['session_id']}/{row['speaker']}"].append(row)
    return found


def evidence_of(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Finding]]]:
    """Return each row with its findings, as `verify_corpus` computes them; age is by hash."""
    expert = Gender()
    voices = by_voice(rows)
    for members in voices.values():
        shares = expert.judge_voice([Clip(row) for row in members])
        gender = max(shares, key=lambda value: shares[value]) if shares else None
        for row in members:
            row |= {"gender": gender, "gender_p": shares[gender] if shares and gender else None}
    scales = _scales(rows)
    found = []
    for name, members in voices.items():
        gendered = vote_gender(expert.judge_voice([Clip(row) for row in members]), [])
        band = AGES[hashlib.sha256(name.encode()).digest()[0] % len(AGES)]
        aged = age_finding({band: 1.0}, "age")
        voice = {finding.attribute: finding for finding in (gendered, aged) if finding}
        pitches = [row["pitch_hz"] for row in members]
        for row in members:
            gender = gendered.value if gendered else None
            findings = clip_findings(row, scales, gender, resting_pitch(pitches), median(pitches))
            found.append((row, findings | voice))
    return found


def _scales(rows: list[dict[str, Any]]) -> Scales:
    import pyarrow as pa

    from catalogs.corpus.schema import INDEX

    table = pa.Table.from_pylist(rows, schema=pa.schema([INDEX.field(name) for name in COLUMNS]))
    return learn(lambda columns: iter([table.select(list(columns))]))


# ---- what is planted


def truth_of(row: dict[str, Any], evidence: Mapping[str, Finding]) -> Attributes:
    """Return attributes that the evidence holds to be true; what it cannot tell is drawn."""
    chance = random.Random(row["segment_id"])
    values: dict[str, Any] = {}
    for attribute in ("gender", "pitch", "rate", "energy", "pitch_range", "age"):
        finding = evidence.get(attribute)
        right = [v for v in CLOSED[attribute] if v != "varied" and not (finding and finding.contradicts(v))]
        exact = [v for v in right if finding and finding.value in (v, THREE.get(attribute, {}).get(v))]
        values[attribute] = chance.choice(exact or right)
    mood = evidence.get("emotion")
    values["emotion"] = chance.choice([e for e in QUADRANTS if not (mood and mood.contradicts(e))])
    arousal = evidence.get("arousal")
    values["arousal"] = arousal.value if arousal and arousal.value else UNSURE
    return Attributes(texture=tuple(chance.sample(TEXTURES, 2)), **values)


def caught(attribute: str, contradicted: Sequence[str]) -> bool:
    """Return True if a planted attribute was found; a mood is arousal, too."""
    return bool(set(contradicted) & ({"arousal", "emotion"} if attribute == "arousal" else {attribute}))


class Figures:
    """Counts by (attribute, place, language, half)."""

    def __init__(self) -> None:
        self.planted: Counter[tuple[str, ...]] = Counter()
        self.caught: Counter[tuple[str, ...]] = Counter()
        self.repaired: Counter[tuple[str, ...]] = Counter()
        self.clean: Counter[tuple[str, ...]] = Counter()
        self.true: Counter[tuple[str, ...]] = Counter()
        self.alarms: Counter[tuple[str, ...]] = Counter()
        self.missed: dict[str, Counter[str]] = {half: Counter() for half in HALVES}

    def plant(self, key: tuple[str, ...], description: VoiceDescription, evidence: Mapping[str, Finding]) -> None:
        """Check a description with a planted contradiction."""
        verdict = check(description, evidence, seed="benchmark")
        self.planted[key] += 1
        hit = caught(key[0], verdict.contradicted)
        self.caught[key] += hit
        if not hit and key[1] == "prose":
            self.missed[key[3]][f"missed {key[0]:11} {description.captions[0].text}"] += 1
        if verdict.description is not None and verdict.verdict == "repaired":
            again = check(verdict.description, evidence, seed="again")
            self.repaired[key] += 1
            self.clean[key] += again.verdict == "agree" and not again.contradicted

    def tell(self, key: tuple[str, ...], description: VoiceDescription, evidence: Mapping[str, Finding]) -> None:
        """Check a description without a contradiction."""
        verdict = check(description, evidence, seed="benchmark")
        self.true[key] += 1
        wrong = [row for row in verdict.checks if row.state == "contradict"]
        self.alarms[key] += bool(wrong)
        if wrong:
            said = f"alarm  {wrong[0].attribute}={wrong[0].claimed} "
            self.missed[key[3]][said + description.captions[0].text] += 1


def run(pairs: Sequence[tuple[dict[str, Any], dict[str, Finding]]]) -> Figures:
    """Plant and check everything."""
    figures = Figures()
    for language in CAPTION_LANGUAGES:
        bank = written(language)
        for entry in bank:
            order = sorted(pairs, key=lambda pair: _place(pair[0]["segment_id"], entry.caption.text))
            for said in entry.tested:
                for row, evidence in _refuting(order, entry, said):
                    _plant(figures, language, entry, said, row, evidence, bank)
            true = [pair for pair in order if not any(one.refuted(pair[1]) for one in entry.said)]
            for row, evidence in true[: 2 * _ROWS]:
                attributes = _fitting(truth_of(row, evidence), entry)
                described = VoiceDescription(attributes=attributes, captions=(entry.caption,))
                figures.tell(("written", "prose", language, entry.half), described, evidence)
        for row, evidence in pairs:
            truth = truth_of(row, evidence)
            described = VoiceDescription(
                attributes=truth, captions=render(truth, row["segment_id"], languages=(language,))
            )
            figures.tell(("rendered", "both", language, "test"), described, evidence)
    return figures


def _place(segment: str, text: str) -> bytes:
    return hashlib.sha256(f"{segment}{text}".encode()).digest()


def _no_boy(entry: Written, said: Said, row: dict[str, Any], evidence: Mapping[str, Finding]) -> bool:
    """Return False if a boy is planted on a woman's voice: before it breaks, no evidence speaks against him."""
    if (said.attribute, said.value) != ("gender", "male") or said.denied:
        return True
    ages = {truth_of(row, evidence).age, *(one.value for one in entry.said if one.attribute == "age")}
    return not ages & {"child", "teen"}


def _refuting(
    order: Sequence[tuple[dict[str, Any], dict[str, Finding]]], entry: Written, said: Said
) -> Iterator[tuple[dict[str, Any], dict[str, Finding]]]:
    """Yield clips that refute a claim, first those that refute nothing else of the caption."""
    found = [pair for pair in order if said.refuted(pair[1]) and _no_boy(entry, said, *pair)]
    found.sort(key=lambda pair: sum(one.refuted(pair[1]) for one in entry.said))
    yield from found[:_ROWS]


def _plant(
    figures: Figures,
    language: str,
    entry: Written,
    said: Said,
    row: dict[str, Any],
    evidence: Mapping[str, Finding],
    bank: Sequence[Written],
) -> None:
    truth = truth_of(row, evidence)
    if evidence.get("gender") is None:
        truth = _fitting(truth, entry)
    prose = VoiceDescription(attributes=truth, captions=(entry.caption,))
    figures.plant((said.attribute, "prose", language, entry.half), prose, evidence)
    if said.denied:
        return
    lie = truth.model_copy(
        update={said.attribute: said.value, **({"emotion": UNSURE} if said.attribute == "arousal" else {})}
    )
    right = next((e for e in bank if not any(one.refuted(evidence) for one in e.said) and e.half == entry.half), None)
    if right is not None:
        json_only = VoiceDescription(attributes=lie, captions=(right.caption,))
        figures.plant((said.attribute, "json", language, entry.half), json_only, evidence)
    both = VoiceDescription(attributes=lie, captions=(entry.caption,))
    figures.plant((said.attribute, "both", language, entry.half), both, evidence)


def _fitting(attributes: Attributes, entry: Written) -> Attributes:
    """Return attributes whose gender is the caption's: no evidence decides between them."""
    gender = next((one.value for one in entry.said if one.attribute == "gender" and not one.denied), attributes.gender)
    return attributes.model_copy(update={"gender": gender})


def flipped(pairs: Sequence[tuple[dict[str, Any], dict[str, Finding]]]) -> tuple[int, int]:
    """Return (values that no evidence refutes, those of them that `check` changed)."""
    tried = changed = 0
    for _, evidence in pairs:
        for attribute in ("gender", "pitch", "rate", "energy", "pitch_range", "age"):
            for value in CLOSED[attribute]:
                finding = evidence.get(attribute)
                if finding is not None and finding.contradicts(value):
                    continue
                said = VoiceDescription(attributes=Attributes(**{attribute: value}))
                found = check(said, evidence).description
                tried += 1
                changed += found is None or getattr(found.attributes, attribute) != value
    return tried, changed


def report(figures: Figures, pairs: Sequence[tuple[dict[str, Any], dict[str, Finding]]], show: str) -> bool:
    """Print the tables; return True if the bounds of the test half are met."""
    heads = "".join(f"{half + ' caught':>16}" for half in HALVES)
    print(f"{'attribute':12}{'place':7}{'lang':5}{heads}{'repaired clean':>16}")
    met = True
    sums: Counter[tuple[str, ...]] = Counter()
    for attribute in MEASURED:
        for place in ("json", "prose", "both"):
            for language in CAPTION_LANGUAGES:
                cells = []
                for half in HALVES:
                    key = (attribute, place, language, half)
                    hit, every = figures.caught[key], figures.planted[key]
                    cells.append(f"{hit}/{every} {hit / max(every, 1):.0%}")
                    sums[place, language, half, "hit"] += hit
                    sums[place, language, half, "all"] += every
                keys = [(attribute, place, language, half) for half in HALVES]
                clean, repaired = sum(figures.clean[k] for k in keys), sum(figures.repaired[k] for k in keys)
                met &= clean == repaired
                print(f"{attribute:12}{place:7}{language:5}{_columns(cells)}{f'{clean}/{repaired}':>16}")
    for place in ("json", "prose", "both"):
        for language in CAPTION_LANGUAGES:
            cells = []
            for half in HALVES:
                hit, every = (sums[place, language, half, name] for name in ("hit", "all"))
                cells.append(f"{hit}/{every} {hit / max(every, 1):.1%}")
                met &= half == "dev" or hit >= LEAST_CAUGHT * every
            print(f"{'all':12}{place:7}{language:5}{_columns(cells)}")
    for kind in sorted(figures.true):
        share = figures.alarms[kind] / figures.true[kind]
        met &= kind[0] == "written" or share <= MOST_ALARMS
        print(f"false alarms, {kind[0]}, {kind[2]}, {kind[3]}: {figures.alarms[kind]}/{figures.true[kind]} {share:.1%}")
    for language in CAPTION_LANGUAGES:
        found = spurious(language)
        print(f"spurious claims, {language}: {', '.join(f'{half} {len(found[half])}' for half in HALVES)}")
        for line in (line for half in found for line in found[half] if show in (half, "both")):
            print(f"  spurious {line}")
    tried, changed = flipped(pairs)
    print(f"values that no evidence refutes: {tried}, changed: {changed}")
    for half, lines in figures.missed.items():
        for line, times in sorted(lines.items()) if show in (half, "both") else ():
            print(f"  {half:4} {times} {line}")
    return met and not changed


def _columns(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>16}" for cell in cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--measures", type=Path, metavar="FILE", help="keep the measured rows here, and read them from here"
    )
    parser.add_argument("--show", choices=("none", *HALVES, "both"), default="none", help="print what was missed")
    options = parser.parse_args()
    if options.measures and options.measures.is_file():
        rows = json.loads(options.measures.read_text(encoding="utf-8"))
    else:
        rows = measured_rows()
        if options.measures:
            options.measures.write_text(json.dumps(rows), encoding="utf-8")
    pairs = evidence_of(rows)
    print(f"{len(pairs)} clips of {len(by_voice(rows))} voices; findings: ", end="")
    counts = Counter(name for _, evidence in pairs for name, finding in evidence.items() if finding.refuted)
    print(", ".join(f"{name} {count}" for name, count in counts.most_common()))
    return 0 if report(run(pairs), pairs, options.show) else 1


if __name__ == "__main__":
    sys.exit(main())
