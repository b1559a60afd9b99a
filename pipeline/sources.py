"""What there is to process: folders, files, globs, file lists and manifests become a list of sources."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from catalogs.ids import source_id
from pipeline.containers import Member, is_container, list_members
from pipeline.manifests import MANIFESTS, Entry, SourceError, read_file_list, read_manifest
from pipeline.records import Quarantined, Source
from pipeline.spoken_language import language_code
from pipeline.stage import StageError
from pipeline.transcripts.beside import Beside

__all__ = ["FoundSources", "HashKey", "SourceError", "find_sources"]

_ENDINGS = """
    txt json jsonl csv tsv parquet arrow md rst pdf html htm xml yaml yml toml ini cfg conf log py sh ipynb
    srt vtt ass lab textgrid rttm ctm stm trn segments eaf
    jpg jpeg png gif webp svg bmp ico heic zip gz tar tgz xz 7z rar bz2 zst
    db sqlite duckdb pkl npy npz pt pth ckpt safetensors onnx nfo m3u m3u8 cue url ds_store lock
    doc docx xls xlsx ppt pptx odt rtf sha256 md5 sfv torrent part crdownload
"""
#: Endings of files that lie beside recordings and are none; anything else is tried, whatever it is called.
NOT_RECORDINGS = frozenset(f".{ending}" for ending in _ENDINGS.split())

#: What a content hash is remembered by: path, size in bytes, time of last change in ns.
HashKey = tuple[str, int, int]


@dataclass(frozen=True)
class _Found:
    """A file before it was hashed: where it is, what it is called within its root, and what a manifest says of it."""

    root: str
    entry: Entry
    member: Member | None = None
    """What it is where it lies in a container or behind a URL; `entry` then has its name only."""

    @property
    def place(self) -> str:
        """What tells two ways to one recording from two recordings."""
        return self.member.location if self.member else os.path.realpath(self.entry.path)

    @property
    def session(self) -> str:
        """The session by the folder rule: a file's folder within the root; a file at its top is one by itself."""
        folder = Path(self.entry.name).parent.as_posix()
        return folder if folder != "." else self.entry.name


@dataclass
class FoundSources:
    """Sources in order of their relative path, what had to be refused, and how many files were plainly no recordings."""

    sources: list[Source]
    refused: list[Quarantined]
    ignored: int = 0
    repeated: int = 0
    """Files that were reached more than once, by links or by overlapping arguments, and are taken once."""
    notices: list[str] = field(default_factory=list)
    """Lines for a person, e.g. that a transcript beside a recording cannot be read."""


def find_sources(
    paths: Sequence[str],
    *,
    session: Literal["folder", "file"] = "folder",
    language: str | None = None,
    hashes: MutableMapping[HashKey, str] | None = None,
) -> FoundSources:
    """All recordings under `paths` (folders, files, globs, `.txt` file lists, `.jsonl`/`.csv`/`.tsv`/`.parquet` manifests,
    and containers and URLs, see pipeline.containers).

    A session is the manifest's, else by `session`: the folder a file lies in within its root (a file at the top of it is a
    session of its own), or each file. `language` holds where a manifest says nothing. A file that cannot be opened at all
    (permission, FIFO, broken link) is refused with its reason. `hashes` saves hashing unchanged files again; new ones are
    added to it. Raises SourceError when an argument itself cannot be used.
    """
    result = FoundSources([], [])
    found = _once(_Expander(result).expand_all(paths), result)
    sessions = _session_names(found, session)
    first: dict[str, str] = {}
    beside = Beside()
    for item in found:
        name = sessions[(item.root, item.session if session == "folder" else item.entry.name)]
        try:
            if item.member is not None:
                source = _member_source(item.member, name, language)
            else:
                source = _source(item.entry, name, language, hashes, result, beside)
            if source.source_id in first:
                raise SourceError(f"the same name and content as {first[source.source_id]}, which is taken already")
            first[source.source_id] = source.path
            result.sources.append(source)
        except (StageError, OSError) as error:
            reason = str(error) if isinstance(error, StageError) else (error.strerror or str(error)).lower()
            place = item.member.location if item.member else item.entry.path
            result.refused.append(Quarantined(_printable(place), "", "sources", reason))
    return result


def _once(found: Iterator[_Found], result: FoundSources) -> list[_Found]:
    """Each file once, in order of relative path. Of several ways to it a manifest's counts, else the longest name: which
    one must not depend on the order of arguments, since the name is part of the source's id."""
    ways: dict[str, list[_Found]] = {}
    for item in found:
        ways.setdefault(item.place, []).append(item)
    result.repeated += sum(len(items) - 1 for items in ways.values())
    best = [min(items, key=lambda i: (i.root != "", -i.entry.name.count("/"), i.entry.name)) for items in ways.values()]
    return sorted(best, key=lambda item: (item.entry.name, str(item.entry.path)))


def _session_names(found: list[_Found], rule: str) -> dict[tuple[str, str], str]:
    """(root, session within it) -> name. Folders of the same name under different roots are different sessions: then the
    root's name is put before it, or its whole path where that does not tell them apart either."""
    pairs = {(item.root, item.session if rule == "folder" else item.entry.name) for item in found}
    names = {pair: pair[1] for pair in pairs}
    for longer in (lambda root, name: f"{Path(root).name}/{name}", lambda root, name: f"{root}/{name}"):
        counts = Counter(names.values())
        names = {pair: longer(*pair) if counts[name] > 1 else name for pair, name in names.items()}
    return names


class _Expander:
    """Turns arguments into files; what cannot be listed goes to the result's refused ones."""

    def __init__(self, result: FoundSources) -> None:
        self._result = result

    def expand_all(self, arguments: Sequence[str]) -> Iterator[_Found]:
        for argument in arguments:
            yield from self._expand(argument)

    def _expand(self, argument: str) -> Iterator[_Found]:
        path = Path(argument).expanduser()
        if is_container(argument):
            yield from (_Found("", Entry(Path(m.name), m.name, m.session), m) for m in list_members(argument))
        elif path.is_dir():
            yield from self._walk(path.absolute())
        elif path.suffix.lower() in MANIFESTS and path.is_file():
            yield from (_Found("", entry) for entry in read_manifest(path.absolute()))
        elif path.suffix.lower() == ".txt" and path.is_file():
            yield from (_Found(str(path.absolute().parent), entry) for entry in read_file_list(path.absolute()))
        elif path.exists() or path.is_symlink():
            yield _Found(str(path.absolute().parent), Entry(path.absolute(), path.name))
        else:
            yield from self._glob(path, argument)

    def _glob(self, pattern: Path, argument: str) -> Iterator[_Found]:
        """Matches of a pattern; their root is the part of it before the first wildcard."""
        matches = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - absolute patterns
        if not matches:
            raise SourceError(f"{argument}: no such file or folder, and no file matches it as a pattern")
        fixed = re.split(r"[*?\[]", str(pattern), maxsplit=1)[0]
        root = Path(fixed if fixed.endswith("/") else os.path.dirname(fixed)).absolute()  # noqa: PTH120 - a cut-off name
        for match in matches:
            path = Path(match).absolute()
            if path.is_dir():
                # `**` matches folders beside the files in them.
                continue
            if is_container(str(path)):
                yield from self._expand(str(path))
                continue
            if path.suffix.lower() in NOT_RECORDINGS:
                self._result.ignored += 1
                continue
            yield _Found(str(root), Entry(path, path.relative_to(root).as_posix()))

    def _walk(self, root: Path) -> Iterator[_Found]:
        """Every file below a folder; links to folders are followed once, hidden files and folders are left alone."""
        seen: set[tuple[int, int]] = set()
        for folder, names, files in os.walk(root, followlinks=True, onerror=self._refuse):
            place = Path(folder).stat()
            if (place.st_dev, place.st_ino) in seen:
                names[:] = []
                continue
            seen.add((place.st_dev, place.st_ino))
            names[:] = sorted(name for name in names if not name.startswith("."))
            for name in sorted(files):
                if name.startswith("."):
                    continue
                if name.lower().endswith(".tar"):
                    yield from self._container(Path(folder) / name)
                    continue
                if Path(name).suffix.lower() in NOT_RECORDINGS:
                    self._result.ignored += 1
                    continue
                path = Path(folder) / name
                yield _Found(str(root), Entry(path, path.relative_to(root).as_posix()))

    def _container(self, path: Path) -> Iterator[_Found]:
        """The recordings of a tar among the files of a folder; one that is no tar is refused and stops nothing."""
        try:
            yield from self._expand(str(path))
        except SourceError as error:
            self._result.refused.append(Quarantined(_printable(path), "", "sources", str(error)))

    def _refuse(self, error: OSError) -> None:
        reason = f"cannot be listed: {error.strerror}".lower()
        self._result.refused.append(Quarantined(_printable(error.filename), "", "sources", reason))


def _source(
    entry: Entry,
    session: str,
    language: str | None,
    hashes: MutableMapping[HashKey, str] | None,
    result: FoundSources,
    beside: Beside,
) -> Source:
    path = entry.path
    if _printable(path) != str(path) or _printable(entry.name) != entry.name:
        raise SourceError("its name is not valid UTF-8; rename it")
    if path.is_symlink() and not path.exists():
        raise SourceError("a symbolic link that leads nowhere")
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise SourceError(f"not a file ({_kind(state.st_mode)})")
    key = (str(path), state.st_size, state.st_mtime_ns)
    sha256 = hashes[key] if hashes is not None and key in hashes else _sha256(path)
    if hashes is not None:
        hashes[key] = sha256
    if entry.text is None:
        found, notices = beside.find(path, entry.language or language)
        result.notices += notices
        if found:
            entry = replace(entry, text=found.text, spans=found.spans)
    return Source(
        source_id=source_id(entry.name, sha256),
        path=str(path),
        relative_path=entry.name,
        session_id=entry.session or session,
        bytes=state.st_size,
        content_sha256=sha256,
        language=_language(entry.language or language, entry.name, result),
        text=entry.text,
        license=entry.license,
        spans=entry.spans,
    )


def _language(name: str | None, recording: str, result: FoundSources) -> str | None:
    """The code of a language that a person named; None, with a notice, for a word that names none."""
    code = language_code(name)
    if name and code is None:
        result.notices.append(
            f"{recording}: no language is called {name!r} here (codes: es, pt-BR, yue ...); it is found by listening"
        )
    return code


def _member_source(member: Member, session: str, language: str | None) -> Source:
    if member.fault is not None:
        raise SourceError(member.fault)
    return Source(
        source_id=source_id(member.name, member.sha256),
        path=member.location,
        relative_path=member.name,
        session_id=member.session or session,
        bytes=member.bytes,
        content_sha256=member.sha256,
        language=member.language or language,
        text=member.text,
        license=member.license,
    )


def _printable(path: str | Path) -> str:
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _kind(mode: int) -> str:
    names = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device"}
    return next((name for test, name in names.items() if test(mode)), "a special file")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
