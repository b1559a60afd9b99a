"""Files of answers: what a listener sent back, checked against the key of the test. Nothing in a file is trusted."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogs.files import one_line
from evaluation.errors import EvaluationError
from evaluation.listen.settings import FORMAT, KEY

_LARGEST = 32 * 1024 * 1024
_SHOWN = 80

SCORES: dict[str, tuple[str, float, float]] = {
    "compare": ("comparison", -3, 3),
    "prefer": ("preference", -1, 1),
    "beeps": ("beeps", 1, 5),
    "tones": ("quietest", 1, 3),
}
"""Name, lowest and highest score of a layout. `rate` has 1 to 5 by scale, `sliders` 0 to 100 by clip."""


@dataclass(frozen=True)
class Fault:
    """Something in a file that cannot be used. `whole`: nothing of the file is."""

    file: Path
    message: str
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


@dataclass(frozen=True)
class Answer:
    """An answer to one trial. `key`: the trial's row in the key."""

    trial: str
    key: Mapping[str, Any]
    scores: Mapping[str, float]
    seconds: float | None


@dataclass
class Sheet:
    """The answers of one listener, by trial. `missing`: trials of the session without a usable answer."""

    file: Path
    listener: int
    who: str
    started: str
    answers: dict[str, Answer] = field(default_factory=dict)
    missing: int = 0

    @property
    def name(self) -> str:
        """Name of the listener in tables: the number, and the start of the random id."""
        return f"{self.listener}-{self.who[:6]}"


class _BadError(Exception):
    """What is wrong with a file or an answer."""


def read_key(test: Path) -> dict[str, Any]:
    """Return the key of a test's folder, or of the key file itself. Raises EvaluationError if it cannot be read."""
    path = test / KEY if test.is_dir() else test
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        if key["format"] != FORMAT:
            raise EvaluationError(f"{path} has format {key['format']}; this version reads {FORMAT}")
        return {**key, "clips": dict(key["clips"]), "trials": dict(key["trials"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, EvaluationError):
            raise
        raise EvaluationError(f"{path} is not the key of a listening test; give the folder of listen make") from None


def read_sheets(files: Iterable[Path], key: Mapping[str, Any]) -> tuple[list[Sheet], list[Fault]]:
    """Return the usable answers of each file, and what is not usable. A folder stands for its *.json files."""
    sheets: list[Sheet] = []
    faults: list[Fault] = []
    for file in _expanded(files):
        try:
            sheets.append(_sheet(file, _load(file), key, faults))
        except _BadError as error:
            faults.append(Fault(file, one_line(error), whole=True))
    return sheets, faults


def _expanded(files: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in files:
        found += sorted(path.glob("*.json")) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _load(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > _LARGEST:
            raise _BadError("larger than a file of answers can be; leave it out")
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise _BadError(f"cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise _BadError("not valid JSON; ask the listener to send the file again") from None
    if not isinstance(found, dict) or not isinstance(found.get("answers"), list):
        raise _BadError("not a file of answers")
    return found


def _sheet(file: Path, found: Mapping[str, Any], key: Mapping[str, Any], faults: list[Fault]) -> Sheet:
    if found.get("test") != key["test"]:
        raise _BadError(f"answers to the test {_short(found.get('test'))}, not to {key['test']}")
    if found.get("format") != FORMAT:
        raise _BadError(f"format {_short(found.get('format'))}; this version reads {FORMAT}")
    listener, who, started = found.get("listener"), found.get("who"), found.get("started")
    if not isinstance(listener, int) or isinstance(listener, bool) or not 1 <= listener <= 10**9:
        raise _BadError(f"listener number {_short(listener)} is not a whole number from 1")
    if not isinstance(who, str) or not 1 <= len(who) <= 64 or not who.isalnum():
        raise _BadError("no random id of the listener")
    session = (listener - 1) % key["sessions"] + 1
    sheet = Sheet(file, listener, who, started if isinstance(started, str) else "")
    for number, answer in enumerate(found["answers"], 1):
        try:
            one = _answer(answer, key, session)
            if one.trial in sheet.answers:
                raise _BadError(f"trial {one.trial} is answered twice; the first answer counts")
            sheet.answers[one.trial] = one
        except _BadError as error:
            faults.append(Fault(file, f"answer {number}: {one_line(error)}"))
    if not sheet.answers:
        raise _BadError("no usable answer")
    sheet.missing = sum(row["session"] == session for row in key["trials"].values()) - len(sheet.answers)
    return sheet


def _answer(found: Any, key: Mapping[str, Any], session: int) -> Answer:
    if not isinstance(found, dict):
        raise _BadError("not an object")
    name = found.get("trial")
    if not isinstance(name, str) or name not in key["trials"]:
        raise _BadError(f"unknown trial {_short(name)}")
    row = key["trials"][name]
    if row["session"] != session:
        raise _BadError(f"trial {name} is not one of this listener number")
    if found.get("clips") != row["clips"]:
        raise _BadError(f"trial {name} has other clips than the key")
    plays = found.get("plays")
    if not isinstance(plays, dict) or not all(_number(plays.get(clip), 1, math.inf) for clip in row["clips"]):
        raise _BadError(f"trial {name} was rated before everything was played")
    seconds = found.get("seconds")
    return Answer(
        name, row, _scores(found.get("scores"), row, key), seconds if _number(seconds, 0, sys.float_info.max) else None
    )


def _scores(found: Any, row: Mapping[str, Any], key: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of an answer: every one that its layout asks for, within its range."""
    layout = row["layout"]
    if layout == "sliders":
        names, low, high = list(row["clips"]), 0.0, 100.0
    elif layout == "rate":
        names, low, high = list(key["scales"]), 1.0, 5.0
    else:
        name, low, high = SCORES[layout]
        names = [name]
    if not isinstance(found, dict) or set(found) != set(names):
        raise _BadError(f"scores are {_short(found)}, not one for each of: {', '.join(names)}")
    for name in names:
        score = found[name]
        if not _number(score, low, high) or (layout != "sliders" and score != int(score)):
            raise _BadError(f"{name} is {_short(score)}, not from {low:g} to {high:g}")
    return {name: float(found[name]) for name in names}


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
