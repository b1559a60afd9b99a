"""Check one description against evidence, and repair it. Pure: no file, no model, no clock.

Both halves are checked: the attributes, and every caption's text by the phrases of the lexicons. Nobody else ties the prose to
measurements, and prose is what a model is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from annotators.schema import Attributes, Caption, VoiceDescription
from annotators.verification.evidence import Evidence, Finding
from annotators.words.claims import Claim
from annotators.words.claims import claims as claims_of
from annotators.words.render import render
from annotators.words.repair import repair_phrase
from catalogs.vocabulary.voices import CAPTION_LANGUAGES, CLOSED, IDENTITY, UNSURE

_MOST_PHRASES = 8
"""Phrases of one attribute that are exchanged in a caption: "she", "her" and "woman" are three."""
_MOODS = frozenset({"emotion", "arousal", "valence"})
_CHILDREN = frozenset({"child", "teen"})
Leaks = Callable[[Caption], str | None]
"""Return the words of the clip that a caption holds, or None."""


@dataclass(frozen=True)
class Check:
    """One claim and what became of it: a row of the table `checks` (catalogs.corpus.columns.CHECKS)."""

    attribute: str
    claimed: str
    state: str
    where: str
    found: str | None = None
    source: str | None = None
    p: float | None = None
    action: str = "none"
    register: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The outcome for a description: `agree`, `repaired` or `dropped`. `description` is None if it was dropped."""

    verdict: str
    description: VoiceDescription | None
    checks: tuple[Check, ...]

    @property
    def contradicted(self) -> tuple[str, ...]:
        """The contradicted attributes, each once."""
        return tuple(dict.fromkeys(check.attribute for check in self.checks if check.state == "contradict"))


def check(description: VoiceDescription, evidence: Evidence, *, seed: str = "", leaks: Leaks | None = None) -> Verdict:
    """Return the verdict on a description, repaired if it can be.

    One contradicted attribute of a caption is repaired phrase by phrase; a caption with more, or without a phrase to exchange,
    is rendered from the repaired attributes. What is repaired is checked again, and dropped unless it is clean. A description
    is dropped as a whole if words of the clip leaked into it, if gender and emotion are both contradicted, or if no caption is
    left. seed: chooses among wordings.
    """
    evidence = _for_children(description, evidence)
    attributes, rows = _checked_attributes(description.attributes, evidence)
    leaked = [(caption, words) for caption in description.captions if leaks and (words := leaks(caption))]
    if leaked:
        rows += [_leak_row(caption, words) for caption, words in leaked]
        return _dropped(rows)
    captions: list[Caption] = []
    for caption in description.captions:
        kept, found = _checked_caption(caption, attributes, evidence, seed)
        rows += found
        captions += [kept] if kept else []
    wrong = {row.attribute for row in rows if row.state == "contradict"}
    if ("gender" in wrong and wrong & _MOODS) or (description.captions and not captions):
        return _dropped(rows)
    foreign = [caption for caption in captions if caption.language not in CAPTION_LANGUAGES]
    if wrong and foreign:
        # Without a lexicon, the contradiction cannot be found in these.
        captions = [caption for caption in captions if caption.language in CAPTION_LANGUAGES]
        rows += [_caption_row(caption, "captions", "unchecked", "caption_dropped") for caption in foreign]
        if not captions:
            return _dropped(rows)
    result = VoiceDescription(attributes=attributes, captions=tuple(captions))
    return Verdict("agree" if result == description else "repaired", result, tuple(rows))


def _for_children(description: VoiceDescription, evidence: Evidence) -> Evidence:
    """Return the evidence without a woman's voice if the description is of a boy: before it breaks, his voice is like hers.

    It stays if the evidence says that the voice is not a child's.
    """
    gender, age = evidence.get("gender"), evidence.get("age")
    if gender is None or "male" not in gender.refuted:
        return evidence
    # Captions of a child count only if the attributes leave the age open: a man is none because a caption calls her a girl.
    ages = {description.attributes.age} - {UNSURE} or {
        claim.value
        for caption in description.captions
        for claim in claims(caption.text, caption.language)
        if claim.attribute == "age" and not claim.negated
    }
    young = {value for value in ages & _CHILDREN if age is None or not age.contradicts(value)}
    return {name: finding for name, finding in evidence.items() if name != "gender"} if young else evidence


@lru_cache(maxsize=256)
def claims(text: str, language: str) -> tuple[Claim, ...]:
    """Return the claims of a text. A caption is looked at several times while it is checked."""
    return tuple(claims_of(text, language))


def contradictions(text: str, language: str, evidence: Evidence) -> list[tuple[Claim, Finding]]:
    """Return the claims of a text that the evidence refutes."""
    found = [(claim, _finding(claim.attribute, claim.value, evidence)) for claim in claims(text, language)]
    return [(claim, finding) for claim, finding in found if finding and finding.contradicts(claim.value, claim.negated)]


def _finding(attribute: str, value: str, evidence: Evidence) -> Finding | None:
    """Return what evidence there is on a claim; None if there is none or it cannot be compared."""
    finding = evidence.get(attribute)
    if finding is None and attribute == "delivery" and value == "whispering":
        finding = evidence.get("energy")
        return finding if finding and finding.contradicts("whisper") else None
    return finding if finding and finding.speaks_of(value) else None


def _checked_attributes(attributes: Attributes, evidence: Evidence) -> tuple[Attributes, list[Check]]:
    """Return the attributes with the evidence's values for what it refutes, and a row for each closed attribute."""
    rows, changed = [], dict[str, Any]()
    for attribute in CLOSED:
        claimed = getattr(attributes, attribute)
        if claimed == UNSURE:
            continue
        finding = _finding(attribute, claimed, evidence)
        if finding is None:
            rows.append(Check(attribute, claimed, "unchecked", "json"))
            continue
        wrong = finding.contradicts(claimed)
        if wrong:
            changed[attribute] = finding.value or UNSURE
            if attribute == "emotion":
                changed["strength"] = changed.get("strength", UNSURE)
        state, action = ("contradict", "value") if wrong else ("agree", "none")
        rows.append(Check(attribute, claimed, state, "json", finding.value, finding.source, finding.p, action))
    if "whispering" in attributes.delivery and (energy := evidence.get("energy")) and energy.contradicts("whisper"):
        changed["delivery"] = tuple(value for value in attributes.delivery if value != "whispering")
        rows.append(Check("delivery", "whispering", "contradict", "json", None, energy.source, energy.p, "value"))
    return (attributes.model_copy(update=changed) if changed else attributes), rows


def _checked_caption(
    caption: Caption, attributes: Attributes, evidence: Evidence, seed: str
) -> tuple[Caption | None, list[Check]]:
    """Return the caption, repaired if needed, or None, and a row for each claim that evidence could speak to."""
    if caption.language not in CAPTION_LANGUAGES:
        return caption, []
    said = claims(caption.text, caption.language)
    wrong = contradictions(caption.text, caption.language, evidence)
    identity = [claim for claim in said if caption.register == "style" and claim.attribute in IDENTITY]
    against = [claim for claim in said if _against_own(claim, attributes, evidence)]
    action, kept = "none", caption
    repaired: Caption | None = caption
    if wrong or identity or against:
        action, repaired = _repair(caption, attributes, evidence, wrong, bool(identity or against), seed)
        kept = repaired or caption
    rows = [_claim_row(caption, claim, evidence, wrong, action) for claim in said]
    rows += [_caption_row(caption, claim.attribute, "unchecked", action, claim.value) for claim in identity]
    rows += [
        _caption_row(caption, claim.attribute, "contradict", action, claim.value, "json")
        for claim in _first_each(against)
    ]
    return (kept if repaired else None), [row for row in rows if row is not None]


def _repair(
    caption: Caption,
    attributes: Attributes,
    evidence: Evidence,
    wrong: Sequence[tuple[Claim, Finding]],
    whole: bool,
    seed: str,
) -> tuple[str, Caption | None]:
    """Return (action, caption without contradictions or None). whole: phrases cannot repair it."""
    attribute = {claim.attribute for claim, _ in wrong}
    if len(attribute) == 1 and not whole:
        text = _exchange(caption, evidence, seed)
        if text is not None and (repaired := _clean(caption, text, attributes, evidence)):
            return "phrase", repaired
    for again in render(attributes, f"{seed}/verify", (caption.register,), (caption.language,)):
        if repaired := _clean(caption, again.text, attributes, evidence):
            return "rendered", repaired
    return "caption_dropped", None


def _exchange(caption: Caption, evidence: Evidence, seed: str) -> str | None:
    """Return the text with each contradicted phrase exchanged for one of the found value; None if one has no counterpart."""
    text = caption.text
    for _ in range(_MOST_PHRASES):
        wrong = contradictions(text, caption.language, evidence)
        if not wrong:
            return text
        claim, finding = wrong[0]
        if finding.value is None or claim.negated:
            return None
        exchanged = repair_phrase(text, claim, finding.value, caption.language, seed)
        if exchanged is None or exchanged == text:
            return None
        text = exchanged
    return None


def _clean(caption: Caption, text: str, attributes: Attributes, evidence: Evidence) -> Caption | None:
    """Return the caption with another text if that is allowed and free of contradictions, otherwise None."""
    try:
        made = replace(caption, text=text)
    except ValueError:
        return None
    said = claims(text, caption.language)
    identity = caption.register == "style" and any(claim.attribute in IDENTITY for claim in said)
    against = any(_against_own(claim, attributes, evidence) for claim in said)
    return None if identity or against or contradictions(text, caption.language, evidence) else made


def _against_own(claim: Claim, attributes: Attributes, evidence: Evidence) -> bool:
    """Return True if a caption gives another gender than its own attributes, and no evidence decides between them."""
    if claim.attribute != "gender" or claim.negated or "gender" in evidence:
        return False
    return attributes.gender not in (UNSURE, claim.value)


def _claim_row(
    caption: Caption, claim: Claim, evidence: Evidence, wrong: Iterable[tuple[Claim, Finding]], action: str
) -> Check | None:
    """Return the row of a claim in prose; None if no evidence speaks of it."""
    finding = _finding(claim.attribute, claim.value, evidence)
    if finding is None:
        return None
    refuted = any(claim == other for other, _ in wrong)
    claimed = f"not {claim.value}" if claim.negated else claim.value
    return Check(
        claim.attribute, claimed, "contradict" if refuted else "agree", "prose", finding.value, finding.source, finding.p,
        action if refuted else "none", caption.register, caption.language,
    )  # fmt: skip


def _caption_row(
    caption: Caption, attribute: str, state: str, action: str, claimed: str = "", source: str | None = None
) -> Check:
    return Check(
        attribute,
        claimed,
        state,
        "prose",
        source=source,
        action=action,
        register=caption.register,
        language=caption.language,
    )


def _leak_row(caption: Caption, words: str) -> Check:
    """Return the row of a leak. It does not repeat the words: they are the clip's."""
    return _caption_row(caption, "leak", "contradict", "dropped", f"{len(words.split())} words", "transcript")


def _first_each(said: Iterable[Claim]) -> list[Claim]:
    return list({claim.attribute: claim for claim in said}.values())


def _dropped(rows: Iterable[Check]) -> Verdict:
    marked = tuple(replace(row, action="dropped") if row.state == "contradict" else row for row in rows)
    return Verdict("dropped", None, marked)
