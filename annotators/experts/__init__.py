"""The experts by name: the built-in ones and those of other packages."""

from __future__ import annotations

from annotators.experts.base import Expert, ExpertError
from catalogs.extensions import ExtensionError, ExtensionPoint
from catalogs.files import one_line

EXPERTS = ExtensionPoint(
    "expert",
    Expert,  # type: ignore[type-abstract]
    "voxmill.experts",
    {
        "gender": "annotators.experts.gender:Gender",
        "age": "annotators.experts.age:Age",
        "ears-gender": "annotators.experts.vocal:EarsGender",
        "ears-age": "annotators.experts.vocal:EarsAge",
    },
)


def expert(name: str, allow_non_commercial: bool = False) -> Expert:
    """Return the expert with this name, entry point or `module:Class`, not loaded yet.

    Raises ExtensionError with a one-line message, and ExpertError for an expert whose license forbids commercial use unless
    the caller allows it.
    """
    kind = EXPERTS.find(name)
    missing = [part for part in ("name", "attribute") if not hasattr(kind, part)]
    if missing:
        raise ExtensionError(f"expert {name} has no {missing[0]}: give it to the class")
    if kind.non_commercial and not allow_non_commercial:
        raise ExpertError(
            f"expert {name} is licensed {kind.license}, for non-commercial use only: allow it explicitly, or use another"
        )
    try:
        return kind()
    except TypeError as error:
        raise ExtensionError(f"expert {name} cannot be made without arguments ({one_line(error)})") from error
