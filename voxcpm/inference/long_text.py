"""Long texts: split at sentences, speak piece by piece, keep voice and prosody.

The model drifts in an utterance longer than about half a minute. Here every piece after the first is conditioned on two clips.
The voice reference (the given one, or the first piece) keeps the timbre from drifting. The previous piece, which it continues,
keeps rhythm and loudness the same. A model that takes no reference only continues the previous piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from voxcpm.inference.patch_codec import PatchStream
from voxcpm.inference.prompt_cache import PromptCache, make_prompt_cache
from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.sequence.text_pieces import split_description, split_text


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
    lead, words = split_description(text)
    pieces = split_text(words, longest_s)
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
