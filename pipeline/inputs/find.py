"""Turn folders, files, globs, file lists and manifests into a list of sources."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from catalogs.corpus.attempts import Cause
from catalogs.corpus.ids import source_id
from pipeline.inputs.expand import Candidate, Expander
from pipeline.inputs.hashes import hash_files, sha256_of
from pipeline.inputs.manifests import ListedRecording, SourceError
from pipeline.inputs.members import LARGEST_MEMBER, HashKey, PackedRecording, Skipped
from pipeline.inputs.store_access import DEFAULT, Stores
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


def find_sources(
    paths: Sequence[str],
    *,
    session: Literal["folder", "file"] = "folder",
    language: str | None = None,
    hashes: MutableMapping[HashKey, str] | None = None,
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
    result = FoundSources(aside=Skipped(largest_bytes=round(largest_gb * 1e9)))
    found = _once(Expander(result.refused, result.aside, language, hashes, stores).expand_all(paths), result)
    hashes = {} if hashes is None else hashes
    hash_files((item.entry.path for item in found if item.member is None), hashes)
    sessions = _session_names(found, session)
    first: dict[str, str] = {}
    beside = TranscriptFinder()
    for item in found:
        name = sessions[(item.root, item.session if session == "folder" else item.entry.name)]
        try:
            if item.member is not None:
                source = _member_source(item.member, name, language, result)
            else:
                source = _source(item.entry, name, language, hashes, result, beside)
            if source.source_id in first:
                raise SourceError(f"the same name and content as {first[source.source_id]}, which is taken already")
            first[source.source_id] = source.path
            result.sources.append(source)
        except (StageError, OSError) as error:
            own = isinstance(error, StageError | StoreError)
            reason = str(error) if own else (getattr(error, "strerror", None) or str(error)).lower()
            place = item.member.location if item.member else item.entry.path
            result.refused.append(Quarantined(printable(place), "", "sources", reason, cause=_cause(error)))
    result.aside.notices += _language_notices(result.unknown_languages)
    if unopened := result.aside.unopened:
        count = f"{len(unopened)}, e.g. {unopened[0]}"
        result.aside.notices.append(
            f"archives that cannot be opened where they are ({count}): unpack them, or use tar or zip"
        )
    return result


def _cause(error: Exception) -> Cause:
    """Return what is at fault for a refused file. A missing file is the fault of the list (`data`), as a 404 is."""
    return "data" if isinstance(error, FileNotFoundError) else cause_of(error)


def _once(found: Iterator[Candidate], result: FoundSources) -> list[Candidate]:
    """Return each file once, in order of relative path. If a file was reached in several ways, a manifest's entry is used,
    otherwise the name with the most folders. The choice must not depend on the order of arguments, because the name is part
    of the source's id."""
    ways: dict[str, list[Candidate]] = {}
    for item in found:
        ways.setdefault(item.place, []).append(item)
    result.repeated += sum(len(items) - 1 for items in ways.values())
    best = [min(items, key=lambda i: (not i.listed, -i.entry.name.count("/"), i.entry.name)) for items in ways.values()]
    return sorted(best, key=lambda item: (item.entry.name, str(item.entry.path)))


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
    hashes: MutableMapping[HashKey, str],
    result: FoundSources,
    beside: TranscriptFinder,
) -> Source:
    path = entry.path
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
        license=entry.license,
        spans=entry.spans,
    )


def _given_folder(entry: ListedRecording) -> Path:
    """Return the folder that an entry's name is relative to: nothing above it was given."""
    name = PurePosixPath(entry.name)
    if name.is_absolute() or ".." in name.parts or len(name.parts) > len(entry.path.parents):
        return entry.path.parent
    return entry.path.parents[len(name.parts) - 1]


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
        license=member.license,
        spans=member.spans,
        extent=member.extent,
    )


def _kind(mode: int) -> str:
    names = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device"}
    return next((name for test, name in names.items() if test(mode)), "a special file")
