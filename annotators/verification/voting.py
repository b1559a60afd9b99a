"""One identity per voice: what experts and the annotator's own answers say, pooled over all clips of the voice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from annotators.experts.base import Shares
from annotators.verification.evidence import Finding, age_finding, gender_finding
from catalogs.vocabulary.voices import AGES, GENDERS

_RIGHT = 0.8
"""How often a describer is trusted to name the right gender of one clip. Audio models follow the words, so it is not more."""
_INDEPENDENT = 4
"""Answers about one voice err alike: more than these add no evidence."""
_FEWEST = 4
"""Answers below which a voice has no vote: two against one says nothing."""
_AGE_MAJORITY = 0.6


def gender_votes(answers: Sequence[str]) -> float:
    """Return the log odds of female that a describer's answers about one voice add; 0 for fewer than four that are sure."""
    sure = [answer for answer in answers if answer in GENDERS]
    if len(sure) < _FEWEST:
        return 0.0
    lead = (sure.count("female") - sure.count("male")) / len(sure)
    return lead * min(len(sure), _INDEPENDENT) * math.log(_RIGHT / (1 - _RIGHT))


def vote_gender(expert: Shares | None, answers: Sequence[str]) -> Finding | None:
    """Return the finding on a voice's gender from the expert's shares and the describer's answers; None in the grey zone."""
    odds = gender_votes(answers)
    source = "votes"
    if expert is not None:
        female = min(max(expert["female"], 1e-6), 1 - 1e-6)
        own = math.log(female / (1 - female))
        source = "gender" if not odds else "gender+votes"
        odds += own
    elif not odds:
        return None
    female = 1 / (1 + math.exp(-odds))
    return gender_finding({"female": female, "male": 1 - female}, source)


def vote_age(expert: Shares | None, answers: Sequence[str]) -> Finding | None:
    """Return the finding on a voice's age. Without an expert, a band needs at least 0.6 of at least four answers."""
    if expert is not None:
        return age_finding(expert, "age")
    shares = _shares([answer for answer in answers if answer in AGES])
    if shares is None or max(shares.values()) < _AGE_MAJORITY:
        return None
    return age_finding(shares, "votes")


def _shares(answers: Sequence[str]) -> Mapping[str, float] | None:
    if len(answers) < _FEWEST:
        return None
    counts = Counter(answers)
    return {band: counts[band] / len(answers) for band in AGES}
