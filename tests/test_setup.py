"""What `make install` installs: every package at a pinned version, and the files that say so agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
OURS_OR_PIPS = {"voxmill", "pip", "wheel"}


def plain(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, str]:
    return {plain(found): version for found, version in PIN.findall((REPOSITORY / name).read_text(encoding="utf-8"))}


def test_constraints_and_lock_pin_the_same_versions() -> None:
    assert pins("constraints.txt") == pins("requirements.lock") | {"torch": "2.13.0"}


def test_every_package_of_the_lock_has_hashes() -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").strip())
    assert len(entries) == len(pins("requirements.lock")) > 100
    assert [entry.split("\n")[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    # s3 and gs are for those who need these stores; `make install` leaves them out.
    wanted = project["dependencies"] + [line for name in extras if name not in ("s3", "gs") for line in extras[name]]
    names = {plain(re.split(r"[\[<>=!~ ]", line)[0]) for line in wanted} - {"voxmill"}
    assert names - pins("constraints.txt").keys() == set()


def test_what_is_installed_here_is_what_is_pinned() -> None:
    """A package that nothing pins would be another one tomorrow."""
    installed = {
        plain(found.metadata["Name"]): found.version.split("+")[0] for found in importlib.metadata.distributions()
    }
    pinned = pins("constraints.txt")
    differ = {name: version for name, version in installed.items() if pinned.get(name) != version}
    # A CUDA build of torch brings its libraries, at the versions that torch itself names.
    assert {
        name: v
        for name, v in differ.items()
        if name not in OURS_OR_PIPS and not name.startswith(("nvidia-", "cuda-", "triton"))
    } == {}
