"""Expand the sources that the user gave (folders, files, globs, lists, containers, URLs) into single files and members."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from catalogs.urls import is_location, public
from pipeline.inputs.kinds import UrlResolver, is_container, list_members, may_be_container
from pipeline.inputs.manifests import (
    MANIFESTS,
    ListedRecording,
    MissingLibraryError,
    SourceError,
    read_file_list,
    read_manifest,
)
from pipeline.inputs.members import HashTable, PackedRecording, Skipped, redacted_line
from pipeline.inputs.source_kind import Listing
from pipeline.inputs.store_access import DEFAULT, Stores
from pipeline.records import Quarantined
from pipeline.runtime.paths import is_corpus, is_no_recording, is_other_archive, local_path, printable


@dataclass(slots=True)
class Candidate:
    """A file before it is hashed: its location, its name within its root, and what a manifest states about it.

    A run may hold millions of these.
    """

    root: str
    entry: ListedRecording
    member: PackedRecording | None = None
    """The member, if the file is in a container or behind a URL; `entry` then has its name only."""
    listed: bool = False
    """Whether a manifest lists it."""
    bytes: int = -1
    """Size, once it is known; -1 for what is not a readable file."""
    changed_ns: int = 0
    """Time of the file's last change."""
    double_of: str | None = None
    """The recording with the same name and content that is taken instead."""

    @property
    def session(self) -> str:
        """The session by the folder rule: a file's folder within the root. A file at the top of the root is a session by
        itself."""
        name = self.entry.name
        if "//" in name or "/." in name or name.startswith("."):
            folder = Path(name).parent.as_posix()
            return folder if folder != "." else name
        return os.path.dirname(name) or name  # noqa: PTH120 - a million names


class Expander:
    """Turns arguments into files. What cannot be listed is added to `refused`, what is skipped to `aside`."""

    def __init__(
        self,
        refused: list[Quarantined],
        aside: Skipped,
        language: str | None = None,
        hashes: HashTable | None = None,
        stores: Stores = DEFAULT,
    ) -> None:
        self._corpora: dict[Path, bool] = {}
        self._refused, self._aside = refused, aside
        self._listing = Listing(language, aside, hashes, stores)
        self._located = UrlResolver(self._listing)

    def expand_all(self, arguments: Sequence[str]) -> Iterator[Candidate]:
        """Yield all files of all arguments. Raises SourceError for an argument that cannot be used at all."""
        for argument in arguments:
            yield from self._expand(argument)

    def _expand(self, argument: str) -> Iterator[Candidate]:
        argument = local_path(argument)
        if is_location(argument):
            # Folders of the same name in two stores are two folders.
            yield from self._members(argument, argument.rstrip("/").rpartition("/")[0])
            return
        path = Path(argument).expanduser()
        if is_container(argument):
            yield from self._members(argument, str(path.absolute().parent))
        elif path.is_dir():
            yield from self._walk(path.absolute())
        elif path.suffix.lower() in MANIFESTS and path.is_file():
            yield from self._entries("", read_manifest(path.absolute(), self._aside.notices), listed=True)
        elif path.suffix.lower() == ".txt" and path.is_file():
            yield from self._entries(str(path.absolute().parent), read_file_list(path.absolute()))
        elif path.exists() or path.is_symlink():
            yield Candidate(str(path.absolute().parent), ListedRecording(str(path.absolute()), path.name))
        else:
            yield from self._glob(path, argument)

    def _entries(self, root: str, entries: Iterable[ListedRecording], listed: bool = False) -> Iterator[Candidate]:
        """Yield a list's entries. For URLs, the store fills in what the list leaves out."""
        entries = list(entries)
        members = self._located.find([entry.location for entry in entries if entry.location is not None])
        for entry in entries:
            yield (
                Candidate(root, entry, listed=listed)
                if entry.location is None
                else self._told(root, entry, next(members), listed)
            )

    def _told(self, root: str, entry: ListedRecording, member: PackedRecording, listed: bool) -> Candidate:
        if entry.text:
            member = replace(member, text=entry.text, spans=entry.spans)
        member = replace(
            member,
            session=entry.session or member.session,
            language=entry.language or member.language,
            rights=entry.rights.over(member.rights),
        )
        return Candidate(root, replace(entry, name=member.name), member, listed)

    def _members(self, argument: str, root: str, title: str | None = None) -> Iterator[Candidate]:
        try:
            for member in list_members(argument, self._listing, title):
                yield Candidate(root, ListedRecording(member.name, member.name, member.session), member)
        except OSError as error:
            raise SourceError(
                f"{public(argument)}: cannot be read: {(error.strerror or redacted_line(error)).lower()}"
            ) from None

    def _glob(self, pattern: Path, argument: str) -> Iterator[Candidate]:
        """Yield the matches of a pattern. Their root is the part of the pattern before the first wildcard."""
        matches = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - absolute patterns
        if not matches:
            raise SourceError(f"{argument}: no such file or folder, and no file matches it as a pattern")
        fixed = re.split(r"[*?\[]", str(pattern), maxsplit=1)[0]
        root = Path(fixed if fixed.endswith("/") else os.path.dirname(fixed)).absolute()  # noqa: PTH120 - a cut-off name
        for match in matches:
            path = Path(match).absolute()
            # `**` matches folders in addition to the files in them.
            if any(self._is_corpus(folder) for folder in (path, *path.parents) if folder.is_relative_to(root)):
                continue
            if not path.is_dir():
                yield from self._found(root, str(root), str(path), path.relative_to(root).as_posix())
            elif is_container(str(path)):
                yield from self._container(root, path)

    def _walk(self, root: Path) -> Iterator[Candidate]:
        """Yield every file below a folder and what its containers hold. Links to folders are followed once; hidden files
        and folders are skipped."""
        seen: set[tuple[int, int]] = set()
        top = str(root)
        for folder, names, files in os.walk(root, followlinks=True, onerror=self._refuse):
            place = Path(folder).stat()
            if (place.st_dev, place.st_ino) in seen:
                names[:] = []
                continue
            seen.add((place.st_dev, place.st_ino))
            if self._is_corpus(Path(folder)):
                names[:] = []
                continue
            if is_container(folder):
                names[:] = []
                yield from self._container(root, Path(folder))
                continue
            names[:] = sorted(name for name in names if not name.startswith("."))
            inner = "" if folder == top else f"{folder[len(top) :].lstrip('/')}/"
            for name in sorted(files):
                if not name.startswith("."):
                    yield from self._found(root, top, os.path.join(folder, name), inner + name)  # noqa: PTH118

    def _is_corpus(self, folder: Path) -> bool:
        """Return True if `prepare` made this folder: its files were made from recordings and are not recordings."""
        if folder not in self._corpora:
            self._corpora[folder] = is_corpus(folder)
            if self._corpora[folder]:
                self._aside.notices.append(f"{printable(folder)} is a corpus: it is passed over")
        return self._corpora[folder]

    def _found(self, root: Path, top: str, path: str, name: str) -> Iterator[Candidate]:
        """Yield the recordings of a file that a walk or a pattern has found; `name` is its path below the root.

        Paths are plain text here, because a `Path` for each of a million files takes minutes.
        """
        if may_be_container(path) and is_container(path):
            yield from self._container(root, Path(path))
        elif is_no_recording(name):
            self._aside.leave(name)
            if is_other_archive(name):
                self._aside.unopened.append(name)
        else:
            yield Candidate(top, ListedRecording(path, name))

    def _container(self, root: Path, path: Path) -> Iterator[Candidate]:
        """Yield the recordings of a container among the files of a folder. One that cannot be read is refused; the listing
        continues.

        The container is named by its path within the root, because two shards in two folders may have the same name.
        """
        try:
            yield from self._members(str(path), str(root), printable(path.relative_to(root)))
        except MissingLibraryError:
            raise
        except SourceError as error:
            self._refused.append(Quarantined(printable(path), "", "sources", str(error)))

    def _refuse(self, error: OSError) -> None:
        reason = f"cannot be listed: {error.strerror}".lower()
        self._refused.append(Quarantined(printable(error.filename), "", "sources", reason, cause="machine"))
