"""Recordings that are no files of their own: in WebDataset tars, zips, Parquet and `datasets` tables, and behind URLs.

Such a recording has a location instead of a path: an fsspec URL (`tar://a/b.flac::file:///data/shard.tar`,
`s3://bucket/x.wav`) or a row of a table (`rows:///data/part.parquet#row=12`). It is listed and hashed where it lies and
fetched into the session's spool when its turn comes, so that no more than the sessions at work are on the disk twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from pipeline.manifests import COLUMNS, SourceError

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_SIDECARS = frozenset({".json", ".txt", ".cls", ".lang", ".npy", ".pth", ".pyd", ".jpg", ".png", ".xml", ".md"})
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One recording of a container: where it is, what it is called, its content, and what the container says of it.

    `fault` is set instead of a hash where it (or the rest of the container) cannot be read.
    """

    location: str
    name: str
    bytes: int = 0
    sha256: str = ""
    session: str | None = None
    language: str | None = None
    text: str | None = None
    license: str | None = None
    fault: str | None = None


def is_location(path: str) -> bool:
    """Whether this is a URL and no path."""
    return "://" in path


def is_container(argument: str) -> bool:
    """Whether an argument names recordings that are no files: a URL, a tar, a zip, a `datasets` folder, a Parquet file
    with an audio column."""
    if is_location(argument):
        return True
    path = Path(argument).expanduser()
    if path.is_dir():
        return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _audio_column(path) is not None
    return path.name.lower().endswith((*TARS, ".zip")) and path.is_file()


def list_members(argument: str) -> Iterator[Member]:
    """All recordings of a container, in its order. Raises SourceError where it cannot be opened at all."""
    if is_location(argument):
        yield from _remote(argument)
        return
    path = Path(argument).expanduser().absolute()
    if path.is_dir():
        yield from _dataset(path)
    elif path.suffix.lower() == ".parquet":
        yield from _parquet(path)
    elif path.suffix.lower() == ".zip":
        yield from _files(f"zip://::file://{path}", path.name)
    else:
        with path.open("rb") as file:
            yield from _tar(file, f"file://{path}", path.name)


def fetch(location: str, folder: str | Path) -> Path:
    """Copy one recording to a file in `folder` and return it; a copy that is there already is used again.

    Raises OSError with one line where it cannot be had.
    """
    folder = Path(folder)
    name = hashlib.sha256(location.encode()).hexdigest()[:16] + PurePosixPath(_inner(location)).suffix
    target = folder / name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{name}.{os.getpid()}"
    try:
        with partial.open("wb") as file:
            if location.startswith("rows://"):
                file.write(_row_bytes(location))
            else:
                import fsspec

                with fsspec.open(location, "rb") as stream:
                    while block := stream.read(_BLOCK):
                        file.write(block)
        partial.replace(target)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk and the like: the text is the system's
        raise OSError(f"cannot be fetched ({_line(error)})") from None
    finally:
        partial.unlink(missing_ok=True)
    return target


# -- tars --------------------------------------------------------------------------------------------------------------


def _tar(stream: Any, url: str, title: str) -> Iterator[Member]:
    """WebDataset: members whose names agree up to the first dot belong together; one is audio, `.json` and `.txt` tell of it."""
    audio: list[tuple[str, str, int, str]] = []
    facts: dict[str, dict[str, str]] = {}
    fault = None
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for item in tar:
                name = PurePosixPath(item.name)
                if not item.isfile() or name.name.startswith("."):
                    continue
                key = str(name.parent / name.name.split(".", 1)[0])
                content = tar.extractfile(item)
                assert content is not None
                ending = name.suffix.lower()
                if ending in (".json", ".txt"):
                    facts.setdefault(key, {}).update(_facts(content.read(), ending))
                elif ending not in _SIDECARS:
                    audio.append((key, item.name, item.size, hashlib.file_digest(content, "sha256").hexdigest()))  # type: ignore[arg-type]
    except (tarfile.TarError, EOFError, OSError) as error:
        if not audio:
            raise SourceError(f"{title}: not a tar that can be read ({_line(error)})") from None
        fault = f"the tar is damaged after this many recordings: {len(audio)} ({_line(error)})"
    for key, name_, size, digest in audio:
        # fsspec cuts chained URLs at `::`; such a name could not be opened again.
        if "::" in name_:
            yield Member(f"{url}#{name_}", f"{title}/{name_}", size, fault="its name holds `::`; rename it in the tar")
            continue
        yield Member(f"tar://{name_}::{url}", f"{title}/{name_}", size, digest, **facts.get(key, {}))
    if fault is not None:
        yield Member(url, title, fault=fault)


def _facts(content: bytes, ending: str) -> dict[str, str]:
    try:
        text = content.decode("utf-8")
        values = json.loads(text) if ending == ".json" else {"text": text.strip()}
    except ValueError:
        return {}
    return _known(values) if isinstance(values, Mapping) else {}


def _known(row: Mapping[str, Any]) -> dict[str, str]:
    """session, language, text, license of a row, under any of the names that tools give them."""
    found = {}
    for column, names in COLUMNS.items():
        if column == "path":
            continue
        value = next((row[name] for name in names if isinstance(row.get(name), str) and row[name].strip()), None)
        if value is not None:
            found[column] = value.strip()
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


def _audio_column(path: Path) -> str | None:
    """The column of a Parquet file that holds audio as {bytes, path}, as `datasets` writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return None
    for field in schema:
        if pa.types.is_struct(field.type) and {"bytes", "path"} <= {child.name for child in field.type}:
            return str(field.name)
    return None


def _parquet(path: Path) -> Iterator[Member]:
    import pyarrow.parquet as pq

    column = _audio_column(path)
    assert column is not None
    number = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
        for row in batch.to_pylist():
            yield _row(f"rows://{quote(str(path))}#row={number}", f"{path.name}/{number:08d}", row, column, path.parent)
            number += 1


def _dataset(path: Path) -> Iterator[Member]:
    for split, dataset, column in _splits(path):
        prefix = f"{path.name}/{split}" if split else path.name
        for number in range(len(dataset)):
            location = f"rows://{quote(str(path))}#split={split}&row={number}"
            yield _row(location, f"{prefix}/{number:08d}", dataset[number], column, path)


def _splits(path: Path) -> Iterator[tuple[str, Any, str]]:
    """(split or "", rows with undecoded audio, the audio's column) of a folder that `save_to_disk` wrote."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        raise SourceError(f"{path}: not a dataset that can be read ({_line(error)})") from None
    for split, dataset in loaded.items() if isinstance(loaded, datasets.DatasetDict) else [("", loaded)]:
        columns = [name for name, feature in dataset.features.items() if isinstance(feature, datasets.Audio)]
        if not columns:
            raise SourceError(f"{path}: the dataset has no Audio column (columns: {', '.join(dataset.column_names)})")
        yield str(split), dataset.cast_column(columns[0], datasets.Audio(decode=False)), columns[0]


def _row(location: str, name: str, row: Mapping[str, Any], column: str, folder: Path) -> Member:
    audio = row[column] or {}
    original = audio.get("path") or ""
    name += PurePosixPath(original).suffix
    facts = _known(row)
    data = audio.get("bytes")
    if data is not None:
        return Member(location, name, len(data), hashlib.sha256(data).hexdigest(), **facts)
    file = folder / original
    if original and file.is_file():
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Member(str(file), name, file.stat().st_size, digest, **facts)
    return Member(location, name, fault="the row holds neither the audio's bytes nor a path that is there")


def _row_bytes(location: str) -> bytes:
    parts = urlsplit(location)
    path, where = Path(unquote(parts.path)), parse_qs(parts.fragment, keep_blank_values=True)
    number = int(where["row"][0])
    if path.is_dir():
        for split, dataset, column in _splits(path):
            if split == where["split"][0]:
                return bytes(dataset[number][column]["bytes"])
        raise OSError(f"the dataset has no split {where['split'][0]} any more")
    import pyarrow.parquet as pq

    column_ = _audio_column(path)
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if number < count:
            return bytes(file.read_row_group(group, columns=[column_]).column(0)[number]["bytes"].as_py())
        number -= count
    raise OSError("the file has fewer rows than when it was listed")


# -- URLs --------------------------------------------------------------------------------------------------------------


def _remote(url: str) -> Iterator[Member]:
    """A file, a folder or a tar behind a URL that fsspec knows."""
    import fsspec

    plain = url.split("::")[0].rstrip("/")
    try:
        system, path = fsspec.core.url_to_fs(url)
        folder = system.isdir(path)
        if not folder and not system.exists(path):
            raise SourceError(f"{url}: nothing is there")
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{url}: cannot be opened ({_line(error)})") from None
    if folder:
        yield from _files(url, PurePosixPath(path).name)
    elif plain.lower().endswith(TARS):
        with system.open(path, "rb") as file:
            yield from _tar(file, url, PurePosixPath(path).name)
    else:
        yield _file(system, path, url, PurePosixPath(path).name)


def _files(url: str, title: str) -> Iterator[Member]:
    """Every file below a folder of any file system."""
    import fsspec

    from pipeline.sources import NOT_RECORDINGS

    try:
        system, root = fsspec.core.url_to_fs(url)
        names = sorted(system.find(root))
    except Exception as error:
        raise SourceError(f"{title}: cannot be listed ({_line(error)})") from None
    head, chain, rest = url.partition("::")
    protocol = head.split("://")[0]
    for name in names:
        within = PurePosixPath(name).relative_to(root).as_posix() if root else name
        if PurePosixPath(name).suffix.lower() in NOT_RECORDINGS or PurePosixPath(name).name.startswith("."):
            continue
        location = f"{protocol}://{name}{chain}{rest}" if chain else system.unstrip_protocol(name)
        yield _file(system, name, location, f"{title}/{within}")


def _file(system: Any, path: str, location: str, name: str) -> Member:
    """The content's hash is the store's version tag where reading it would mean a download."""
    try:
        info = system.info(path)
        size = int(info.get("size") or 0)
        if system.protocol in ("zip", "tar") or getattr(system, "local_file", False):
            with system.open(path, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        else:
            digest = hashlib.sha256(f"{location}\0{system.ukey(path)}".encode()).hexdigest()
    except Exception as error:
        return Member(location, name, fault=f"cannot be read ({_line(error)})")
    return Member(location, name, size, digest)


def _inner(location: str) -> str:
    """The innermost file's name, for its ending."""
    return urlsplit(location).path if location.startswith("rows://") else location.split("::")[0]


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
