"""The recordings: Debian's prompts in five languages, each a file with its exact text, split before anything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.result.split import Prompt, Split, may_be_judged, split, within
from catalogs.files import write_atomically
from evaluation.items import Item, write_items

SHORTEST_S = 0.9
"""Shorter prompts are left out: single words, of which the recognizer of `prepare` makes most work."""
REFERENCE_S = (2.0, 6.0)
"""Length of a reference clip."""


def read_prompts(
    root: Path, languages: Sequence[str], shortest_s: float
) -> tuple[list[Prompt], dict[tuple[str, str], Path]]:
    """Return the prompts of the unpacked packages with clean transcripts, and their files by (language, name)."""
    from catalogs.vocabulary.comparable_text import normalize
    from voxmill.demo_prompts import read_transcripts

    prompts, files = [], {}
    for language in languages:
        sounds = root / "usr/share/asterisk/sounds"
        voice = next(folder for folder in sorted(sounds.iterdir()) if folder.name.startswith(f"{language}_"))
        for name, text in sorted(read_transcripts(root, language).items()):
            path = voice / f"{name}.g722"
            words = normalize(text, language)
            seconds = path.stat().st_size / 8_000 if path.is_file() else 0.0
            if words and seconds >= shortest_s:
                prompts.append(Prompt(name, language, voice.name, text, words, seconds))
                files[language, name] = path
    return prompts, files


def make_recordings(
    work: Path,
    languages: Sequence[str],
    per_language: int,
    seed: int = 1,
    shortest_s: float = SHORTEST_S,
    minutes: float | None = None,
) -> Split:
    """Write recordings/ with lines.jsonl (what may be heard), held_out/ with held_out.jsonl, and training.json.

    `per_language`: held-out sentences. `shortest_s`: seconds of a training prompt at least. `minutes`: of a language at most.

    Raises DemoRecordingsUnavailable if the packages cannot be fetched.
    """
    from voxmill.demo_prompts import unpack_packages

    root = unpack_packages(print)
    prompts, files = read_prompts(root, languages, shortest_s)
    parts = split(prompts, per_language, seed)
    parts = replace(parts, training=within(parts.training, minutes, seed))
    lines = []
    for prompt in parts.training:
        path = _write(work / "recordings", prompt, files)
        lines.append(
            {
                "path": str(path.relative_to(work / "recordings")),
                "session": prompt.speaker,
                "language": prompt.language,
                "text": prompt.text,
                "license": "CC-BY-SA-3.0",
            }
        )
    for prompt in parts.held_out:
        _write(work / "held_out", prompt, files)
    write_items(
        work / "held_out.jsonl", [_item(work, "held_out", p, parts.training, "held-out") for p in parts.held_out]
    )
    rows = [asdict(prompt) for prompt in parts.training]
    write_atomically(work / "training.json", json.dumps(rows, ensure_ascii=False).encode())
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_atomically(work / "recordings" / "lines.jsonl", text.encode())
    return parts


def write_seen(work: Path, per_language: int, share: float = 1.0) -> int:
    """Write seen.jsonl: sentences that were kept for training, of the smallest part of the data that a model was trained on.

    So every model has heard them. Returns their number. The corpus must exist.
    """
    from catalogs.corpus.reader import Corpus

    corpus = Corpus(work / "corpus")
    folder = work / "recordings"
    paths = {row["source_id"]: Path(row["path"]).parts[-2:] for row in corpus.table("recordings").to_pylist()}
    prompts = [Prompt(**row) for row in json.loads((work / "training.json").read_text(encoding="utf-8"))]
    by_file = {_path(folder, prompt).parts[-2:]: prompt for prompt in prompts}
    heard: dict[str, dict[str, Prompt]] = {}
    for row in sorted(corpus.kept().to_pylist(), key=lambda row: _mark(row["segment_id"])):
        prompt = by_file[paths[row["source_id"]]]
        found = heard.setdefault(prompt.language, {})
        if in_share(row["segment_id"], share) and may_be_judged(prompt) and len(found) < per_language:
            found.setdefault(prompt.words, prompt)
    chosen = [prompt for found in heard.values() for prompt in found.values()]
    write_items(work / "seen.jsonl", [_item(work, "recordings", prompt, prompts, "seen") for prompt in chosen])
    return len(chosen)


def share_limit(share: float) -> str:
    """Return what the MD5 of a segment's id is below if the segment is in this part of the data, as hexadecimal digits."""
    limit = round(share * 2**16)
    return f"{limit:04x}" if limit < 2**16 else "g"


def in_share(segment_id: str, share: float) -> bool:
    """Return True if a segment is in this part of the data. A smaller part lies within a larger one."""
    return _mark(segment_id) < share_limit(share)


def _mark(segment_id: str) -> str:
    return hashlib.md5(segment_id.encode()).hexdigest()


def _item(work: Path, folder: str, prompt: Prompt, training: Sequence[Prompt], list_name: str) -> Item:
    """Return the item of a prompt; its reference is another sentence of the voice, heard in training."""
    reference = reference_of(prompt, training)
    return Item(
        text=prompt.text,
        language=prompt.language,
        name=f"{prompt.language}/{prompt.name}",
        list_name=list_name,
        reference=_path(work / "recordings", reference),
        reference_text=reference.text,
        human=_path(work / folder, prompt),
        groups={"speaker": prompt.speaker},
    )


def reference_of(prompt: Prompt, training: Sequence[Prompt]) -> Prompt:
    """Return the training prompt of the same voice that follows by name and has the length of a reference."""
    able = [
        other
        for other in training
        if (other.speaker, other.language) == (prompt.speaker, prompt.language)
        and other.words != prompt.words
        and REFERENCE_S[0] <= other.seconds <= REFERENCE_S[1]
    ]
    able.sort(key=lambda other: other.name)
    return next((other for other in able if other.name > prompt.name), able[0])


def _path(folder: Path, prompt: Prompt) -> Path:
    return folder / prompt.speaker / f"{prompt.name.replace('/', '_')}.wav"


def _write(folder: Path, prompt: Prompt, files: dict[tuple[str, str], Path]) -> Path:
    import soundfile

    from voxmill.demo_prompts import RATE, read_g722

    path = _path(folder, prompt)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        soundfile.write(path, read_g722(files[prompt.language, prompt.name]), RATE, subtype="PCM_16")
    return path
