"""Corpora of synthetic speech that were made of a corpus: where they are, and what is forgotten in them with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.locks import only_run
from catalogs.corpus.tombstones import Tombstone, read_tombstones, write_tombstone
from pipeline.synthesis.decouple import default_out
from voxmill.forgetting.plan import tombstone_of
from voxmill.forgetting.scope import Chosen, ForgetError, made_of


@dataclass(frozen=True)
class Step:
    """What is forgotten in one corpus."""

    root: Path
    chosen: Chosen
    tombstone: Tombstone


def derived_places(
    root: Path, tombstones: Iterable[Tombstone] = (), given: Iterable[str | Path] = ()
) -> tuple[Path, ...]:
    """Return the corpora of synthetic speech that are there: those given, those that tombstones name, and CORPUS-decoupled.

    Raises ForgetError if the corpus itself is given, CorpusError for a given folder that is not a corpus.
    """
    places = [Path(path).absolute() for path in given]
    for place in places:
        corpus_info(place)
        if place.resolve() == root.resolve():
            raise ForgetError(f"{place} is the corpus itself: --derived names corpora of synthetic speech made of it")
    named = [_named(root, name) for found in tombstones for name in found.derived]
    places += [place for place in (*named, default_out(root)) if (place / "corpus.json").is_file()]
    return tuple({place.resolve(): place for place in reversed(places) if place.resolve() != root.resolve()}.values())


def name_of(root: Path, place: Path) -> str:
    """Return how a tombstone names a corpus: relative to its own corpus if both are in one folder, so that both may move."""
    own, place = root.resolve(), place.resolve()
    return os.path.relpath(place, own) if place.is_relative_to(own.parent) else str(place)


def step_of(place: Path, ids: Iterable[str], of: Tombstone) -> Step | None:
    """Return what is forgotten in a corpus of synthetic speech with some segments; None if nothing there was made of them."""
    if (found := made_of(place, ids)) is None:
        return None
    told = {"by": "derived", "sha256": of.scope.get("sha256", "")}
    return Step(place, found, replace(tombstone_of(found, told, of.reason, None), requested_by=of.requested_by))


def tombstones_with(places: Iterable[Path], tombstones: Iterable[Tombstone]) -> list[Tombstone]:
    """Return the tombstones of corpora of synthetic speech that belong to some tombstones of the corpus."""
    requests = {found.scope.get("sha256") for found in tombstones}
    return [
        one
        for place in places
        for one in read_tombstones(place)
        if one.scope.get("by") == "derived" and one.scope.get("sha256") in requests
    ]


def lost(root: Path, found: Tombstone, places: Sequence[Path]) -> list[str]:
    """Return the corpora that a tombstone names and that have none for it. One elsewhere that has one stands for a lost one."""
    holders = {place.resolve() for place in places if tombstones_with([place], [found])}
    named = [_named(root, name).resolve() for name in found.derived]
    gone = [name for name, place in zip(found.derived, named, strict=True) if place not in holders]
    return gone[len(holders.difference(named)) :]


def lost_lines(root: Path, tombstones: Iterable[Tombstone], places: Sequence[Path]) -> list[str]:
    """Return one line for each corpus of synthetic speech that tombstones name and that is not found."""
    return [
        f"{_named(root, name)} was made of what was forgotten (tombstone {found.id}) and is not there: name its place with "
        f"--resume --derived, or, if it was deleted, remove it from `derived` in {root}/tombstones/{found.id}.json"
        for found in tombstones
        for name in lost(root, found, places)
    ]


def note_derived(root: Path, found: Tombstone, places: Sequence[Path]) -> None:
    """Write down in a tombstone where the corpora are that have one for the same request. Raises CorpusBusyError."""
    holders = [name_of(root, place) for place in places if tombstones_with([place], [found])]
    names = tuple(dict.fromkeys([*holders, *lost(root, found, places)]))
    if set(names) != {name_of(root, _named(root, name)) for name in found.derived}:
        with only_run(root):
            write_tombstone(root, replace(found, derived=names))


def _named(root: Path, name: str) -> Path:
    return Path(os.path.normpath(root.resolve() / name))
