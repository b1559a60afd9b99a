"""A worker in another environment as a system, such as another package with its own dependencies.

`process:COMMAND` starts the command, split as a shell would but without one. The protocol is lines of UTF-8 JSON:

* The worker prints, when it is ready: `VOXMILL {"name": "my-tts", "version": "1.2", "seeded": true, "settings": {...}}`.
* For every text it reads one line from standard input:
  `{"id": 1, "text", "language", "reference", "reference_text", "instruction", "seed", "max_seconds", "out"}`.
  `reference` is a path or null; `out` is the path of a WAV file that the worker writes.
* After it wrote the file it prints `VOXMILL {"id": 1, "wall_s": 0.8, "first_audio_s": 0.2, "attempts": 1, "reached_limit": false}`.
  All but `id` may be left out. A text that it cannot speak is answered with `VOXMILL {"id": 1, "error": "one line"}`.
* It ends when standard input ends.

Other lines that it prints are not answers and do no harm. A text that gets no answer in time, or crashes the worker, counts as
failed; the worker is killed, and started again for the next text.
"""

from __future__ import annotations

import hashlib
import math
import os
import shlex
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalogs.files import one_line
from catalogs.vocabulary.speech_length import generous_seconds
from evaluation.errors import EvaluationError, SpeakError, TimedOutError
from evaluation.systems.base import Ask, Speech
from evaluation.systems.folder import read_speech
from evaluation.systems.options import Options, read_options
from evaluation.systems.worker_link import Answer, Worker, WorkerDiedError, WorkerLateError


class ProcessOptions(Options):
    """Options of `process:`."""

    timeout_s: float = 300.0
    """Longest time of one text, in seconds."""
    start_s: float = 600.0
    """Longest time until the worker is ready."""
    most_crashes: int = 3
    """Crashes in a row, without any text spoken, that end the run."""
    max_seconds: float | None = None
    """Longest audio that the worker is asked for. None: twice the usual speaking time plus 2 s. 0: no limit."""
    name: str | None = None
    """Name of the system in tables; default: what the worker calls itself."""


class Process:
    """Speaks by a worker. It is started at once, because it knows its name and version.

    Raises EvaluationError if the worker cannot be started or is not ready in time.
    """

    kind = "process"
    batch = 1
    options_kind: type[ProcessOptions] = ProcessOptions

    def __init__(self, argument: str, **options: Any) -> None:
        chosen = read_options(ProcessOptions, self.kind, options)
        try:
            command = shlex.split(argument)
        except ValueError as error:
            raise EvaluationError(f"process: the command cannot be read ({error}): {argument}") from None
        if not command:
            raise EvaluationError("process: the command is missing; write process:COMMAND")
        # Arguments may hold a key: run.json and the report, which are passed on, have their digest only.
        digest = hashlib.sha256(argument.encode()).hexdigest()
        self._open(command, chosen, {"program": command[0], "command_sha256": digest})

    def _open(
        self,
        command: Sequence[str],
        options: ProcessOptions,
        about: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command, self._environment, self._about = command, environment, dict(about)
        self._limits = options
        self._folder = tempfile.TemporaryDirectory(prefix="voxmill-worker-")
        self._crashes = self._spoken = self._asked = 0
        self._worker: Worker | None = None
        _, self._hello = self._started()
        self.name = options.name or str(self._hello.get("name") or Path(command[0]).name)
        self.seeded = self._hello.get("seeded", True) is not False

    def describe(self) -> dict[str, Any]:
        """See `System`."""
        settings = self._hello.get("settings")
        return {
            "kind": self.kind,
            **self._about,
            "worker": self._hello.get("name"),
            "version": self._hello.get("version"),
            "max_seconds": self._limits.max_seconds,
            **(settings if isinstance(settings, dict) else {}),
        }

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`. Raises EvaluationError if the worker crashes again and again, or cannot be started again."""
        return [self._speak(ask) for ask in asks]

    def close(self) -> None:
        """See `System`."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._folder.cleanup()

    # ------------------------------------------------------------------------------------------------------------------

    def _started(self) -> tuple[Worker, Answer]:
        try:
            worker = Worker(self._command, self._environment)
        except OSError as error:
            raise EvaluationError(f"{self.kind}: {self._command[0]} cannot be started ({error.strerror})") from None
        try:
            hello = worker.ask(None, lambda answer: "name" in answer, self._limits.start_s)
        except WorkerDiedError as error:
            raise EvaluationError(f"{self.kind}: the worker {error}") from None
        except WorkerLateError as error:
            worker.kill()
            raise EvaluationError(f"{self.kind}: the worker was not ready ({error}); see option start_s") from None
        except BaseException:
            worker.kill()
            raise
        self._worker = worker
        return worker, hello

    def _speak(self, ask: Ask) -> Speech | Exception:
        problem = self._lacking(ask)
        if problem is not None:
            return SpeakError(problem)
        self._asked += 1
        out = Path(self._folder.name) / f"{self._asked}.wav"
        worker = self._worker or self._started()[0]
        try:
            started = time.perf_counter()
            answer = worker.ask(
                self._message(ask, out), lambda reply: reply.get("id") == self._asked, self._limits.timeout_s
            )
            wall = time.perf_counter() - started
            return self._speech(answer, out, wall)
        except WorkerLateError as error:
            self._stop()
            return TimedOutError(f"{error}; the worker was killed")
        except WorkerDiedError as error:
            self._stop()
            self._crashes += 1
            if not self._spoken and self._crashes >= self._limits.most_crashes:
                raise EvaluationError(
                    f"{self.name}: the worker crashed {self._crashes} times and spoke nothing (it {error}); correct it, "
                    "then run the same command again"
                ) from None
            return SpeakError(f"the worker {error}")
        except BaseException:
            # Its answer would be taken for that of the next text.
            self._stop()
            raise
        finally:
            out.unlink(missing_ok=True)

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _lacking(self, ask: Ask) -> str | None:
        """Return why an item is not sent, or None."""
        del ask
        return None

    def _message(self, ask: Ask, out: Path) -> dict[str, Any]:
        item, limit = ask.item, self._limits.max_seconds
        return {
            "id": self._asked,
            "text": item.text,
            "language": item.language,
            "reference": None if item.reference is None else str(item.reference.absolute()),
            "reference_text": item.reference_text,
            "instruction": item.instruction,
            "seed": ask.seed,
            "max_seconds": generous_seconds(item.text) if limit is None else limit or None,
            "out": str(out),
        }

    def _speech(self, answer: Answer, out: Path, wall: float) -> Speech | Exception:
        if answer.get("error"):
            return SpeakError(one_line(RuntimeError(str(answer["error"]))))
        if not out.is_file():
            return SpeakError("the worker answered without writing the audio")
        speech = read_speech(out)
        if isinstance(speech, Exception):
            return speech
        attempts = _number(answer, "attempts")
        self._spoken += 1
        notes = answer.get("notes")
        return replace(
            speech,
            wall_s=_number(answer, "wall_s", wall),
            first_audio_s=_number(answer, "first_audio_s"),
            attempts=1 if attempts is None else max(1, int(attempts)),
            reached_limit=answer.get("reached_limit") is True,
            notes=notes if isinstance(notes, dict) else {},
        )


def _number(answer: Answer, name: str, otherwise: float | None = None) -> float | None:
    value = answer.get(name)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if fits and value is not None else otherwise


def foreign_environment() -> dict[str, str]:
    """Return this process's environment without what would lead another Python to our packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP")
    return {name: value for name, value in os.environ.items() if name not in ours}
