"""Options of a system by name, checked as settings are: a misspelled name is reported with the nearest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from catalogs.settings import SettingsError, validate_settings
from evaluation.errors import EvaluationError


class Options(BaseModel):
    """Base of the options of a kind of system. The text below an option describes it in the documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Kind = TypeVar("Kind", bound=Options)


def read_options(kind: type[Kind], system: str, values: Mapping[str, Any]) -> Kind:
    """Return checked options. Raises EvaluationError with one line that names the system and the option."""
    try:
        return validate_settings(kind, dict(values))
    except SettingsError as error:
        raise EvaluationError(f"{system}: {error}") from None
