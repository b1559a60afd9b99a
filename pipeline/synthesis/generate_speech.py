"""Make the utterances of a session with a checkpoint."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from catalogs.corpus.ids import segment_id, short_hash
from catalogs.corpus.reader import Corpus
from catalogs.vocabulary.speech_length import generous_seconds
from pipeline.records import PCM_RATE, PcmWindow, Recording, Segment, Session
from pipeline.runtime.devices import Device, pick_device
from pipeline.stage import LoadError, Resources, Stage, StageConfig, StageError
from pipeline.synthesis.requests import Clip, SpeechRequest, SpeechSession

if TYPE_CHECKING:
    from voxcpm import VoxCPM
    from voxcpm.inference.utterance import Spoken, Utterance

_PATCHES_PER_TOKEN = 40.0


class GenerateSpeechConfig(StageConfig):
    """Settings of `generate_speech`."""

    model: str = ""
    """Folder of the checkpoint."""
    lora: str | None = None
    """Folder of an adapter."""
    dtype: str | None = None
    """Arithmetic of the model: float32, bfloat16, float16 or int8. null: the checkpoint's."""
    device: Device = "auto"
    """`auto`: the actor's share of a GPU (`engine.gpus`) if it has one, otherwise the CPU."""
    batch: int = Field(16, ge=1)
    """Utterances that are made at once. Halved automatically if memory does not suffice."""
    steps: int = Field(10, ge=1, le=100)
    """Steps of the solver."""
    cfg: float = Field(2.0, ge=0.1, le=10)
    """Guidance."""
    temperature: float = Field(1.0, ge=0, le=2)
    """Scale of the noise."""
    threads: int | None = Field(1, ge=1)
    """CPU threads per actor. null: torch's choice."""
    reject_unended: bool = False
    """Reject what the model did not end by itself (`never_ended`): it is neither measured nor stored. Set by `decouple`."""


class GenerateSpeech(Stage[GenerateSpeechConfig]):
    """Requests -> a lossless clip per recording, its 16 kHz window, and one segment that spans it.

    The paper clones described speech onto other texts. An utterance depends on its request and its seed alone, not on its
    batch. `endings` says why each ended; nothing is judged and nothing is tried again here.
    """

    name = "generate_speech"
    version = "1"
    config_type = GenerateSpeechConfig
    inputs = ("recordings",)
    outputs: ClassVar[tuple[str, ...]] = ("windows", "segments")
    resources = Resources(cpus=2.0, memory_bytes=2 * 1024**3)

    def load(self) -> None:
        import torch

        from voxcpm import VoxCPM
        from voxcpm.errors import CheckpointError

        config = self.config
        if config.threads:
            torch.set_num_threads(config.threads)
        try:
            self._model = VoxCPM.from_pretrained(
                config.model,
                load_denoiser=False,
                device=pick_device(config.device),
                dtype=config.dtype,
                lora_weights_path=config.lora,
            )
        except (FileNotFoundError, CheckpointError, ValueError) as error:
            raise LoadError(f"the model cannot be used: {error}") from error
        self._corpora: dict[str, Corpus] = {}

    @property
    def model(self) -> VoxCPM:
        """The loaded model."""
        return self._model

    def __call__(self, session: Session) -> Session:
        if not isinstance(session, SpeechSession):
            raise TypeError("generate_speech needs a SpeechSession")
        folder = Path(session.spool)
        folder.mkdir(parents=True, exist_ok=True)
        self.for_batches(
            session,
            list(session.usable()),
            lambda batch: self._generate(session, batch, folder),
            self.config.batch,
            length=lambda recording: session.requests[recording.source.source_id].expected_s,
        )
        session.segments.sort(key=lambda segment: segment.source_id)
        for seq, segment in enumerate(session.segments):
            segment.seq = seq
        return session

    def _generate(self, session: SpeechSession, batch: Sequence[Recording], folder: Path) -> None:
        started = time.perf_counter()
        requests = [session.requests[recording.source.source_id] for recording in batch]
        items = [self._utterance(request, folder) for request in requests]
        try:
            # One thread: an actor has no more of the node than its share.
            spoken = self._model.speak_batch(items, max_batch=len(items), workers=1, **self._options(requests))
        except (ValueError, FileNotFoundError) as error:
            raise StageError(str(error)) from error
        session.generate_s += time.perf_counter() - started
        rate = self._model.tts_model.sample_rate
        # Everything may fail until here: a batch that is tried again starts from nothing.
        for recording, made in zip(batch, spoken, strict=True):
            self._store(session, recording, made, rate, folder)

    def _store(self, session: SpeechSession, recording: Recording, made: Spoken, rate: int, folder: Path) -> None:
        segment = store_speech(session, recording, made.wav, rate, str(made.ending or "stop"), folder)
        if self.config.reject_unended and session.endings[recording.source.source_id] != "stop":
            segment.hard_reasons.append("never_ended")

    def _options(self, requests: Sequence[SpeechRequest]) -> dict[str, Any]:
        config = self.config
        options: dict[str, Any] = {
            "inference_timesteps": config.steps,
            "temperature": config.temperature,
            "retry_badcase": False,
            # A limit per token does not suit all scripts; `max_len` bounds the length instead.
            "retry_badcase_ratio_threshold": _PATCHES_PER_TOKEN,
        }
        for request in requests:
            options |= {name: value for name, value in request.options.items() if name in _OF_BATCH}
        return options

    def _utterance(self, request: SpeechRequest, folder: Path) -> Utterance:
        from voxcpm.inference.utterance import Utterance

        own: Mapping[str, Any] = {name: v for name, v in request.options.items() if name not in _OF_BATCH}
        return Utterance(
            request.text,
            description=request.description,
            reference_wav_path=self._file(request.reference, folder),
            prompt_wav_path=self._file(request.prompt, folder),
            prompt_text=request.prompt_text,
            seed=request.seed,
            **{
                "cfg_value": self.config.cfg,
                "max_len": longest_patches(request.text, self._model.tts_model.config.patch_seconds),
            }
            | dict(own),
        )

    def _file(self, clip: Clip | None, folder: Path) -> str | None:
        """Return the path of a clip. One of a corpus is written into the session's folder: the model caches by path."""
        if clip is None or isinstance(clip, str):
            return clip
        path = folder / f"clip-{short_hash(clip.corpus, clip.shard, clip.row)}.flac"
        if not path.is_file():
            opened = self._corpora.setdefault(clip.corpus, Corpus(clip.corpus))
            path.write_bytes(clip.flac(opened))
        return str(path)


_OF_BATCH = frozenset({"inference_timesteps", "temperature", "sway_sampling_coef", "use_cfg_zero_star"})
"""Options that all utterances of a batch share."""


def longest_patches(text: str, patch_s: float) -> int:
    """Return the limit of an utterance's length in patches of `patch_s` seconds: twice the usual speaking time and two seconds."""
    return max(round(generous_seconds(text) / patch_s), 4)


def store_speech(
    session: SpeechSession, recording: Recording, wav: np.ndarray, rate: int, ending: str, folder: Path
) -> Segment:
    """Write an utterance, float32 [S] at `rate` Hz, into the session's folder; set the recording, its window and its segment.

    Returns the segment. Raises OSError if the folder cannot be written.
    """
    import soundfile
    import soxr

    source_id = recording.source.source_id
    sink = io.BytesIO()
    # As the shard will hold it: what is measured is what is stored.
    soundfile.write(sink, np.clip(wav, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    path = folder / f"{source_id}.flac"
    data = sink.getvalue()
    path.write_bytes(data)
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    heard = samples if rate == PCM_RATE else soxr.resample(samples, rate, PCM_RATE, quality="HQ")
    pcm = np.clip(np.rint(heard * 32768.0), -32768, 32767).astype(np.int16)
    recording.source = replace(recording.source, bytes=len(data))
    recording.fetched_path, recording.sample_rate = str(path), rate
    recording.duration_s = len(wav) / rate
    session.endings[source_id] = ending
    session.windows.append(PcmWindow(source_id, 0.0, pcm))
    name = segment_id(source_id, 0, len(wav), session.fingerprint)
    session.segments.append(Segment(source_id, 0, 0.0, recording.duration_s, segment_id=name))
    return session.segments[-1]
