"""What a package logs for people, as lines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class _Lines(logging.Handler):
    def __init__(self, take: Callable[[str], object]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.getMessage())


def logged(
    take: Callable[[str], object],
    call: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Result:
    """Call a function of the trainer; `take` gets each line that `trainer` logs meanwhile. What `take` raises ends the call."""
    logger, handler = logging.getLogger("trainer"), _Lines(take)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return call(*arguments, **named)
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
