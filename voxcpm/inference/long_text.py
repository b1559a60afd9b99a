"""Long texts: split at sentences, speak piece by piece, carry voice and prosody over.

The model drifts when it speaks for more than about half a minute at once. Here every piece after the first hears two things:
the voice's reference (the given one, or the first piece itself), which keeps the timbre from drifting, and the end of the
piece before it, which it continues, so that rhythm and loudness stay the same.
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

#: Where a piece may end, best first: after sentences (Latin ends only before white space: 3.5, U.S.A), after commas, at spaces.
_BORDERS = (
    re.compile(r"(?<=[。！？…；])[」』”’）]*|(?<=[.!?;])[\"'”’)\]]*(?=\s)|\n+"),
    re.compile(r"(?<=[，、：])|(?<=[,:])(?=\s)"),
    re.compile(r"(?<=\s)(?=\S)"),
)
_DESCRIPTION = re.compile(r"^\s*(\([^()]*\))")
_DENSE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def speaking_length(text: str) -> float:
    """Rough seconds of speech: 14 characters per second, 4.5 for scripts that write a syllable with one character."""
    dense = len(_DENSE.findall(text))
    return dense / 4.5 + (len(text) - dense) / 14.0


def _cut(text: str, borders: re.Pattern[str]) -> list[str]:
    ends = [match.end() for match in borders.finditer(text)] + [len(text)]
    return [text[start:end] for start, end in pairwise([0, *ends]) if end > start]


def _atoms(text: str, longest_s: float, level: int = 0) -> list[str]:
    """Parts of at most `longest_s`, cut at the best borders that do."""
    if speaking_length(text) <= longest_s:
        return [text]
    if level == len(_BORDERS):
        half = len(text) // 2
        return [text] if half == 0 else [*_atoms(text[:half], longest_s, level), *_atoms(text[half:], longest_s, level)]
    return _join(
        [atom for part in _cut(text, _BORDERS[level]) for atom in _atoms(part, longest_s, level + 1)], longest_s
    )


def _join(atoms: list[str], longest_s: float) -> list[str]:
    """Join neighbors as long as they fit."""
    pieces: list[str] = []
    for atom in atoms:
        if pieces and speaking_length(pieces[-1] + atom) <= longest_s:
            pieces[-1] += atom
        else:
            pieces.append(atom)
    return pieces


def split_text(text: str, longest_s: float = 12.0) -> list[str]:
    """Pieces of at most about `longest_s` seconds of speech: whole sentences together; a longer sentence is cut at commas,
    then at spaces, then anywhere. Every character but white space is in one of them; pieces that hold nothing to
    pronounce go to their neighbor."""
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
    """Yield (piece of the text, its audio [S] float32) one after the other; joined they are one utterance.

    A description in parentheses at the head is given to the first piece only: the others hear it in the reference.
    Raises ValueError for empty text.
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
        # One codec stream over all pieces: no clicks where they meet.
        yield piece, stream.push(generation.patches)
        if reference is None:
            reference = generation.patches
        # A piece that did not end by itself is a bad example to continue from.
        whole = generation.ending == "stop"
        cache = make_prompt_cache(piece if whole else "", generation.patches if whole else None, reference)
    model.last_successful_seed = seed
