"""Read the answer of a service into descriptions: labels, canary, vocabularies, captions. Pure: it runs again on stored replies."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotators.questions.synonyms import LIST_SYNONYMS, VALUE_SYNONYMS
from annotators.questions.wire import CLIP, CLIPS, LANGUAGE, NAMES, OWN, SECONDS, extract_json
from annotators.schema import (
    MOST_EMPHASIS,
    MOST_EVIDENCE_WORDS,
    MOST_SCENARIO_WORDS,
    Attributes,
    Caption,
    VoiceDescription,
)
from catalogs.files import one_line
from catalogs.vocabulary.languages import language as known_language
from catalogs.vocabulary.voices import ACCENTS, CLOSED, LISTS, REGISTERS, UNSURE

ORDERED_RATIO, ORDERED_PART = 1.5, 0.5
"""Of two clips whose lengths differ by this ratio, the longer one must not be stated as the shorter one by more than this part of
the difference (in octaves)."""
WILD_RATIO, WILD_S = 3.0, 2.0
"""A stated length that is off by this ratio and this many seconds is that of another clip, or of none."""
MOST_WORDS, MOST_CHARACTERS = 80, 400
"""A longer caption comes from a model that repeats itself."""
MISMATCH = "mismatch"


@dataclass(frozen=True)
class Reading:
    """What was read of the answer about one clip. If `description` is None, `error` is the reason."""

    description: VoiceDescription | None = None
    error: str | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Number of values that were dropped, by kind, e.g. `texture`, `accent` or `caption zh`."""


def read_answers(
    text: str, labels: Sequence[str], seconds: Sequence[float] | None = None, languages: Sequence[str] = ("en", "zh")
) -> dict[str, Reading]:
    """Return what an answer says about each label. seconds: the clips' true lengths.

    Errors: `invalid: ...`, and `mismatch` for all clips if labels or stated lengths do not fit: then the model may have mixed
    up the clips, so nothing of the answer is used.
    """
    answers = _answers(text, len(labels))
    if answers is None:
        return dict.fromkeys(
            labels, Reading(error="invalid: the answer holds no complete JSON object of the form asked for")
        )
    if len(labels) == 1 and len(answers) == 1:
        return {labels[0]: read_answer(answers[0], languages)}
    by_label = {_label(answer.get(CLIP)): answer for answer in answers}
    if len(answers) != len(labels) or by_label.keys() != set(labels):
        return dict.fromkeys(labels, Reading(error=MISMATCH))
    lengths = dict(zip(labels, seconds, strict=True)) if seconds is not None else {}
    if lengths and not _may_be_these([by_label[label].get(SECONDS) for label in lengths], list(lengths.values())):
        return dict.fromkeys(labels, Reading(error=MISMATCH))
    return {label: read_answer(by_label[label], languages) for label in labels}


def _answers(text: str, clips: int) -> list[dict[str, Any]] | None:
    found = extract_json(text, CLIPS)
    if found is not None:
        answers = found[CLIPS]
        return answers if isinstance(answers, list) and all(isinstance(one, dict) for one in answers) else None
    # Models without a schema sometimes leave out the list around a single answer.
    alone = extract_json(text, NAMES["gender"]) if clips == 1 else None
    return None if alone is None else [alone]


def _label(value: object) -> str:
    """Return the label in an answer, e.g. "A" of "Clip A"."""
    return str(value).strip().upper().removeprefix("CLIP").strip(" .:")


def _may_be_these(stated: Sequence[object], true: Sequence[float]) -> bool:
    """Return True if stated lengths in seconds may be those of the clips, in this order. A model that guesses lengths badly must
    not be asked twice about everything, so the order counts and not the values."""
    lengths = [_seconds(one) for one in stated]
    logs = []
    for length, real in zip(lengths, true, strict=True):
        if length is None:
            return False
        logs.append((math.log(max(length, 0.1)), math.log(max(real, 0.1))))
        if abs(logs[-1][0] - logs[-1][1]) > math.log(WILD_RATIO) and abs(length - real) > WILD_S:
            return False
    return not any(
        real - other >= math.log(ORDERED_RATIO) and said - other_said <= -ORDERED_PART * (real - other)
        for said, real in logs
        for other_said, other in logs
    )


def _seconds(stated: object) -> float | None:
    """Return a stated length. An integer may be too long for a float."""
    if not isinstance(stated, int | float) or isinstance(stated, bool) or not 0 <= stated <= 1e6:
        return None
    return float(stated)


def read_answer(answer: Mapping[str, Any], languages: Sequence[str] = ("en", "zh")) -> Reading:
    """Return what the answer about one clip says. A wrong value of a list or a wrong caption is dropped and counted;
    a wrong value of a closed attribute makes the answer invalid."""
    dropped: Counter[str] = Counter()
    values: dict[str, Any] = {}
    for attribute in CLOSED:
        said = answer.get(NAMES[attribute])
        value = _closed(attribute, said)
        if value is None:
            return Reading(error=f"invalid: {attribute} is {_short(said)}")
        values[attribute] = value
    for attribute, (allowed, most) in LISTS.items():
        values[attribute] = _list(answer.get(NAMES[attribute]), allowed, most, attribute, dropped)
    values["accent"] = _accent(answer.get(NAMES["accent"]), dropped)
    words = [_line(word) for word in _strings(answer.get(NAMES["emphasis"]))]
    values["emphasis"] = tuple(dict.fromkeys(word for word in words if word))[:MOST_EMPHASIS]
    dropped["emphasis"] += max(0, len(words) - MOST_EMPHASIS)
    for attribute, most in (("scenario", MOST_SCENARIO_WORDS), ("evidence", MOST_EVIDENCE_WORDS)):
        said = answer.get(NAMES[attribute])
        words = _line(said).split() if isinstance(said, str) else []
        dropped[attribute] += len(words) > most
        values[attribute] = " ".join(words[:most])
    captions = _captions(answer, languages, dropped)
    counts = {name: count for name, count in dropped.items() if count}
    if not captions:
        return Reading(error="invalid: no usable caption", dropped=counts)
    try:
        return Reading(VoiceDescription(attributes=Attributes(**values), captions=captions), dropped=counts)
    except ValueError as error:
        return Reading(error=f"invalid: {one_line(error)[:200]}", dropped=counts)


def _closed(attribute: str, said: object) -> str | None:
    """Return the value of a closed attribute, or None if it does not have what was said."""
    if not isinstance(said, str):
        return None
    value = _canonical(said)
    value = VALUE_SYNONYMS.get(attribute, {}).get(value, value)
    return value if value == UNSURE or value in CLOSED[attribute] else None


def _list(said: object, allowed: Sequence[str], most: int, attribute: str, dropped: Counter[str]) -> tuple[str, ...]:
    by_form = {_canonical(value): value for value in allowed}
    synonyms = LIST_SYNONYMS[attribute]
    strings = _strings(said)
    found: list[str] = []
    for text in strings:
        form = _canonical(text)
        value = by_form.get(synonyms.get(form, form))
        if value is None:
            # "unsure" in a list says that there is nothing to list.
            dropped[attribute] += form not in ("", UNSURE, "none")
        elif value not in found:
            found.append(value)
    dropped[attribute] += max(0, len(found) - most)
    return tuple(found[:most])


def _accent(said: object, dropped: Counter[str]) -> str:
    """Return an accent of the table or the name of a language, otherwise UNSURE."""
    value = (
        _line(said).lower().removesuffix(" accent").removesuffix(" dialect").strip() if isinstance(said, str) else ""
    )
    if value in _ACCENTS:
        return value
    dropped["accent"] += value not in ("", UNSURE, "none", "neutral", "standard")
    return UNSURE


def _captions(answer: Mapping[str, Any], languages: Sequence[str], dropped: Counter[str]) -> tuple[Caption, ...]:
    found: dict[tuple[str, str], Caption] = {}
    for name in languages:
        said = answer.get(name)
        said = said if isinstance(said, Mapping) else {}
        language = _own_language(said.get(LANGUAGE)) if name == OWN else name
        for register in REGISTERS:
            text = _line(said.get(register)) if isinstance(said.get(register), str) else ""
            caption = _caption(register, language, text)
            if caption is not None:
                found.setdefault((language or "", register), caption)
            else:
                dropped[f"caption {name}"] += bool(text) or name != OWN
    return tuple(sorted(found.values(), key=lambda c: (REGISTERS.index(c.register), c.language)))


def _caption(register: str, language: str | None, text: str) -> Caption | None:
    if language is None or len(text.split()) > MOST_WORDS or len(text) > MOST_CHARACTERS:
        return None
    chinese = sum("\u4e00" <= sign <= "\u9fff" for sign in text)
    letters = sum(unicodedata.category(sign)[0] == "L" for sign in text)
    if (language == "zh" and chinese * 2 < letters) or (language == "en" and chinese) or not letters:
        return None
    try:
        return Caption(register, language, text)
    except ValueError:
        return None


def _own_language(said: object) -> str | None:
    known = known_language(said) if isinstance(said, str) and len(said) < 36 else None
    return None if known is None else known.code


def _strings(said: object) -> list[str]:
    if isinstance(said, str):
        said = re.split(r"[,;/、，]", said)
    return [text for text in said if isinstance(text, str)] if isinstance(said, list) else []


def _line(text: object) -> str:
    """Return text in one line without control signs, halves of surrogate pairs and marks that turn its direction."""
    return " ".join("".join(" " if _is_control(sign) else sign for sign in str(text)).split())


def _is_control(sign: str) -> bool:
    return unicodedata.category(sign) in ("Cc", "Cs") or "\u202a" <= sign <= "\u202e" or "\u2066" <= sign <= "\u2069"


def _canonical(text: str) -> str:
    return re.sub(r"[\s_-]+", "_", text.strip().lower())


def _short(said: object) -> str:
    return repr(said)[:60] if said is not None else "missing"


def _accents() -> frozenset[str]:
    from catalogs.vocabulary.languages import languages

    return frozenset(name for names in ACCENTS.values() for name in names) | {
        language.name.lower() for language in languages().values()
    }


_ACCENTS = _accents()
