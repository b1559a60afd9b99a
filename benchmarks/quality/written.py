"""Captions written by hand in captions/*.txt, with what each says of a voice: the bank of verification.py and of its test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from annotators.schema import Caption
from annotators.verification.evidence import Finding
from annotators.words.claims import claims
from catalogs.vocabulary.voices import CLOSED, THREE

CAPTIONS = Path(__file__).resolve().parent / "captions"
HALVES = ("dev", "test", "late")
MEASURED = ("gender", "pitch", "rate", "energy", "pitch_range", "arousal", "age")


@dataclass(frozen=True)
class Said:
    """One claim of a hand-written caption, by its author."""

    attribute: str
    value: str
    denied: bool

    def refuted(self, evidence: Mapping[str, Finding]) -> bool:
        """Return True if evidence speaks against it."""
        finding = evidence.get(self.attribute)
        return finding is not None and finding.contradicts(self.value, self.denied)


@dataclass(frozen=True)
class Written:
    """A hand-written caption and its claims. tested: those whose reading is certain."""

    caption: Caption
    said: tuple[Said, ...]
    tested: tuple[Said, ...]
    half: str
    """`dev` or `test`, by the hash of the text; `late`."""


def written(language: str) -> list[Written]:
    """Return the captions of a language."""
    found = []
    lines = [(line, "") for line in _lines(f"{language}.txt")]
    lines += [(line, half) for half in ("dev", "late") for line in _lines(f"{language}_{half}.txt")]
    for line, half in lines:
        register, text, said = (part.strip() for part in line.split("|"))
        every, tested = [], []
        for one in said.split():
            sign = "!=" if "!=" in one else "~" if "~" in one else "="
            attribute, value = one.split(sign)
            if value not in CLOSED[attribute]:
                raise ValueError(f"{language}.txt: {one} is not in the vocabulary")
            every.append(Said(attribute, value, sign == "!="))
            tested += [every[-1]] if sign != "~" else []
        half = half or ("test" if hashlib.sha256(text.encode()).digest()[0] % 2 else "dev")
        found.append(Written(Caption(register, language, text), tuple(every), tuple(tested), half))
    return found


def _lines(name: str) -> list[str]:
    lines = (CAPTIONS / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def spurious(language: str) -> dict[str, list[str]]:
    """Return, by half, captions with a claim of a measured attribute that their author did not make."""
    found: dict[str, list[str]] = {half: [] for half in HALVES}
    for entry in written(language):
        for claim in claims(entry.caption.text, language):
            finding = Finding(claim.attribute, None, frozenset(), 1.0, "")
            level = THREE.get(claim.attribute, {}).get
            value = level(claim.value, claim.value)
            made = [
                one
                for one in entry.said
                if one.attribute == claim.attribute and (one.denied or level(one.value, one.value) == value)
            ]
            if claim.attribute in MEASURED and not made and not claim.negated and finding.speaks_of(claim.value):
                found[entry.half].append(f"{claim.attribute}={claim.value} {claim.phrase!r}: {entry.caption.text}")
    return found
