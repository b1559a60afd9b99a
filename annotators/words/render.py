"""Write captions from attributes, deterministically. Nothing is said that the attributes do not hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from annotators.schema import Attributes, Caption
from annotators.words.frames import chinese, english
from annotators.words.frames.picker import Picker
from annotators.words.lexicon import Lexicon, lexicon
from catalogs.vocabulary.voices import CAPTION_LANGUAGES, REGISTERS

_Write = Callable[[str, Attributes, Lexicon, Picker, Picker], str | None]
_WRITERS: dict[str, _Write] = {"en": english.write, "zh": chinese.write}


def render(
    attributes: Attributes,
    seed: str,
    registers: Sequence[str] = REGISTERS,
    languages: Sequence[str] = CAPTION_LANGUAGES,
    *,
    voice: str | None = None,
) -> tuple[Caption, ...]:
    """Return the captions of each register in each language that the attributes give words for.

    seed: chooses among frames and wordings, e.g. the segment's id. voice: chooses the wording of identity, so that captions of one
    voice agree; by default it is the seed. An attribute that is unsure or empty is not mentioned; a caption that would say nothing
    is left out. `emphasis` and `evidence` are never used. Raises KeyError for a language that has no frames.
    """
    captions = []
    for register in registers:
        for language in languages:
            words = lexicon(language)
            write = _WRITERS[language]
            assert words is not None
            clip = Picker(f"{register}/{language}/{seed}")
            text = write(register, attributes, words, clip, Picker(f"{language}/{seed if voice is None else voice}"))
            if text:
                captions.append(Caption(register, language, text))
    return tuple(captions)
