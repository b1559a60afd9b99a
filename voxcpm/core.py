"""`VoxCPM`: the main class, with the names, arguments and defaults of the official package, and our additions.

from voxcpm import VoxCPM
model = VoxCPM.from_pretrained("openbmb/VoxCPM2")
wav = model.generate("Hello there.", reference_wav_path="voice.wav")   # 1-D float32 at model.tts_model.sample_rate
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voxcpm.inference.denoise import ZIPENHANCER
from voxcpm.inference.options import check_file, check_prompt, check_text
from voxcpm.inference.prompt_cache import PromptCache, make_prompt_cache
from voxcpm.inference.signature import arguments_of
from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.inference.utterance import Spoken, Utterance, own_options
from voxcpm.kernels.threads import batch_workers
from voxcpm.provenance.source import Source
from voxcpm.provenance.watermark_hook import NO_WATERMARK, Watermark, marked_chunks, marked_pairs, marked_samples
from voxcpm.sequence.prompt_layout import Layout
from voxcpm.sequence.text_tokenizer import collapse_whitespace
from voxcpm.weights.checkpoint import HUB_ID, find_checkpoint
from voxcpm.weights.lora import LoRAConfig, adapters, apply_lora, enable_lora, load_lora, lora_state_dict, remove_lora

if TYPE_CHECKING:
    from voxcpm.engine.request import Generation
    from voxcpm.inference.denoise import Denoiser

Wav = NDArray[np.float32]


class VoxCPM:
    """Text to speech with a voice from a description, a reference clip, or a prompt that is continued."""

    def __init__(
        self,
        voxcpm_model_path: str | Path,
        zipenhancer_model_path: str | None = ZIPENHANCER,
        enable_denoiser: bool = True,
        optimize: bool = True,
        device: str | None = None,
        lora_config: LoRAConfig | None = None,
        lora_weights_path: str | Path | None = None,
        dtype: str | None = None,
        compile_towers: bool = False,
    ) -> None:
        """Load a checkpoint folder. The denoiser is loaded by the first call with `denoise=True`.

        compile_towers: for GPUs, compile the local towers with torch.compile and CUDA graphs; the first patches take minutes.

        Raises FileNotFoundError and CheckpointError, each with a one-line message.
        """
        self.tts_model = VoxCPM2Model.from_local(
            voxcpm_model_path,
            optimize=optimize,
            device=device,
            lora_config=None,
            dtype=dtype,
            compile_towers=compile_towers,
        )
        self._denoiser_path = zipenhancer_model_path if enable_denoiser else None
        self._denoiser: Denoiser | None = None
        self._lora_config, self._lora_path = lora_config, lora_weights_path
        self._sources: dict[Path | None, Source] = {}
        if lora_weights_path is not None:
            self.load_lora(lora_weights_path)
        elif lora_config is not None:
            apply_lora(self.tts_model.backbone, lora_config)

    @classmethod
    def from_pretrained(
        cls,
        hf_model_id: str | Path = HUB_ID,
        load_denoiser: bool = True,
        zipenhancer_model_id: str | None = ZIPENHANCER,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        optimize: bool = True,
        device: str | None = None,
        lora_config: LoRAConfig | None = None,
        lora_weights_path: str | Path | None = None,
        **kwargs: Any,
    ) -> VoxCPM:
        """Load a folder or a hub id (fetched unless `local_files_only`). kwargs: `revision`, and arguments of the constructor."""
        if not str(hf_model_id).strip():
            raise ValueError("hf_model_id is empty: give a checkpoint's folder or a hub id")
        revision = kwargs.pop("revision", None)
        folder = find_checkpoint(hf_model_id, cache_dir, local_files_only, revision)
        return cls(
            folder,
            zipenhancer_model_path=zipenhancer_model_id,
            enable_denoiser=load_denoiser,
            optimize=optimize,
            device=device,
            lora_config=lora_config,
            lora_weights_path=lora_weights_path,
            **kwargs,
        )

    # -- speaking ------------------------------------------------------------------------------------------------------

    def _request(
        self,
        text: str,
        prompt_wav_path: str | Path | None = None,
        prompt_text: str | None = None,
        reference_wav_path: str | Path | None = None,
        cfg_value: float = 2.0,
        inference_timesteps: int = 10,
        min_len: int = 2,
        max_len: int = 4096,
        normalize: bool = False,
        denoise: bool = False,
        retry_badcase: bool = True,
        retry_badcase_max_times: int = 3,
        retry_badcase_ratio_threshold: float = 6.0,
        seed: int | None = None,
        *,
        watermark: Watermark | bool = False,
        **advanced: Any,
    ) -> tuple[Layout, SpeakOptions]:
        """Check all arguments, then encode the clips and build the layout. `watermark` is for the callers."""
        check_text(text)
        options = SpeakOptions.of(
            {
                "cfg_value": cfg_value,
                "inference_timesteps": inference_timesteps,
                "min_len": min_len,
                "max_len": max_len,
                "retry_badcase": retry_badcase,
                "retry_badcase_max_times": retry_badcase_max_times,
                "retry_badcase_ratio_threshold": retry_badcase_ratio_threshold,
                "seed": seed,
                **advanced,
            }
        )
        voice = self._voice(prompt_wav_path, prompt_text, reference_wav_path, denoise)
        return self.tts_model.layout(_tidy(text, normalize), voice), options

    @arguments_of(_request)  # type: ignore[arg-type]
    def generate(self, *args: Any, **kwargs: Any) -> Wav:
        """Speak a text and return the audio, 1-D float32 at `tts_model.sample_rate` Hz.

        A voice or style description goes in parentheses before the text. Prompt audio with its text is continued; reference
        audio sets the voice (VoxCPM2 only). Lengths are in patches of 160 ms, in VoxCPM 0.5B of 80 ms. watermark: True puts the
        public watermark into the audio (docs/watermark.md), with the checkpoint's digest; another one is an object, e.g. a
        `voxcpm.watermark.SpeechMark`. advanced: further fields of `SpeakOptions`.

        Raises ValueError (empty text, prompt without its text, values out of range, text beyond the context),
        FileNotFoundError, AudioError.
        """
        layout, options = self._request(*args, **kwargs)
        wav = _numpy(self.tts_model.speak(layout, options)[0])
        watermark = self._watermark(kwargs.get("watermark"), layout, self.last_successful_seed)
        return marked_samples(wav, self.tts_model.sample_rate, watermark)

    @arguments_of(_request)  # type: ignore[arg-type]
    def generate_streaming(self, *args: Any, **kwargs: Any) -> Iterator[Wav]:
        """Yield the audio of `generate` patch by patch; concatenated, it is the same audio. Bad cases are not retried."""
        layout, options = self._request(*args, **kwargs)
        options = options.seeded()
        chunks = (_numpy(audio) for audio, _ in self.tts_model.speak_streaming(layout, options))
        watermark = self._watermark(kwargs.get("watermark"), layout, options.seed)
        return marked_chunks(chunks, self.tts_model.sample_rate, watermark)

    def generate_batch(
        self,
        items: Sequence[str | Utterance],
        normalize: bool = False,
        max_batch: int = 32,
        denoise: bool = False,
        *,
        watermark: Watermark | bool = False,
        workers: int | None = None,
        **options: Any,
    ) -> list[Wav]:
        """Speak many texts at once and return their audio, each as if spoken alone. options: the fields of `SpeakOptions`.

        watermark: see `generate`. workers: threads that share the items; None: two if that helps on this machine
        (`batch_workers`). All items are checked before any is spoken. The error names the first bad item by its index.
        """
        spoken = self.speak_batch(items, normalize, max_batch, denoise, watermark=watermark, workers=workers, **options)
        return [one.wav for one in spoken]

    def speak_batch(
        self,
        items: Sequence[str | Utterance],
        normalize: bool = False,
        max_batch: int = 32,
        denoise: bool = False,
        *,
        watermark: Watermark | bool = False,
        workers: int | None = None,
        **options: Any,
    ) -> list[Spoken]:
        """Speak as `generate_batch` does; return the audio with why it ended and the attempts that it took."""
        model = self.tts_model
        SpeakOptions.of(options)
        layouts, chosen = [], []
        for number, item in enumerate(items):
            utterance = item if isinstance(item, Utterance) else Utterance(item)
            try:
                layouts.append(self._layout_of(utterance, normalize, denoise))
                chosen.append(SpeakOptions(**own_options(utterance, options)))
            except (ValueError, FileNotFoundError) as error:
                raise type(error)(f"item {number}: {error}") from None

        wavs: dict[int, Wav] = {}

        def decode(number: int, made: Generation) -> None:
            wavs[number] = _numpy(model.decode(made.patches, layouts[number], chosen[number]))

        workers = batch_workers(model.device.type, min(len(items), max_batch)) if workers is None else workers
        generations = model.generate_layouts(layouts, chosen, max_batch, decode, workers)
        spoken = []
        for number, made in enumerate(generations):
            mark = self._watermark(watermark, layouts[number], made.seed)
            wav = marked_samples(wavs.pop(number), model.sample_rate, mark)
            spoken.append(Spoken(wav, made.ending, made.attempts, made.seed))
        return spoken

    def speak_streaming(
        self,
        item: str | Utterance,
        normalize: bool = False,
        denoise: bool = False,
        *,
        watermark: Watermark | bool = False,
        **options: Any,
    ) -> Iterator[Spoken]:
        """Yield the audio of an item patch by patch; the last one has its `ending`. Bad cases are not retried.

        watermark: see `generate`. A chunk then has more or fewer samples than a patch; the last one has what is left.
        """
        utterance = item if isinstance(item, Utterance) else Utterance(item)
        chosen = SpeakOptions.of(own_options(utterance, options)).seeded()
        layout = self._layout_of(utterance, normalize, denoise)
        mark, rate = self._watermark(watermark, layout, chosen.seed), self.tts_model.sample_rate

        def chunks() -> Iterator[Spoken]:
            state = mark.start(rate)
            for audio, patch in self.tts_model.speak_patches(layout, chosen):
                wav, state = mark.mark(_numpy(audio), state)
                if patch.ending is not None:
                    wav = np.concatenate((wav, mark.finish(state)))
                yield Spoken(wav, patch.ending, seed=chosen.seed)

        return chunks()

    def _layout_of(self, utterance: Utterance, normalize: bool, denoise: bool) -> Layout:
        check_text(utterance.text)
        if utterance.description and utterance.prompt_text:
            raise ValueError("a description and a prompt text exclude each other: the prompt already sets the style")
        text = f"({utterance.description.strip()}){utterance.text}" if utterance.description else utterance.text
        files = (utterance.prompt_wav_path, utterance.prompt_text, utterance.reference_wav_path)
        voice = self._voice(*files, denoise, utterance.prompt_cache)
        return self.tts_model.layout(_tidy(text, normalize), voice)

    def generate_long(self, text: str, **arguments: Any) -> Wav:
        """Speak a text of any length as one utterance. arguments: those of `generate_long_streaming`.

        The method is described in voxcpm.inference.long_text.
        """
        return np.concatenate([chunk for _, chunk in self.generate_long_streaming(text, **arguments)])

    def generate_long_streaming(
        self,
        text: str,
        prompt_wav_path: str | Path | None = None,
        prompt_text: str | None = None,
        reference_wav_path: str | Path | None = None,
        prompt_cache: PromptCache | None = None,
        normalize: bool = False,
        denoise: bool = False,
        longest_s: float = 12.0,
        *,
        watermark: Watermark | bool = False,
        **options: Any,
    ) -> Iterator[tuple[str, Wav]]:
        """Yield (piece of text, its audio) for each piece as it is generated. options: the fields of `SpeakOptions`.

        watermark: see `generate`. It holds back 20 ms; at the end they come as another pair with the last piece.
        """
        from voxcpm.inference.long_text import speak_long

        check_text(text)
        chosen = SpeakOptions.of({"retry_badcase": True} | options).seeded()
        voice = self._voice(prompt_wav_path, prompt_text, reference_wav_path, denoise, prompt_cache)
        pieces = speak_long(self.tts_model, _tidy(text, normalize), voice, chosen, longest_s)
        mark = self._watermark(watermark, text, chosen.seed)
        return marked_pairs(((piece, _numpy(wav)) for piece, wav in pieces), self.tts_model.sample_rate, mark)

    def build_prompt_cache(
        self,
        prompt_wav_path: str | Path | None = None,
        prompt_text: str | None = None,
        reference_wav_path: str | Path | None = None,
        denoise: bool = False,
    ) -> PromptCache:
        """Encode a voice once, for `generate_with_prompt_cache`; voxcpm.inference.prompt_cache can save and load the result."""
        prompt_wav_path, reference_wav_path = prompt_wav_path or None, reference_wav_path or None
        check_prompt(prompt_wav_path, prompt_text)
        if reference_wav_path is not None:
            self.tts_model.config.check_reference()
        encode: Callable[..., Tensor] = self._encode_denoised if denoise else self.tts_model.encode_file
        prompt = encode(prompt_wav_path, "left") if prompt_wav_path else None
        reference = encode(reference_wav_path, "right") if reference_wav_path else None
        return make_prompt_cache(prompt_text or "", prompt, reference)

    def generate_with_prompt_cache(
        self, text: str, prompt_cache: PromptCache | None, *, watermark: Watermark | bool = False, **options: Any
    ) -> Wav:
        """Speak with a cached voice and return the audio. watermark: see `generate`. options: the fields of `SpeakOptions`."""
        text = _tidy(text)
        wav = _numpy(self.tts_model.generate_with_prompt_cache(text, prompt_cache, **options)[0])
        mark = self._watermark(watermark, text, self.last_successful_seed)
        return marked_samples(wav, self.tts_model.sample_rate, mark)

    @property
    def last_successful_seed(self) -> int | None:
        """Seed of the last audio returned. With this seed, the same arguments give the same audio."""
        return self.tts_model.last_successful_seed

    # -- LoRA ----------------------------------------------------------------------------------------------------------

    def load_lora(self, lora_weights_path: str | Path) -> tuple[list[str], list[str]]:
        """Load an adapter folder and return (loaded keys, skipped keys). Its lora_config.json sets rank and scale."""
        self._lora_path = lora_weights_path
        return load_lora(self.tts_model.backbone, lora_weights_path, self._lora_config)

    def unload_lora(self) -> None:
        """Remove the adapters."""
        self._lora_path = None
        remove_lora(self.tts_model.backbone)

    def set_lora_enabled(self, enabled: bool) -> None:
        """Enable or disable the loaded adapters."""
        enable_lora(self.tts_model.backbone, enabled)

    def get_lora_state_dict(self) -> dict[str, Tensor]:
        """The adapters' tensors under their official keys."""
        return lora_state_dict(self.tts_model.backbone)

    @property
    def lora_enabled(self) -> bool:
        """Return True if adapters are loaded and enabled."""
        loaded = adapters(self.tts_model.backbone).values()
        return bool(loaded) and all(module.enabled for module in loaded)

    # ------------------------------------------------------------------------------------------------------------------

    def _voice(
        self,
        prompt_wav_path: str | Path | None,
        prompt_text: str | None,
        reference_wav_path: str | Path | None,
        denoise: bool,
        prompt_cache: PromptCache | None = None,
    ) -> PromptCache | None:
        """Return the given cache, or a cache made from the given clips; None if there is neither. Checks the arguments."""
        prompt_wav_path, reference_wav_path = prompt_wav_path or None, reference_wav_path or None
        if prompt_cache is not None and (prompt_wav_path or prompt_text or reference_wav_path):
            raise ValueError("give a prompt_cache or audio files, not both")
        check_prompt(prompt_wav_path, prompt_text)
        check_file(prompt_wav_path)
        check_file(reference_wav_path)
        if prompt_wav_path is None and reference_wav_path is None:
            return prompt_cache
        return self.build_prompt_cache(prompt_wav_path, prompt_text, reference_wav_path, denoise)

    def _watermark(self, given: Watermark | bool | None, words: Layout | str, seed: int | None) -> Watermark:
        """Return the watermark of an utterance. given: see `generate`."""
        if given is None or given is False:
            return NO_WATERMARK
        if given is not True:
            return given
        lora = Path(self._lora_path) if self._lora_path is not None and self.lora_enabled else None
        if lora not in self._sources:
            self._sources[lora] = Source(self.tts_model.folder, lora=lora)
        return self._sources[lora].watermark(seed, words if isinstance(words, str) else words.text_tokens.tolist())

    def _encode_denoised(self, path: str | Path, pad: Any) -> Tensor:
        """Denoise a clip, then encode it as `VoxCPM2Model.encode_file` does."""
        from voxcpm.inference.audio_files import load_audio
        from voxcpm.inference.denoise import load_denoiser
        from voxcpm.inference.patch_codec import encode_clip

        if self._denoiser_path is None:
            raise ValueError("denoise=True, but the model was loaded without a denoiser (load_denoiser=False)")
        if self._denoiser is None:
            self._denoiser = load_denoiser(self._denoiser_path)
        wav = self._denoiser(load_audio(path, self.tts_model.config.sample_rate))
        return encode_clip(self.tts_model.audio_vae, self.tts_model.config, torch.from_numpy(wav), pad)


def _numpy(wav: Tensor) -> Wav:
    return wav.reshape(-1).numpy().astype(np.float32, copy=False)


def _tidy(text: str, normalize: bool = False) -> str:
    """Return the text to be spoken: white space collapsed; with `normalize`, numbers and symbols in words."""
    text = collapse_whitespace(text)
    if normalize:
        from voxcpm.inference.normalize_text import normalise_text

        text = normalise_text(text)
    return text
