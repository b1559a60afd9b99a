"""Captions that people would write: what they say of a voice is found if it is wrong, and left alone if it is right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from annotators.verification.evidence import Finding
from annotators.verification.verdicts import contradictions
from catalogs.vocabulary.voices import CAPTION_LANGUAGES, CLOSED, QUADRANTS, THREE

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "quality"))

from written import MEASURED, Said, Written, spurious, written

LEVELS = {name: tuple(dict.fromkeys(levels.values())) for name, levels in THREE.items()}


def level(attribute: str, value: str) -> str:
    return THREE.get(attribute, {}).get(value, value)


def against(said: Said) -> dict[str, Finding]:
    """Evidence that a claim is wrong."""
    values = LEVELS.get(said.attribute, CLOSED[said.attribute])
    wrong = {level(said.attribute, said.value)}
    refuted = set(values) - wrong if said.denied else wrong
    found = {said.attribute: Finding(said.attribute, None, frozenset(refuted), 0.99, "test")}
    if said.attribute == "arousal":
        moods = {name for name, (arousal, _) in QUADRANTS.items() if (arousal in refuted) and name != "sad"}
        found["emotion"] = Finding("emotion", None, frozenset(moods), 0.99, "test")
    return found


def missed(entries: list[Written]) -> tuple[list[str], int]:
    """Return the claims that are not found where evidence refutes them, and how many there are."""
    lost, count = [], 0
    for entry in entries:
        for said in entry.tested:
            if said.attribute in MEASURED:
                evidence = against(said)
                count += 1
                caption = entry.caption
                if not {c.attribute for c, _ in contradictions(caption.text, caption.language, evidence)} & set(
                    evidence
                ):
                    lost.append(f"{said.attribute} {said.value}: {caption.text}")
    return lost, count


@pytest.mark.parametrize("language", CAPTION_LANGUAGES)
def test_contradictions_in_prose_that_people_wrote_are_found(language: str) -> None:
    bank = written(language)
    for half, least in (("dev", 0.98), ("test", 0.94), ("late", 0.98)):
        lost, count = missed([entry for entry in bank if entry.half == half])
        assert count > 50 and len(lost) <= (1 - least) * count, (half, count, lost)


@pytest.mark.parametrize("language", CAPTION_LANGUAGES)
def test_claims_that_nobody_made_are_rarely_found(language: str) -> None:
    found = spurious(language)
    bank = written(language)
    assert sum(map(len, found.values())) <= 0.08 * len(bank), found
