"""Word error rates of a corpus whose words are known, beside faster-whisper run directly on the same prompts.

Both sides are normalised alike: `whisper-normalizer` (the English one for English, the basic one, which keeps diacritics,
for the rest), and digits spelt out with num2words in the language, as recognisers write "1" where the prompt says "one".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxmill.demo_recordings import Prompt

LONGER_THAN_S = 2.0
"""Prompts that count: shorter ones ("yes", "pound") say more about the recogniser's mood than about the pipeline."""


@dataclass(frozen=True)
class LanguageScore:
    """Word error rate of one language: errors over words of the transcripts."""

    language: str
    prompts: int
    words: int
    wer: float


def normalize(text: str, language: str) -> str:
    """Text as it is compared: lower case, no punctuation, numbers in words."""
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if language != "en":
        return " ".join(str(BasicTextNormalizer(remove_diacritics=False)(_spell(text, language))).split())
    # The English normaliser writes numbers as digits and mends spelling variants.
    return " ".join(_spell(str(EnglishTextNormalizer()(text)), "en").split())


def score_corpus(root: Path, recordings: Path, gold: Sequence[Prompt]) -> list[LanguageScore]:
    """WER of a corpus by language: its words go to the prompt in whose time (with half the pauses around) they lie."""
    from catalogs.corpus import Corpus

    corpus = Corpus(root)
    paths = {row["source_id"]: row["path"] for row in corpus.table("recordings").to_pylist()}
    words: dict[str, list[tuple[float, str]]] = {}
    for row in corpus.index.filter(corpus.index.column("row").is_valid()).to_pylist():
        for word in corpus.segment(row["segment_id"])["words"]:
            middle = row["start_s"] + (word["start"] + word["end"]) / 2
            words.setdefault(paths[row["source_id"]], []).append((middle, word["word"]))
    texts = []
    for index, prompt in enumerate(gold):
        before, after = _neighbours(gold, index)
        heard = sorted(words.get(str((recordings / prompt.path).resolve()), []))
        texts.append(" ".join(word for middle, word in heard if before <= middle < after))
    return _scores(gold, texts)


def score_direct(
    recordings: Path, gold: Sequence[Prompt], model: str = "whisper-base", beam: int = 5
) -> list[LanguageScore]:
    """WER of faster-whisper on each prompt alone, cut at the known times from the same recording, its language given."""
    import numpy as np
    from faster_whisper import WhisperModel

    from catalogs.models import resolve
    from pipeline.records import PCM_RATE, Recording, Session, Source
    from pipeline.stages.decode import Decode, DecodeConfig

    whisper: Any = WhisperModel(str(resolve(model)), device="cpu", compute_type="int8", cpu_threads=2)
    sessions: dict[str, Session] = {}
    texts = []
    for prompt in gold:
        if prompt.path not in sessions:
            path = recordings / prompt.path
            source = Source(prompt.path, str(path), prompt.path, "direct", path.stat().st_size, "")
            sessions[prompt.path] = Decode(DecodeConfig())(Session("direct", "", "", [Recording(source)]))
        if prompt.end_s - prompt.start_s <= LONGER_THAN_S:
            texts.append("")
            continue
        pcm = sessions[prompt.path].pcm(prompt.path, prompt.start_s - 0.1, prompt.end_s + 0.1)
        assert len(pcm) >= PCM_RATE
        pieces, _ = whisper.transcribe(
            pcm.astype(np.float32) / 32768.0,
            language=prompt.language,
            beam_size=beam,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        texts.append("".join(piece.text for piece in pieces).strip())
    return _scores(gold, texts)


def _scores(gold: Sequence[Prompt], texts: Sequence[str]) -> list[LanguageScore]:
    import jiwer

    scores = []
    for language in sorted({prompt.language for prompt in gold}):
        pairs = [
            (normalize(prompt.text, language), normalize(text, language))
            for prompt, text in zip(gold, texts, strict=True)
            if prompt.language == language and prompt.end_s - prompt.start_s > LONGER_THAN_S
        ]
        pairs = [(reference, heard) for reference, heard in pairs if reference]
        if pairs:
            wer = jiwer.wer([reference for reference, _ in pairs], [heard for _, heard in pairs])
            count = sum(len(reference.split()) for reference, _ in pairs)
            scores.append(LanguageScore(language, len(pairs), count, float(wer)))
    return scores


def _neighbours(gold: Sequence[Prompt], index: int) -> tuple[float, float]:
    """The time that belongs to a prompt: from the middle of the pause before it to the middle of the one after it."""
    prompt = gold[index]
    before, after = 0.0, prompt.end_s + 5.0
    if index and gold[index - 1].path == prompt.path:
        before = (gold[index - 1].end_s + prompt.start_s) / 2
    if index + 1 < len(gold) and gold[index + 1].path == prompt.path:
        after = (prompt.end_s + gold[index + 1].start_s) / 2
    return before, after


def _spell(text: str, language: str) -> str:
    from num2words import num2words

    def spell(match: re.Match[str]) -> str:
        try:
            return f" {num2words(int(match.group()), lang=language)} ".replace("-", " ")
        except (NotImplementedError, OverflowError):
            return match.group()

    return re.sub(r"\d+", spell, text)
