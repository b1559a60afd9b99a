"""Turn folders, files, globs, file lists and manifests into a list of sources."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

from catalogs.corpus.attempts import Cause
from catalogs.corpus.ids import source_id
from pipeline.inputs.expand import Candidate, Expander
from pipeline.inputs.hashes import expect_new, file_key, hash_ahead, hash_files, hash_threads, sha256_of
from pipeline.inputs.manifests import ListedRecording, SourceError
from pipeline.inputs.members import LARGEST_MEMBER, HashKey, HashTable, PackedRecording, Skipped
from pipeline.inputs.rights import RightsDesk
from pipeline.inputs.store_access import DEFAULT, Stores
from pipeline.inputs.telling import Meter, told
from pipeline.inputs.transcripts.beside import TranscriptFinder
from pipeline.records import Quarantined, Source
from pipeline.runtime.failures import cause_of
from pipeline.runtime.paths import printable
from pipeline.speech.language import language_code, nearest_language
from pipeline.stage import StageError, StoreError

__all__ = ["FoundSources", "HashKey", "SourceError", "find_sources"]


@dataclass
class FoundSources:
    """Sources in order of their relative path, with the refused and the skipped files."""

    sources: list[Source] = field(default_factory=list)
    refused: list[Quarantined] = field(default_factory=list)
    repeated: int = 0
    """Files that were reached more than once, by links or by overlapping arguments. Each is taken once."""
    aside: Skipped = field(default_factory=Skipped)
    unknown_languages: dict[str, list[str]] = field(default_factory=dict)
    """Unknown names of languages, with the recordings that they were given for."""

    @property
    def ignored(self) -> int:
        """Number of files that are plainly not recordings. Some of them may have been read as transcripts."""
        return self.aside.left.total()

    @property
    def notices(self) -> list[str]:
        """Messages to show, e.g. that a transcript beside a recording cannot be read."""
        return self.aside.notices

    def passed_over(self) -> str:
        """Return one line that counts, by ending, the files that are not recordings. Empty if all are recordings."""
        kinds = ", ".join(f"{count} {ending}" for ending, count in self.aside.left.most_common(5))
        more = ", ..." if len(self.aside.left) > 5 else ""
        return f"other files, left alone or read as transcripts: {kinds}{more}" if kinds else ""


class SourceListing:
    """All files of a run, by session. Their names and sizes are listed at once; `sessions` reads their contents, session by
    session, so that work can begin before everything is read.

    Raises SourceError if an argument itself cannot be used. See `find_sources` for the arguments.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        session: Literal["folder", "file"] = "folder",
        language: str | None = None,
        hashes: HashTable | None = None,
        stores: Stores = DEFAULT,
        largest_gb: float = LARGEST_MEMBER / 1e9,
        desk: RightsDesk | None = None,
    ) -> None:
        self._desk = desk or RightsDesk()
        self.found = FoundSources(aside=Skipped(largest_bytes=round(largest_gb * 1e9)))
        """What was refused and skipped so far. Its `sources` stay empty here."""
        self._hashes: HashTable = {} if hashes is None else hashes
        self._language, self._meter = language, Meter()
        with told(self._meter):
            expander = Expander(self.found.refused, self.found.aside, language, hashes, stores)
            candidates = _once(expander.expand_all(paths), self.found, self._meter)
            _measure(candidates)
            names = _session_names(candidates, session)
            sessions: dict[str, list[Candidate]] = {}
            for item in candidates:
                name = names[(item.root, item.session if session == "folder" else item.entry.name)]
                sessions.setdefault(item.entry.session or (item.member and item.member.session) or name, []).append(
                    item
                )
            self._sessions = {name: sessions[name] for name in sorted(sessions)}
            _find_doubles(candidates, self._hashes, self._meter)
        self.found.aside.notices += _unopened_notice(self.found.aside.unopened)

    @property
    def names(self) -> Collection[str]:
        """The names of all sessions, sorted."""
        return self._sessions.keys()

    @property
    def candidates(self) -> Iterator[Candidate]:
        """All files, by session."""
        return (item for items in self._sessions.values() for item in items)

    def sessions(self, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, list[Source]]]:
        """Yield (name, sources) of each wanted session, in order of names, when all of its files are read. Files are read
        ahead in threads.

        A file that cannot be opened at all (permission, FIFO, broken link) is added to `found.refused` with its reason.
        """
        beside = TranscriptFinder()
        chosen = [pair for pair in self._sessions.items() if wanted(pair[0])]
        expect_new((key for _, items in chosen for key in _keys(items)), self._hashes, self._meter)
        with told(self._meter):
            for name, items in hash_ahead(chosen, lambda pair: _keys(pair[1]), self._hashes, self._meter):
                sources = [source for item in items if (source := self._made(item, name, beside)) is not None]
                yield name, sources
        self.found.aside.notices += _language_notices(self.found.unknown_languages)
        places = (item.member.location if item.member else item.entry.path for item in self.candidates)
        self.found.aside.notices += self._desk.notices(places)

    def _made(self, item: Candidate, session: str, beside: TranscriptFinder) -> Source | None:
        """Return the source of a file; None if it is refused."""
        try:
            if item.double_of is not None:
                raise SourceError(f"the same name and content as {item.double_of}, which is taken already")
            if item.member is not None:
                source = _member_source(item.member, session, self._language, self.found)
            else:
                source = _source(item.entry, session, self._language, self._hashes, self.found, beside)
            return self._desk.settled(source)
        except (StageError, OSError) as error:
            own = isinstance(error, StageError | StoreError)
            reason = str(error) if own else (getattr(error, "strerror", None) or str(error)).lower()
            place = item.member.location if item.member else item.entry.path
            self.found.refused.append(Quarantined(printable(place), "", "sources", reason, cause=_cause(error)))
            return None


def find_sources(
    paths: Sequence[str],
    *,
    session: Literal["folder", "file"] = "folder",
    language: str | None = None,
    hashes: HashTable | None = None,
    stores: Stores = DEFAULT,
    largest_gb: float = LARGEST_MEMBER / 1e9,
) -> FoundSources:
    """Return all recordings under `paths`: folders, files, globs, `.txt` file lists, `.jsonl`/`.csv`/`.tsv`/`.parquet`
    manifests, containers and URLs (see `pipeline.inputs.kinds`). Lists and manifests may name URLs too.

    A manifest sets the session. Otherwise `session` decides: the folder of a file within its root (a file at the top of the
    root is a separate session), or each file. `language` applies if a manifest does not set one. A file that cannot be
    opened at all (permission, FIFO, broken link) is refused with its reason. `hashes` avoids hashing unchanged files again;
    new hashes are added to it. `largest_gb`: GB that one recording of a container, or behind a URL, may unpack to. Raises
    SourceError if an argument itself cannot be used.
    """
    listing = SourceListing(
        paths, session=session, language=language, hashes=hashes, stores=stores, largest_gb=largest_gb
    )
    return all_sources(listing)


def all_sources(listing: SourceListing) -> FoundSources:
    """Return the sources of all sessions at once, in order of relative path."""
    found = listing.found
    found.sources = [source for _, sources in listing.sessions() for source in sources]
    found.sources.sort(key=lambda source: (source.relative_path, source.path))
    return found


def _keys(items: Iterable[Candidate]) -> Iterator[HashKey]:
    """Yield the keys of the files whose content is to be read."""
    return ((i.entry.path, i.bytes, i.changed_ns) for i in items if i.member is None and i.bytes >= 0)


def _measure(candidates: Iterable[Candidate]) -> None:
    """Fill in sizes and times of the files, several at once, because a network disk answers slowly."""

    def measure(items: Sequence[Candidate]) -> None:
        for item in items:
            if item.member is not None:
                item.bytes = item.member.bytes
            elif (key := file_key(item.entry.path)) is not None:
                _, item.bytes, item.changed_ns = key

    rest = iter(candidates)
    with ThreadPoolExecutor(hash_threads()) as pool:
        for _ in pool.map(measure, iter(lambda: list(islice(rest, 1000)), [])):
            pass


def _find_doubles(candidates: Iterable[Candidate], hashes: HashTable, meter: Meter) -> None:
    """Mark recordings with the name and the content of an earlier one. They would have the same id.

    Only files of one name and one size can be such: these are read before all others, and nothing else has to be.
    """
    names = Counter(item.entry.name for item in candidates)
    groups: dict[tuple[str, int], list[Candidate]] = {}
    for item in candidates:
        if names[item.entry.name] > 1 and item.bytes >= 0 and not (item.member and item.member.fault):
            groups.setdefault((item.entry.name, item.bytes), []).append(item)
    same = [group for group in groups.values() if len(group) > 1]
    hash_files((key for group in same for key in _keys(group)), hashes, meter)
    for group in same:
        first: dict[str, Candidate] = {}
        for item in group:
            key = (item.entry.path, item.bytes, item.changed_ns)
            if not item.member and key not in hashes:
                continue
            content = item.member.sha256 if item.member else hashes[key]
            if (before := first.setdefault(content, item)) is not item:
                item.double_of = before.member.location if before.member else before.entry.path


def _unopened_notice(unopened: Sequence[str]) -> list[str]:
    if not unopened:
        return []
    count = f"{len(unopened)}, e.g. {unopened[0]}"
    return [f"archives that cannot be opened where they are ({count}): unpack them, or use tar or zip"]


def _cause(error: Exception) -> Cause:
    """Return what is at fault for a refused file. A missing file is the fault of the list (`data`), as a 404 is."""
    return "data" if isinstance(error, FileNotFoundError) else cause_of(error)


def _once(found: Iterator[Candidate], result: FoundSources, meter: Meter) -> list[Candidate]:
    """Return each file once, in order of relative path. If a file was reached in several ways, a manifest's entry is used,
    otherwise the name with the most folders. The choice must not depend on the order of arguments, because the name is part
    of the source's id."""
    best: dict[str, Candidate] = {}
    folders: dict[str, str] = {}
    for item in found:
        meter.found()
        place = item.member.location if item.member else _place(item.entry.path, folders)
        other = best.setdefault(place, item)
        if other is not item:
            result.repeated += 1
            best[place] = min(other, item, key=lambda i: (not i.listed, -i.entry.name.count("/"), i.entry.name))
    return sorted(best.values(), key=lambda item: (item.entry.name, item.entry.path))


def _place(path: str, folders: dict[str, str]) -> str:
    """Return the real path of a file: two ways to one file have the same, two files do not. `folders` caches those of
    folders."""
    folder, name = os.path.split(path)
    if name in ("", ".", "..") or os.path.islink(path):  # noqa: PTH114 - a million files
        return os.path.realpath(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)  # noqa: PTH118


def _session_names(found: list[Candidate], rule: str) -> dict[tuple[str, str], str]:
    """Return {(root, session within it): name}. Folders of the same name under different roots are different sessions.
    Their name is preceded by the root's name, or by the root's whole path if that is not unique either."""
    pairs = {(item.root, item.session if rule == "folder" else item.entry.name) for item in found}
    names = {pair: pair[1] for pair in pairs}
    for whole in (False, True):
        counts = Counter(names.values())
        names = {
            (root, own): f"{root if whole else Path(root).name}/{own}" if counts[name] > 1 else name
            for (root, own), name in names.items()
        }
    return names


def _source(
    entry: ListedRecording,
    session: str,
    language: str | None,
    hashes: HashTable,
    result: FoundSources,
    beside: TranscriptFinder,
) -> Source:
    path = Path(entry.path)
    if printable(path) != str(path) or printable(entry.name) != entry.name:
        raise SourceError("its name is not valid UTF-8; rename it")
    if path.is_symlink() and not path.exists():
        raise SourceError("a symbolic link that leads nowhere")
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise SourceError(f"not a file ({_kind(state.st_mode)})")
    key = (str(path), state.st_size, state.st_mtime_ns)
    if key not in hashes:
        hashes[key] = sha256_of(path)
    sha256 = hashes[key]
    if entry.text is None:
        found, notices = beside.find(path, entry.language or language, _given_folder(entry))
        result.aside.notices += notices
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
        rights=entry.rights,
        spans=entry.spans,
    )


def _given_folder(entry: ListedRecording) -> Path:
    """Return the folder that an entry's name is relative to: nothing above it was given."""
    name, path = PurePosixPath(entry.name), Path(entry.path)
    if name.is_absolute() or ".." in name.parts or len(name.parts) > len(path.parents):
        return path.parent
    return path.parents[len(name.parts) - 1]


def _language(name: str | None, recording: str, result: FoundSources) -> str | None:
    """Return the code of a language that the user named. Return None for an unknown name, which is recorded."""
    code = language_code(name)
    if name and code is None:
        result.unknown_languages.setdefault(name, []).append(recording)
    return code


def _language_notices(unknown: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name, recordings in unknown.items():
        near = nearest_language(name)
        meant = f"did you mean {near}?" if near else "known ones are en, es, pt-BR, yue, German and so on;"
        yield (
            f"{name!r} is not a language that is known here: {meant} it is ignored, and the language is found by listening "
            f"(recordings: {len(recordings)}, e.g. {recordings[0]})"
        )


def _member_source(member: PackedRecording, session: str, language: str | None, result: FoundSources) -> Source:
    if member.fault is not None:
        raise StoreError(member.fault) if member.unreachable else SourceError(member.fault)
    if printable(member.name) != member.name:
        raise SourceError("its name is not valid UTF-8; rename it")
    return Source(
        source_id=source_id(member.name, member.sha256),
        path=member.location,
        relative_path=member.name,
        session_id=member.session or session,
        bytes=member.bytes,
        content_sha256=member.sha256,
        language=_language(member.language or language, member.name, result),
        text=member.text,
        rights=member.rights,
        spans=member.spans,
        extent=member.extent,
    )


def _kind(mode: int) -> str:
    names = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device"}
    return next((name for test, name in names.items() if test(mode)), "a special file")
