"""What `make install` installs: every package at a pinned version, and the files that say so agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


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
    # `make install` leaves these out: stores, and a metric that compiles C++ and brings 380 MB.
    wanted = project["dependencies"] + [
        line for name in extras if name not in ("s3", "gs", "visqol") for line in extras[name]
    ]
    names = {plain(re.split(r"[\[<>=!~ ]", line)[0]) for line in wanted} - {"voxmill"}
    assert names - pins("constraints.txt").keys() == set()


def wanted_by(name: str, extra: str = "") -> set[tuple[str, str]]:
    """What an installed distribution asks for on this machine, as (name, extra) pairs."""
    wanted: set[tuple[str, str]] = set()
    for line in importlib.metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            wanted |= {(plain(requirement.name), found) for found in {"", *requirement.extras}}
    return wanted


def test_what_is_installed_here_is_what_is_pinned() -> None:
    """Every package that ours lead to, at any depth: one that nothing pins would be another one tomorrow. What else lies in
    the environment (an editor's tools) is none of ours."""
    reached: set[tuple[str, str]] = set()
    ahead = {("voxmill", extra) for extra in ("", "all", "dev")}
    while ahead:
        reached |= ahead
        ahead = {pair for name, extra in ahead for pair in wanted_by(name, extra)} - reached
    # A CUDA build of torch brings its libraries, at the versions that torch itself names.
    names = {name for name, _ in reached if name != "voxmill" and not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert len(names) > 100
    installed = {name: importlib.metadata.version(name).split("+")[0] for name in names}
    pinned = pins("constraints.txt")
    assert {name: version for name, version in installed.items() if pinned.get(name) != version} == {}
