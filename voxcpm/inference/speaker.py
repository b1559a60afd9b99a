"""VoxCPM2Model: backbone, codec and tokenizer of one checkpoint of VoxCPM2, VoxCPM1.5 or VoxCPM 0.5B, and generation with them.

`VoxCPM.tts_model` is an instance. Its methods have the official package's names and defaults.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from voxcpm.config import VoxCPM2Config
from voxcpm.engine.batch import Finished, generate_patches, stream_patches
from voxcpm.engine.request import Generation, GenerationRequest, Patch
from voxcpm.errors import GenerationError
from voxcpm.inference.audio_files import load_audio, trim_silence
from voxcpm.inference.options import check_prompt, check_text
from voxcpm.inference.patch_codec import PatchStream, Side, decode_patches, encode_clip
from voxcpm.inference.prompt_cache import PromptCache, make_prompt_cache, merge_prompt_cache
from voxcpm.inference.signature import arguments_of
from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.tts_module import TTSModule
from voxcpm.kernels.int8_linear import quantise_towers
from voxcpm.kernels.packed_linear import is_slow, pack_linears
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.utils import materialize_generation_seed, pick_runtime_dtype, resolve_runtime_device
from voxcpm.sequence.prompt_layout import Layout, build_layout
from voxcpm.sequence.text_tokenizer import TextTokenizer
from voxcpm.sequence.training_batch import TrainingBatch
from voxcpm.weights.checkpoint import find_checkpoint, load_backbone, load_codec
from voxcpm.weights.lora import LoRAConfig, apply_lora, enable_lora, lora_state_dict, put_lora, read_lora, reset_lora

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE

log = logging.getLogger(__name__)


class VoxCPM2Model(TTSModule):
    """Text to speech with one checkpoint. Not thread-safe: use batches to generate several utterances at once."""

    def __init__(
        self, backbone: VoxCPM2, audio_vae: AudioVAE, tokenizer: TextTokenizer, folder: Path | None = None
    ) -> None:
        super().__init__(backbone, audio_vae)
        self.text_tokenizer, self.folder = tokenizer, folder
        self.last_successful_seed: int | None = None
        self._clips: dict[tuple[Any, ...], Tensor] = {}

    @classmethod
    def from_local(
        cls,
        path: str | Path,
        optimize: bool = True,
        training: bool = False,
        device: str | torch.device | None = None,
        lora_config: LoRAConfig | None = None,
        dtype: str | torch.dtype | None = None,
        compile_towers: bool = False,
    ) -> VoxCPM2Model:
        """Load a checkpoint folder.

        training: float32 weights with gradients, and the codec as stored.
        optimize: fold the codec's weight norm and, on the CPU, lay out the backbone's linears for its kernels.
        dtype: of the backbone. None: the config's, but float32 on mps unless VOXCPM_MPS_DTYPE is set. "int8": 8-bit towers,
        CPU only, approximate.
        compile_towers: for GPUs, see voxcpm.kernels.compiled_tower.

        Raises FileNotFoundError and CheckpointError, and ValueError if options exclude each other.
        """
        folder = find_checkpoint(path)
        config = VoxCPM2Config.load(folder)
        place = torch.device(resolve_runtime_device(device, config.device))
        if dtype is None:
            dtype = "float32" if training else pick_runtime_dtype(place.type, config.dtype)
        if not training and is_slow(dtype, place):
            log.warning(
                "this processor computes bfloat16 slowly: float32 is two to three times as fast and takes twice the memory "
                "(dtype='float32', --dtype float32)"
            )
        int8 = dtype == "int8"
        if int8 and (training or lora_config is not None or place.type != "cpu"):
            raise ValueError("dtype 'int8' is for inference on the CPU without LoRA")
        if compile_towers and (int8 or training):
            raise ValueError("compile_towers is for inference in float32, bfloat16 or float16")
        tokenizer = TextTokenizer.load(folder)
        # Load the codec first: folding it briefly needs twice its size, in memory that the backbone uses later.
        inference = optimize and not training
        codec = load_codec(folder, place, to_be_folded=inference)
        if inference:
            codec.fold_weight_norm()
        backbone = load_backbone(folder, "float32" if int8 else dtype, place, to_be_packed=inference)
        model = cls(backbone, codec, tokenizer, folder)
        if int8:
            quantise_towers(backbone)
        if training:
            model.train()
            backbone.requires_grad_(True)
        if lora_config is not None:
            apply_lora(backbone, lora_config, train=training)
        if compile_towers:
            from voxcpm.kernels import compiled_tower

            compiled_tower.compile_towers(backbone)
        elif inference:
            pack_linears(backbone)
        return model

    @property
    def device(self) -> torch.device:
        """Device of the backbone."""
        return self.backbone.device

    def forward(
        self,
        text_tokens: Tensor,
        text_mask: Tensor,
        audio_feats: Tensor,
        audio_mask: Tensor,
        loss_mask: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        *,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Run the official training call and return {"loss/diff", "loss/stop"} (for ours see `VoxCPM2.training_losses`)."""
        batch = TrainingBatch(text_tokens, text_mask, audio_mask, audio_feats, loss_mask, labels, position_ids)
        losses = self.backbone.training_losses(batch, generator, progress)
        return {"loss/diff": losses.diffusion, "loss/stop": losses.stop}

    # -- voices --------------------------------------------------------------------------------------------------------

    def encode_file(self, path: str | Path, pad: Side, trim_silence_vad: bool = False) -> Tensor:
        """Encode a clip to latents [N, P, D]. Those of the last 32 clips are cached, so that a voice is encoded once."""
        about = Path(path).stat() if Path(path).is_file() else None
        key = (str(path), about and (about.st_mtime_ns, about.st_size), pad, trim_silence_vad)
        if key not in self._clips:
            rate = self.config.sample_rate
            wav = load_audio(path, rate)
            wav = trim_silence(wav, rate) if trim_silence_vad else wav
            self._clips[key] = encode_clip(self.audio_vae, self.config, torch.from_numpy(wav.copy()), pad)
            while len(self._clips) > 32:
                self._clips.pop(next(iter(self._clips)))
        return self._clips[key]

    def _encode_wav(self, wav_path: str | Path, padding_mode: Side = "right", trim_silence_vad: bool = False) -> Tensor:
        """Encode a clip under the official name of `encode_file`."""
        return self.encode_file(wav_path, padding_mode, trim_silence_vad)

    def build_prompt_cache(
        self,
        prompt_text: str | None = None,
        prompt_wav_path: str | Path | None = None,
        reference_wav_path: str | Path | None = None,
        trim_silence_vad: bool = False,
    ) -> PromptCache:
        """Encode a voice and/or a prompt once, for `generate_with_prompt_cache`."""
        check_prompt(prompt_wav_path or None, prompt_text)
        if reference_wav_path:
            self.config.check_reference()
        prompt = self.encode_file(prompt_wav_path, "left", trim_silence_vad) if prompt_wav_path else None
        reference = self.encode_file(reference_wav_path, "right", trim_silence_vad) if reference_wav_path else None
        return make_prompt_cache(prompt_text or "", prompt, reference)

    def merge_prompt_cache(
        self, original_cache: PromptCache | None, new_text: str, new_audio_feat: Tensor
    ) -> PromptCache:
        """Extend a cache with generated patches; see voxcpm.inference.prompt_cache."""
        return merge_prompt_cache(original_cache, new_text, new_audio_feat)

    def layout(self, target_text: str, prompt_cache: PromptCache | None = None) -> Layout:
        """Build the sequence of a request. Raises ValueError if the text is empty."""
        check_text(target_text)
        cache = prompt_cache if prompt_cache is not None else PromptCache()
        return build_layout(
            self.text_tokenizer,
            self.config,
            target_text,
            cache.get("prompt_text", ""),
            cache.get("ref_audio_feat"),
            cache.get("audio_feat"),
        )

    # -- speaking ------------------------------------------------------------------------------------------------------

    def generate_layouts(
        self,
        layouts: Sequence[Layout],
        options: Sequence[SpeakOptions],
        max_batch: int = 32,
        finished: Finished | None = None,
        workers: int = 1,
    ) -> list[Generation]:
        """Generate many layouts at once. If `retry_badcase` is on, bad cases are generated again with the next seed.

        All options are per request. Slots that become free are refilled, also by what is tried again. What turned into NaN has
        the ending "failed". finished, workers: see `generate_patches`.
        """
        seeds = [materialize_generation_seed(o.seed) for o in options]

        def again(i: int, made: Generation) -> GenerationRequest | None:
            o = options[i]
            bad = len(made.patches) >= layouts[i].target_tokens * o.retry_badcase_ratio_threshold
            bad = bad or made.ending == "failed" or (o.retry_at_limit and made.ending != "stop")
            if not (o.retry_badcase and bad and made.attempts < o.retry_badcase_max_times):
                return None
            return o.request(layouts[i], made.seed + 1)

        requests = [o.request(layout, seed) for o, layout, seed in zip(options, layouts, seeds, strict=True)]
        made = generate_patches(self.backbone, requests, max_batch, again, finished, workers)
        self.last_successful_seed = made[-1].seed if made else self.last_successful_seed
        return made

    def _whole(self, layout: Layout, options: SpeakOptions) -> Generation:
        """Generate one layout. Raises GenerationError if it turns into NaN."""
        (generation,) = self.generate_layouts([layout], [options])
        if generation.ending == "failed":
            raise GenerationError(len(generation.patches))
        return generation

    def decode(self, patches: Tensor, layout: Layout, options: SpeakOptions) -> Tensor:
        """Decode patches [n, P, D] to audio [1, n * samples per patch] that follows the end of the layout's prompt."""
        return decode_patches(self.audio_vae, self.config, patches, options.context(layout))[None]

    def speak(self, layout: Layout, options: SpeakOptions) -> tuple[Tensor, Tensor]:
        """Generate one utterance: (audio [1, S], patches [N, P, D]). Raises GenerationError if it turns into NaN."""
        generation = self._whole(layout, options)
        return self.decode(generation.patches, layout, options), generation.patches

    def speak_streaming(self, layout: Layout, options: SpeakOptions) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield, for every patch of `speak`, (its audio [1, samples per patch], the new patches so far, each [1, 1, P, D]).

        Bad cases are not retried.
        """
        stream = PatchStream(self.audio_vae, options.context(layout), options.cold_start)
        return ((stream.push(patches[-1][0])[None], patches) for patches in self._patches(layout, options.seeded()))

    def speak_patches(self, layout: Layout, options: SpeakOptions) -> Iterator[tuple[Tensor, Patch]]:
        """Yield, for every patch of `speak`, (its audio [1, samples per patch], the patch). Bad cases are not retried."""
        stream = PatchStream(self.audio_vae, options.context(layout), options.cold_start)
        return ((stream.push(patch.latents[None])[None], patch) for patch in self._steps(layout, options.seeded()))

    def _patches(self, layout: Layout, options: SpeakOptions) -> Iterator[list[Tensor]]:
        """Yield all patches so far, each [1, 1, P, D], after every new patch."""
        patches: list[Tensor] = []
        for patch in self._steps(layout, options):
            patches.append(patch.latents[None, None])
            yield list(patches)

    def _steps(self, layout: Layout, options: SpeakOptions) -> Iterator[Patch]:
        """Yield every new patch."""
        assert options.seed is not None
        for (patch,) in stream_patches(self.backbone, [options.request(layout, options.seed)]):
            if patch.ending == "failed":
                raise GenerationError(patch.index)
            yield patch
        self.last_successful_seed = options.seed

    def _ids(self, text: str) -> Tensor:
        return torch.tensor(self.text_tokenizer.encode(text), dtype=torch.int64)

    def generate_with_prompt_cache(
        self, target_text: str, prompt_cache: PromptCache | None = None, **options: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (audio [1, S], ids of the text [n] int64, patches [N, P, D]). options: the fields of SpeakOptions."""
        audio, patches = self.speak(self.layout(target_text, prompt_cache), SpeakOptions.of(options))
        return audio, self._ids(target_text), patches

    def generate_with_prompt_cache_streaming(
        self, target_text: str, prompt_cache: PromptCache | None = None, **options: Any
    ) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        """Yield, for every patch, (its audio [1, samples per patch], ids of the text, the new patches so far).

        Each patch is [1, 1, P, D]. Bad cases are not retried.
        """
        stream = self.speak_streaming(self.layout(target_text, prompt_cache), SpeakOptions.of(options))
        ids = self._ids(target_text)
        return ((audio, ids, patches) for audio, patches in stream)

    def _request(
        self,
        target_text: str,
        prompt_text: str = "",
        prompt_wav_path: str | Path = "",
        reference_wav_path: str | Path = "",
        trim_silence_vad: bool = False,
        **options: Any,
    ) -> tuple[Layout, SpeakOptions]:
        """Check all arguments, then encode the clips and build the layout."""
        chosen = SpeakOptions.of(options)
        check_text(target_text)
        check_prompt(prompt_wav_path or None, prompt_text)
        cache = None
        if prompt_wav_path or reference_wav_path:
            cache = self.build_prompt_cache(prompt_text, prompt_wav_path, reference_wav_path, trim_silence_vad)
        return self.layout(target_text, cache), chosen

    @arguments_of(_request)  # type: ignore[arg-type]
    def generate(self, *args: Any, **kwargs: Any) -> Tensor:
        """Speak a text and return audio [1, S] float32. options: the fields of SpeakOptions."""
        return self.speak(*self._request(*args, **kwargs))[0]

    @arguments_of(_request)  # type: ignore[arg-type]
    def generate_streaming(self, *args: Any, **kwargs: Any) -> Iterator[Tensor]:
        """Yield the audio [1, samples per patch] of every patch as soon as it is generated."""
        return (audio for audio, _ in self.speak_streaming(*self._request(*args, **kwargs)))

    # -- the official package's lower-level calls ------------------------------------------------------------------------

    def inference(
        self, text: Tensor, text_mask: Tensor, feat: Tensor, feat_mask: Tensor, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """Generate from a laid-out sequence: ids and masks [1, T], features [1, T, P, D].

        Returns latents [1, D, (C+n)*P] for the codec and the n new patches [n, P, D]. C is the number of prompt patches before
        the new ones, at most three by default.
        """
        layout, chosen = self._laid_out(text, feat, feat_mask, options)
        generation = self._whole(layout, chosen)
        frames = torch.cat((chosen.context(layout), generation.patches.float())).reshape(1, -1, self.config.feat_dim)
        return frames.transpose(1, 2).contiguous(), generation.patches

    def inference_streaming(
        self, text: Tensor, text_mask: Tensor, feat: Tensor, feat_mask: Tensor, **options: Any
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield, for every patch of `inference`, (its latents [1, D, P], the new patches so far, each [1, 1, P, D])."""
        layout, chosen = self._laid_out(text, feat, feat_mask, options)
        steps = self._patches(layout, chosen.seeded())
        return ((patches[-1][0, 0].T[None].contiguous(), patches) for patches in steps)

    def _laid_out(
        self, text: Tensor, feat: Tensor, feat_mask: Tensor, options: dict[str, Any]
    ) -> tuple[Layout, SpeakOptions]:
        if text.dim() != 2 or len(text) != 1:
            raise ValueError(f"text has shape {list(text.shape)}, expected [1, T]: one sequence per call")
        chosen = SpeakOptions.of(options)
        audio = feat_mask[0].bool().cpu()
        tokens = torch.nonzero(~audio)
        prompt = len(audio) - 1 - int(tokens[-1]) if len(tokens) else len(audio)
        # target_tokens is max_len, so that the limit from the text's length has no effect: it is for whole texts.
        return Layout(text[0].long().cpu(), audio, feat[0].float().cpu()[audio], chosen.max_len, prompt), chosen

    def optimize(self, disable: bool = False) -> VoxCPM2Model:
        """Convert codec and backbone to their inference forms, once; the results stay the same."""
        if not disable:
            self.audio_vae.fold_weight_norm()
            pack_linears(self.backbone)
        return self

    def load_lora_weights(
        self, lora_path: str | Path, device: str | torch.device | None = None
    ) -> tuple[list[str], list[str]]:
        """Load adapters onto the model's device; `device` is ignored. See voxcpm.weights.lora.load_lora."""
        own, tensors = read_lora(lora_path)
        return put_lora(self.backbone, own, tensors, lora_path)

    def reset_lora_weights(self) -> None:
        """Reinitialize the adapters, so that they add nothing; they stay in place."""
        reset_lora(self.backbone)

    def set_lora_enabled(self, enabled: bool) -> None:
        """Enable or disable the adapters."""
        enable_lora(self.backbone, enabled)

    def get_lora_state_dict(self) -> dict[str, Tensor]:
        """The adapters' tensors under their official keys."""
        return lora_state_dict(self.backbone)
