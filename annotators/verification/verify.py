"""Compare descriptions with evidence, in attributes and in prose. A pass over Parquet: free, and repeatable when a lexicon, a
threshold or an expert changes, because it always starts from what the annotator said."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from annotators.experts import expert
from annotators.experts.base import Expert, ExpertError, Shares, pooled
from annotators.experts.emotion import resting_pitch
from annotators.rows import stored_flac
from annotators.schema import Clip, VoiceDescription
from annotators.verification.answered import (
    Unit,
    check_rows,
    described_units,
    original_of,
    read_again,
    segment_columns,
    verified,
    write_unit,
)
from annotators.verification.evidence import Finding, clip_findings
from annotators.verification.leak import CHANCE, Rarity, Retrieval, leaked, retrieval
from annotators.verification.scales import Scales, learn
from annotators.verification.verdicts import Check, Verdict, check
from annotators.verification.voting import vote_age, vote_gender
from catalogs.corpus.commit import CorpusError, write_in_corpus
from catalogs.corpus.damage import check_writable
from catalogs.corpus.reader import Corpus
from catalogs.vocabulary.voices import CAPTION_LANGUAGES
from catalogs.words import counted

__all__ = ["Check", "Verdict", "VerifyStats", "check", "verify_corpus"]

EXPERTS = ("gender", "age")
"""Experts that need no weights. Others are named by the caller."""
_JUDGED = ("gender", "age")
"""Attributes that experts judge here. The others are judged by measured columns only."""
_COLUMNS = (
    "speaker", "language", "text", "pitch_hz", "rate_sps", "effort_db", "pitch_range_st", "voiced_share", "expressive_p",
    "gender",
)  # fmt: skip
_LISTENED = 8
"""Clips of a voice that an expert which needs audio hears."""
_RETRIEVED = 2000
"""Clips in the retrieval test: more make it no sharper."""


@dataclass
class VerifyStats:
    """Counts of a pass over the descriptions of one annotator."""

    annotator: str
    verdicts: Counter[str] = field(default_factory=Counter)
    """agree, repaired, dropped."""
    states: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(attribute, agree | contradict | unchecked): claims in the attributes and in the prose."""
    confusions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(attribute, claimed, found) of attributes with a found value."""
    prose_only: int = 0
    """Descriptions whose attributes are right and whose prose is contradicted."""
    leaks: int = 0
    invalid: int = 0
    """Rows that hold no valid description: not compared."""
    retrieval: Retrieval = field(default_factory=lambda: Retrieval(0, 0.0))
    """Whether captions tell which transcript is theirs."""

    @property
    def line(self) -> str:
        """The counts as one line for the log."""
        parts = [f"{self.verdicts[name]} {name}" for name in ("agree", "repaired", "dropped")]
        return (
            f"verified {counted(self.verdicts.total(), 'description')} of {self.annotator} ({', '.join(parts)};"
            f" prose alone was wrong in {self.prose_only}, words of the clip leaked into {self.leaks})"
        )

    @property
    def counts(self) -> dict[str, Any]:
        """The counts as JSON values, for programs and the report."""
        found = self.retrieval
        return {
            "annotator": self.annotator,
            "verdicts": dict(sorted(self.verdicts.items())),
            "prose_only": self.prose_only,
            "leaks": self.leaks,
            "invalid": self.invalid,
            "retrieval": {"tried": found.clips, "top1": round(found.first, 4), "expected": CHANCE},
        }

    def add(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self.verdicts[verdict.verdict] += 1
        for row in verdict.checks:
            self.states[row.attribute, row.state] += 1
            if row.where == "json" and row.found:
                self.confusions[row.attribute, row.claimed, row.found] += 1
        wrong = {row.where for row in verdict.checks if row.state == "contradict" and row.attribute != "leak"}
        self.prose_only += wrong == {"prose"}
        self.leaks += any(row.attribute == "leak" for row in verdict.checks)


def verify_corpus(
    root: str | Path, annotator: str, experts: Sequence[str] = EXPERTS, allow_non_commercial: bool = False
) -> VerifyStats:
    """Verify the descriptions of an annotator and repair or drop what evidence refutes. Memory holds one unit.

    Rewrites annotations/<annotator>/<aa>/<unit>.parquet and writes annotations/<annotator>/checks/<aa>/<unit>.parquet, each
    atomically; what the annotator said stays in the column `answered`. The counts go to annotations/<annotator>/verify.json. A
    second pass changes nothing but the time in it.
    Raises CorpusError for a folder that is not a corpus or has no descriptions by the annotator,
    ExtensionError or ExpertError for an expert that cannot be used.
    """
    check_writable(root, "annotations")
    corpus = Corpus(root)
    chosen = [expert(name, allow_non_commercial) for name in experts]
    for one in chosen:
        if one.attribute not in _JUDGED:
            raise ExpertError(f"expert {one.name} judges {one.attribute}: name experts of {' or '.join(_JUDGED)} only")
    for one in chosen:
        one.load()
    if annotator != Path(annotator).name or not (corpus.path / "annotations" / annotator).is_dir():
        raise CorpusError(f"{root} has no descriptions by {annotator!r}; make them with: voxmill describe")
    columns = segment_columns(*_COLUMNS, *(column for one in chosen for column in one.columns))
    scales, rarity = learn(corpus.kept_parts), _rarity(corpus, annotator)
    stats = VerifyStats(annotator)
    sample: dict[str, list[tuple[str, str]]] = defaultdict(list)
    sampled = 0
    for first in described_units(corpus, annotator, columns):
        unit: Unit | None = first
        while unit is not None:
            last, given = unit, {row["segment_id"]: original_of(row) for row in unit.rows}
            verdicts = _unit_verdicts(corpus, unit, given, chosen, scales, rarity)
            # A pass that describes may have written the file meanwhile: its rows must not be lost.
            unit = read_again(unit)
        rows, checks = [], []
        for row in last.rows:
            segment, original = row["segment_id"], given[row["segment_id"]]
            verdict = verdicts.get(segment)
            if original is None or verdict is None:
                stats.invalid += original is None and row["status"] == "ok"
                rows.append(row)
                continue
            stats.add(verdict)
            rows.append(verified(row, original, verdict, last.segments[segment].get("text") or ""))
            checks += check_rows(segment, annotator, verdict.checks)
            if sampled < _RETRIEVED:
                sampled += _sample(sample, last.segments[segment], original)
        write_unit(corpus.path, annotator, last, rows, checks)
    stats.retrieval = retrieval(sample)
    _write_summary(corpus.path, stats, experts)
    return stats


def summary_path(root: Path, annotator: str) -> Path:
    """Return the path of the counts of the last pass, for the report."""
    return root / "annotations" / annotator / "verify.json"


def _write_summary(root: Path, stats: VerifyStats, experts: Sequence[str]) -> None:
    summary = stats.counts | {"experts": list(experts), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_in_corpus(root, summary_path(root, stats.annotator), json.dumps(summary, indent=2).encode())


def _unit_verdicts(
    corpus: Corpus,
    unit: Unit,
    given: Mapping[str, VoiceDescription | None],
    experts: Sequence[Expert],
    scales: Scales,
    rarity: Rarity,
) -> dict[str, Verdict]:
    """Return the verdict on each description of a unit that is valid."""
    evidence = _unit_evidence(corpus, unit, given, experts, scales)
    found = {}
    for segment, original in given.items():
        if original is not None and segment in unit.segments:
            leaks = partial(leaked, transcript=unit.segments[segment].get("text") or "", rare=rarity.rare)
            found[segment] = check(original, evidence[segment], seed=segment, leaks=leaks)
    return found


def _rarity(corpus: Corpus, annotator: str) -> Rarity:
    """Return how rare words are in the captions of the pass: two readings of its files."""
    found = Rarity()
    for text, original in _originals(corpus, annotator):
        found.propose(original.captions, text)
    for _, original in _originals(corpus, annotator):
        found.count(original.captions)
    return found


def _originals(corpus: Corpus, annotator: str) -> Iterator[tuple[str, VoiceDescription]]:
    """Yield (transcript, description as the annotator gave it) of each valid row of the pass."""
    for unit in described_units(corpus, annotator, ("text",)):
        for row in unit.rows:
            if original := original_of(row):
                yield (unit.segments.get(row["segment_id"]) or {}).get("text") or "", original


def _unit_evidence(
    corpus: Corpus,
    unit: Unit,
    given: Mapping[str, VoiceDescription | None],
    experts: Sequence[Expert],
    scales: Scales,
) -> dict[str, dict[str, Finding]]:
    """Return the findings on each segment of a unit: by the measures of the segment, and of its voice."""
    voices: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for segment, row in unit.segments.items():
        # Without a cluster, a segment is a voice of one clip.
        voices[row.get("speaker") or f"\n{segment}"].append(row)
    found: dict[str, dict[str, Finding]] = {}
    for members in voices.values():
        voice = _voice_findings(corpus, members, given, experts)
        gender = voice["gender"].value if "gender" in voice else None
        pitches = [row["pitch_hz"] for row in members if row.get("pitch_hz")]
        rest, middle = resting_pitch(pitches), median(pitches) if pitches else None
        for row in members:
            found[row["segment_id"]] = clip_findings(row, scales, gender, rest, middle) | voice
    return found


def _voice_findings(
    corpus: Corpus,
    members: Sequence[dict[str, Any]],
    given: Mapping[str, VoiceDescription | None],
    experts: Sequence[Expert],
) -> dict[str, Finding]:
    """Return the findings on the identity of a voice, from experts and from what the annotator says of all its clips."""
    judged: dict[str, list[Shares]] = defaultdict(list)
    for one in experts:
        language = next((row.get("language") for row in members if row.get("language")), None)
        if one.languages is not None and language not in one.languages:
            continue
        heard = members[:_LISTENED] if one.listens else members
        shares = one.judge_voice([Clip(row, stored_flac(corpus, row) if one.listens else None) for row in heard])
        if shares:
            judged[one.attribute].append(shares)
    said = [description for row in members if (description := given.get(row["segment_id"]))]
    found = (
        vote_gender(pooled(judged["gender"]), [description.attributes.gender for description in said]),
        vote_age(pooled(judged["age"]), [description.attributes.age for description in said]),
    )
    return {finding.attribute: finding for finding in found if finding is not None}


def _sample(sample: dict[str, list[tuple[str, str]]], row: Mapping[str, Any], original: VoiceDescription) -> bool:
    """Keep a caption and its transcript for the retrieval test. Return False for a clip without a voice or a transcript."""
    if not row.get("speaker") or not row.get("text"):
        return False
    captions = [c.text for c in original.captions if c.language in (row.get("language"), *CAPTION_LANGUAGES)]
    sample[row["speaker"]].append((" ".join(captions), row["text"]))
    return True
