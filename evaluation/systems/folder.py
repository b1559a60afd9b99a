"""A folder of audio files as a system: what another program has made, or recordings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from evaluation.errors import EvaluationError, SpeakError
from evaluation.systems.base import Ask, Speech

ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".opus")


class Folder:
    """Files named by an item's id or its name in the list; with seeds, `NAME-SEED.wav` comes first.

    Names may have folders. A file in a folder of another name is not taken: en/x.wav is that of x and en/x, not that of it/x.
    """

    batch = 1

    def __init__(self, argument: str) -> None:
        self._folder = Path(argument)
        if not self._folder.is_dir():
            raise EvaluationError(f"no folder of audio at {argument}")
        self.name = self._folder.name
        found = [path for path in sorted(self._folder.rglob("*")) if path.suffix.lower() in ENDINGS]
        if not found:
            raise EvaluationError(f"{argument} has no audio file ({', '.join(ENDINGS)})")
        self._files: dict[str, list[tuple[tuple[str, ...], Path]]] = {}
        for path in found:
            self._files.setdefault(path.stem, []).append((path.relative_to(self._folder).with_suffix("").parts, path))
        self.seeded = _has_seeds(path.with_suffix("").as_posix() for path in found)
        self._digest = _digest(self._folder, found)

    def describe(self) -> dict[str, Any]:
        """See `System`. `files`: a digest of the names, sizes and times of the files."""
        return {"kind": "folder", "folder": str(self._folder.absolute()), "files": self._digest}

    def check(self, asks: Iterable[Ask]) -> None:
        """Raise EvaluationError if one file would be several takes, or if several files could be one take."""
        taken: dict[Path, Ask] = {}
        for ask in asks:
            path = self._path(ask)
            other = None if path is None else taken.setdefault(path, ask)
            if other is None or other is ask:
                continue
            if other.item.id == ask.item.id:
                raise EvaluationError(
                    f"{path} would be the takes of {_called(ask)} with the seeds {other.seed} and {ask.seed}; "
                    "give one seed, or a file NAME-SEED for each"
                )
            raise EvaluationError(
                f"{path} would be the take of both {_called(other)} ({other.item.id}) and {_called(ask)} ({ask.item.id}); "
                "put the files into folders as the names have them, or name them by id"
            )

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        """See `System`. Raises EvaluationError if several files could be one take."""
        return [self._read(ask) for ask in asks]

    def _read(self, ask: Ask) -> Speech | Exception:
        path = self._path(ask)
        return SpeakError(f"no file for {_called(ask)} in {self._folder}") if path is None else read_speech(path)

    def _path(self, ask: Ask) -> Path | None:
        plain = [name for name in (ask.item.id, _without_ending(ask.item.name)) if name]
        seeds = [f"{name}-{ask.seed}" for name in plain]
        # Without takes of several seeds, `utt-1` is rather a name than the take of `utt` with seed 1.
        for name in [*seeds, *plain] if self.seeded else [*plain, *seeds]:
            if path := self._find(name):
                return path
        return None

    def _find(self, name: str) -> Path | None:
        """Return the file whose path agrees with a name in the most folders. Raises EvaluationError if there are two."""
        wanted = PurePosixPath(name).parts
        found: list[tuple[tuple[int, bool], Path]] = []
        for parts, path in self._files.get(wanted[-1], ()) if wanted else ():
            length = min(len(parts), len(wanted))
            if parts[-length:] == wanted[-length:]:
                found.append(((length, parts == wanted), path))
        most = max((rank for rank, _ in found), default=None)
        best = [path for rank, path in found if rank == most]
        if len(best) > 1:
            raise EvaluationError(f"{best[0]} and {best[1]} could both be the take of {name}; keep one of them")
        return best[0] if best else None

    def close(self) -> None:
        """See `System`."""


def _called(ask: Ask) -> str:
    return ask.item.name or ask.item.id


def _without_ending(name: str) -> str:
    """Return a name without the ending of an audio file. Other dots are part of it: `utt.1`."""
    ending = PurePosixPath(name).suffix
    return name.removesuffix(ending) if ending.lower() in ENDINGS else name


def _has_seeds(names: Iterable[str]) -> bool:
    """Return True if a name is there with several seeds. 61-70968-0001 is not one: seeds are written without zeros before them."""
    found: dict[str, set[str]] = {}
    for name in names:
        stem, _, seed = name.rpartition("-")
        if stem and seed.isdecimal() and str(int(seed)) == seed:
            found.setdefault(stem, set()).add(seed)
    return any(len(seeds) > 1 for seeds in found.values())


def _digest(folder: Path, files: Iterable[Path]) -> str:
    """Return 16 hex digits that change when a file is added, replaced or taken away."""
    states = ((path.relative_to(folder).as_posix(), path.stat()) for path in files)
    parts = [[name, state.st_size, state.st_mtime_ns] for name, state in states]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def read_speech(path: Path) -> Speech | Exception:
    """Return a file as an answer."""
    import soundfile

    from catalogs.files import one_line

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        return SpeakError(f"{path}: the audio cannot be read ({one_line(error)})")
    return Speech(samples.mean(axis=1), int(rate))
