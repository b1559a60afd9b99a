"""Remove music and noise from the voice with Demucs, if there are any and if it helps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from catalogs.weights.registry import available, resolve, resolve_file
from pipeline.audio.demucs_net import load_demucs
from pipeline.audio.open import probe, stream_mono
from pipeline.quality.backing import backing_db
from pipeline.quality.dnsmos import Dnsmos
from pipeline.records import PCM_RATE, Recording, Session
from pipeline.runtime.devices import Device, pick_device
from pipeline.stage import LoadError, Resources, Stage, StageConfig

_NET_RATE = 44_100


class SeparateConfig(StageConfig):
    """Settings of `separate`."""

    mode: Literal["auto", "off", "always"] = "auto"
    """auto: `prepare` decides once for the whole corpus: always if the weights are on its machine, otherwise off with a notice.
    always: the run stops without the weights, on every node."""
    model: str = "htdemucs"
    """Name of the weights in models.toml."""
    gate_db: float | None = 30.0
    """A chunk whose quiet parts are more than this many dB below its loud parts has no background to remove and is left
    unchanged. None: every chunk goes through the network."""
    min_gain: float | None = 0.1
    """Minimum rise of DNSMOS OVRL for the separated chunk to be used. None: it is always used."""
    chunk_s: float = Field(15.0, gt=8)
    """Seconds that are judged and separated at once. They bound the memory (44.1 kHz stereo float32 of four sources, 21
    MB)."""
    context_s: float = Field(2.0, ge=0)
    """Seconds of audio on each side of a chunk that the network receives as context."""
    fade_s: float = Field(0.02, ge=0, le=1)
    """Seconds of cross-fade between separated and untouched audio, inside the separated part."""
    overlap: float = Field(0.25, ge=0, lt=1)
    """Overlap of the network's own 7.8 s windows."""
    device: Device = "auto"
    """`auto`: the actor's share of a GPU (`engine.gpus`) if it has one, otherwise the CPU."""


class Separate(Stage[SeparateConfig]):
    """Windows -> windows with the voice alone if that sounds better, and a lossless file of it at the recording's rate.

    The paper separates sources before anything else. Here a chunk goes through the network only if something lies under the
    voice (`gate_db`). The result is used only if DNSMOS OVRL rises by `min_gain`. All other audio stays as it was recorded,
    bit for bit. `separated` is true of segments that have a separated part. Without weights nothing is changed.
    """

    name = "separate"
    version = "2"
    config_type = SeparateConfig
    inputs = ("windows",)
    outputs = ("windows",)
    resources = Resources(cpus=0.05, memory_bytes=2 * 1024**3)

    def weights(self) -> tuple[str, ...]:
        if not self._active():
            return ()
        return (self.config.model,) if self.config.min_gain is None else (self.config.model, "dnsmos")

    def load(self) -> None:
        self._net: Any = None
        self._dnsmos: Dnsmos | None = None
        if not self._active():
            return
        self._net = load_demucs(resolve_file(self.config.model, ".th")).to(pick_device(self.config.device))
        if "vocals" not in self._net.sources:
            raise LoadError(f"the weights {self.config.model} do not separate a voice ({', '.join(self._net.sources)})")
        if self.config.min_gain is not None:
            self._dnsmos = Dnsmos(resolve("dnsmos"))

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

        rate, chunk_s = recording.sample_rate, self.config.chunk_s
        times = [index * chunk_s for index in range(int(np.ceil(recording.duration_s / chunk_s)))]
        gated = [self._gate(session.pcm(recording.source.source_id, at, at + chunk_s)) for at in times]
        if not any(gated):
            return
        folder = Path(session.spool)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{recording.source.source_id}.flac"
        left = round(recording.duration_s * rate)
        subtype = "PCM_16" if probe(recording.path).bits == 16 else "PCM_24"
        with soundfile.SoundFile(path, "w", samplerate=rate, channels=1, format="FLAC", subtype=subtype) as file:
            for native in self._chunks(session, recording, gated):
                file.write(np.clip(native[:left], -1.0, 1.0))
                left -= len(native[:left])
            file.write(np.zeros(left, dtype=np.float32))
        if recording.separation.kept:
            recording.separated_path = str(path)
        else:
            path.unlink()

    def _gate(self, pcm: np.ndarray) -> bool:
        """Return True if something may lie under the voice of int16 [S]."""
        if self.config.gate_db is None:
            return True
        backing = backing_db(pcm.astype(np.float32) / 32768.0)
        return backing is not None and backing < self.config.gate_db

    def _chunks(self, session: Session, recording: Recording, gated: list[bool]) -> Iterator[np.ndarray]:
        """Yield the recording at its own rate, float32, chunk by chunk, with the voice alone in chunks where that was
        better.

        A chunk is yielded when the decision on the next one is known, because it determines whether there is a seam between
        them.
        """
        found = recording.separation
        before_kept = False
        waiting: tuple[float, np.ndarray, np.ndarray | None] | None = None
        for index, (native, left, right) in enumerate(self._with_context(recording)):
            at, own = index * self.config.chunk_s, native[left : len(native) - right]
            voice = None
            if index < len(gated) and gated[index]:
                voice = self._voice_at(native, recording.sample_rate)[left : len(native) - right]
                found.tried_s += len(own) / recording.sample_rate
                gain = self._gain(own, voice, recording.sample_rate)
                if self.config.min_gain is None or gain >= self.config.min_gain:
                    found.kept.append((at, at + len(own) / recording.sample_rate))
                    found.gains.append(gain)
                else:
                    voice = None
            if waiting is not None:
                yield self._settle(session, recording, waiting, before_kept, voice is not None)
                before_kept = waiting[2] is not None
            waiting = (at, own, voice)
        if waiting is not None:
            yield self._settle(session, recording, waiting, before_kept, True)

    def _with_context(self, recording: Recording) -> Iterator[tuple[np.ndarray, int, int]]:
        """Yield (samples at the recording's rate, number of context samples before, number after), one per chunk."""
        rate = recording.sample_rate
        chunk, context = round(self.config.chunk_s * rate), round(self.config.context_s * rate)
        held, before = np.zeros(0, dtype=np.float32), 0
        for part in stream_mono(recording.path, channel=recording.channel):
            held = np.concatenate([held, part])
            while len(held) >= before + chunk + context:
                yield held[: before + chunk + context], before, context
                drop = before + chunk - context
                held, before = (held[drop:], context) if drop > 0 else (held, before + chunk)
        while len(held) > before:
            after = min(context, max(0, len(held) - before - chunk))
            yield held[: before + chunk + after], before, after
            before += chunk

    def _voice_at(self, native: np.ndarray, rate: int) -> np.ndarray:
        """The voice of float32 [S] at `rate`: [S] at the same rate."""
        import soxr

        voice = self._voice(np.asarray(soxr.resample(native, rate, _NET_RATE, quality="VHQ"), dtype=np.float32))
        back = np.asarray(soxr.resample(voice, _NET_RATE, rate, quality="VHQ"), dtype=np.float32)
        return np.pad(back, (0, max(0, len(native) - len(back))))[: len(native)]

    def _gain(self, own: np.ndarray, voice: np.ndarray, rate: int) -> float:
        """Return the rise of DNSMOS OVRL; 0 if nothing is rated."""
        import soxr

        if self._dnsmos is None:
            return 0.0
        old, new = (self._dnsmos.rate(soxr.resample(audio, rate, PCM_RATE), 9.01)[2] for audio in (own, voice))
        return new - old

    def _settle(
        self,
        session: Session,
        recording: Recording,
        chunk: tuple[float, np.ndarray, np.ndarray | None],
        before_kept: bool,
        after_kept: bool,
    ) -> np.ndarray:
        """Return the chunk as it is used, and put it into the session's windows."""
        import soxr

        at, own, voice = chunk
        if voice is None:
            return own
        # At the recording's start there is nothing to fade from.
        weight = self._fades(len(own), recording.sample_rate, at > 0 and not before_kept, not after_kept)
        mixed = own + weight * (voice - own)
        at_16k = soxr.resample(mixed, recording.sample_rate, PCM_RATE, quality="HQ")
        session.put_pcm(recording.source.source_id, at, at_16k)
        return np.asarray(mixed, dtype=np.float32)

    def _fades(self, length: int, rate: int, at_start: bool, at_end: bool) -> np.ndarray:
        """Return the weight of the voice: 1, with a linear ramp from or to 0 if untouched audio comes before or after."""
        weight = np.ones(length, dtype=np.float32)
        fade = min(round(self.config.fade_s * rate), length // 2)
        ramp = np.linspace(0.0, 1.0, fade, endpoint=False, dtype=np.float32)
        if at_start:
            weight[:fade] = ramp
        if at_end:
            weight[length - fade :] = ramp[::-1]
        return weight

    def _voice(self, mono: np.ndarray) -> np.ndarray:
        """float32 [S] at 44.1 kHz -> float32 [S]: the `vocals` source of the network."""
        import torch
        from demucs.apply import apply_model

        mix = torch.from_numpy(np.ascontiguousarray(mono))[None, None].expand(1, 2, -1)
        # The network was trained on tracks normalized to zero mean and unit deviation.
        mean, deviation = mix.mean(), mix.std() + 1e-8
        with torch.inference_mode():
            sources = apply_model(
                self._net,
                (mix - mean) / deviation,
                shifts=0,
                split=True,
                overlap=self.config.overlap,
                device=pick_device(self.config.device),
            )
        voice = sources[0, self._net.sources.index("vocals")].mean(dim=0) * deviation + mean
        return np.asarray(voice.cpu().numpy(), dtype=np.float32)
