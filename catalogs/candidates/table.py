"""The candidate table: what a trainer needs of every kept segment, as memory-mapped columns in order of segment id.

    candidates/<key>/<column>.bin        one array each, little endian: see NUMBERS
    candidates/<key>/<column>.at, .txt   strings: int64 ends of each, UTF-8
    candidates/<key>/recordings.parquet  the recordings that rows are from (`catalogs.candidates.recordings`)
    candidates/<key>/table.json          names of languages and shards, sizes and checksums; written last

The table is a cache: it is made from index, annotations and thresholds, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.candidates.captions import ADDED, COLUMNS
from catalogs.files import fsync_path
from catalogs.vocabulary.languages import is_chinese

FORMAT = 4

TEXT, FULL, BRIEF, MADE, ACCEPTED = 1, 2, 4, 8, 16
"""Flags of a row: it has text; a full description; a brief description; a model made its speech; that speech is accepted."""
CAPTION_FLAGS = (FULL, BRIEF, *(32 << number for number in range(len(ADDED))))
"""Flags of a row that has a caption, in the order of CAPTIONS."""
HAS_ADDED = sum(CAPTION_FLAGS[2:])
DESCRIBED = FULL | HAS_ADDED
"""A row with one of these flags is described: a brief description alone never was enough."""

NUMBERS: dict[str, str] = {
    "seconds": "<f8",
    "flags": "<u2",
    "language": "<i2",
    "shard": "<i4",
    "row": "<i4",
    "group": "<i4",
    "described_group": "<i4",
    "draw": "<f8",
    "id_hash": "<u8",
    "digest": "<u8",
    "pairs_at": "<i8",
    "pairs": "<i4",
    "recording": "<i4",
    "described_recording": "<i4",
    "text_recording": "<i4",
}
"""Arrays and their types.

`group`: linked segments (copies, excerpts) share one number. `described_group`: for synthetic speech, the group of the segment
whose description it follows; -1 if there is none. `draw`: decides what is held out; 1.0 in a group of more than LARGEST_HELD
segments. `digest`: hash of everything that is trained on except the references. `pairs[pairs_at[i]:pairs_at[i + 1]]`: row numbers
of the references of row i. `recording`: row number in recordings.parquet. `described_recording`, `text_recording`: those of
the segments whose description synthetic speech follows and whose text it speaks; -1 if there is none, or if no corpus has it."""

STRINGS = ("ids", "texts", *COLUMNS, "described")
"""String columns: also each caption. `described`: for synthetic speech, the id of the segment whose description it follows."""

RECORDINGS = "recordings.parquet"

LARGEST_HELD = 20
"""Segments in the largest group of duplicates that may be held out."""

_READ = 1 << 24
_DRAFT = ".draft-"


class Strings:
    """A column of strings, stored one after the other and read by number."""

    def __init__(self, ends: np.ndarray, data: Any) -> None:
        """ends: `[N + 1] int64`, from 0; data: UTF-8 bytes."""
        self.ends, self._data = ends, memoryview(data)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, number: int) -> str:
        return str(self._data[int(self.ends[number]) : int(self.ends[number + 1])], "utf-8")

    def sizes(self, numbers: np.ndarray) -> np.ndarray:
        """Return the sizes of some strings in bytes, int64."""
        return np.asarray(self.ends[numbers + 1] - self.ends[numbers])

    def stretch(self, start: int, stop: int) -> list[str]:
        """Return the strings from `start` to `stop` - 1."""
        ends = self.ends[start : stop + 1].tolist()
        return [str(self._data[a:b], "utf-8") for a, b in pairwise(ends)]

    def find(self, value: str) -> int:
        """Return the number of a string in a sorted column. Raises KeyError if it is missing."""
        wanted, low, high = value.encode(), 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if bytes(self._data[int(self.ends[middle]) : int(self.ends[middle + 1])]) < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self) or self[low] != value:
            raise KeyError(value)
        return low


class Table:
    """The columns of a candidate table by the names in NUMBERS and STRINGS, in memory or mapped from `folder`."""

    seconds: np.ndarray
    flags: np.ndarray
    language: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    group: np.ndarray
    described_group: np.ndarray
    draw: np.ndarray
    id_hash: np.ndarray
    digest: np.ndarray
    pairs_at: np.ndarray
    pairs: np.ndarray
    recording: np.ndarray
    described_recording: np.ndarray
    text_recording: np.ndarray
    ids: Strings
    texts: Strings
    full: Strings
    brief: Strings
    style: Strings
    persona: Strings
    full_zh: Strings
    brief_zh: Strings
    style_zh: Strings
    persona_zh: Strings
    described: Strings

    def __init__(
        self,
        columns: Mapping[str, Any],
        languages: Sequence[str],
        shards: Sequence[tuple[int, str]],
        folder: Path | None = None,
    ) -> None:
        """shards: (number of the corpus, path in it)."""
        self.is_chinese = np.array([is_chinese(name) for name in languages], dtype=bool)
        """bool [languages]: whether each of `languages` is Chinese or a dialect of it."""
        self.languages, self.shards, self.folder = list(languages), [(int(n), path) for n, path in shards], folder
        self.counts: dict[tuple[str, str], np.ndarray] = {}
        """Token counts by the tokenizer's digest and the column (`trainer.data.token_counts`)."""
        self.recordings: Any = None
        """The opened recordings.parquet (`catalogs.candidates.recordings`)."""
        for name in (*NUMBERS, *STRINGS):
            setattr(self, name, columns[name])

    def __len__(self) -> int:
        return len(self.seconds)

    def find(self, segment_id: str) -> int:
        """Return the row number of a segment. Raises KeyError if the table lacks it."""
        return self.ids.find(segment_id)


def has_text(flags: np.ndarray) -> np.ndarray:
    """Return which rows have text, bool."""
    return (flags & TEXT) != 0


def row_digest(*values: object) -> int:
    """Return a 64-bit hash of the values."""
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest(), "little")


def make_table(
    rows: Mapping[str, Mapping[str, Any]],
    pairs: Mapping[str, Sequence[str]],
    groups: Mapping[str, str],
    draw: Callable[[str], float],
) -> Table:
    """Make a small table in memory, in which each row is a recording.

    rows: values by segment id; pairs: reference ids by segment id; groups: names by id.
    """
    ids = sorted(rows)
    numbers = {segment: number for number, segment in enumerate(ids)}
    values = [{"language": "", "text": "", "seconds": 0.0, "flags": 0, **rows[segment]} for segment in ids]
    codes = {name: len(ids) + number for number, name in enumerate(sorted(set(groups.values())))}
    sizes = Counter(groups.values())
    languages = sorted({value["language"] for value in values})

    def group(segment: str | None) -> int:
        name = groups.get(segment or "")
        return codes[name] if name is not None else numbers.get(segment or "", -1)

    references = [[numbers[other] for other in pairs.get(segment, ())] for segment in ids]
    columns: dict[str, Any] = {
        "seconds": [value["seconds"] for value in values],
        "flags": [value["flags"] | flags_of(value) for value in values],
        "language": [languages.index(value["language"]) for value in values],
        "shard": [0] * len(ids),
        "row": list(range(len(ids))),
        "group": [group(segment) for segment in ids],
        "described_group": [group(value.get("described")) if value.get("described") else -1 for value in values],
        "draw": [
            1.0 if sizes[groups.get(segment, "")] > LARGEST_HELD else draw(groups.get(segment, segment))
            for segment in ids
        ],
        "id_hash": [row_digest(segment) for segment in ids],
        "digest": [digest_of(value) for value in values],
        "pairs_at": np.cumsum([0, *map(len, references)]),
        "pairs": [other for found in references for other in found],
        "recording": list(range(len(ids))),
        "described_recording": [numbers.get(value.get("described") or "", -1) for value in values],
        "text_recording": [-1] * len(ids),
    }
    arrays: dict[str, Any] = {name: np.array(columns[name], dtype=kind) for name, kind in NUMBERS.items()}
    for name, key in zip(STRINGS, STRING_KEYS, strict=True):
        data = [(value.get(key) or "").encode() for value in values]
        arrays[name] = Strings(np.cumsum([0, *map(len, data)], dtype=np.int64), b"".join(data))
    return Table(arrays, languages, [(0, "")])


STRING_KEYS = ("segment_id", "text", *COLUMNS, "described")
"""The names of STRINGS in a row."""
DIGESTED = ("segment_id", "language", "text", "seconds", "full", "brief", "described")
"""Columns that `digest` is computed from, and the ADDED captions of a row that has any."""


def digest_of(value: Mapping[str, Any]) -> int:
    """Return the `digest` of a row."""
    added = [value.get(name) for name in ADDED]
    return row_digest(*(value.get(name) for name in DIGESTED), *(added if any(added) else ()))


def flags_of(value: Mapping[str, Any]) -> int:
    """Return the flags of a row's text and captions."""
    named = zip((TEXT, *CAPTION_FLAGS), ("text", *COLUMNS), strict=True)
    return sum(flag for flag, name in named if value.get(name))


class Writer:
    """Write a table column by column into a folder. `open_table` accepts it after `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"{name}.bin" for name in NUMBERS] + [f"{name}{end}" for name in STRINGS for end in (".at", ".txt")]
        self._files = {name: (folder / name).open("wb") for name in names}
        self._sums = dict.fromkeys(names, 0)
        self._ends = dict.fromkeys(STRINGS, 0)
        for name in STRINGS:
            self._put(f"{name}.at", np.zeros(1, dtype="<i8"))

    def numbers(self, name: str, values: np.ndarray | Sequence[Any]) -> None:
        """Append to a column of NUMBERS."""
        self._put(f"{name}.bin", np.asarray(values).astype(NUMBERS[name], copy=False))

    def strings(self, name: str, sizes: np.ndarray, data: bytes) -> None:
        """Append to a column of STRINGS. sizes: `[N] int64`, in bytes."""
        self._put(f"{name}.at", (self._ends[name] + np.cumsum(sizes)).astype("<i8"))
        self._put(f"{name}.txt", data)
        self._ends[name] += len(data)

    def close(self, languages: Sequence[str], shards: Sequence[tuple[int, str]]) -> None:
        """Force all files to the disk; table.json comes last. recordings.parquet must be in the folder."""
        recordings = self.folder / RECORDINGS
        fsync_path(recordings)
        sizes = {RECORDINGS: recordings.stat().st_size}
        self._sums[RECORDINGS] = file_sum(recordings)
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = file.tell()
            file.close()
        about = {"format": FORMAT, "languages": list(languages), "shards": list(shards), "files": sizes}
        with (self.folder / "table.json").open("w", encoding="utf-8") as sink:
            json.dump(about | {"sums": self._sums}, sink)
            sink.flush()
            os.fsync(sink.fileno())

    def abandon(self) -> None:
        """Close the files of a table that will not be finished."""
        for file in self._files.values():
            file.close()

    def _put(self, name: str, data: np.ndarray | bytes) -> None:
        view = np.ascontiguousarray(data).tobytes() if isinstance(data, np.ndarray) else data
        self._files[name].write(view)
        self._sums[name] = zlib.crc32(view, self._sums[name])


def open_table(folder: Path) -> Table:
    """Map a table. Compares sizes of all files and checksums of the numbers; raises ValueError or OSError if they differ."""
    about = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    if about["format"] != FORMAT:
        raise ValueError(f"{folder}: another format")
    for name, size in about["files"].items():
        if (folder / name).stat().st_size != size:
            raise ValueError(f"{folder / name} has {(folder / name).stat().st_size} bytes, not {size}")
        if not name.endswith(".txt") and file_sum(folder / name) != about["sums"][name]:
            raise ValueError(f"{folder / name} has changed")
    columns: dict[str, Any] = {name: mapped(folder / f"{name}.bin", kind) for name, kind in NUMBERS.items()}
    columns |= {
        name: Strings(mapped(folder / f"{name}.at", "<i8"), mapped(folder / f"{name}.txt", "|u1")) for name in STRINGS
    }
    return Table(columns, about["languages"], about["shards"], folder)


def mapped(path: Path, kind: str) -> np.ndarray:
    """Return a file as a read-only memory-mapped array."""
    if not path.stat().st_size:
        return np.empty(0, dtype=kind)
    return np.asarray(np.memmap(path, dtype=kind, mode="r"))


def file_sum(path: Path) -> int:
    """Return the CRC-32 of a file. It is read in pieces because mapped pages would count as the process's memory."""
    found = 0
    with path.open("rb") as source:
        while data := source.read(_READ):
            found = zlib.crc32(data, found)
    return found


def draft_of(folder: Path) -> Path:
    """Return the folder beside a table's folder in which the table is made before the rename."""
    return folder.with_name(f"{_DRAFT}{folder.name}-{os.getpid()}-{os.urandom(4).hex()}")


def drafts(base: Path) -> Iterable[Path]:
    """Return the folders that killed builds left; only the holder of the lock may remove them."""
    return base.glob(f"{_DRAFT}*")
