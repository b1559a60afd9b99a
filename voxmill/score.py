"""Word error rates of a corpus with reference transcripts, and of faster-whisper run directly on the same prompts.

The text normalization is in `catalogs.vocabulary.comparable_text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.vocabulary.comparable_text import compared_units
from voxmill.demo_prompts import LONG_S
from voxmill.demo_recordings import Prompt
from voxmill.terminal import quoted

if TYPE_CHECKING:
    from pipeline.records import Session

_LAST_PAUSE_S = 5.0


@dataclass(frozen=True)
class LanguageScore:
    """Error rate of one language: edits divided by `words` of the transcripts (characters if `unit` is "char")."""

    language: str
    prompts: int
    words: int
    wer: float
    unit: str = "word"


def score_corpus(root: Path, recordings: Path, gold: Sequence[Prompt]) -> list[LanguageScore]:
    """Return the WER of a corpus by language. A word belongs to the prompt whose time span (with half the pauses) contains it.

    Every segment that has audio counts, kept or not; speech without a segment counts as deleted words. Prompts up to 2 s are
    skipped: their errors depend on chance more than on the pipeline. Raises ValueError if the corpus was not made from these
    recordings.
    """
    return score_texts(gold, corpus_texts(root, recordings, gold))


def score_direct(
    recordings: Path, gold: Sequence[Prompt], model: str | Path = "whisper-base", beam: int = 5, detect: bool = False
) -> list[LanguageScore]:
    """Return the WER of faster-whisper by language, run on each prompt separately, cut at the known times.

    `model` is a name of models.toml or a folder; the settings are those of the stage `transcribe`. The known language is given to
    the recognizer; with `detect` the recognizer detects it for each prompt, as the pipeline must.
    """
    return score_texts(gold, direct_texts(recordings, gold, model, beam, detect))


def score_texts(gold: Sequence[Prompt], texts: Sequence[str]) -> list[LanguageScore]:
    """Return the WER by language of one text per prompt, over the prompts longer than 2 s."""
    import jiwer

    from catalogs.vocabulary.languages import text_unit

    scores = []
    for language in sorted({prompt.language for prompt in gold}):
        pairs = [
            (" ".join(compared_units(prompt.text, language)), " ".join(compared_units(text, language)))
            for prompt, text in zip(gold, texts, strict=True)
            if prompt.language == language and is_scored(prompt)
        ]
        pairs = [(wanted, heard) for wanted, heard in pairs if wanted]
        if pairs:
            wer = jiwer.wer([wanted for wanted, _ in pairs], [heard for _, heard in pairs])
            count = sum(len(wanted.split()) for wanted, _ in pairs)
            scores.append(LanguageScore(language, len(pairs), count, float(wer), text_unit(language)))
    return scores


def is_scored(prompt: Prompt) -> bool:
    """Return True if a prompt is long enough to count."""
    return prompt.end_s - prompt.start_s > LONG_S


def corpus_texts(root: Path, recordings: Path, gold: Sequence[Prompt]) -> list[str]:
    """Return the text that a corpus has for each prompt. Raises ValueError if it holds none of the recordings."""
    from catalogs.corpus.reader import Corpus

    corpus = Corpus(root)
    paths = {row["source_id"]: row["path"] for row in corpus.table("recordings").to_pylist()}
    places = {path: _source(path, recordings, paths) for path in {prompt.path for prompt in gold}}
    if gold and not any(places.values()):
        raise ValueError(
            f"{root} holds none of the recordings in {recordings}: run voxmill prepare {quoted(recordings)} again"
        )
    words: dict[str, list[tuple[float, str]]] = {}
    for row in corpus.index.filter(corpus.index.column("row").is_valid()).to_pylist():
        segment = corpus.segment(row["segment_id"])
        heard = words.setdefault(row["source_id"], [])
        for word, text in zip(segment["words"], spaced_words(segment), strict=True):
            heard.append((row["start_s"] + (word["start"] + word["end"]) / 2, text))
    texts = []
    for prompt, (before, after) in zip(gold, prompt_spans(gold), strict=True):
        heard = sorted(words.get(places[prompt.path] or "", []), key=lambda item: item[0])
        texts.append("".join(text for middle, text in heard if before <= middle < after).strip())
    return texts


def _source(path: str, recordings: Path, paths: dict[str, str]) -> str | None:
    """Return the source id of a recording by its path, or by the end of its path if the folder was moved; None if unknown."""
    here = str((recordings / path).resolve())
    found = [source for source, known in paths.items() if known == here]
    found = found or [source for source, known in paths.items() if known.endswith(f"/{recordings.name}/{path}")]
    return found[0] if len(found) == 1 else None


def spaced_words(segment: dict[str, Any]) -> list[str]:
    """Return the words of a segment with the spaces that its text has before them.

    Words with times may be parts of a word: "1,000" may be "1" and ",000", and a space between them would make two numbers.
    """
    text, position, spaced = segment["text"] or "", 0, []
    for word in (word["word"] for word in segment["words"]):
        at = text.find(word, position)
        # A given transcript may differ from the recognized words: then each word gets a space.
        if at < 0 or text[position:at].strip():
            spaced.append(f" {word}")
            continue
        spaced.append(text[position:at] + word)
        position = at + len(word)
    return spaced


def prompt_spans(gold: Sequence[Prompt]) -> list[tuple[float, float]]:
    """Return the time span (s) of each prompt: from the middle of the pause before it to the middle of the pause after it."""
    starts, ends = [0.0] * len(gold), [prompt.end_s + _LAST_PAUSE_S for prompt in gold]
    in_time = sorted(range(len(gold)), key=lambda index: (gold[index].path, gold[index].start_s))
    for this, following in pairwise(in_time):
        if gold[this].path == gold[following].path:
            ends[this] = starts[following] = (gold[this].end_s + gold[following].start_s) / 2
    return list(zip(starts, ends, strict=True))


def direct_texts(
    recordings: Path, gold: Sequence[Prompt], model: str | Path = "whisper-base", beam: int = 5, detect: bool = False
) -> list[str]:
    """Return the text of faster-whisper for each prompt longer than 2 s, recognized separately ("" for the others)."""
    import numpy as np
    from faster_whisper import WhisperModel

    from catalogs.vocabulary.languages import whisper_code
    from catalogs.weights.registry import resolve

    folder = Path(model) if Path(model).is_dir() else resolve(str(model))
    whisper: Any = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=2, local_files_only=True)
    decoded: dict[str, Session] = {}
    texts = []
    for prompt in gold:
        if not is_scored(prompt):
            texts.append("")
            continue
        if prompt.path not in decoded:
            decoded[prompt.path] = _decode(recordings / prompt.path)
        session = decoded[prompt.path]
        pcm = session.pcm(session.recordings[0].source.source_id, prompt.start_s, prompt.end_s)
        pieces: Iterable[Any] = whisper.transcribe(
            pcm.astype(np.float32) / 32768.0,
            language=None if detect else whisper_code(prompt.language),
            beam_size=beam,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
            vad_filter=False,
        )[0]
        texts.append("".join(piece.text for piece in pieces).strip())
    return texts


def _decode(path: Path) -> Session:
    """Decode a recording as the pipeline does. Raises ValueError if it cannot be decoded."""
    from pipeline.records import Recording, Session, Source
    from pipeline.stages.decode import Decode, DecodeConfig

    source = Source(str(path), str(path), path.name, "direct", path.stat().st_size, "")
    session = Decode(DecodeConfig())(Session("direct", "", "", [Recording(source)]))
    if session.quarantine:
        raise ValueError(f"{path}: {session.quarantine[0].error}")
    return session
