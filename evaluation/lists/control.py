"""The control panel: instructions on a grid of attributes and levels, each with a neutral partner for the same text.

Nothing but measures is needed to score it (metric `control`). The texts and the instructions are our own wording, CC0-1.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.items import Item, read_items

LEVELS = (-2, -1, 1, 2)
"""Much less, less, more, much more. Level 0 is the neutral partner."""
NEUTRAL, GENDER = "neutral", "gender"

TEXTS: dict[str, tuple[str, ...]] = {
    "en": (
        "The library closes at nine tonight, so we still have time to look for the map.",
        "My neighbor grows tomatoes and beans in a narrow garden behind the house.",
        "We walked along the river until the lamps came on and the air grew cool.",
        "The train to the coast leaves from the other platform in twenty minutes.",
        "She wrote down the number, folded the paper and put it into her coat.",
        "A new bakery has opened on the corner, and the whole street smells of bread.",
        "Please leave the blue folder on the table when you are done with the drawings.",
        "The meeting was moved to Monday because the room is being painted this week.",
    ),
    "zh": (
        "图书馆今晚九点关门，我们还有时间去找那张地图。",
        "邻居在屋后的小花园里种了西红柿和豆角。",
        "我们沿着河边散步，直到路灯亮起，天气也凉了下来。",
        "开往海边的火车二十分钟后从另一个站台出发。",
        "她把号码记下来，把纸折好，放进了大衣口袋。",
        "街角新开了一家面包店，整条街都能闻到香味。",
        "看完图纸以后，请把蓝色的文件夹留在桌子上。",
        "这个星期会议室在刷墙，所以会议改到星期一。",
    ),
}

_PERSONS = {"en": {"male": "A man", "female": "A woman"}, "zh": {"male": "一位男性", "female": "一位女性"}}
_WITHOUT_PERSON = {"en": "The speaker", "zh": "说话人"}
_NEUTRAL = {"en": "{person} speaks in an ordinary way.", "zh": "{person}用平常的方式说话。"}
_WORDS: dict[str, dict[str, dict[int, str]]] = {
    "en": {
        "pitch": {
            -2: "{person} speaks with a very low pitch.",
            -1: "{person} speaks with a somewhat low pitch.",
            1: "{person} speaks with a somewhat high pitch.",
            2: "{person} speaks with a very high pitch.",
        },
        "rate": {
            -2: "{person} speaks very slowly.",
            -1: "{person} speaks a little slowly.",
            1: "{person} speaks a little fast.",
            2: "{person} speaks very fast.",
        },
        "energy": {
            -2: "{person} speaks very quietly.",
            -1: "{person} speaks rather quietly.",
            1: "{person} speaks rather loudly.",
            2: "{person} speaks very loudly.",
        },
        "range": {
            -2: "{person} speaks in a completely monotone voice.",
            -1: "{person} speaks with little intonation.",
            1: "{person} speaks with lively intonation.",
            2: "{person} speaks with an extremely varied, sing-song intonation.",
        },
    },
    "zh": {
        "pitch": {
            -2: "{person}用非常低的音调说话。",
            -1: "{person}用稍低的音调说话。",
            1: "{person}用稍高的音调说话。",
            2: "{person}用非常高的音调说话。",
        },
        "rate": {
            -2: "{person}说话非常慢。",
            -1: "{person}说话稍慢。",
            1: "{person}说话稍快。",
            2: "{person}说话非常快。",
        },
        "energy": {
            -2: "{person}说话声音非常小。",
            -1: "{person}说话声音比较小。",
            1: "{person}说话声音比较大。",
            2: "{person}说话声音非常大。",
        },
        "range": {
            -2: "{person}说话语调完全平淡，没有起伏。",
            -1: "{person}说话语调起伏较小。",
            1: "{person}说话语调生动。",
            2: "{person}说话语调起伏极大，抑扬顿挫。",
        },
    },
}
ATTRIBUTES = (GENDER, *_WORDS["en"])


def control_items(
    languages: Sequence[str] = ("en", "zh"),
    texts: int | None = None,
    attributes: Sequence[str] = ATTRIBUTES,
    levels: Sequence[int] = LEVELS,
    references: Sequence[Item] = (),
) -> list[Item]:
    """Return the panel: for each text a neutral item, and one item per attribute and level.

    The person is a man in every other text and a woman in the rest, in all items of a text. `gender` adds a neutral item with the
    other person. Groups: `attribute`, `level`, `pair` (items of one text and person), `person`.
    texts: number of texts per language. references: items whose clips and words are given as references, one per text in turn;
    the person is then not named, and `gender` is left out. Raises EvaluationError for a name that is not known.
    """
    for kind, given, known in (
        ("language", languages, tuple(TEXTS)),
        ("attribute", attributes, ATTRIBUTES),
        ("level", levels, LEVELS),
    ):
        for value in given:
            if value not in known:
                raise EvaluationError(f"control: no {kind} {value!r}; known: {', '.join(map(str, known))}")
    found: list[Item] = []
    for language in languages:
        for number, text in enumerate(TEXTS[language][:texts]):
            if references:
                persons = [""]
            else:
                persons = ["male", "female"] if number % 2 == 0 else ["female", "male"]
            clip = references[number % len(references)] if references else None
            chosen = [name for name in attributes if name != GENDER]
            found += _of_person(language, text, persons[0], chosen, levels, clip)
            if GENDER in attributes and not references:
                found += _of_person(language, text, persons[1], (), levels, None)
    return found


def read(argument: str = "", *, language: str = "", texts: float = 8) -> list[Item]:
    """Return the control panel. argument: a JSONL list whose clips are given as references; empty: voice design.

    language: en or zh; empty: both. texts: per language, at most 8. To take fewer items, lower `texts`: a limit on the items would
    leave instructions without their neutral partner.
    """
    most = min(map(len, TEXTS.values()))
    if not 1 <= texts <= most or texts != int(texts):
        raise EvaluationError(f"control: texts={texts:g} is not a whole number from 1 to {most}")
    references = [item for item in read_items(Path(argument)) if item.reference is not None] if argument else []
    if argument and not references:
        raise EvaluationError(f"control: {argument} has no item with a reference; give a list with ref_audio")
    return control_items((language,) if language else tuple(TEXTS), int(texts), references=references)


def _of_person(
    language: str, text: str, person: str, attributes: Sequence[str], levels: Sequence[int], clip: Item | None
) -> list[Item]:
    """Return the neutral item of a text and a person, and those of the attributes."""
    words = _PERSONS[language].get(person, _WITHOUT_PERSON[language])
    named = [language, text, person, clip.id if clip is not None else ""]
    pair = hashlib.sha256("\n".join(named).encode()).hexdigest()[:12]
    grid: list[tuple[str, int, str]] = [(NEUTRAL, 0, _NEUTRAL[language])]
    grid += [(name, level, _WORDS[language][name][level]) for name in attributes for level in levels]
    return [
        Item(
            text=text,
            language=language,
            name=f"{pair}-{attribute}{level:+d}",
            list_name="control",
            reference=clip.reference if clip is not None else None,
            reference_text=clip.reference_text if clip is not None else "",
            instruction=template.format(person=words),
            groups=_groups(attribute, level, pair, person),
        )
        for attribute, level, template in grid
    ]


def _groups(attribute: str, level: int, pair: str, person: str) -> Mapping[str, str]:
    return {"attribute": attribute, "level": str(level), "pair": pair} | ({"person": person} if person else {})
