"""What readers of lists share: options, sampling, and clips that are stored by their digest."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from catalogs.files import write_atomically
from catalogs.words import counted
from evaluation.errors import EvaluationError
from evaluation.items import Item

_LOG = logging.getLogger(__name__)

Pick = Callable[[Sequence[Item]], list[Item]]
"""Chooses items before their audio is extracted, in list order."""

AUDIO_ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")


@dataclass(frozen=True)
class ListKind:
    """A layout of test lists. `reader` is `module:function`; the function takes the text after the colon, and options by name."""

    reader: str
    what: str
    languages: str
    items: str
    unit: str
    """Unit of the error rate in the paper's table."""
    license: str
    where: str
    """Where a user gets it."""
    example: str


def choice(option: str, value: str, allowed: Sequence[str]) -> str:
    """Return the value of an option. Raises EvaluationError if it is not one of those that are allowed."""
    if value not in allowed:
        raise EvaluationError(f"{option}={value} is not one of {', '.join(allowed)}")
    return value


def is_audio(name: str) -> bool:
    """Return True if a name ends like an audio file."""
    return name.strip().lower().endswith(AUDIO_ENDINGS)


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of a path in a published list, relative to the folder of the list or to one above it that the path itself
    names; None if there is none.

    Double slashes are one. If the list was copied out of its tree, the longest end of the path that exists below its folder counts.
    A path that is absolute or contains `..` is never followed: it could name any file of this machine.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        return None
    places = [folder]
    # `data/zero_shot/ja/1.wav` in .../data/zero_shot/ja: the paths begin at a folder that the list is below.
    below = folder.absolute()
    places += [
        above
        for above, inner in zip(below.parents, (below, *below.parents), strict=False)
        if inner.name == path.parts[0]
    ]
    for base in places:
        if (base / path).is_file():
            return base / path
    ends = (folder.joinpath(*path.parts[start:]) for start in range(1, len(path.parts)))
    return next((end for end in ends if end.is_file()), None)


def sample(items: Sequence[Item], limit: int | None, seed: int = 0) -> list[Item]:
    """Return at most `limit` items in their order, chosen by a hash of their content and the seed.

    Languages have the same number of items as far as they have enough. What was chosen stays chosen when a list grows, unless an
    added item has a smaller hash.
    """
    if limit is None or len(items) <= limit:
        return list(items)
    parts: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for at, item in enumerate(items):
        parts[item.list_name, item.language].append((_rank(item, seed), at))
    # By the place within its language first: each language gives its first item before any gives its second.
    order = [(place, rank, at) for part in parts.values() for place, (rank, at) in enumerate(sorted(part))]
    return [items[at] for at in sorted(at for _, _, at in sorted(order)[:limit])]


def _rank(item: Item, seed: int) -> str:
    parts = (seed, item.name, item.text, item.language, item.instruction)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def cache_root(cache: str | Path | None = None) -> Path:
    """Return the folder for extracted clips: `cache`, by default `$XDG_CACHE_HOME/voxmill/evaluation`."""
    if cache:
        return Path(cache).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "voxmill" / "evaluation"


def keep_clip(data: bytes, ending: str, root: Path) -> Path:
    """Store the bytes of an audio file under their digest and return the path; a file that is there already is not written."""
    digest = hashlib.sha256(data).hexdigest()
    path = root / "clips" / digest[:2] / f"{digest}{ending}"
    if not path.is_file() or path.stat().st_size != len(data):
        try:
            write_atomically(path, data)
        except OSError as error:
            raise EvaluationError(
                f"{root}: clips cannot be written ({error.strerror or error}); give another folder: cache=DIR"
            ) from None
    return path


def ending_of(data: bytes) -> str:
    """Return the file ending of audio by its first bytes. Raises EvaluationError for bytes that are not a known format."""
    if data[:4] == b"RIFF":
        return ".wav"
    if data[:4] == b"fLaC":
        return ".flac"
    if data[:4] == b"OggS":
        return ".ogg"
    if data[:3] == b"ID3" or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0):
        return ".mp3"
    raise EvaluationError("the embedded audio is not WAV, FLAC, Ogg or MP3")


def missing_files(what: str, missing: Sequence[object], of: int, advice: str) -> EvaluationError:
    """Return the error for files that a list names and that do not exist."""
    return EvaluationError(
        f"{what}: {len(missing)} of {counted(of, 'audio file')} are missing, first {missing[0]}; {advice}"
    )


def without_missing_recordings(items: Sequence[Item], path: Path) -> list[Item]:
    """Return the items without the recordings of their texts that do not exist, and log the number of those.

    Only the system `human` and the floor of a recognizer need them.
    """
    missing = [item.human for item in items if item.human and not item.human.is_file()]
    if missing:
        _LOG.warning(
            "%s: %d of %d recordings of the texts are missing, first %s; the system human cannot speak these items",
            path,
            len(missing),
            len(items),
            missing[0],
        )
    gone = set(missing)
    return [replace(item, human=None) if item.human in gone else item for item in items]


def by_name(values: Iterable[tuple[int, str, str]], path: Path) -> dict[str, str]:
    """Return values by name. Raises EvaluationError for a name that comes twice. values: (line, name, value)."""
    found: dict[str, str] = {}
    for number, name, value in values:
        if name in found:
            raise EvaluationError(f"{path}, line {number}: the id {name} comes twice")
        found[name] = value
    return found
