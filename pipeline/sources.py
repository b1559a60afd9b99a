"""What there is to process: folders, files, globs, file lists and manifests become a list of sources."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogs.ids import source_id
from pipeline.records import Quarantined, Source
from pipeline.stage import StageError

#: Endings of files that lie beside recordings and are none; anything else is tried, whatever it is called.
NOT_RECORDINGS = frozenset(
    "." + ending
    for ending in [
        "txt",
        "json",
        "jsonl",
        "csv",
        "tsv",
        "parquet",
        "md",
        "rst",
        "pdf",
        "html",
        "htm",
        "xml",
        "yaml",
        "yml",
        "toml",
        "ini",
        "cfg",
        "log",
        "py",
        "sh",
        "srt",
        "vtt",
        "lab",
        "textgrid",
        "rttm",
        "ctm",
        "stm",
        "jpg",
        "jpeg",
        "png",
        "gif",
        "webp",
        "svg",
        "bmp",
        "zip",
        "gz",
        "tar",
        "tgz",
        "xz",
        "7z",
        "rar",
        "bz2",
        "zst",
        "db",
        "sqlite",
        "pkl",
        "npy",
        "npz",
        "pt",
        "ckpt",
        "safetensors",
        "onnx",
        "nfo",
        "m3u",
        "m3u8",
        "cue",
        "url",
        "ds_store",
        "lock",
        "doc",
        "docx",
        "xls",
        "xlsx",
    ]
)
_MANIFESTS = (".jsonl", ".csv", ".parquet")


class SourceError(StageError):
    """A source argument that cannot be used; the message says which and what to give instead."""


@dataclass(frozen=True)
class _Found:
    """A file before it was hashed: where it is, what it is called within its root, and what a manifest says of it."""

    path: Path
    relative: str
    session: str | None = None
    language: str | None = None
    text: str | None = None
    license: str | None = None


@dataclass
class FoundSources:
    """Sources in order of their relative path, what had to be refused, and how many files were plainly no recordings."""

    sources: list[Source]
    refused: list[Quarantined]
    ignored: int = 0


def find_sources(paths: Sequence[str]) -> FoundSources:
    """All recordings under `paths` (folders, files, globs, `.txt` file lists, `.jsonl`/`.csv`/`.parquet` manifests).

    A session is the manifest's, else the folder a file lies in; a file at the top of a root is a session of its own.
    A file that cannot be opened at all (permission, FIFO, broken link) is refused with its reason. Raises SourceError
    when an argument itself cannot be used.
    """
    found: dict[str, _Found] = {}
    result = FoundSources([], [])
    for argument in paths:
        for item in _expand(argument, result):
            found.setdefault(str(item.path), item)
    for item in sorted(found.values(), key=lambda item: item.relative):
        try:
            result.sources.append(_source(item))
        except (StageError, OSError) as error:
            reason = str(error) if isinstance(error, StageError) else (error.strerror or str(error)).lower()
            result.refused.append(Quarantined(str(item.path), "", "sources", reason))
    return result


def _expand(argument: str, result: FoundSources) -> Iterator[_Found]:
    path = Path(argument).expanduser()
    if path.is_dir():
        yield from _walk(path.resolve(), result)
    elif path.suffix.lower() in _MANIFESTS and path.is_file():
        yield from _manifest(path.resolve())
    elif path.suffix.lower() == ".txt" and path.is_file():
        yield from _file_list(path.resolve())
    elif path.exists() or path.is_symlink():
        yield _Found(path.absolute(), path.name)
    else:
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute patterns
        if not matches:
            raise SourceError(f"{argument}: no such file or folder, and no file matches it as a pattern")
        for match in matches:
            yield from _expand(match, result)


def _walk(root: Path, result: FoundSources) -> Iterator[_Found]:
    """Every file below a folder; links to folders are followed once, hidden files and folders are left alone."""
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(root, followlinks=True, onerror=lambda error: _refuse(result, error)):
        place = Path(folder).stat()
        if (place.st_dev, place.st_ino) in seen:
            names[:] = []
            continue
        seen.add((place.st_dev, place.st_ino))
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in NOT_RECORDINGS:
                result.ignored += 1
                continue
            path = Path(folder) / name
            yield _Found(path, path.relative_to(root).as_posix())


def _refuse(result: FoundSources, error: OSError) -> None:
    result.refused.append(
        Quarantined(str(error.filename), "", "sources", f"cannot be listed: {error.strerror}".lower())
    )


def _file_list(path: Path) -> Iterator[_Found]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            file = path.parent / line.strip()
            yield _Found(file, line.strip())


def _manifest(path: Path) -> Iterator[_Found]:
    for number, row in enumerate(_rows(path), start=1):
        if not row.get("path"):
            raise SourceError(f"{path}, row {number}: a manifest needs a `path` in every row")
        name = str(row["path"])
        yield _Found(
            path.parent / name,
            name,
            *(
                str(row[key]) if row.get(key) not in (None, "") else None
                for key in ("session", "language", "text", "license")
            ),
        )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        yield from pq.read_table(path).to_pylist()
    elif suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    else:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise SourceError(f"{path}, line {number}: not JSON ({error.msg})") from None
            if not isinstance(row, dict):
                raise SourceError(f"{path}, line {number}: expected an object with a `path`")
            yield row


def _source(item: _Found) -> Source:
    path = item.path
    if path.is_symlink() and not path.exists():
        raise SourceError("a symbolic link that leads nowhere")
    kind = path.stat().st_mode
    if not stat.S_ISREG(kind):
        raise SourceError(f"not a file ({_kind(kind)})")
    sha256 = _sha256(path)
    folder = Path(item.relative).parent.as_posix()
    return Source(
        source_id=source_id(item.relative, sha256),
        path=str(path),
        relative_path=item.relative,
        session_id=item.session or (folder if folder != "." else item.relative),
        bytes=path.stat().st_size,
        content_sha256=sha256,
        language=item.language,
        text=item.text or _text_beside(path),
        license=item.license,
    )


def _kind(mode: int) -> str:
    names = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device"}
    return next((name for test, name in names.items() if test(mode)), "a special file")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text_beside(path: Path) -> str | None:
    """The transcript in `name.txt` beside `name.wav`, on one line; None where there is none."""
    beside = path.with_suffix(".txt")
    if not beside.is_file():
        return None
    try:
        return " ".join(beside.read_text(encoding="utf-8").split()) or None
    except UnicodeDecodeError:
        raise SourceError(f"its transcript {beside.name} is not UTF-8 text") from None
