"""Text that arrives in pieces: the same units however it is divided, nothing lost, no unit too long."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxcpm.sequence.text_pieces import speaking_length, split_text
from voxcpm.server.websocket import text_units
from voxcpm.server.websocket.text_units import GRANULARITIES, Granularity, TextUnits

TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                ". ",
                "! ",
                "?! ",
                "...",
                "。",
                "！？」",
                "，",
                ", ",
                ": ",
                "\n\n",
                "3.5",
                " ",
                "Dr. ",
                "e.g. ",
                "“",
                ".” ",
                "،",
                "؟",
            ]
        ),
        st.text(alphabet="abc éß你好नम्😀\u200d\u0301؟", min_size=1, max_size=30),
    ),
    max_size=30,
).map("".join)


def units(parts: list[str], granularity: Granularity, longest_s: float = 4.0, shortest_s: float = 0.5) -> list[str]:
    splitter = TextUnits(granularity, longest_s, shortest_s)
    return [unit for part in parts for unit in splitter.push(part)] + splitter.flush()


def code_units(text: str, cuts: list[int]) -> list[str]:
    """The text as a JavaScript client divides it: between any two of its 16-bit code units."""
    raw = text.encode("utf-16-le")
    ends = sorted({cut % (len(raw) // 2 + 1) for cut in cuts} | {0, len(raw) // 2})
    return [raw[2 * a : 2 * b].decode("utf-16-le", "surrogatepass") for a, b in pairwise(ends)]


@given(TEXTS, st.lists(st.integers(0, 10_000), max_size=40), st.sampled_from(GRANULARITIES))
def test_the_units_do_not_depend_on_the_messages(text: str, cuts: list[int], granularity: Granularity) -> None:
    whole = units([text], granularity)
    assert units(code_units(text, cuts), granularity) == whole
    assert units(list(text), granularity) == whole


@given(TEXTS, st.sampled_from(GRANULARITIES))
def test_nothing_that_is_spoken_is_lost_and_no_unit_is_too_long(text: str, granularity: Granularity) -> None:
    found = units([text], granularity)
    assert re.findall(r"\w", "".join(found)) == re.findall(r"\w", text)
    assert all(re.search(r"\w", unit) and speaking_length(unit) <= 4.0 for unit in found)


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        ("none", ["It costs 3.5 dollars, at most. “Really?!” she said. 你好。再见"]),
        ("sentence", ["It costs 3.5 dollars, at most.", "“Really?!” she said.", "你好。再见"]),
        ("clause", ["It costs 3.5 dollars,", "at most. “Really?!”", "she said. 你好。", "再见"]),
    ],
)
def test_where_units_end(granularity: Granularity, expected: list[str]) -> None:
    text = "It costs 3.5 dollars, at most. “Really?!” she said. 你好。再见"
    assert units([text], granularity, 12.0, 0.8) == expected


def test_periods_of_abbreviations_end_nothing() -> None:
    text = "Yesterday morning Dr. J. R. Smith came, e.g. by train. Frau Prof. Meier kam z.B. mit dem Zug. It was 5 p.m. then."
    expected = [
        "Yesterday morning Dr. J. R. Smith came, e.g. by train.",
        "Frau Prof. Meier kam z.B. mit dem Zug.",
        "It was 5 p.m. then.",
    ]
    assert units([text], "sentence", 12.0) == expected
    assert split_text(text, 4.0) == expected


def test_a_short_sentence_waits_for_the_next_one() -> None:
    splitter = TextUnits("sentence")
    assert splitter.push("Yes. ") == [] and splitter.waiting
    assert splitter.push("I have seen it. ") == ["Yes. I have seen it."]


def test_a_timer_takes_whole_words() -> None:
    splitter = TextUnits("sentence")
    assert splitter.push("This is unfin") == []
    assert splitter.take_words() == ["This is"] and splitter.take_words() == []
    assert splitter.push("ished. ") == [] and splitter.flush() == ["unfinished."]
    assert splitter.flush() == []


def test_a_text_without_borders_is_cut_between_whole_characters() -> None:
    found = units(["e\u0301" * 200], "sentence")
    assert len(found) > 2 and all(unit.startswith("e") for unit in found)
    assert units(["\ud83d"], "sentence") == []


@pytest.mark.parametrize("unspoken", ["[", "\u0301", "\u200b", ". ", "*\n", "。"])
def test_what_has_nothing_to_pronounce_makes_no_piece_long(unspoken: str) -> None:
    """100,000 characters of it made a piece of 99,894 characters."""
    run = unspoken * (30_000 // len(unspoken))
    for text in ("first" + run, run + " first", "First " + run + " second", run):
        pieces = split_text(text, 12.0)
        assert re.findall(r"\w", "".join(pieces)) == re.findall(r"\w", text)
        assert len(pieces) <= 2 and all(speaking_length(piece) <= 24.0 for piece in pieces)


def test_some_of_what_has_nothing_to_pronounce_stays() -> None:
    assert split_text("Yes. " + "-" * 150 + " No.", 12.0) == ["Yes. " + "-" * 150 + " No."]
    assert split_text("*" * 20 + " " + "a" * 25, 2.0) == ["*" * 20 + "a" * 25]


@given(TEXTS)
def test_pieces_hold_all_that_is_spoken(text: str) -> None:
    pieces = split_text(text, 2.0)
    assert re.findall(r"\w", "".join(pieces)) == re.findall(r"\w", text)
    assert all(speaking_length(piece) <= 4.0 for piece in pieces)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("mark", ["\u0301", "\u200d", "e" + "\u0301" * 40])
def test_a_run_of_marks_makes_no_tiny_units(mark: str, granularity: Granularity) -> None:
    """32,000 marks after a letter made 32,000 units, most of them without anything to pronounce, and took 6 s."""
    cuts: list[int] = []

    class Counting(TextUnits):
        def _cut(self, start: str) -> int:
            cuts.append(super()._cut(start))
            return cuts[-1]

    splitter = Counting(granularity)
    text = "a" + mark * (32_000 // len(mark))
    found = splitter.push(text) + splitter.flush()
    assert re.findall(r"\w", "".join(found)) == re.findall(r"\w", text)
    assert len(cuts) <= 32_000 / 12 / 14 * 1.5 and min(cuts) > 100


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("part", [".", "a.", '."', "?!", "\u0301", "e\u0301", "。", "...。", "\n", "你", "Mr. "])
def test_the_time_of_a_text_grows_with_its_length(part: str, granularity: Granularity) -> None:
    """A run of 100,000 periods took 1.8 s; now it takes 0.1 s."""
    splitter = TextUnits(granularity)
    text = "a" + part * (100_000 // len(part))
    start = time.process_time()
    found = splitter.push(text) + splitter.flush()
    assert time.process_time() - start < 4.0
    assert re.findall(r"\w", "".join(found)) == re.findall(r"\w", text)


def test_a_run_of_periods_is_read_once() -> None:
    assert all(pattern.match("." * 20_000 + " ", 1) is None for pattern in (text_units._SENTENCE, text_units._CLAUSE))
    assert units(["a" * 20 + "..?! Then."], "sentence") == ["a" * 20 + "..?!", "Then."]


def test_what_comes_later_is_not_read_for_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def seconds(text: str) -> float:
        read.append(len(text))
        return speaking_length(text)

    monkeypatch.setattr(text_units, "speaking_length", seconds)
    assert len(TextUnits("sentence").push("word " * 20_000)) > 500
    assert max(read) <= 12 * 14 + 3
