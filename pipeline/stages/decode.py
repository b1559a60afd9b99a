"""Open each recording and make its 16 kHz windows."""

from __future__ import annotations

import numpy as np

from pipeline.audio_file import AudioFileError, probe, stream_mono
from pipeline.records import PCM_RATE, Recording, Session
from pipeline.stage import Resources, Stage, StageConfig
from pipeline.windows import WindowMaker


class DecodeConfig(StageConfig):
    """Settings of `decode`."""

    least_decoded: float = 0.9
    """A file that gives less than this share of the duration its header promises is quarantined as truncated."""


class Decode(Stage[DecodeConfig]):
    """Recordings -> facts about them and 16 kHz mono int16 windows of at most ten minutes.

    The paper works on 16 kHz speech for all analysis; the native-rate audio is left where it is and cut out at the end.
    Writes `duration_s` (s), `sample_rate` (Hz), `channels`, `codec` of each recording.
    """

    name = "decode"
    version = "1"
    config_type = DecodeConfig
    outputs = ("windows",)
    resources = Resources(cpus=0.3)

    def __call__(self, session: Session) -> Session:
        self.for_each(session, session.usable(), lambda recording: self._decode(session, recording))
        return session

    def _decode(self, session: Session, recording: Recording) -> None:
        import soxr

        path = recording.source.path
        info = probe(path)
        recording.sample_rate, recording.channels, recording.codec = info.sample_rate, info.channels, info.codec
        resampler = soxr.ResampleStream(info.sample_rate, PCM_RATE, 1, dtype="float32", quality="HQ")
        window = WindowMaker(recording.source.source_id)
        samples = 0
        for chunk in stream_mono(path, info):
            samples += len(chunk)
            window.add(resampler.resample_chunk(np.ascontiguousarray(chunk)))
        window.add(resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
        recording.duration_s = samples / info.sample_rate
        if samples == 0:
            raise AudioFileError("there are no samples in it")
        if info.duration_s and recording.duration_s < self.config.least_decoded * info.duration_s:
            raise AudioFileError(
                f"truncated: {recording.duration_s:.1f} s of the {info.duration_s:.1f} s its header promises can be decoded"
            )
        if info.duration_s and recording.duration_s < 0.99 * info.duration_s:
            session.notices.append(
                f"{path}: the last {info.duration_s - recording.duration_s:.1f} s cannot be decoded; the rest is used"
            )
        session.windows.extend(window.finish())
