"""Gather calls of a model into batches. Code that processes one clip at a time runs in threads; when all of them wait for
the model, it computes their calls at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Request:
    """One job's call: `key` decides what may be computed together, `value` is the input."""

    key: Hashable
    value: Any
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: Exception | None = None


class CallBatcher:
    """Runs jobs in threads and answers their calls in batches. One `run` at a time."""

    def __init__(self, compute: Callable[[Hashable, list[Any]], Sequence[Any]]) -> None:
        """compute: (key, the values of calls with this key) -> one result for each, in order."""
        self._compute = compute
        self._changed = threading.Condition()
        self._requests: list[_Request] = []
        self._at_work = 0
        self._thread = threading.local()

    @property
    def in_job(self) -> bool:
        """Whether this is a job's thread, whose calls are gathered."""
        return getattr(self._thread, "job", False)

    def call(self, key: Hashable, value: Any) -> Any:
        """Return the result for a value; called from a job. An error of the batch is raised in all of its jobs."""
        request = _Request(key, value)
        with self._changed:
            self._requests.append(request)
            self._at_work -= 1
            self._changed.notify_all()
        request.done.wait()
        if request.error is not None:
            raise request.error
        return request.result

    def run(self, jobs: Sequence[Callable[[], Any]]) -> None:
        """Run the jobs until all have ended, then raise the first of their errors."""
        errors: list[Exception] = []
        self._at_work = len(jobs)
        for job in jobs:
            # As daemons: an interrupted run must not wait for threads that get no more answers.
            threading.Thread(target=self._run_job, args=(job, errors), daemon=True).start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._at_work == 0)
                requests, self._requests = self._requests, []
                self._at_work = len(requests)
            if not requests:
                break
            for key in dict.fromkeys(request.key for request in requests):
                self._answer([request for request in requests if request.key == key])
        if errors:
            raise errors[0]

    def _answer(self, requests: Sequence[_Request]) -> None:
        try:
            results = self._compute(requests[0].key, [request.value for request in requests])
            for request, result in zip(requests, results, strict=True):
                request.result = result
        except Exception as error:
            for request in requests:
                request.error = error
        for request in requests:
            request.done.set()

    def _run_job(self, job: Callable[[], Any], errors: list[Exception]) -> None:
        self._thread.job = True
        try:
            job()
        except Exception as error:
            errors.append(error)
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()
