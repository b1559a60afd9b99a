"""Settings of a flow: FLOW.yaml, the recipes, and `--set`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from catalogs.files import write_atomically
from catalogs.nearest import nearest
from catalogs.settings import SettingsError, dump_settings, load_settings
from catalogs.urls import is_location, public

FLOW_FILE = "flow.yaml"
RESERVED = ("state", "logs", "superseded", "sources", "index", "flow")
"""Names in the folder of a flow that no step may have."""


class FlowError(RuntimeError):
    """A flow cannot start or continue; the message is one line that states what to do."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class Prices(BaseModel):
    """Prices of machines, for `--dry-run`. Without a price its amount is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_usd_per_hour: float | None = Field(None, ge=0)
    """US dollars per hour of one GPU."""
    cpu_usd_per_hour: float | None = Field(None, ge=0)
    """US dollars per hour of a machine without a GPU."""


class FlowSettings(BaseModel):
    """A flow: what it reads, and its steps in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("flow", pattern=r"^[\w.-]+$")
    """Name of the flow, and of its folder if none is given."""
    folder: str | None = None
    """Folder for everything that the flow makes. Default: the flow's name."""
    sources: tuple[str, ...] = ()
    """Recordings, as `voxmill prepare` takes them: folders, files, globs, URLs, manifests."""
    prices: Prices = Prices()
    steps: dict[str, dict[str, Any]] = Field(min_length=1)
    """Steps by name, in order. Each has a `kind` (default: its name), names of earlier steps as inputs, and settings."""

    @field_validator("steps", mode="before")
    @classmethod
    def _empty_steps(cls, value: Any) -> Any:
        # `verify:` without settings is null in YAML.
        return {name: {} if own is None else own for name, own in value.items()} if isinstance(value, dict) else value

    @field_validator("steps")
    @classmethod
    def _names_are_folders(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in value:
            if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
                raise ValueError(f"the step name {name!r} is not lowercase letters, digits, - and _: rename it")
            if name in RESERVED:
                raise ValueError(f"the step name {name} is reserved for the flow's own files: rename it")
        return value


def recipes() -> list[str]:
    """Return the names of the recipes."""
    folder = files("voxmill.flow") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_flow(
    source: str | Path, overrides: Iterable[str] = (), sources: Sequence[str] = (), folder: str | Path | None = None
) -> FlowSettings:
    """Return the settings of a flow: a YAML file, a recipe's name, or the folder of a flow that has begun.

    Paths of `sources` become absolute. Raises SettingsError with one line.
    """
    path = _flow_file(source)
    loaded = load_settings(FlowSettings, path, overrides)
    given = tuple(sources) or loaded.sources
    changed: dict[str, Any] = {"sources": tuple(map(_absolute, given))}
    if folder is not None:
        changed["folder"] = str(folder)
    elif path.name == FLOW_FILE and Path(source).is_dir():
        changed["folder"] = str(source)
    return loaded.model_copy(update=changed)


def _flow_file(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if (path / FLOW_FILE).is_file():
        return path / FLOW_FILE
    if path.is_file():
        return path
    recipe = Path(str(files("voxmill.flow") / "recipes" / f"{source}.yaml"))
    if recipe.is_file():
        return recipe
    near = nearest(str(source), recipes())
    hint = f"did you mean {near}? " if near else ""
    raise SettingsError(f"{source}: no such file, flow folder or recipe; {hint}recipes: {', '.join(recipes())}")


def _absolute(given: str) -> str:
    return given if is_location(given) else str(Path(given).expanduser().absolute())


def folder_of(settings: FlowSettings) -> Path:
    """Return the absolute folder of a flow."""
    return Path(settings.folder or settings.name).expanduser().absolute()


def save_flow(folder: Path, settings: FlowSettings) -> None:
    """Write the settings to FOLDER/flow.yaml, unless they are there already."""
    data = dump_settings(settings.model_copy(update={"folder": None})).encode()
    path = folder / FLOW_FILE
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
    if any(public(source) != source for source in settings.sources if is_location(source)):
        # Steps need the credentials in URLs; other people of this machine do not.
        path.chmod(0o600)


def as_overrides(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return nested settings as `a.b=c` overrides; lists and empty mappings are values."""
    found: list[str] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found += as_overrides(value, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}={json.dumps(value, ensure_ascii=False)}")
    return found
