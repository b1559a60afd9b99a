"""Error rates from transcripts: counts, units, and that only a changed recognizer recognizes again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import Hum, run_folder, toy_items, toy_settings

from catalogs.vocabulary import comparable_text
from evaluation.items import Item
from evaluation.metrics import load_metrics
from evaluation.metrics.base import Metric, Take
from evaluation.metrics.speed import Speed
from evaluation.metrics.transcript import WhisperTranscript
from evaluation.metrics.words import Floor, WordsClean, WordsOfficial, clean_units, count_errors
from evaluation.runs.folder import create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import score, table_of
from pipeline.records import Word
from pipeline.speech.whisper import Transcription

WORDS = st.lists(st.sampled_from(["one", "two", "three", "four"]), max_size=12)
NOT_NOTHING = WORDS.filter(bool)


def counted(wanted: list[str], heard: list[str]) -> dict[str, Any]:
    counts = count_errors(wanted, heard)
    assert counts is not None
    return counts


@given(wanted=NOT_NOTHING, heard=WORDS)
def test_counts_add_up(wanted: list[str], heard: list[str]) -> None:
    row = counted(wanted, heard)
    assert row["insertions"] + row["deletions"] + row["substitutions"] == row["word_errors"]
    assert row["insertions"] - row["deletions"] == len(heard) - len(wanted)
    assert row["wer"] == row["word_errors"] / row["words"] and row["words"] == len(wanted)
    assert row["cer"] == row["char_errors"] / row["chars"] and row["chars"] == len("".join(wanted))
    assert (row["word_errors"] == 0) == (wanted == heard) == bool(row["exact"])


@given(pairs=st.lists(st.tuples(NOT_NOTHING, WORDS), min_size=2, max_size=3))
def test_texts_joined_have_no_more_errors_than_apart(pairs: list[tuple[list[str], list[str]]]) -> None:
    whole = counted([w for wanted, _ in pairs for w in wanted], [w for _, heard in pairs for w in heard])
    apart = [counted(wanted, heard) for wanted, heard in pairs]
    assert whole["words"] == sum(row["words"] for row in apart)
    assert whole["chars"] == sum(row["chars"] for row in apart)
    for errors in ("word_errors", "char_errors"):
        assert whole[errors] <= sum(row[errors] for row in apart)


@given(same=NOT_NOTHING, wanted=NOT_NOTHING, heard=WORDS)
def test_a_right_beginning_adds_words_but_no_errors(same: list[str], wanted: list[str], heard: list[str]) -> None:
    assert counted(same + wanted, same + heard)["word_errors"] == counted(wanted, heard)["word_errors"]


@given(text=st.text(max_size=30), heard=st.text(max_size=30), language=st.sampled_from(["en", "de", "zh", "th"]))
def test_the_rate_is_zero_only_for_texts_that_normalize_to_the_same(text: str, heard: str, language: str) -> None:
    row = WordsClean().score([take_of(text, heard, language)])[0]
    wanted = clean_units(text, language)
    assert (row is None) == (not wanted)
    if row is not None:
        rate = "cer" if language in ("zh", "th") else "wer"
        assert (row[rate] == 0) == (wanted == clean_units(heard, language))
        assert (row["wer"] is None) == (rate == "cer")  # its words would be its characters


def take_of(text: str, heard: str | None, language: str = "en") -> Take:
    given_rows: dict[str, Any] = {"transcript": {"hypothesis": heard}, "human_transcript": {"hypothesis": heard}}
    return Take(Item(text, language), 0, "ok", Path("unused.flac"), given=given_rows)


def test_the_two_dialects_differ_where_they_should() -> None:
    takes = [take_of("I don’t have fifty.", "I don't have 50")]
    (clean,), (official,) = WordsClean().score(takes), WordsOfficial().score(takes)
    assert clean and official
    assert clean["word_errors"] == 0 and official["word_errors"] == 2
    assert clean["wanted"] == clean["heard"] and official["wanted"] == "i dont have fifty"


def test_characters_are_counted_without_spaces() -> None:
    (row,) = WordsClean().score([take_of("note book", "notebook")])
    assert row and row["word_errors"] == 2 and row["char_errors"] == 0 and row["chars"] == 8


def test_korean_has_words_and_chinese_has_not() -> None:
    assert clean_units("한국 사람", "ko") == ["한국", "사람"]
    assert clean_units("你好 世界", "zh") == ["你", "好", "世", "界"]


def test_what_cannot_be_compared_has_no_row() -> None:
    assert WordsClean().score([take_of("...", "hello"), take_of("hello", None)]) == [None, None]
    (row,) = WordsClean().score([take_of("hello there", "")])
    assert row and row["wer"] == 1.0 and row["deletions"] == 2


def test_the_floor_has_its_own_columns() -> None:
    (row,) = Floor().score([take_of("hello there", "hello their")])
    assert row and row["floor_wer"] == 0.5 and set(row) == set(Floor.schema.names)
    assert Floor().score([take_of("hello", None)]) == [None]


class CountedRecognizer:
    """Hears the same words in every clip and counts its calls."""

    calls = 0

    def __init__(self, model: str, device: str, compute_type: str, threads: int) -> None:
        self.device, self.compute_type = "cpu", "int8"

    def code(self, language: str | None) -> str | None:
        return language if language != "tlh" else None

    def transcribe(self, audio: np.ndarray, language: str, beam: int, temperature: float) -> Transcription:
        CountedRecognizer.calls += 1
        words = [Word(word, 0.1 * place, 0.1 * place + 0.1, 0.9) for place, word in enumerate(("sentence", "number"))]
        return Transcription("Sentence number 1", words, -0.2, 0.01, 1.1, (0.3,), language)


@pytest.fixture
def recognizer(monkeypatch: pytest.MonkeyPatch) -> type[CountedRecognizer]:
    monkeypatch.setattr("pipeline.speech.whisper.Recognizer", CountedRecognizer)
    CountedRecognizer.calls = 0
    return CountedRecognizer


def by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def test_a_changed_text_rule_scores_again_without_a_recognizer(
    tmp_path: Path, recognizer: type[CountedRecognizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run(run_folder(tmp_path), toy_settings(Hum()), toy_items(3), [0])
    generate(run, Hum())
    metrics = load_metrics(["words_clean", "words_official"])
    assert [metric.name for metric in metrics] == ["transcript", "words_clean", "words_official"]
    assert score(run, metrics).rows == {"transcript": 3, "words_clean": 3, "words_official": 3}
    assert recognizer.calls == 3
    assert set(score(run, metrics).rows.values()) == {0}
    monkeypatch.setattr(comparable_text, "VERSION", comparable_text.VERSION + 1)
    assert score(run, metrics).rows == {"transcript": 0, "words_clean": 3, "words_official": 0}
    assert recognizer.calls == 3
    rows = table_of(run, metrics[1], by_name(metrics)).by_key()
    assert sorted(row["wer"] for row in rows.values()) == [0.0, 1 / 3, 1 / 3]


def test_other_decoding_recognizes_again(tmp_path: Path, recognizer: type[CountedRecognizer]) -> None:
    run = create_run(run_folder(tmp_path), toy_settings(Hum()), toy_items(2), [0])
    generate(run, Hum())
    score(run, [WhisperTranscript(), WordsClean()])
    assert score(run, [WhisperTranscript(beam=1), WordsClean()]).rows == {"transcript": 2, "words_clean": 2}
    assert recognizer.calls == 4


def test_a_language_that_the_recognizer_does_not_know_is_not_measurable(
    tmp_path: Path, recognizer: type[CountedRecognizer]
) -> None:
    items = [Item("Heghlu'meH QaQ jajvam", "tlh"), Item("sentence number one", "en")]
    run = create_run(run_folder(tmp_path), toy_settings(Hum()), items, [0])
    generate(run, Hum())
    metrics = load_metrics(["words_clean", "tempo"])
    score(run, metrics)
    assert recognizer.calls == 1
    transcripts, words, tempo = (table_of(run, metric, by_name(metrics)).by_key() for metric in metrics)
    unknown, known = ((item.id, 0) for item in items)
    assert transcripts[unknown]["hypothesis"] is None and words[unknown]["wer"] is None
    assert tempo[unknown]["loop"] is None and tempo[unknown]["chars_per_s"] > 0
    assert words[known]["wer"] == 0 and transcripts[known]["decode"] == "beam 5, int8, cpu"
    assert math.isclose(transcripts[known]["last_word_s"], 0.2) and len(transcripts[known]["words"]) == 2


def test_speed_reads_no_audio() -> None:
    made = {"wall_s": 3.0, "first_audio_s": 0.5, "attempts": 2}
    takes = [
        Take(Item("a", "en"), 0, "ok", Path("missing.flac"), 6.0, made),
        Take(Item("a", "en"), 1, "empty", None, 0.0, made),
        Take(Item("a", "en"), 2, "ok", Path("missing.flac"), 6.0, {"wall_s": None}),
    ]
    first, empty, recording = Speed().score(takes)
    assert first == {"rtf": 0.5, "first_audio_s": 0.5, "attempts": 2, "wall_s": 3.0, "audio_s": 6.0}
    assert empty and empty["rtf"] is None and empty["attempts"] == 2 and recording is None
