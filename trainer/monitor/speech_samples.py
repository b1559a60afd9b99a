"""Speech samples of the model in training: the same held-out sentences and random numbers at every validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from catalogs.files import write_atomically
from trainer.codec.losses import mel_bank
from trainer.config import TrainConfig
from trainer.data.candidates import Choice
from trainer.data.corpora import SegmentError
from trainer.data.mixture import Candidate
from trainer.data.rows import Planner
from trainer.data.samples import SampleMaker
from trainer.model.build import Trainee
from trainer.runtime.device import autocast
from trainer.runtime.metrics import SpokenSample
from trainer.runtime.stop_signal import never
from voxcpm.inference.speak_options import SpeakOptions
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.model.backbone import VoxCPM2

_WINDOW, _BANDS = 2048, 80


class SpeechSampler:
    """Synthesizes a few held-out sentences: every other one with a reference clip, if segment and model allow it."""

    def __init__(
        self,
        config: TrainConfig,
        trainee: Trainee,
        held: Sequence[Candidate],
        maker: SampleMaker,
        asked_to_stop: Callable[[], bool] = never,
    ) -> None:
        """asked_to_stop: checked before each sentence."""
        self._config, self._asked_to_stop = config, asked_to_stop
        self._trainee, self._maker, self._held = trainee, maker, held[: config.validation.speak]
        self._planner = Planner(trainee.tokenizer, trainee.config)

    def listen(self, model: VoxCPM2) -> list[SpokenSample]:
        """Synthesize with these weights (whole, on one device). The model is left in the mode it was in. If asked to stop, it ends
        after the current sentence."""
        training = model.training
        heard: list[SpokenSample] = []
        voice = VoxCPM2Model(model.eval(), self._trainee.codec, self._trainee.tokenizer)
        try:
            for number, candidate in enumerate(self._held):
                if self._asked_to_stop():
                    break
                # The validation before this has already reported damaged references.
                with suppress(SegmentError):
                    heard.append(self._speak(voice, number, candidate))
            return heard
        finally:
            model.train(training)

    def _speak(self, voice: VoxCPM2Model, number: int, candidate: Candidate) -> SpokenSample:
        with_reference = candidate.references and number % 2 and self._trainee.config.takes_references
        reference = candidate.references[0][0] if with_reference else None
        planned = self._planner.plan(
            Choice(number, candidate, "reference" if reference else "basic", reference, number)
        )
        cache = {"ref_audio_feat": self._maker.reference(planned)} if reference else None
        layout = voice.layout(candidate.text, cache)  # type: ignore[arg-type]
        # Limit to twice the original length: a model that has not learned to stop must not delay the training.
        options = SpeakOptions(max_len=2 * planned.patches, seed=number)
        # Autocast as in a step: adapters are float32, and the frozen weights may be bfloat16.
        with autocast(self._config, voice.device):
            (generation,) = voice.generate_layouts([layout], [options])
        with torch.inference_mode():
            audio = voice.decode(generation.patches, layout, options)[0].float().cpu()
        name = f"{number}_{candidate.language or 'unknown'}_{'reference' if reference else 'text'}"
        rate = voice.sample_rate
        return SpokenSample(name, candidate.text, audio.clamp(-1, 1), rate, log_mel(audio, rate))


def log_mel(audio: Tensor, rate: int) -> Tensor:
    """Return float32 [80, frames] of audio [S]: 0 is -80 dB relative to a full-scale sine, 1 is 0 dB. The hop is a quarter of the
    window."""
    if len(audio) < _WINDOW:
        audio = torch.nn.functional.pad(audio, (0, _WINDOW - len(audio)))
    spectrum = torch.stft(audio, _WINDOW, _WINDOW // 4, window=torch.hann_window(_WINDOW), return_complex=True).abs()
    decibel = 20 * torch.log10((mel_bank(_WINDOW, _BANDS, rate) @ spectrum / (_WINDOW / 4)).clamp_min(1e-4))
    return (1 + decibel / 80).clamp(0, 1)


def write_spoken(folder: Path, heard: list[SpokenSample]) -> None:
    """Write each sample as a FLAC file NAME.flac in `folder`."""
    from io import BytesIO

    import soundfile

    for item in heard:
        buffer = BytesIO()
        soundfile.write(buffer, item.audio.numpy(), item.rate, format="FLAC")
        write_atomically(folder / f"{item.name}.flac", buffer.getvalue())
