"""Cut the segments out of the recordings at the native rate, lossless."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from pipeline.audio.open import AudioInfo, UnreachableError, probe, stream_mono
from pipeline.quality.bandwidth import bandwidth_hz, wall_hz
from pipeline.quality.levels import clipping
from pipeline.records import Recording, Segment, Session
from pipeline.stage import Resources, Stage, StageConfig

MAX_RATE = 48_000


class CutClipsConfig(StageConfig):
    """Settings of `cut_clips`: none; the corpus format defines the format of clips."""


class CutClips(Stage[CutClipsConfig]):
    """Segments -> FLAC clips at the recording's own rate (at most 48 kHz), mono; 16 bit, or 24 if the source has more.

    The paper decodes to 48 kHz, so the content of a recording above 8 kHz is kept. Each recording is read in one streaming
    pass, on the same timeline as in `decode`. Also writes `bandwidth_hz` (Hz), `clipping` (share of samples) and the flag
    `upsampled`, which can be measured only at the native rate.
    """

    name = "cut_clips"
    version = "2"
    config_type = CutClipsConfig
    inputs = ("segments",)
    outputs = ("segment.flac", "segment.flac_rate", "segment.bandwidth_hz", "segment.clipping", "segment.flags")
    resources = Resources(cpus=0.02)

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.usable(), lambda recording: self._cut(session, recording))
        return session

    def _cut(self, session: Session, recording: Recording) -> None:
        source_id = recording.source.source_id
        # Segments that a stage failed on are cut too: a later attempt may measure what is missing.
        wanted = [s for s in session.segments if s.source_id == source_id and not s.hard_reasons]
        if not wanted:
            return
        path = recording.separated_path or recording.path
        info = probe(path)
        if recording.separated_path is None and Path(path).stat().st_size != recording.source.bytes:
            raise UnreachableError("the file has changed while it was processed; run the same command again")
        # Segments are in order of time and do not overlap: audio before the start of the next one can be dropped.
        held = np.zeros(0, dtype=np.float32)
        held_from = 0
        queue = [(round(s.start_s * info.sample_rate), round(s.end_s * info.sample_rate), s) for s in wanted]
        # The separated voice has one channel already.
        channel = None if recording.separated_path else recording.channel
        for chunk in stream_mono(path, info, channel=channel):
            held = np.concatenate([held, chunk])
            while queue and queue[0][1] <= held_from + len(held):
                first, last, segment = queue.pop(0)
                self._store(segment, held[first - held_from : last - held_from], info)
            start = queue[0][0] if queue else held_from + len(held)
            drop = max(0, min(start - held_from, len(held)))
            held, held_from = held[drop:], held_from + drop
        if queue:
            raise UnreachableError("the file has changed while it was processed: it ends before it did at first")

    def _store(self, segment: Segment, samples: np.ndarray, info: AudioInfo) -> None:
        import soundfile

        segment.clipping = clipping(samples)
        rate = info.sample_rate
        if rate > MAX_RATE:
            import soxr

            samples, rate = soxr.resample(samples, rate, MAX_RATE, quality="VHQ"), MAX_RATE
        segment.bandwidth_hz = bandwidth_hz(samples, rate)
        if wall_hz(samples, rate) is not None:
            segment.flags.append("upsampled")
        buffer = io.BytesIO()
        # A mix of channels or a decoder's overshoot may slightly exceed full scale, and FLAC holds integers only.
        subtype = "PCM_16" if info.bits == 16 else "PCM_24"
        soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format="FLAC", subtype=subtype)
        segment.flac, segment.flac_rate = buffer.getvalue(), rate
