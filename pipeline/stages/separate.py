"""Take music and noise away from the voice with Demucs, where its weights are."""

from __future__ import annotations

import codecs
import pickle
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from catalogs.models import available, resolve
from pipeline.audio_file import probe, stream_mono
from pipeline.records import PCM_RATE, Recording, Session
from pipeline.stage import LoadError, Resources, Stage, StageConfig, one_line
from pipeline.windows import WindowMaker

_NET_RATE = 44_100


class SeparateConfig(StageConfig):
    """Settings of `separate`."""

    mode: Literal["auto", "off", "always"] = "auto"
    """auto: where the weights are here, else off with a notice; always: the run stops without the weights."""
    model: str = "htdemucs"
    """Name of the weights in models.toml."""
    chunk_s: float = Field(60.0, gt=8)
    """Seconds separated at once: bounds the memory (44.1 kHz stereo float32 of four sources, 85 MB a minute)."""
    context_s: float = Field(2.0, ge=0)
    """Seconds of audio on both sides that each chunk is given beside its own."""
    overlap: float = Field(0.25, ge=0, lt=1)
    """Overlap of the network's own 7.8 s windows."""
    device: str = "cpu"


class Separate(Stage[SeparateConfig]):
    """Windows -> windows of the voice alone (`separated=True`) and a lossless file of it at the recording's rate.

    The paper separates sources before anything else. Without weights nothing is changed and `separated` stays false.
    """

    name = "separate"
    version = "1"
    config_type = SeparateConfig
    inputs = ("windows",)
    outputs = ("windows", "segment.separated")
    resources = Resources(cpus=0.05, memory_bytes=2 * 1024**3)

    def weights(self) -> tuple[str, ...]:
        return (self.config.model,) if self._active() else ()

    def load(self) -> None:
        self._net: Any = None
        if not self._active():
            return
        self._net = load_demucs(next(resolve(self.config.model).glob("*.th"))).to(self.config.device)
        if "vocals" not in self._net.sources:
            raise LoadError(f"the weights {self.config.model} do not separate a voice ({', '.join(self._net.sources)})")

    def __call__(self, session: Session) -> Session:
        if self._net is None:
            if self.config.mode == "auto":
                session.notices.append(
                    f"source separation is off: weights {self.config.model} are not here "
                    f"(voxmill models pull {self.config.model})"
                )
            return session
        self.for_each(session, session.usable(), lambda recording: self._separate(session, recording))
        return session

    def _active(self) -> bool:
        return self.config.mode == "always" or (self.config.mode == "auto" and available(self.config.model))

    def _separate(self, session: Session, recording: Recording) -> None:
        import soundfile
        import soxr

        source_id, rate = recording.source.source_id, recording.sample_rate
        folder = Path(session.spool)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{source_id}.flac"
        windows = WindowMaker(source_id, separated=True)
        to_pcm = soxr.ResampleStream(_NET_RATE, PCM_RATE, 1, dtype="float32", quality="HQ")
        to_native = soxr.ResampleStream(_NET_RATE, rate, 1, dtype="float32", quality="VHQ")
        left = round(recording.duration_s * rate)
        subtype = "PCM_16" if probe(recording.path).bits == 16 else "PCM_24"
        with soundfile.SoundFile(path, "w", samplerate=rate, channels=1, format="FLAC", subtype=subtype) as file:
            for voice, last in _flag_last(self._voices(recording)):
                windows.add(to_pcm.resample_chunk(voice, last=last))
                native = to_native.resample_chunk(voice, last=last)[:left]
                left -= len(native)
                file.write(np.clip(native, -1.0, 1.0))
            file.write(np.zeros(left, dtype=np.float32))
        session.windows = [w for w in session.windows if w.source_id != source_id] + windows.finish()
        recording.separated_path = str(path)

    def _voices(self, recording: Recording) -> Iterator[np.ndarray]:
        """The voice at 44.1 kHz mono, chunk by chunk, each computed with context on both sides."""
        import soxr

        chunk, context = round(self.config.chunk_s * _NET_RATE), round(self.config.context_s * _NET_RATE)
        resampler = soxr.ResampleStream(recording.sample_rate, _NET_RATE, 1, dtype="float32", quality="VHQ")
        held = np.zeros(0, dtype=np.float32)
        before = 0
        for part, last in _flag_last(stream_mono(recording.path)):
            held = np.concatenate([held, resampler.resample_chunk(np.ascontiguousarray(part), last=last)])
            while len(held) >= before + chunk + context:
                yield self._voice(held[: before + chunk + context])[before : before + chunk]
                held = held[before + chunk - context :]
                before = context
        if len(held) > before:
            yield self._voice(held)[before:]

    def _voice(self, mono: np.ndarray) -> np.ndarray:
        """float32 [S] at 44.1 kHz -> float32 [S]: the `vocals` source of the network."""
        import torch
        from demucs.apply import apply_model

        mix = torch.from_numpy(np.ascontiguousarray(mono))[None, None].expand(1, 2, -1)
        # The network was trained on tracks normalised to zero mean and unit deviation.
        mean, deviation = mix.mean(), mix.std() + 1e-8
        with torch.inference_mode():
            sources = apply_model(
                self._net,
                (mix - mean) / deviation,
                shifts=0,
                split=True,
                overlap=self.config.overlap,
                device=self.config.device,
            )
        voice = sources[0, self._net.sources.index("vocals")].mean(dim=0) * deviation + mean
        return np.asarray(voice.cpu().numpy(), dtype=np.float32)


def load_demucs(path: Path) -> Any:
    """A Demucs network, ready to use, from its `.th` file. Raises LoadError with one line where it cannot be had.

    The file is a pickle that names the network's class and arguments beside its weights. Only those few names are let
    through: anything else in it raises instead of running.
    """
    try:
        import torch
        from demucs.htdemucs import HTDemucs
        from demucs.states import load_model
    except ImportError as error:
        raise LoadError(f"source separation needs demucs ({error.name}): pip install 'voxmill[separate]'") from None
    try:
        with torch.serialization.safe_globals([HTDemucs, Fraction, *_numpy_scalars()]):
            package = torch.load(path, map_location="cpu", weights_only=True)
        return load_model(package).eval()
    except (pickle.UnpicklingError, KeyError, TypeError, RuntimeError) as error:
        raise LoadError(f"{path.name} is no Demucs network that can be loaded: {one_line(error)[:200]}") from None


def _numpy_scalars() -> list[Any]:
    """What a pickled NumPy number is made of; its constructor had another module in older versions of NumPy."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32)]
    names = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [*names, np.dtype, *kinds, codecs.encode]


def _flag_last(chunks: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """(chunk, whether it is the last one): a resampler must be told when to empty itself."""
    held: np.ndarray | None = None
    for chunk in chunks:
        if held is not None:
            yield held, False
        held = chunk
    if held is not None:
        yield held, True
