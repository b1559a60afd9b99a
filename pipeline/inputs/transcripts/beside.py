"""Find the transcript of a recording: the file with its name and another ending."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any, Protocol

from catalogs.files import one_line
from catalogs.vocabulary.languages import language as known_language
from pipeline.inputs.transcripts import lists
from pipeline.inputs.transcripts.formats import Transcript, TranscriptError, decode_text
from pipeline.inputs.transcripts.labels import read_labels
from pipeline.inputs.transcripts.objects import read_objects
from pipeline.inputs.transcripts.subtitles import read_subtitles
from pipeline.inputs.transcripts.textgrid import read_textgrid
from pipeline.speech.language import language_code

LARGEST_BYTES = 64 * 1024**2
"""A larger file is not read as a transcript."""

_FOLDERS = 256
"""Folders whose names, and whose lists of texts, are held."""


def read_plain(text: str) -> Transcript:
    """Return plain text with its lines joined. Raises TranscriptError if there is none."""
    words = " ".join(text.split())
    if not words:
        raise TranscriptError("it holds no text")
    return Transcript(words)


#: Endings of transcripts with their readers, the best first: those with times before those without.
READERS: dict[str, Callable[[str], Transcript]] = {
    ".textgrid": read_textgrid,
    ".srt": read_subtitles,
    ".vtt": read_subtitles,
    ".lab": read_labels,
    ".json": read_objects,
    ".jsonl": read_objects,
    ".txt": read_plain,
}


def may_be_transcript(name: str) -> bool:
    """Return True if a file is a transcript or a list of them, by its name."""
    return PurePath(name).suffix.lower() in READERS or name in lists.NAMES


class TextStore(Protocol):
    """A place where recordings and their transcripts lie side by side: the folders of a disk, a store or an archive."""

    def names(self, folder: PurePath) -> Iterable[str]:
        """Return the names of the files in a folder, at least of transcripts. Raises OSError if it cannot be listed."""

    def read(self, path: PurePath) -> bytes:
        """Return a file's content. Raises OSError if it cannot be read, TranscriptError if it is larger than LARGEST_BYTES."""


class Disk:
    """The folders of this machine."""

    def names(self, folder: PurePath) -> Iterable[str]:
        return os.listdir(folder)  # noqa: PTH208 - a folder of a million files, names only

    def read(self, path: PurePath) -> bytes:
        file = Path(path)
        if file.stat().st_size > LARGEST_BYTES:
            raise TranscriptError("it is larger than 64 MB")
        return file.read_bytes()


class TranscriptFinder:
    """Finds transcripts beside recordings; each folder is listed once.

    `talk.wav` has `talk.srt`, `talk.wav.srt` or, with the code of its language, `talk.en.srt`. If there are several, the
    best kind counts, and of several languages that of the recording. A recording without such a file may be in a list
    beside it or in the folder above (`metadata.csv`, `*.trans.txt`, see `lists`). With `by_key`, files whose names agree up
    to the first dot belong together as well, as in WebDataset's tars. `called` names a file in messages.
    """

    def __init__(
        self, shelf: TextStore | None = None, called: Callable[[PurePath], object] = str, by_key: bool = False
    ) -> None:
        self._shelf: TextStore = shelf or Disk()
        self._called = called
        self._by_key = by_key
        self._folders: dict[PurePath, dict[str, list[str]]] = {}
        """The last folders, because those of a million recordings fill the memory."""
        self._told: set[PurePath] = set()
        self._lists: dict[PurePath, dict[str, str]] = {}

    def find(
        self, path: PurePath, language: str | None = None, top: PurePath | None = None
    ) -> tuple[Transcript | None, list[str]]:
        """Return (transcript of a recording or None, messages). Never raises: a broken transcript is left out with a
        message.

        Nothing above the folder `top` is read.
        """
        notices: list[str] = []
        for name in self._candidates(path, language):
            beside = path.parent / name
            try:
                return READERS[beside.suffix.lower()](self._text(beside)), notices
            except UnicodeDecodeError:
                notices.append(f"{self._called(beside)}: this transcript is not UTF-8 text and was left out")
            except TranscriptError as error:
                if beside.suffix.lower() in (".json", ".jsonl") and "no `text`" in str(error):
                    # Any data may lie beside a recording under its name: it is not a broken transcript.
                    continue
                notices.append(f"{self._called(beside)}: this transcript was left out: {error}")
            except (OSError, ValueError, OverflowError, RecursionError) as error:
                reason = getattr(error, "strerror", None) or error
                notices.append(
                    f"{self._called(beside)}: this transcript cannot be read and was left out: {str(reason).lower()}"
                )
        above = () if top is not None and not path.parent.parent.is_relative_to(top) else (path.parent.parent,)
        for folder in (path.parent, *above):
            listed = self._listed(folder, notices)
            if not listed:
                continue
            for key in (
                path.relative_to(folder).as_posix(),
                path.relative_to(folder).with_suffix("").as_posix(),
                path.stem,
            ):
                if key in listed:
                    return Transcript(listed[key]), notices
        return None, notices

    def _text(self, path: PurePath) -> str:
        return decode_text(self._shelf.read(path))

    def _listed(self, folder: PurePath, notices: list[str]) -> dict[str, str]:
        """Return {recording: text} of all lists in a folder. A fault of a list is reported once."""
        if folder not in self._lists:
            _make_room(self._lists)
            self._lists[folder] = {}
            for name in sorted({name for names in self._listing(folder).values() for name in names}):
                if name not in lists.NAMES and not name.endswith(".trans.txt"):
                    continue
                try:
                    self._lists[folder] |= lists.read_list(name, self._text(folder / name))
                except TranscriptError:
                    # Metadata of other things.
                    continue
                except (OSError, ValueError, csv.Error) as error:
                    reason = getattr(error, "strerror", None) or one_line(error)
                    if folder / name in self._told:
                        continue
                    self._told.add(folder / name)
                    notices.append(f"{self._called(folder / name)}: this list of transcripts was left out: {reason}")
        return self._lists[folder]

    def _candidates(self, path: PurePath, language: str | None) -> list[str]:
        """Return the names of transcripts of a recording, the best first."""
        if not self._listing(path.parent):
            return []
        wanted = known_language(language_code(language))
        kinds = list(READERS)
        ranked = []
        own = (path.stem, path.name)
        for stem in dict.fromkeys((*own, *([_key(path.name)] if self._by_key else []))):
            for name in self._listing(path.parent).get(stem, ()):
                middle = name[len(stem) : -len(PurePath(name).suffix)].strip(".")
                spoken = known_language(middle) if middle else None
                if name == path.name or name in lists.NAMES or name.endswith(".trans.txt"):
                    continue
                if middle and spoken is None and stem in own:
                    continue
                # Subtitles in another language are a translation: they are not used if the language is known.
                if wanted and spoken and spoken != wanted:
                    continue
                ranked.append((stem not in own, kinds.index(PurePath(name).suffix.lower()), bool(middle), name))
        return list(dict.fromkeys(name for *_, name in sorted(ranked)))

    def _listing(self, folder: PurePath) -> dict[str, list[str]]:
        """Return {possible name of a recording: names of transcripts} of a folder; empty if it cannot be listed."""
        if folder not in self._folders:
            listing: dict[str, list[str]] = {}
            try:
                names = sorted(self._shelf.names(folder))
            except OSError:
                names = []
            for name in names:
                if not may_be_transcript(name):
                    continue
                stem = os.path.splitext(name)[0]  # noqa: PTH122
                called = [stem]
                base, middle = os.path.splitext(stem)  # noqa: PTH122
                if middle and known_language(middle[1:]):
                    called.append(base)
                if self._by_key:
                    called.append(_key(name))
                for one in dict.fromkeys(called):
                    listing.setdefault(one, []).append(name)
            _make_room(self._folders)
            self._folders[folder] = listing
        return self._folders[folder]


def _make_room(folders: dict[PurePath, Any]) -> None:
    """Remove the folder that was read first, if there are many."""
    if len(folders) >= _FOLDERS:
        del folders[next(iter(folders))]


def _key(name: str) -> str:
    """Return a name up to its first dot, by which WebDataset groups the members of a tar."""
    return name.split(".", 1)[0]
