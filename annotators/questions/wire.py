"""The answer format as sent to services: a JSON schema that all of them accept, and JSON out of what they answer.

Several bounds, defaults or optional fields in a schema make services refuse it with a bare status 400. So the schema has types,
required fields and enums only. Everything else is checked in `annotators.questions.answers`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal

from catalogs.vocabulary.voices import CLOSED, REGISTERS, UNSURE

Dialect = Literal["gemini", "openai"]
"""gemini: `responseJsonSchema`. openai: `response_format` of OpenAI (strict), vLLM and SGLang."""

OWN: Final = "own"
"""In a list of caption languages: also the language that the clip is spoken in."""

NAMES: Final[dict[str, str]] = {
    "evidence": "heard",
    **{name: "melody" if name == "pitch_range" else name for name in CLOSED},
    "accent": "accent",
    "texture": "texture",
    "delivery": "delivery",
    "events": "events",
    "emphasis": "stressed",
    "scenario": "scenario",
}
"""Attribute -> its name in an answer. The order is the order of thinking: evidence first, decisions next, captions last."""
_LISTS = ("texture", "delivery", "events", "emphasis")

CLIPS, CLIP, SECONDS = "clips", "clip", "sec"
"""Names in an answer: the list, the label of a clip, and its estimated duration in seconds, which shows swapped clips."""
LANGUAGE = "lang"
"""Name of the language code in captions of the clip's own language."""

MOST_NESTED = 64
"""Starts of an object that `extract_json` tries before it gives up."""


def wire_schema(dialect: Dialect, languages: tuple[str, ...] = ("en", "zh")) -> dict[str, Any]:
    """Return the schema of an answer about several clips, with captions in `languages` (codes, or OWN)."""
    strict = dialect == "openai"

    def of(properties: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
        return {**found, "additionalProperties": False} if strict else found

    clip: dict[str, Any] = {CLIP: {"type": "string"}, SECONDS: {"type": "number"}}
    clip |= {name: _kind(attribute) for attribute, name in NAMES.items()}
    for language in languages:
        code = {LANGUAGE: {"type": "string"}} if language == OWN else {}
        clip[language] = of(code | {register: {"type": "string"} for register in REGISTERS})
    return of({CLIPS: {"type": "array", "items": of(clip)}})


def _kind(attribute: str) -> dict[str, Any]:
    if attribute in CLOSED:
        return {"type": "string", "enum": [*CLOSED[attribute], UNSURE]}
    # An enum inside a list multiplies the states of constrained decoding, so lists have plain strings.
    return {"type": "array", "items": {"type": "string"}} if attribute in _LISTS else {"type": "string"}


def extract_json(text: str, having: str | None = None) -> dict[str, Any] | None:
    """Return the first JSON object in a text (with the key `having`, if given), or None.

    Code fences and prose around it are skipped. An object that is cut off counts as none.
    """
    decoder = json.JSONDecoder(parse_constant=_refuse)
    start = text.find("{")
    for _ in range(MOST_NESTED):
        if start < 0:
            return None
        end = start + 1
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            pass
        else:
            if having is None or having in found:
                return dict(found)
        start = text.find("{", end)
    return None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def strip_reasoning(text: str, finish: str) -> str | None:
    """Return the answer without its reasoning, or None if the reasoning never ended.

    The opening tag may be absent, because some templates write it into the prompt. finish: the service's word for the end.
    """
    _, closed, answer = text.rpartition("</think>")
    if closed:
        # A second thought that was cut off is not an answer either.
        return None if "<think>" in answer else answer.strip()
    if "<think>" in text:
        return None
    return None if finish == "length" and not text.strip() else text.strip()


_SEAL = re.compile(r'\A\{"seconds": ?\[([0-9., ]*)\]\}\n')


def seal(body: str, seconds: tuple[float, ...]) -> str:
    """Return a reply's body with the durations of its clips on a line before it: a stored reply is checked without its audio."""
    return f"{seal_line(seconds)}\n{body}"


def seal_line(seconds: tuple[float, ...]) -> str:
    """Return the line that `seal` writes."""
    return json.dumps({"seconds": [round(s, 2) for s in seconds]})


def unseal(raw: str) -> tuple[tuple[float, ...] | None, str]:
    """Return (durations in seconds or None, body) of a stored reply."""
    found = _SEAL.match(raw)
    if found is None:
        return None, raw
    try:
        return tuple(float(part) for part in found[1].split(",") if part.strip()), raw[found.end() :]
    except ValueError:
        return None, raw[found.end() :]
