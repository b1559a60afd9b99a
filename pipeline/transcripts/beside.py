"""Which transcript belongs to a recording: the file with its name and another ending."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

from catalogs.languages import language as known_language
from pipeline.transcripts import lists
from pipeline.transcripts.formats import Transcript, TranscriptError, decode_text
from pipeline.transcripts.labels import read_labels
from pipeline.transcripts.objects import read_objects
from pipeline.transcripts.subtitles import read_subtitles
from pipeline.transcripts.textgrid import read_textgrid

_LARGEST_BYTES = 64 * 1024**2


def read_plain(text: str) -> Transcript:
    """Plain text, its lines joined. Raises TranscriptError where there is none."""
    words = " ".join(text.split())
    if not words:
        raise TranscriptError("it holds no text")
    return Transcript(words)


#: Endings of transcripts with what reads them, the best first: with times before those without.
READERS: dict[str, Callable[[str], Transcript]] = {
    ".textgrid": read_textgrid,
    ".srt": read_subtitles,
    ".vtt": read_subtitles,
    ".lab": read_labels,
    ".json": read_objects,
    ".jsonl": read_objects,
    ".txt": read_plain,
}


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST_BYTES:
        raise TranscriptError("it is larger than 64 MB")
    return decode_text(path.read_bytes())


class Beside:
    """Finds transcripts beside recordings; each folder is listed once.

    `talk.wav` has `talk.srt`, `talk.wav.srt` or, with the code of its language, `talk.en.srt`. Of several the best kind
    counts, and of several languages that of the recording. A recording without a file of its own may be in a list beside it
    or in the folder above (`metadata.csv`, `*.trans.txt`, see `lists`).
    """

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, list[str]]] = {}
        self._lists: dict[Path, dict[str, str]] = {}

    def find(self, path: Path, language: str | None = None) -> tuple[Transcript | None, list[str]]:
        """(transcript of a recording or None, lines for a person). Never raises: one that is broken is left out and said."""
        notices: list[str] = []
        for name in self._candidates(path, language):
            beside = path.parent / name
            try:
                return READERS[beside.suffix.lower()](_text(beside)), notices
            except UnicodeDecodeError:
                notices.append(f"{beside}: this transcript is not UTF-8 text and was left out")
            except TranscriptError as error:
                if beside.suffix.lower() in (".json", ".jsonl") and "no `text`" in str(error):
                    # Any data may lie beside a recording under its name; it is no broken transcript.
                    continue
                notices.append(f"{beside}: this transcript was left out: {error}")
            except (OSError, ValueError, OverflowError, RecursionError) as error:
                reason = getattr(error, "strerror", None) or error
                notices.append(f"{beside}: this transcript cannot be read and was left out: {reason}".lower())
        for folder in (path.parent, path.parent.parent):
            listed = self._listed(folder, notices)
            for key in (
                path.relative_to(folder).as_posix(),
                path.relative_to(folder).with_suffix("").as_posix(),
                path.stem,
            ):
                if key in listed:
                    return Transcript(listed[key]), notices
        return None, notices

    def _listed(self, folder: Path, notices: list[str]) -> dict[str, str]:
        """{recording: text} of all lists in a folder; what is wrong with one is said once."""
        if folder not in self._lists:
            self._lists[folder] = {}
            for name in sorted(name for names in self._listing(folder).values() for name in names):
                if name not in lists.NAMES and not name.endswith(".trans.txt"):
                    continue
                try:
                    self._lists[folder] |= lists.read_list(name, _text(folder / name))
                except TranscriptError:
                    # Metadata of other things.
                    continue
                except (OSError, ValueError, csv.Error) as error:
                    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
                    notices.append(f"{folder / name}: this list of transcripts was left out: {reason}")
        return self._lists[folder]

    def _candidates(self, path: Path, language: str | None) -> list[str]:
        """Names of transcripts of a recording, the best first."""
        wanted = known_language(language)
        kinds = list(READERS)
        ranked = []
        for stem in dict.fromkeys((path.stem, path.name)):
            for name in self._listing(path.parent).get(stem, ()):
                middle = name[len(stem) : -len(Path(name).suffix)].strip(".")
                spoken = known_language(middle) if middle else None
                if name == path.name or name in lists.NAMES or (middle and spoken is None):
                    continue
                # Another language's subtitles are a translation: no transcript at all where the language is known.
                if wanted and spoken and spoken != wanted:
                    continue
                ranked.append((kinds.index(Path(name).suffix.lower()), bool(middle), name))
        return [name for _, _, name in sorted(ranked)]

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """{what a recording may be called: names of transcripts} of a folder; empty where it cannot be listed."""
        if folder not in self._folders:
            listing: dict[str, list[str]] = {}
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208 - a folder of a million files, names only
            except OSError:
                names = []
            for name in names:
                stem, ending = os.path.splitext(name)  # noqa: PTH122
                if name in lists.NAMES or ending.lower() in READERS:
                    listing.setdefault(stem, []).append(name)
                    base, middle = os.path.splitext(stem)  # noqa: PTH122
                    if middle and known_language(middle[1:]):
                        listing.setdefault(base, []).append(name)
            self._folders[folder] = listing
        return self._folders[folder]
