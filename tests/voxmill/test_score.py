"""Error rates: which words belong to which prompt, and the recognizer alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from catalogs.corpus.commit import UnitContent, commit_unit, create_corpus
from catalogs.weights import registry
from voxmill.demo_recordings import Prompt
from voxmill.score import (
    LanguageScore,
    corpus_texts,
    direct_texts,
    prompt_spans,
    score_corpus,
    score_direct,
    score_texts,
    spaced_words,
)

FINGERPRINT = "0123456789abcdef"
JFK = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."


def test_errors_are_counted_over_all_words_of_a_language() -> None:
    gold = [
        Prompt("a.wav", "en", 0, 3, "we know the number of a friend", "a"),
        Prompt("a.wav", "en", 4, 7, "press one", "b"),
        Prompt("a.wav", "en", 8, 9.9, "too short to count", "c"),
        Prompt("b.wav", "zh", 0, 3, "你好世界", "d"),
        Prompt("b.wav", "fr", 4, 7, "...", "e"),
    ]
    scores = score_texts(gold, ["We no the number of a.", "Press 1 now", "nonsense", "你好界", "words"])
    # "no" is one substitution; "friend" is left out; "now" is put in.
    assert scores == [LanguageScore("en", 2, 9, 3 / 9), LanguageScore("zh", 1, 4, 1 / 4, "char")]


def test_words_keep_the_spaces_of_their_text() -> None:
    def segment(text: str, *words: str) -> dict[str, Any]:
        return {"text": text, "words": [{"word": word} for word in words]}

    assert "".join(spaced_words(segment("Dial 1,000 now.", "Dial", "1", ",000", "now."))) == "Dial 1,000 now."
    assert "".join(spaced_words(segment("l'ora è", "l", "'ora", "è"))) == "l'ora è"
    assert "".join(spaced_words(segment("你好世界", "你好", "世界"))) == "你好世界"
    # A transcript that was given instead of the recognized one says nothing about spaces.
    assert "".join(spaced_words(segment("quite another", "an", "other"))).split() == ["an", "other"]
    assert spaced_words({"text": None, "words": []}) == []


def test_time_between_prompts_is_shared_in_halves() -> None:
    gold = [
        Prompt("b.wav", "en", 5.0, 8.0, "", "late"),
        Prompt("a.wav", "en", 1.0, 3.0, "", "other file"),
        Prompt("b.wav", "en", 0.5, 3.0, "", "early"),
    ]
    assert prompt_spans(gold) == [(4.0, 13.0), (0.0, 8.0), (0.0, 4.0)]


def make_corpus(root: Path, recording: Path, rows: list[dict[str, Any]]) -> None:
    """A corpus of one recording of 20 s; each row says start_s, end_s, text, words and whether it has audio."""
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros(1600, dtype=np.int16), 16_000, format="FLAC")
    complete = [
        {
            "segment_id": f"segment{number}",
            "session_id": "s",
            "source_id": "source",
            "seq": number,
            "sample_rate": 16_000,
            "duration_s": row["end_s"] - row["start_s"],
            "reasons": [],
            "kept": True,
            "audio": sink.getvalue(),
            "embedding": np.ones(4, dtype=np.float32) / 2,
        }
        | row
        for number, row in enumerate(rows)
    ]
    spoken = sum(row["duration_s"] for row in complete)
    source = {
        "source_id": "source",
        "path": str(recording.resolve()),
        "session_id": "s",
        "duration_s": 20.0,
        "sample_rate": 16_000,
        "channels": 1,
        "codec": "wav/pcm_16",
        "bytes": 1,
        "status": "ok",
        "silence_s": 20.0 - spoken,
        "content_sha256": "0",
    }
    create_corpus(root)
    commit_unit(root, UnitContent("unit0", FINGERPRINT, ["s"], complete, [source]))


def words(*timed: tuple[str, float, float]) -> list[dict[str, Any]]:
    return [{"word": word, "start": start, "end": end, "p": 1.0} for word, start, end in timed]


GOLD = [
    Prompt("en/one.wav", "en", 1.0, 4.0, "good evening everyone", "a"),
    Prompt("en/one.wav", "en", 5.0, 8.0, "press 1,000", "b"),
    Prompt("en/one.wav", "en", 10.0, 13.0, "this was not heard", "c"),
]
ROWS: list[dict[str, Any]] = [
    # One segment over two prompts: "press" was timed within the pause, nearer to the second.
    {
        "start_s": 0.5,
        "end_s": 8.2,
        "text": "Good evening everyone. Press 1,000.",
        "words": words(
            ("Good", 0.6, 1.0),
            ("evening", 1.0, 2.0),
            ("everyone.", 2.0, 3.4),
            ("Press", 4.1, 4.6),
            ("1", 5, 6),
            (",000.", 6, 7),
        ),
    },
    {
        "start_s": 10.0,
        "end_s": 10.4,
        "text": None,
        "words": None,
        "audio": None,
        "kept": False,
        "reasons": ["too_short"],
    },
]


def test_words_of_a_corpus_go_to_the_prompt_in_whose_time_they_lie(tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    make_corpus(tmp_path / "corpus", recordings / "en" / "one.wav", ROWS)
    assert corpus_texts(tmp_path / "corpus", recordings, GOLD) == ["Good evening everyone.", "Press 1,000.", ""]
    # What was not heard at all counts: four of the nine words.
    assert score_corpus(tmp_path / "corpus", recordings, GOLD) == [LanguageScore("en", 3, 9, 4 / 9)]


def test_a_soft_rejected_segment_still_counts_as_heard(tmp_path: Path) -> None:
    rows = [ROWS[0] | {"kept": False, "reasons": ["low_dnsmos"]}, ROWS[1]]
    make_corpus(tmp_path / "corpus", tmp_path / "recordings" / "en" / "one.wav", rows)
    assert score_corpus(tmp_path / "corpus", tmp_path / "recordings", GOLD)[0].wer == 4 / 9


def test_a_folder_that_was_moved_is_found_and_another_one_refused(tmp_path: Path) -> None:
    make_corpus(tmp_path / "corpus", tmp_path / "old" / "recordings" / "en" / "one.wav", ROWS)
    assert score_corpus(tmp_path / "corpus", tmp_path / "new" / "recordings", GOLD)[0].wer == 4 / 9
    with pytest.raises(ValueError, match="holds none of the recordings"):
        score_corpus(tmp_path / "corpus", tmp_path / "others", GOLD)


@pytest.fixture(scope="module")
def whisper() -> str:
    if not registry.available("whisper-base"):
        pytest.skip("weights whisper-base are not here: voxmill models pull whisper-base")
    return "whisper-base"


def test_the_recogniser_alone_hears_a_prompt_cut_at_its_times(whisper: str, corpora: Path, tmp_path: Path) -> None:
    """A speech between noise that is louder than it: only the prompt's own time reaches the recognizer."""
    clip, rate = soundfile.read(corpora / "read" / "jfk.flac", dtype="float32", always_2d=True)
    clip = clip.mean(axis=1)
    noise = np.random.default_rng(0).normal(0, 0.3, 3 * rate).astype(np.float32)
    soundfile.write(tmp_path / "talk.flac", np.concatenate([noise, clip, noise]), rate)
    gold = [
        Prompt("talk.flac", "en", 0.0, 1.5, "short", "short"),
        Prompt("talk.flac", "en", 3.0, 3.0 + len(clip) / rate, JFK, "clip"),
    ]
    heard = direct_texts(tmp_path, gold, whisper, beam=1)
    assert heard[0] == "" and len(heard[1]) > 20
    (score,) = score_direct(tmp_path, gold, registry.resolve(whisper), beam=1, detect=True)
    assert score.prompts == 1 and score.wer < 0.15


def test_a_recording_that_cannot_be_decoded_is_named(whisper: str, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"broken\.wav: .*not audio"):
        score_direct(tmp_path, [Prompt("broken.wav", "en", 0.0, 3.0, "hello", "a")], whisper)
