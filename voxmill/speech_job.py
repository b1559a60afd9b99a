"""The speech of one call of `voxmill speak`: one text, a stream, a long text, or the lines of a file, with their marks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.vocabulary.speech_length import generous_seconds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from voxcpm import VoxCPM
    from voxcpm.inference.prompt_cache import PromptCache
    from voxcpm.provenance.c2pa.signer import Signing
    from voxcpm.provenance.source import Source

    Wav = NDArray[np.float32]

BATCH = 32
"""Lines of a file that are generated together and then written."""


def voice_of(
    tts: VoxCPM, voice: Path | None, reference: Path | None, prompt: Path | None, prompt_text: str | None, denoise: bool
) -> PromptCache | None:
    """Return the voice, loaded or encoded once; None if no voice is given."""
    if voice is not None:
        from voxcpm.inference.prompt_cache import load_prompt_cache

        return load_prompt_cache(voice)
    if reference is None and prompt is None:
        return None
    return tts.build_prompt_cache(prompt, prompt_text, reference, denoise)


@dataclass(frozen=True)
class SpeechJob:
    """The voice and the settings, shared by all texts of a call."""

    tts: VoxCPM
    cache: PromptCache | None
    description: str | None
    normalize: bool
    options: dict[str, Any]
    min_seconds: float | None
    max_seconds: float | None
    source: Source  #: of the statement and the watermark in the files
    signing: Signing | None  #: of the files; None: they are not signed

    def one(self, line: str, out: Path) -> int:
        """Speak one text; return the number of samples written."""
        wav = self.tts.generate_with_prompt_cache(self._text(line), self.cache, **self.options, **self._lengths(line))
        return self._write(out, wav, line, self.tts.last_successful_seed)

    def streamed(self, line: str, out: Path, long: bool) -> int:
        """Write the audio of one text piece by piece while it is generated; return the number of samples written."""
        from voxcpm.inference.write_audio import write_stream
        from voxcpm.model.utils import materialize_generation_seed
        from voxcpm.provenance.watermark_hook import marked_chunks

        # The header states the seed before anything is spoken.
        seed = materialize_generation_seed(self.options["seed"])
        options = {**self.options, "seed": seed}
        chunks = self._pieces(line, options) if long else self._chunks(line, options)
        rate = self.tts.tts_model.sample_rate
        chunks = marked_chunks(chunks, rate, self.source.watermark(seed, self._text(line)))
        return write_stream(out, rate, chunks, self.source.mark(seed), self._signing())

    def many(self, lines: list[str], folder: Path, long: bool) -> list[tuple[Path, int]]:
        """Speak every line into a separate file, in batches; return (file, number of samples written) for each."""
        from voxcpm.inference.utterance import Utterance

        width = max(3, len(str(len(lines))))
        paths = [folder / f"{number:0{width}d}.wav" for number in range(1, len(lines) + 1)]
        if long:
            return [(path, self.streamed(line, path, True)) for line, path in zip(lines, paths, strict=True)]
        written: list[tuple[Path, int]] = []
        options = {k: v for k, v in self.options.items() if k != "seed"}
        for start in range(0, len(lines), BATCH):
            items = []
            for line in lines[start : start + BATCH]:
                lengths = self._lengths(line)
                options["retry_badcase_ratio_threshold"] = max(
                    lengths["retry_badcase_ratio_threshold"], options.get("retry_badcase_ratio_threshold", 0.0)
                )
                items.append(
                    Utterance(
                        self._text(line),
                        prompt_cache=self.cache,
                        seed=self.options["seed"],
                        min_len=lengths["min_len"],
                        max_len=lengths["max_len"],
                    )
                )
            for spoken in self.tts.speak_batch(items, **options):
                path, line = paths[len(written)], lines[len(written)]
                written.append((path, self._write(path, spoken.wav, line, spoken.seed)))
        return written

    def _write(self, path: Path, wav: Wav, line: str, seed: int | None) -> int:
        """Write the audio of a text with its marks; return the number of samples."""
        from voxcpm.inference.write_audio import write_audio
        from voxcpm.provenance.watermark_hook import marked_samples

        rate = self.tts.tts_model.sample_rate
        wav = marked_samples(wav, rate, self.source.watermark(seed, self._text(line)))
        return write_audio(path, wav, rate, self.source.mark(seed), self._signing())

    def _signing(self) -> Signing | None:
        """Return how files are signed: the manifest names the watermark."""
        return self.signing and replace(self.signing, payload=self.source.payload)

    def _text(self, line: str) -> str:
        """Return the text for the model. The description is not normalized because it is not spoken."""
        from voxcpm.sequence.text_tokenizer import collapse_whitespace

        line = collapse_whitespace(line)
        if self.normalize:
            from voxcpm.inference.normalize_text import normalise_text

            line = normalise_text(line)
        return f"({self.description}){line}" if self.description else line

    def _lengths(self, line: str) -> dict[str, Any]:
        """Return the bounds of the length in patches. The stop head takes effect from patch min_len + 2."""
        patch_s = self.tts.tts_model.config.patch_seconds
        shortest = math.ceil(self.min_seconds / patch_s - 1e-9) if self.min_seconds is not None else 4
        longest = round((self.max_seconds or generous_seconds(line)) / patch_s)
        longest = max(longest, 1) if self.max_seconds is not None else max(longest, shortest, 4)
        # The model also bounds the length by the number of tokens. That bound must not be below the requested minimum.
        tokens = len(self.tts.tts_model.text_tokenizer.encode(line)) or 1
        ratio = 6.0 if self.min_seconds is None else max(6.0, shortest / tokens)
        return {"min_len": max(0, shortest - 2), "max_len": longest, "retry_badcase_ratio_threshold": ratio}

    def _chunks(self, line: str, options: dict[str, Any]) -> Iterator[Wav]:
        options = {**options, **self._lengths(line)}
        chunks = self.tts.tts_model.generate_with_prompt_cache_streaming(self._text(line), self.cache, **options)
        return (chunk.reshape(-1).numpy() for chunk, _, _ in chunks)

    def _pieces(self, line: str, options: dict[str, Any]) -> Iterator[Wav]:
        """Yield the audio of a long text piece by piece. The length of each piece is bounded by its number of tokens."""
        pieces = self.tts.generate_long_streaming(self._text(line), prompt_cache=self.cache, **options)
        return (wav for _, wav in pieces)
