"""Open each recording and make its 16 kHz windows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from catalogs.corpus.ids import other_channel_id
from catalogs.urls import is_location, public
from pipeline.audio import marks
from pipeline.audio.open import AudioFileError, StreamReport, UnreachableError, probe, stream_mono
from pipeline.audio.pcm_windows import WindowMaker
from pipeline.audio.stereo import is_one_speaker_a_channel
from pipeline.inputs.spool import Spool
from pipeline.inputs.store_access import Stores
from pipeline.records import PCM_RATE, Recording, Separation, Session
from pipeline.stage import Resources, Stage, StageConfig, StoreError

_WORTH_SAYING = 0.99
"""A notice names each file that yields less than this share of the duration in its header."""


class DecodeConfig(StageConfig):
    """Settings of `decode`."""

    least_decoded: float = Field(0.9, ge=0, le=1)
    """A file that yields less than this share of the duration in its header is quarantined as truncated."""
    channels: Literal["auto", "mix", "split"] = "auto"
    """mix: all channels are mixed into one. split: each of two channels becomes a separate recording. auto: split if each
    channel has a different speaker (one of them 20 dB above the other most of the time), as in telephone calls and
    interviews."""
    read_marks: Literal["all", "tags", "off"] = "all"
    """Whether to ask recordings if they are synthetic, and if training on them is forbidden. tags: by the tags and the manifest
    (C2PA) of the file. all: also search our watermark in the samples."""
    store_timeout_s: float = Field(60.0, gt=0)
    """Sources behind URLs: seconds to wait for a connection to the store and for its next bytes."""
    store_tries: int = Field(3, ge=1)
    """Sources behind URLs: total number of tries before a request counts as failed."""

    def stores(self) -> Stores:
        """Return the limits for requests to stores."""
        return Stores(self.store_timeout_s, self.store_tries)


class Decode(Stage[DecodeConfig]):
    """Recordings -> facts about them and 16 kHz mono int16 windows of at most ten minutes.

    The paper analyzes speech at 16 kHz. The native-rate audio stays in the source file, and clips are cut from it at the
    end. A stereo file with a different speaker on each channel becomes two recordings, so that the speakers do not overlap.
    Writes `duration_s` (s), `sample_rate` (Hz), `channels`, `codec` and `marks` of each recording.
    """

    name = "decode"
    version = "3"
    # What was decoded before is the same; its marks were not read.
    continues = ("2",)
    config_type = DecodeConfig
    outputs = ("windows",)
    resources = Resources(cpus=0.02)

    def __call__(self, session: Session) -> Session:
        elsewhere = [r.source for r in session.usable() if is_location(r.source.path)]
        working = lambda source_id: self.report_item(source_id, 0.0)  # noqa: E731
        spool = Spool(session.spool, elsewhere, working, stores=self.config.stores())
        self.for_each(session, session.usable(), lambda recording: self._open(session, recording, spool))
        self.for_each(session, session.usable(), lambda recording: self._decode(session, recording))
        return session

    def _open(self, session: Session, recording: Recording, spool: Spool) -> None:
        """Fetch and probe a file; make two recordings of it if its channels are two speakers."""
        if is_location(recording.source.path):
            try:
                recording.fetched_path = str(spool.fetch(recording.source))
            except StoreError:
                raise
            except OSError as error:
                if error.errno is not None:
                    raise  # not the recording's fault, e.g. a full disk
                raise UnreachableError(str(error)) from None
        path = recording.path
        info = probe(path)
        if recording.source.bytes and Path(path).stat().st_size != recording.source.bytes:
            raise UnreachableError("the file has changed since it was listed; run the same command again")
        recording.sample_rate, recording.channels, recording.codec = info.sample_rate, info.channels, info.codec
        if info.channels != 2 or self.config.channels == "mix":
            return
        if self.config.channels == "split" or is_one_speaker_a_channel(path, info):
            recording.channel = 0
            # The first channel keeps the file's id, by which a later run knows that the file is done.
            other = replace(recording.source, source_id=other_channel_id(recording.source.source_id))
            twin = replace(recording, source=other, channel=1, separation=Separation())
            session.recordings.insert(session.recordings.index(recording) + 1, twin)
            session.notices.append(
                "some recordings have a speaker on each channel: each channel becomes a separate recording"
            )

    def _decode(self, session: Session, recording: Recording) -> None:
        import soxr

        path = recording.path
        info = probe(path)
        resampler = soxr.ResampleStream(info.sample_rate, PCM_RATE, 1, dtype="float32", quality="HQ")
        window = WindowMaker(recording.source.source_id)
        report = StreamReport()
        for chunk in stream_mono(path, info, report, recording.channel):
            window.add(resampler.resample_chunk(chunk))
        window.add(resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
        recording.duration_s = report.samples / info.sample_rate
        if report.samples == 0:
            raise AudioFileError("has no samples")
        decoded = (report.samples - report.lost) / info.sample_rate
        whole = max(info.duration_s if info.promised else 0.0, recording.duration_s)
        if decoded < self.config.least_decoded * whole:
            fault = "damaged" if report.lost else "truncated"
            raise AudioFileError(f"{fault}: {decoded:.1f} of {whole:.1f} s decode")
        if decoded < _WORTH_SAYING * whole or report.stopped:
            session.notices.append(
                f"{public(recording.source.path)}: {_loss(report, whole - decoded)}; the rest is used"
            )
        session.notices += _repairs(report)
        session.windows.extend(window.finish())
        self._read_marks(session, recording)

    def _read_marks(self, session: Session, recording: Recording) -> None:
        """Note what a recording says of itself."""
        if self.config.read_marks == "off":
            return
        found = marks.read_tags(recording.path)
        recording.marks += found.flags
        session.notices += found.notices
        if self.config.read_marks == "all":
            pcm = partial(session.pcm, recording.source.source_id)
            recording.watermarked = marks.find_watermark(pcm, recording.duration_s)
            session.notices += [marks.watermark_notice()] if recording.watermarked else []


def _loss(report: StreamReport, seconds: float) -> str:
    if report.lost:
        return f"damaged, {seconds:.1f} s of it are silence now"
    if seconds >= 0.05:
        return f"cut short, the last {seconds:.1f} s cannot be decoded"
    return f"damaged in places ({report.stopped})"


def _repairs(report: StreamReport) -> list[str]:
    """Return notices without file names: the fault of a recorder is in all of its files, and one notice is enough."""
    notices = []
    if report.channel is not None:
        notices.append("in some recordings the channels cancel each other: the louder one alone was used")
    if report.offset:
        notices.append("some recordings had a constant offset (a recorder's fault): it was removed")
    if report.gain != 1.0:
        notices.append("some floating point recordings had peaks above full scale: they were turned down")
    return notices
