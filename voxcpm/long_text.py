"""Long texts: split at sentences, speak piece by piece, carry voice and prosody over.

The model drifts when it speaks for more than about half a minute at once. Here every piece after the first hears two things:
the voice's reference (the given one, or the first piece itself), which keeps the timbre from drifting, and the end of the
piece before it, which it continues, so that rhythm and loudness go on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from voxcpm.clips import PatchStream
from voxcpm.prompt_cache import PromptCache, make_prompt_cache
from voxcpm.tts import SpeakOptions, VoxCPM2Model, with_seed

#: Sentence ends: after these (and closing quotes) a piece may end. Latin ones only before white space: 3.5, e.g. U.S.
_STRONG = re.compile(r"(?<=[。！？…；])[」』”’）]*|(?<=[.!?;])[\"'”’)\]]*(?=\s)|\n+")
_WEAK = re.compile(r"(?<=[，、：,:])(?=\s|[^\s\d])|(?<=\s)(?=\S)")
_DESCRIPTION = re.compile(r"^\s*(\([^()]*\))")
_DENSE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


def speaking_length(text: str) -> float:
    """Rough seconds of speech: 14 characters a second, 4.5 for scripts that write a syllable with one character."""
    dense = len(_DENSE.findall(text))
    return dense / 4.5 + (len(text) - dense) / 14.0


def _cut(text: str, borders: re.Pattern[str]) -> list[str]:
    ends = [match.end() for match in borders.finditer(text)] + [len(text)]
    pieces, start = [], 0
    for end in ends:
        if end > start:
            pieces.append(text[start:end])
            start = end
    return pieces


def split_text(text: str, longest_s: float = 15.0) -> list[str]:
    """Pieces of at most about `longest_s` seconds of speech: whole sentences together; a longer sentence is cut at commas,
    then at spaces, then anywhere. Joined, the pieces hold every character of the text except white space at the cuts."""
    atoms: list[str] = []
    for sentence in _cut(text, _STRONG):
        if speaking_length(sentence) <= longest_s:
            atoms.append(sentence)
            continue
        for part in _cut(sentence, _WEAK):
            while speaking_length(part) > longest_s:
                size = next(n for n in range(1, len(part) + 1) if speaking_length(part[: n + 1]) > longest_s or n == len(part))
                atoms.append(part[:size])
                part = part[size:]
            atoms.append(part)
    pieces: list[str] = []
    for atom in atoms:
        if pieces and speaking_length(pieces[-1] + atom) <= longest_s:
            pieces[-1] += atom
        else:
            pieces.append(atom)
    return [piece.strip() for piece in pieces if re.search(r"\w", piece)]


def speak_long(
    model: VoxCPM2Model,
    text: str,
    prompt_cache: PromptCache | None,
    options: SpeakOptions,
    longest_s: float = 15.0,
    carried_patches: int = 40,
) -> Iterator[tuple[str, Tensor]]:
    """Yield (piece of the text, its audio [S] float32) one after the other; joined they are one utterance.

    A description in parentheses at the head is given to the first piece only: the others hear it in the reference.
    carried_patches: a piece longer than this (6.4 s) is not continued but only used as the reference, since a long prompt
    takes the model's context and its own drift with it.
    """
    options = with_seed(options)
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
            context = layout.context(max(options.streaming_prefix_len - 1, 0))
            stream = PatchStream(model.audio_vae, context)
        # One codec stream over all pieces: no clicks where they meet.
        yield piece, stream.push(generation.patches)
        patches = generation.patches
        if reference is None:
            reference = patches[: 10 * carried_patches]
        continued = patches if len(patches) <= carried_patches else None
        cache = make_prompt_cache(piece if continued is not None else "", continued, reference)
    model.last_successful_seed = seed
