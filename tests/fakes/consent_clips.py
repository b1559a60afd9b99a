"""Recordings whose words are known, taken as statements: the challenge is made from the transcript."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.voice.consent.challenge import Challenge, new_challenge

SENTENCE = (
    "For although the Chinese took impressions from wood blocks engraved in relief for centuries before the woodcutters of "
    "the Netherlands, by a similar process"
)
WORDS = ("Chinese", "wood", "centuries", "Netherlands")


def statement_of(corpora: Path) -> Path:
    """A clip of LJSpeech of 9.7 s, in which SENTENCE is read."""
    return existing(corpora / "world/multilingual/LJSpeech__LJ001-0003.flac")


def reference_of(corpora: Path) -> Path:
    """Another clip of its speaker, of 9.7 s."""
    return existing(corpora / "world/multilingual/LJSpeech__LJ001-0001.flac")


def existing(path: Path) -> Path:
    """The path; skips where the file is absent."""
    if not path.is_file():
        pytest.skip(f"no recording at {path}")
    return path


def challenge_of(sentence: str = SENTENCE, words: tuple[str, ...] = WORDS, now: datetime | None = None) -> Challenge:
    """A challenge with a sentence of ours."""
    made = new_challenge("Linda", "Example Studio", "en", now=now or datetime.now(UTC))
    return replace(made, sentence=sentence, words=words)
