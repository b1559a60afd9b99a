"""What Whisper hears in recordings of people, alone, in batches and once per recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from spoken_clips import DESIGN, EREWHON, KIDS, between, samples_of, take_of

from catalogs.weights import registry
from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.metrics.base import Take
from evaluation.metrics.transcript import HumanTranscript, WhisperTranscript
from evaluation.metrics.words import Floor, WordsClean
from evaluation.runs.score import lacks
from pipeline.speech.whisper import Recognizer, Transcription


@pytest.fixture(scope="module")
def whisper() -> WhisperTranscript:
    if not registry.available("whisper-base"):
        pytest.skip("weights whisper-base are not here: voxmill models pull whisper-base")
    metric = WhisperTranscript()
    metric.load()
    return metric


def test_read_speech_has_less_than_ten_percent_of_its_words_wrong(whisper: WhisperTranscript, corpora: Path) -> None:
    takes = [take_of(corpora, clip) for clip in (EREWHON, DESIGN)]
    for take, row in zip(takes, whisper.score(takes), strict=True):
        assert row
        take.given["transcript"] = row
        ends = [word["end"] for word in row["words"]]
        assert ends == sorted(ends) and row["last_word_s"] == ends[-1] <= row["heard_s"]
        assert row["heard_s"] == pytest.approx(take.seconds, abs=0.01)
        assert row["language"] == "en" and row["model"] == "whisper-base" and row["decode"].startswith("beam 5, ")
        assert row["compression_ratio"] < 2 and row["logprob"] > -1
    rows = [row for row in WordsClean().score(takes) if row]
    assert sum(row["word_errors"] for row in rows) / sum(row["words"] for row in rows) < 0.10


def test_a_batch_hears_what_single_calls_hear(whisper: WhisperTranscript, corpora: Path) -> None:
    """As on a GPU: clips of several lengths in one pass."""
    recognizer = whisper._recognizer
    assert isinstance(recognizer, Recognizer)
    clips = [between(samples_of(corpora, KIDS), 0.9, 2.6), between(samples_of(corpora, EREWHON), 0.0, 2.0)]
    together = recognizer.transcribe_batch(clips, "en", 1, size=2)
    for clip, heard in zip(clips, together, strict=True):
        alone = recognizer.transcribe(clip, "en", 1)
        assert heard.text == alone.text and heard.text
        assert np.allclose([word.end for word in heard.words], [word.end for word in alone.words], atol=0.3)
        assert max(word.end for word in heard.words) <= len(clip) / 16_000


def test_a_recording_is_recognized_once_for_all_seeds(
    whisper: WhisperTranscript, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = HumanTranscript()
    metric.load()
    assert metric._recognizer is whisper._recognizer
    calls: list[int] = []
    transcribe = Recognizer.transcribe

    def counted(self: Recognizer, audio: np.ndarray, language: str, beam: int, temperature: float) -> Transcription:
        calls.append(len(audio))
        return transcribe(self, audio, language, beam, temperature)

    monkeypatch.setattr(Recognizer, "transcribe", counted)
    item = Item(KIDS.text, "en", human=corpora / KIDS.name)
    # The recording counts for a take that failed as well.
    takes = [Take(item, 0, "ok", Path("unused.flac")), Take(item, 1, "error", None)]
    assert not any(lacks(metric, take) for take in takes) and metric.group(takes[0]) == metric.group(takes[1])
    rows = metric.score(takes)
    assert len(calls) == 1 and rows[0] == rows[1]
    for take, row in zip(takes, rows, strict=True):
        assert row
        take.given["human_transcript"] = row
    (first, second) = Floor().score(takes)
    assert first == second and first and first["floor_wer"] == 0.0 and first["floor_words"] == 6


def test_a_recording_that_cannot_be_read_is_named(whisper: WhisperTranscript, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no audio")
    metric = HumanTranscript()
    metric.load()
    with pytest.raises(EvaluationError, match=r"broken\.wav: the audio cannot be read"):
        metric.score([Take(Item("hello", "en", human=tmp_path / "broken.wav"), 0, "ok", None)])


def test_a_language_that_whisper_does_not_know_has_no_row(whisper: WhisperTranscript) -> None:
    assert whisper.recognize([np.zeros(16_000, np.float32)], ["tlh"]) == [None]
