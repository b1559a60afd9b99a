"""A shared list of arguments for methods that take the same ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

Owner = TypeVar("Owner")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def arguments_of(
    source: Callable[Concatenate[Owner, Arguments], Any],
) -> Callable[[Callable[..., Result]], Callable[Concatenate[Owner, Arguments], Result]]:
    """Decorate a method `(self, *args, **kwargs)` that passes all its arguments to the method `source`.

    For `help`, editors and type checkers, it gets the signature of `source` and keeps its return type.
    """

    def decorate(method: Callable[..., Result]) -> Callable[Concatenate[Owner, Arguments], Result]:
        returned = inspect.signature(method).return_annotation
        method.__signature__ = inspect.signature(source).replace(return_annotation=returned)  # type: ignore[attr-defined]
        return method

    return decorate
