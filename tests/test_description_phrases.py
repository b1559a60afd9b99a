"""Descriptions in examples, help and the demo are phrases that annotators write: the model was trained on such."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from annotators.providers.acoustic import Acoustic
from annotators.schema import Clip
from annotators.words.claims import claims
from catalogs.vocabulary.voices import IDENTITY

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *(path for package in ("voxmill", "voxcpm") for path in sorted((ROOT / package).rglob("*.py"))),
]
PHRASE = re.compile(
    r"""--(?:describe|control)\ ["']([^"']+)["']        # a command
    |words,\ e\.g\.\ '([^']+)'                          # help of the option
    |["'`]\(([\w\s,，。-]+)\)(?=\w|\{SENTENCE\})         # (description)text
    """,
    re.VERBOSE,
)
BESIDE = frozenset("a an the with and voice of at slightly speaking speaks".split())  # noqa: SIM905 - as it is read
"""Words that a phrase may have beside its claims."""
MEASURED = ("gender", "pitch", "rate", "energy", "pitch_range", "emotion", "strength", "arousal")


@dataclass(frozen=True)
class Example:
    """A description that people are shown. line: the rest of its line tells whether a reference is given, too."""

    place: str
    phrase: str
    line: str

    @property
    def language(self) -> str:
        return "en" if self.phrase.isascii() else "zh"


def examples_in(text: str, place: str = "") -> Iterator[Example]:
    for line in text.splitlines():
        for found in PHRASE.finditer(line):
            phrase = next(group for group in found.groups() if group)
            if phrase != "description":  # the form itself: (description)text
                yield Example(place, phrase, line)


EXAMPLES = [
    example for path in SOURCES for example in examples_in(path.read_text("utf-8"), str(path.relative_to(ROOT)))
]


def faults(example: Example) -> list[str]:
    """What is wrong with a description for the model that is given it."""
    said = claims(example.phrase, example.language)
    found = [] if said else [f"{example.phrase!r} claims nothing that annotators know"]
    rest = list(example.phrase.lower())
    for claim in said:
        rest[claim.start : claim.end] = " " * (claim.end - claim.start)
    if example.language == "en":
        found += [f"{word!r} is not a phrase of annotators" for word in set(re.findall(r"\w+", "".join(rest))) - BESIDE]
    if "--reference" in example.line or "**reference" in example.line:
        # `controllable` samples have captions of the register `style` only.
        found += [
            f"{c.phrase!r} tells of the voice, which the reference gives" for c in said if c.attribute in IDENTITY
        ]
    return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example.place}: {example.phrase}")
def test_examples_use_phrases_of_the_annotators(example: Example) -> None:
    assert not faults(example)


def test_the_places_with_examples_are_found() -> None:
    places = {example.place for example in EXAMPLES}
    assert {"README.md", "docs/commands.md", "docs/model.md", "voxmill/demo.py", "voxmill/commands/model.py"} <= places


def test_the_demo_asks_for_what_its_corpus_is_described_by() -> None:
    """The demo's corpus has offline descriptions only: they name no age and no mood but a neutral one."""
    told = [example for example in EXAMPLES if example.place == "voxmill/demo.py"]
    assert [("**reference" in example.line) for example in told] == [False, True]
    row = {"segment_id": "s", "pitch_hz": 110.0, "rate_sps": 3.0, "loudness_lufs": -33.0, "pitch_range_st": 3.0,
           "expressive_p": 0.1, "gender": "male", "gender_p": 0.99, "language": "en"}  # fmt: skip
    [answer] = Acoustic().describe([Clip(row)])
    assert answer.description is not None
    known = {
        name for name, value in answer.description.attributes.model_dump().items() if value not in ("unsure", (), "")
    }
    assert known <= set(MEASURED)
    for example in told:
        assert {claim.attribute for claim in claims(example.phrase, "en")} <= set(MEASURED) - {"emotion"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('speak --describe "A purple young woman"', ["'purple' is not a phrase of annotators"]),
        ('speak --describe "hello there"', ["'hello there' claims nothing", "'hello' is", "'there' is"]),
        ('speak --describe "an old man" --reference him.wav', ["'old man' tells of the voice"] * 2),
        ("'(语速缓慢)你好'", []),
        ("'(你好)你好'", ["'你好' claims nothing"]),
    ],
)
def test_a_wrong_example_is_found(line: str, words: list[str]) -> None:
    [example] = examples_in(line)
    assert len(found := sorted(faults(example))) == len(words)
    assert all(fault.startswith(word) for fault, word in zip(found, sorted(words), strict=True)), found
