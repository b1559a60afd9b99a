"""Stages that do what real ones only do on a bad day: die, hang, raise, fill the disk."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

from pipeline.records import Recording, Session
from pipeline.stage import LoadError, Stage, StageConfig, StageError


class TroubleConfig(StageConfig):
    """What happens to recordings by a word in their path; `log` gets a line for each recording started."""

    log: str = ""
    seconds: float = 0.0
    load: str = "fine"


class Trouble(Stage[TroubleConfig]):
    """Touches each recording and meets the fate its path names: poison, hang, raise, full, once."""

    name = "trouble"
    version = "1"
    config_type = TroubleConfig

    def load(self) -> None:
        if self.config.load == "fail":
            raise LoadError("trouble's model is not here: voxmill models pull trouble")

    def __call__(self, session: Session) -> Session:
        def work(recording: Recording) -> None:
            path, kind = recording.source.path, Path(recording.source.path).name
            if self.config.log:
                with Path(self.config.log).open("a") as log:
                    log.write(f"{recording.source.source_id}\n")
            time.sleep(self.config.seconds)
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
            recording.duration_s = 1.0

        self.for_each(session, session.usable(), work)
        return session


class Second(Trouble):
    """The same stage under another name, to have two groups."""

    name = "second"
