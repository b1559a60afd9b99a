"""Stages that do what real ones only do on a bad day: die, hang, raise, fill the disk."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogs.corpus.commit import UnitContent
from catalogs.corpus.ids import other_channel_id
from pipeline.engine.api import Output, SessionDone
from pipeline.records import Recording, Segment, Session, Source, SpeechSpan
from pipeline.stage import LoadError, Stage, StageConfig, StageError


class TroubleConfig(StageConfig):
    """What happens to recordings by a word in their path; `log` gets a line for each recording started."""

    log: str = ""
    seconds: float = 0.0
    load: str = "fine"
    harmless: bool = False
    """No recording meets its fate: what an unbroken run of the same recordings gives."""
    fates: str = ""
    """A folder where a file of a recording's name says what it meets: data, machine, bug, memory, library, limit, kill,
    "group FOLDER" (the memory of a control group ends), wait (until the file is gone)."""


class Trouble(Stage[TroubleConfig]):
    """Touches each recording and meets the fate its path names: poison, hang, raise, full, once."""

    name = "trouble"
    version = "1"
    config_type = TroubleConfig

    def load(self) -> None:
        if self.config.load == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.load == "fail":
            raise LoadError("trouble's model is not here: voxmill models pull trouble")

    def __call__(self, session: Session) -> Session:
        def work(recording: Recording) -> None:
            path, kind = recording.source.path, Path(recording.source.path).name
            if self.config.log:
                with Path(self.config.log).open("a") as log:
                    log.write(f"{recording.source.source_id}\n")
            time.sleep(self.config.seconds)
            recording.duration_s = recording.duration_s or 1.0
            if self.config.harmless:
                return
            meet_fate(self.config.fates, kind)
            if "poison" in kind:
                os.kill(os.getpid(), signal.SIGKILL)
            if "once" in kind and not Path(path + ".died").exists():
                Path(path + ".died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if "hang" in kind:
                time.sleep(3600)
            if "raise" in kind:
                raise StageError("this recording is bad on purpose")
            if "full" in kind:
                raise OSError(errno.ENOSPC, "no space left on device")

        self.for_each(session, session.usable(), work)
        return session


def exhaust_memory() -> None:
    """Ask for more memory than the process may have."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), before[1]))
    try:
        bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def exceed_memory_limit(group: Path, most: int = 2 << 30) -> None:
    """Join a control group with a limit of memory and take more than that: the kernel ends this process."""
    (group / "cgroup.procs").write_text(str(os.getpid()))
    kept: list[bytes] = []
    while len(kept) < most >> 24:
        kept.append(b"x" * (1 << 24))
    raise AssertionError(f"the kernel let this process take {most} bytes")


def meet_fate(folder: str, name: str) -> None:
    """Fail as a file of this name in the folder says."""
    note = Path(folder) / name
    fate = note.read_text() if folder and note.is_file() else ""
    while fate == "wait" and note.is_file():
        time.sleep(0.05)
    if fate == "data":
        raise StageError("this recording is bad on purpose")
    if fate == "machine":
        raise TimeoutError("the store does not answer")
    if fate == "memory":
        raise MemoryError
    if fate == "limit":
        exhaust_memory()
    if fate == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fate.startswith("group "):
        exceed_memory_limit(Path(fate.removeprefix("group ")))
    if fate == "library":
        raise ModuleNotFoundError("No module named 'demucs'", name="demucs")
    if fate == "bug":
        raise AttributeError("no such thing")


class SplitsChannels(Trouble):
    """Makes two recordings of each file, as `decode` does of a call with a speaker on each channel; the second one kills."""

    name = "splits_channels"

    def __call__(self, session: Session) -> Session:
        for recording in list(session.usable()):
            other = replace(recording.source, source_id=other_channel_id(recording.source.source_id))
            session.recordings.append(replace(recording, source=other, channel=1))

        def work(recording: Recording) -> None:
            recording.duration_s = 1.0
            if recording.channel == 1 and "poison_channel" in Path(recording.source.path).name:
                os.kill(os.getpid(), signal.SIGKILL)

        self.for_each(session, session.usable(), work)
        return session


class BatchesOfRecordings(Trouble):
    """Works on all recordings at once; a poisonous one kills the worker, whoever is the first of its batch."""

    name = "batches_of_recordings"

    def __call__(self, session: Session) -> Session:
        def work(batch: Sequence[Recording]) -> None:
            for recording in batch:
                recording.duration_s = 1.0
            if any("poison_batch" in Path(recording.source.path).name for recording in batch):
                os.kill(os.getpid(), signal.SIGKILL)

        self.for_batches(session, session.usable(), work, 8)
        return session


class Second(Trouble):
    """The same stage under another name, to have two groups."""

    name = "second"


class SpeechThroughout(Stage[TroubleConfig]):
    """Calls every recording speech from its first to its last sample, in stretches of 1.4 s with pauses of 0.8 s."""

    name = "speech_throughout"
    version = "1"
    config_type = TroubleConfig

    def __call__(self, session: Session) -> Session:
        def listen(recording: Recording) -> None:
            start = 0.2
            while start + 1.4 < recording.duration_s:
                session.speech.append(SpeechSpan(recording.source.source_id, start, start + 1.4, 1.0))
                start += 2.2

        self.for_each(session, session.usable(), listen)
        return session


class DiesWriting(Output):
    """Kills its process in the place of the first two writes of a unit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def split(self, session: Session) -> tuple[SessionDone, Any]:
        return super().split(session)[0], {"made": session.session_id}

    def write(self, unit: UnitContent, contents: Any) -> dict[str, Any]:
        deaths = self.folder / unit.unit_id
        if not deaths.exists() or len(deaths.read_text()) < 2:
            with deaths.open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return {"unit_id": unit.unit_id, "made": [content["made"] for content in contents]}


class BatchConfig(StageConfig):
    """`fits`: batches of more segments than this do not fit; `error`: how that is said."""

    batch_size: int = 16
    fits: int = 16
    error: str = "torch"
    seconds_fit: float = 1e9
    """A segment longer than this does not fit even alone."""


class Batches(Stage[BatchConfig]):
    """Sets the text of the segments, in batches, as long as the memory suffices."""

    name = "batches"
    version = "1"
    config_type = BatchConfig

    def load(self) -> None:
        self.seen: list[list[float]] = []

    def __call__(self, session: Session) -> Session:
        self.for_batches(session, session.alive(), self._write, self.config.batch_size)
        return session

    def _write(self, segments: Sequence[Segment]) -> None:
        if len(segments) > self.config.fits or max(s.duration_s for s in segments) > self.config.seconds_fit:
            raise out_of_memory(self.config.error)
        if any(segment.text == "bad" for segment in segments):
            raise StageError("this segment is bad on purpose")
        self.seen.append([segment.duration_s for segment in segments])
        for segment in segments:
            segment.text = "written"


def out_of_memory(kind: str) -> Exception:
    """The error of running out of memory as different libraries raise it."""
    if kind == "torch":
        import torch

        return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    if kind == "python":
        return MemoryError()
    return RuntimeError("CUDA failed with error out of memory")


def session(name: str, *paths: str, folder: Path) -> Session:
    """A session as the plan has it; its recordings need not exist."""
    recordings = [Recording(Source(f"{name}-{p}", str(folder / p), p, name, 1, "0" * 64)) for p in paths]
    return Session(name, "fp", str(folder / "spool"), recordings)


def statuses(session: Session) -> dict[str, str]:
    """{path of the recording: its status}."""
    return {recording.source.relative_path: recording.status for recording in session.recordings}
