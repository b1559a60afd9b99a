"""The data that stages pass on: a session with its recordings, its 16 kHz audio in windows, and its segments.

The audio of a session is never held as float32: `PcmWindow.pcm` is 16 kHz mono int16 and at most ten minutes long (115 MB
per hour of audio). The native-rate audio stays in the source file, and the last stage cuts it by offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from catalogs.corpus.attempts import Cause
from catalogs.corpus.columns import Measures
from catalogs.urls import public, redacted
from catalogs.vocabulary.rights import NO_RIGHTS, Rights

WINDOW_S = 600.0
PCM_RATE = 16_000
MARKED_SYNTHETIC = "marked_synthetic"
NO_TRAINING = "no_training"
"""Flags by what a recording says of itself (`catalogs.corpus.thresholds.FLAGS`)."""


@dataclass(frozen=True)
class TimedText:
    """A part of a given transcript with its time in seconds of the recording."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Source:
    """One source file as planned, before anything is decoded."""

    source_id: str
    path: str
    """Absolute path (or URL) of the file."""
    relative_path: str
    session_id: str
    bytes: int
    content_sha256: str
    language: str | None = None
    text: str | None = None
    """The transcript that came with the file."""
    rights: Rights = NO_RIGHTS
    spans: tuple[TimedText, ...] = ()
    """The same transcript by time, if times came with it."""
    extent: tuple[int, int] | None = None
    """(offset, size) in bytes of its content in an uncompressed tar."""


@dataclass
class Recording:
    """One source file after it was opened. `status`: ok, empty (no speech in it) or quarantined."""

    source: Source
    duration_s: float = 0.0
    sample_rate: int = 0
    channels: int = 0
    codec: str = ""
    status: str = "ok"
    silence_s: float = 0.0
    fetched_path: str | None = None
    """A copy in the session's spool, of a recording that is in a container or behind a URL."""
    channel: int | None = None
    """The channel that this recording consists of, if each channel of its file is a recording. None: all channels, mixed."""
    separated_path: str | None = None
    """A spooled lossless file at `sample_rate` with the voice alone in the stretches of `separation.kept`, if there are
    any."""
    separation: Separation = field(default_factory=lambda: Separation())
    marks: list[str] = field(default_factory=list)
    """Flags of the whole recording, by what its file says."""
    watermarked: list[tuple[float, float]] = field(default_factory=list)
    """Stretches (start, end in seconds) that hold a watermark."""

    def flags_of(self, start_s: float, end_s: float) -> list[str]:
        """Return the flags of a stretch of the recording."""
        marked = any(start < end_s and start_s < end for start, end in self.watermarked)
        return list(dict.fromkeys([*self.marks, *([MARKED_SYNTHETIC] if marked else [])]))

    @property
    def path(self) -> str:
        """The file to read."""
        return self.fetched_path or self.source.path


@dataclass
class Separation:
    """What source separation did to a recording: seconds that went through the network, the stretches (start, end in
    seconds) whose separated version is used, and by how much DNSMOS OVRL rose in each."""

    tried_s: float = 0.0
    kept: list[tuple[float, float]] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)

    def touches(self, start_s: float, end_s: float) -> bool:
        """Return True if a stretch of the recording has a separated part."""
        return any(start < end_s and start_s < end for start, end in self.kept)


@dataclass
class PcmWindow:
    """16 kHz mono int16 audio of one stretch of a recording; windows of a recording are contiguous and in order."""

    source_id: str
    start_s: float
    pcm: np.ndarray
    separated: bool = False

    @property
    def end_s(self) -> float:
        return self.start_s + len(self.pcm) / PCM_RATE


@dataclass
class SpeechSpan:
    """A stretch of detected speech, in seconds of its recording. `p` is the mean speech probability; `turn` is True if
    another voice begins with it."""

    source_id: str
    start_s: float
    end_s: float
    p: float = 1.0
    turn: bool = False


@dataclass
class Word:
    """One word with its time in seconds from the start of its segment and its probability."""

    word: str
    start: float
    end: float
    p: float


@dataclass
class Segment(Measures):
    """One utterance cut from a recording, with its measures (`catalogs.corpus.columns.Measures`).

    `hard_reasons` are set by the stage that finds them (no_speech, too_short, undecodable): such a segment keeps its row
    and reasons but no audio, and later stages skip it. `failures` (failed_<stage>) name stages that failed on it: stages
    that measure skip it too, but it is cut and keeps its audio. Soft reasons are never set here; thresholds determine them.
    """

    source_id: str
    seq: int
    start_s: float
    end_s: float
    hard_reasons: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    segment_id: str = ""
    words: list[Word] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    """Notes of the stages (`catalogs.corpus.thresholds.FLAGS`); a threshold decides whether one drops the segment."""
    extra: dict[str, float] = field(default_factory=dict)
    """Measures of stages of other packages, by name."""
    audio_print: np.ndarray | None = None
    """uint16, see `pipeline.duplicates.audio_print`."""
    embedding: np.ndarray | None = None
    """Unit-length float32 speaker embedding."""
    flac: bytes | None = None
    """The cut clip at the recording's native rate (at most 48 kHz), mono, lossless."""
    flac_rate: int | None = None

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass
class Reference:
    """`reference_id` may serve as the reference clip of `segment_id` (same session, not the clip directly before)."""

    segment_id: str
    reference_id: str
    cosine: float
    gap: int


@dataclass
class Quarantined:
    """Something that could not be processed: the file, the stage, the reason, and what is at fault
    (`catalogs.corpus.attempts`).

    `attempts`: how many workers it killed, otherwise 1. `runs`: consecutive runs that ended this way. `version`: that of
    the code that failed. `log`: the traceback's file, relative to the corpus. `kind` (the exception's type) and `trace` are
    not stored.
    """

    path: str
    source_id: str
    stage: str
    error: str
    attempts: int = 1
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    cause: Cause = "data"
    runs: int = 1
    version: str | None = None
    log: str | None = None
    kind: str = ""
    trace: str = ""

    def __post_init__(self) -> None:
        # These rows are displayed, stored and shared: they must not contain passwords or signatures.
        self.path, self.error = public(self.path), redacted(self.error)


@dataclass
class Session:
    """The unit of work that goes through the stages as a whole: recordings made together and what was found in them."""

    session_id: str
    fingerprint: str
    spool: str
    """A folder under the corpus' tmp/ where stages may put large intermediate files; removed after the commit."""
    recordings: list[Recording]
    windows: list[PcmWindow] = field(default_factory=list)
    speech: list[SpeechSpan] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)
    busy_s: dict[str, float] = field(default_factory=dict)
    """Seconds each stage worked on this session."""
    notices: list[str] = field(default_factory=list)
    """Messages to show once per run, e.g. that separation was off because its weights are missing."""

    def recording(self, source_id: str) -> Recording:
        """Return the recording with this id. Raises KeyError if it is not in this session."""
        for recording in self.recordings:
            if recording.source.source_id == source_id:
                return recording
        raise KeyError(source_id)

    def usable(self) -> Iterator[Recording]:
        """The recordings that were not quarantined."""
        return (recording for recording in self.recordings if recording.status != "quarantined")

    def forget(self, source_id: str) -> None:
        """Drop everything derived from a recording: nothing of a quarantined one may become a segment or a reference."""
        self.windows = [window for window in self.windows if window.source_id != source_id]
        self.speech = [span for span in self.speech if span.source_id != source_id]
        self.segments = [segment for segment in self.segments if segment.source_id != source_id]
        left = {segment.segment_id for segment in self.segments}
        self.references = [r for r in self.references if r.segment_id in left and r.reference_id in left]

    def alive(self) -> Iterator[Segment]:
        """The segments that no hard rule rejected and no stage failed on, in order of recording and time."""
        return (segment for segment in self.segments if not segment.hard_reasons and not segment.failures)

    def put_pcm(self, source_id: str, start_s: float, samples: np.ndarray) -> None:
        """Replace a stretch of a recording's windows by float32 [S] at 16 kHz; samples past the recording's end are
        dropped."""
        pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
        first = round(start_s * PCM_RATE)
        for index, window in enumerate(self.windows):
            offset = round(window.start_s * PCM_RATE)
            low, high = max(first, offset), min(first + len(pcm), offset + len(window.pcm))
            if window.source_id == source_id and low < high:
                new = window.pcm.copy()
                new[low - offset : high - offset] = pcm[low - first : high - first]
                self.windows[index] = replace(window, pcm=new, separated=True)

    def pcm(self, source_id: str, start_s: float, end_s: float) -> np.ndarray:
        """Return int16 [S] at 16 kHz of a stretch of a recording, joined across windows; shorter at the recording's end."""
        first, last = round(start_s * PCM_RATE), round(end_s * PCM_RATE)
        parts = []
        for window in self.windows:
            if window.source_id != source_id:
                continue
            offset = round(window.start_s * PCM_RATE)
            low, high = max(first - offset, 0), min(last - offset, len(window.pcm))
            if low < high:
                parts.append(window.pcm[low:high])
        if not parts:
            return np.zeros(0, dtype=np.int16)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def audio(self, segment: Segment) -> np.ndarray:
        """float32 [S] in -1..1 at 16 kHz: the audio of one segment."""
        return self.pcm(segment.source_id, segment.start_s, segment.end_s).astype(np.float32) / 32768.0
