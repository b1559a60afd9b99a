"""Long texts: split at sentences, speak piece by piece, keep voice and prosody.

The model drifts in an utterance longer than about half a minute. Here every piece after the first is conditioned on two clips.
The voice reference (the given one, or the first piece) keeps the timbre from drifting. The previous piece, which it continues,
keeps rhythm and loudness the same. A model that takes no reference only continues the previous piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from voxcpm.inference.patch_codec import PatchStream
from voxcpm.inference.prompt_cache import PromptCache, make_prompt_cache
from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.speaker import VoxCPM2Model

#: Places where a piece may end, best first: after sentences, after commas, at spaces. A Latin sentence ends only before white
#: space, because of 3.5 and U.S.A.
_BORDERS = (
    re.compile(r"(?<=[。！？…；])[」』”’）]*|(?<=[.!?;])[\"'”’)\]]*(?=\s)|\n+"),
    re.compile(r"(?<=[，、：])|(?<=[,:])(?=\s)"),
    re.compile(r"(?<=\s)(?=\S)"),
)
_DESCRIPTION = re.compile(r"^\s*(\([^()]*\))")
_DENSE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def speaking_length(text: str) -> float:
    """Estimate the seconds of speech: 14 characters per second, 4.5 for scripts with one character per syllable."""
    dense = len(_DENSE.findall(text))
    return dense / 4.5 + (len(text) - dense) / 14.0


def _cut(text: str, borders: re.Pattern[str]) -> list[str]:
    ends = [match.end() for match in borders.finditer(text)] + [len(text)]
    return [text[start:end] for start, end in pairwise([0, *ends]) if end > start]


def _atoms(text: str, longest_s: float, level: int = 0) -> list[str]:
    """Split a text into parts of at most `longest_s` seconds, at the best borders that allow it."""
    if speaking_length(text) <= longest_s:
        return [text]
    if level == len(_BORDERS):
        half = len(text) // 2
        return [text] if half == 0 else [*_atoms(text[:half], longest_s, level), *_atoms(text[half:], longest_s, level)]
    return _join(
        [atom for part in _cut(text, _BORDERS[level]) for atom in _atoms(part, longest_s, level + 1)], longest_s
    )


def _join(atoms: list[str], longest_s: float) -> list[str]:
    """Join neighboring parts as long as they fit."""
    pieces: list[str] = []
    for atom in atoms:
        if pieces and speaking_length(pieces[-1] + atom) <= longest_s:
            pieces[-1] += atom
        else:
            pieces.append(atom)
    return pieces


def split_text(text: str, longest_s: float = 12.0) -> list[str]:
    """Split a text into pieces of at most about `longest_s` seconds of speech.

    Whole sentences are joined. A longer sentence is cut at commas, then at spaces, then anywhere. Every character except
    white space is in one piece. A piece with nothing to pronounce is joined to its neighbor.
    """
    pieces: list[str] = []
    for piece in (part.strip() for part in _atoms(text, longest_s)):
        if not piece:
            continue
        if pieces and not (re.search(r"\w", piece) and re.search(r"\w", pieces[-1])):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


def speak_long(
    model: VoxCPM2Model,
    text: str,
    prompt_cache: PromptCache | None,
    options: SpeakOptions,
    longest_s: float = 12.0,
) -> Iterator[tuple[str, Tensor]]:
    """Yield (piece of the text, its audio [S] float32) in order; concatenated, they are one utterance.

    Only the first piece gets a leading description in parentheses: the others are conditioned on the reference.
    Raises ValueError if the text is empty.
    """
    options = options.seeded()
    assert options.seed is not None
    description = _DESCRIPTION.match(text)
    lead = description.group(1) if description else ""
    pieces = split_text(text[description.end() :] if description else text, longest_s)
    if not pieces:
        raise ValueError("the text is empty: give something to say")
    cache = prompt_cache if prompt_cache is not None else PromptCache()
    reference = cache.get("ref_audio_feat")
    stream: PatchStream | None = None
    seed = options.seed
    for number, piece in enumerate(pieces):
        layout = model.layout(lead + piece if number == 0 else piece, cache or None)
        (generation,) = model.generate_layouts([layout], [replace(options, seed=seed + number)])
        if stream is None:
            stream = PatchStream(model.audio_vae, options.context(layout))
        # One codec stream for all pieces avoids clicks between them.
        yield piece, stream.push(generation.patches)
        # A piece that was cut off is a bad prompt for the next one.
        whole = generation.ending == "stop"
        if not model.config.takes_references:
            cache = make_prompt_cache(piece, generation.patches, None) if whole else cache
            continue
        if reference is None:
            reference = generation.patches
        cache = make_prompt_cache(piece if whole else "", generation.patches if whole else None, reference)
    model.last_successful_seed = seed
