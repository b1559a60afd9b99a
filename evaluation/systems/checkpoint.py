"""A checkpoint of VoxCPM2, VoxCPM1.5 or VoxCPM 0.5B as a system.

With codec.py this is the only file of `evaluation` that imports voxcpm.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catalogs.files import one_line
from catalogs.vocabulary.speech_length import generous_seconds
from catalogs.weights.checkpoint_files import file_digests
from evaluation.errors import EvaluationError, SpeakError
from evaluation.systems.base import Ask, Speech
from evaluation.systems.options import read_options
from evaluation.systems.recipes import NEEDS, RecipeOptions, clean_instruction, lacking
from pipeline.runtime.batches import is_out_of_memory

if TYPE_CHECKING:
    from voxcpm import VoxCPM
    from voxcpm.inference.utterance import Spoken, Utterance

FEWEST_PATCHES = 4
"""Patches of the shortest utterance: the model's stop decision counts from the fourth."""
WARM_UP_PATCHES = 4


class CheckpointOptions(RecipeOptions):
    """Options of `checkpoint:`."""

    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None
    """Of the backbone; default: the checkpoint's."""
    batch: int = 1
    """Texts that are generated at once. The audio is that of a batch of 1 up to rounding."""
    stream: bool = False
    """Generate in chunks and measure the time to the first one. Bad cases are not retried."""
    lora: str | None = None
    """Folder of an adapter."""
    denoise: str | None = None
    """Denoiser of the clips: a GTCRN .onnx file or a modelscope id."""


class Checkpoint:
    """Speaks with `voxcpm.VoxCPM`. The model is loaded when it is first needed."""

    seeded = True
    options_kind = CheckpointOptions

    def __init__(self, argument: str, **options: Any) -> None:
        self.options = read_options(CheckpointOptions, "checkpoint", options)
        self.folder = Path(argument).expanduser()
        if not (self.folder / "config.json").is_file():
            raise EvaluationError(f"no checkpoint at {argument} (no config.json); give the folder of a checkpoint")
        if self.options.batch < 1 or (self.options.stream and self.options.batch > 1):
            raise EvaluationError("checkpoint: batch must be at least 1, and 1 with stream; set batch=1")
        for option in ("lora", "denoise"):
            given = getattr(self.options, option)
            if given and given.startswith(("/", ".")) and not Path(given).exists():
                raise EvaluationError(f"checkpoint: {option}: there is nothing at {given}; correct the path")
        self.batch = self.options.batch
        self.name = f"{self.folder.resolve().name} ({self.options.recipe})"
        self._warm = False

    @cached_property
    def model(self) -> VoxCPM:
        """The loaded model. Raises EvaluationError if it cannot be loaded."""
        from voxcpm import VoxCPM
        from voxcpm.config import VoxCPM2Config
        from voxcpm.kernels.threads import spare_threads

        recipe = self.options.recipe
        if "reference" in NEEDS[recipe] and recipe != "continuation":
            try:
                VoxCPM2Config.load(self.folder).check_reference()
            except ValueError as error:
                raise EvaluationError(
                    f"{self.folder}: recipe {recipe}: {one_line(error)}; set recipe=continuation"
                ) from None
        spare_threads(str(self.folder))
        try:
            return VoxCPM.from_pretrained(
                self.folder,
                load_denoiser=self.options.denoise is not None,
                zipenhancer_model_id=self.options.denoise,
                device=self.options.device,
                lora_weights_path=self.options.lora,
                dtype=self.options.dtype,
            )
        except (ValueError, OSError, RuntimeError) as error:
            raise EvaluationError(f"{self.folder} cannot be loaded: {one_line(error)}") from None

    def describe(self) -> dict[str, Any]:
        """See `System`. One entry per file of the checkpoint holds its sha256."""
        import importlib.metadata

        import torch

        chosen = self.options.model_dump(mode="json", exclude_none=True)
        model = self.model.tts_model
        if self.options.stream:
            chosen["retry"] = False
        found: dict[str, Any] = {"kind": "checkpoint", "folder": str(self.folder.absolute()), **chosen}
        found |= {
            "device": str(model.device),
            "dtype": self.options.dtype or str(model.backbone.dtype).removeprefix("torch."),
            "voxmill": importlib.metadata.version("voxmill"),
            "torch": torch.__version__,
        }
        for prefix, folder in (("", self.folder), ("lora/", self.options.lora and Path(self.options.lora))):
            if folder:
                found |= file_digests(folder, prefix)
        return found

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`."""
        answers: dict[int, Speech | Exception] = {}
        utterances: dict[int, Utterance] = {}
        for number, ask in enumerate(asks):
            problem = lacking(self.options.recipe, ask.item)
            if problem:
                answers[number] = SpeakError(problem)
            else:
                utterances[number] = self._utterance(ask)
        if utterances:
            self._warm_up(next(iter(utterances.values())))
            answers |= dict(zip(utterances, self._spoken(list(utterances.values())), strict=True))
        return [answers[number] for number in range(len(asks))]

    def close(self) -> None:
        """See `System`."""
        self.__dict__.pop("model", None)

    # ------------------------------------------------------------------------------------------------------------------

    def _utterance(self, ask: Ask) -> Utterance:
        from voxcpm.inference.utterance import Utterance

        recipe, item = self.options.recipe, ask.item
        clip = item.reference if "reference" in NEEDS[recipe] else None
        continued = "reference_text" in NEEDS[recipe]
        return Utterance(
            item.text,
            description=clean_instruction(item.instruction) or None if "instruction" in NEEDS[recipe] else None,
            reference_wav_path=None if recipe == "continuation" else clip,
            prompt_wav_path=clip if continued else None,
            prompt_text=item.reference_text if continued else None,
            seed=ask.seed,
            max_len=self._most_patches(item.text),
        )

    def _most_patches(self, text: str) -> int | None:
        wanted = self.options.max_seconds
        if wanted == 0:
            return None
        config = self.model.tts_model.config
        patch_s = config.out_patch_samples / config.out_sample_rate
        return max(round((wanted or generous_seconds(text)) / patch_s), 1 if wanted else FEWEST_PATCHES)

    def _settings(self) -> dict[str, Any]:
        return {"cfg_value": self.options.cfg, "inference_timesteps": self.options.steps}

    def _warm_up(self, utterance: Utterance) -> None:
        """Generate a little before the first measurement: kernels are chosen, and memory is allocated."""
        from dataclasses import replace

        if self._warm:
            return
        self._warm = True
        times = 3 if self.model.tts_model.device.type == "cuda" else 1
        short = replace(utterance, max_len=WARM_UP_PATCHES)
        for _ in range(times):
            # What fails here fails again as a take, where it counts.
            self._timed([short], retry=False)

    def _spoken(self, utterances: list[Utterance]) -> list[Speech | Exception]:
        answer = self._timed(utterances, retry=self.options.retry)
        if isinstance(answer, Exception):
            # One item may have failed the batch.
            return [answer] if len(utterances) == 1 else [self._spoken([one])[0] for one in utterances]
        return list(answer)

    def _timed(self, utterances: list[Utterance], retry: bool) -> list[Speech] | Exception:
        """Return the answers with their times. An error of the model or of a clip is returned as SpeakError.

        Raises EvaluationError if one text alone does not fit into memory: other programs may use it, and the text is not at fault.
        """
        import torch

        cuda = self.model.tts_model.device.type == "cuda"
        first: float | None = None
        try:
            if cuda:
                torch.cuda.synchronize()
            started = time.perf_counter()
            if self.options.stream:
                spoken, first = self._streamed(utterances[0], started)
            else:
                spoken = self.model.speak_batch(
                    utterances,
                    max_batch=self.batch,
                    denoise=self.options.denoise is not None,
                    retry_badcase=retry,
                    retry_at_limit=retry,
                    **self._settings(),
                )
            if cuda:
                torch.cuda.synchronize()
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if len(utterances) == 1 and is_out_of_memory(error):
                raise EvaluationError(
                    f"{self.name}: one text does not fit into memory; free memory of {self.model.tts_model.device} and run the "
                    "same command again, or use another device"
                ) from None
            return SpeakError(one_line(error).removeprefix("item 0: "))
        wall = (time.perf_counter() - started) / len(utterances)
        rate = self.model.tts_model.sample_rate
        return [
            Speech(
                one.wav,
                rate,
                wall_s=wall,
                first_audio_s=first,
                attempts=one.attempts,
                reached_limit=one.ending != "stop",
                notes={} if one.ending == "stop" else {"ending": one.ending},
            )
            for one in spoken
        ]

    def _streamed(self, utterance: Utterance, started: float) -> tuple[list[Spoken], float]:
        import numpy as np

        from voxcpm.inference.utterance import Spoken

        chunks, first = [], 0.0
        stream = self.model.speak_streaming(utterance, denoise=self.options.denoise is not None, **self._settings())
        for chunk in stream:
            # A chunk is on the CPU, so the device has finished it.
            first = first or time.perf_counter() - started
            chunks.append(chunk)
        return [Spoken(np.concatenate([chunk.wav for chunk in chunks]), chunks[-1].ending)], first
