"""Test sets on the model hub: `hf:OWNER/NAME[@revision]:config`, or a folder with the same files.

The layout is recognized by the files: OmniVoice's JSONL lists with their archives, Parquet files, MiniMax' folders, `.lst` files.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from catalogs.corpus.commit import is_inside
from catalogs.files import one_line
from evaluation.errors import EvaluationError
from evaluation.items import Item, from_row
from evaluation.languages import language_code
from evaluation.lists import instruct, minimax, seed, tables
from evaluation.lists.archives import extract
from evaluation.lists.base import Pick, cache_root, choice, find_file
from evaluation.lists.tables import TableFile

_PROMPTS, _RECORDINGS = "prompt_wavs", "ground_truth_wavs"
"""Folders in the archive of Seed-TTS-Eval: clips that are prompts, and recordings of the texts by their id."""


def read(
    argument: str,
    *,
    pick: Pick,
    offline: str = "no",
    hub_cache: str | None = None,
    language: str = "",
    cache: str | None = None,
) -> list[Item]:
    """Return the items of one configuration of a test set.

    offline: `yes` takes only what is in the local cache of the hub. hub_cache: that cache, if it is not at its usual place.
    Raises EvaluationError, which says what to do, if it cannot be fetched or its layout is not known.
    """
    source = _Source(argument, choice("offline", offline, ("no", "yes")) == "yes", hub_cache)
    name, config = source.name, source.config
    own = [f"*{config}.jsonl", f"*{config}-*.parquet", f"*{config}/*"] if config else []
    folder = source.fetch([*own, "text/*", "speaker/*"])
    lists = sorted(folder.rglob(f"{config}.jsonl")) if config else []
    parquet = sorted({*folder.rglob(f"{config}-*.parquet"), *folder.rglob(f"{config}/*.parquet")}) if config else []
    if lists:
        return _read_jsonl(lists[0], source, pick, language, cache)
    if parquet and TableFile(parquet[0]).column(instruct.KINDS):
        return instruct.read_files(parquet, instruct.KINDS, pick, language, cache)
    if parquet:
        short = name.rpartition("/")[2].lower()
        return tables.read_files(parquet, pick, language, f"{short}-{config}", cache)
    if (folder / "text").is_dir():
        return minimax.read(f"{folder}:{config}" if config else str(folder))
    if config and (folder / config / "meta.lst").is_file():
        return _all_inside(seed.read(str(folder / config / "meta.lst"), language=language), folder)
    raise EvaluationError(f"{name} has no list {config!r}: {_names(folder)}")


def _names(folder: Path) -> str:
    found = sorted(path.stem for path in folder.rglob("*") if path.suffix in (".jsonl", ".parquet", ".lst"))
    return f"it has {', '.join(found[:8])}" if found else "name the configuration, such as hf:OWNER/NAME:en"


class _Source:
    """A data set on the hub or a local folder."""

    def __init__(self, argument: str, offline: bool, cache: str | None) -> None:
        self._offline, self._cache = offline, cache
        path, colon, config = argument.rpartition(":")
        self.name, self.config = (path, config) if colon else (argument, "")
        if Path(argument).expanduser().is_dir():
            self.name, self.config = argument, ""
        self._folder = Path(self.name).expanduser()
        self.name, _, revision = self.name.partition("@") if not self._folder.is_dir() else (self.name, "", "")
        self._revision = revision or None
        if not self._folder.is_dir() and self.name.count("/") != 1:
            raise EvaluationError(f"{argument!r} is neither a folder nor OWNER/NAME[@revision]:config")

    def fetch(self, patterns: list[str]) -> Path:
        """Return the folder with the files that match patterns; fetched unless they are there."""
        if self._folder.is_dir():
            return self._folder
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(
                snapshot_download(
                    self.name,
                    repo_type="dataset",
                    revision=self._revision,
                    cache_dir=self._cache,
                    local_files_only=self._offline,
                    allow_patterns=patterns,
                )
            )
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
            tried = "is not in the local cache" if self._offline else "could not be fetched from the hub"
            raise EvaluationError(
                f"{self.name} {tried} ({one_line(error)[:200]}); fetch it on a machine with a network: "
                f"hf download --repo-type dataset {self.name}, then give its folder"
            ) from None


def _read_jsonl(path: Path, source: _Source, pick: Pick, language: str, cache: str | None) -> list[Item]:
    """Return the items of a list in OmniVoice's format, whose clips are beside it or in archives named in their paths."""
    rows: dict[int, dict[str, Any]] = {}
    items = []
    for number, row in TableFile(path).rows():
        try:
            light = {key: value for key, value in row.items() if key not in ("ref_audio", "human_audio")}
            if not light.get("language_id"):
                light["language_id"] = language_code(language) if language else _language(path.stem)
            items.append(from_row(light, path.parent, path.stem))
        except EvaluationError as error:
            raise EvaluationError(f"{path}, line {number}: {error}") from None
        rows[id(items[-1])] = {**light, "ref_audio": row.get("ref_audio"), "human_audio": row.get("human_audio")}
    if not items:
        raise EvaluationError(f"{path} has no items")
    chosen = [rows[id(item)] for item in pick(items)]
    places = _clips(path, chosen, source, cache)
    done = []
    for row in chosen:
        for column in ("ref_audio", "human_audio"):
            if name := row.get(column):
                if name not in places:
                    raise EvaluationError(f"{path}: the item {row.get('id')} has no clip {name}; fetch its archive")
                row[column] = str(places[name])
        own = places.get(_recording_of(row.pop("_clip", ""), str(row.get("id", ""))))
        if own and not row.get("human_audio"):
            row["human_audio"] = str(own)
        done.append(from_row(row, path.parent, path.stem))
    return done


def _clips(path: Path, rows: list[dict[str, Any]], source: _Source, cache: str | None) -> dict[str, Path]:
    """Return the files of all clips by the path in the list. Recordings of the texts are added if the archive has them."""
    wanted: dict[str, bool] = {}
    for row in rows:
        for column in ("ref_audio", "human_audio"):
            if name := row.get(column):
                if not is_inside(name):
                    raise EvaluationError(f"{path}: the clip {name!r} is not inside the data set")
                wanted[name] = True
        row["_clip"] = row.get("ref_audio") or ""
        if own := _recording_of(row["_clip"], str(row.get("id", ""))):
            wanted.setdefault(own, False)
    found = {name: place for name in wanted if (place := find_file(path.parent, name))}
    missing = [name for name in wanted if name not in found]
    if any(wanted[name] for name in missing):
        parts = sorted({part for name in missing for part in PurePosixPath(name).parts[:-1]})
        folder = source.fetch([path.name, *(f"{part}.tar.gz" for part in parts)])
        for part in parts:
            if (archive := folder / f"{part}.tar.gz").is_file():
                ends = {_from(name, part): name for name in missing if part in PurePosixPath(name).parts}
                found |= {ends[end]: place for end, place in extract(archive, ends, cache_root(cache)).items()}
    return found


def _all_inside(items: list[Item], folder: Path) -> list[Item]:
    """Return items of a data set. Raises EvaluationError for a clip outside its folder."""
    for item in items:
        for clip in (item.reference, item.human):
            if clip and not is_inside(os.path.relpath(clip, folder)):
                raise EvaluationError(f"{folder}: the clip {clip} of {item.name} is not inside the data set")
    return items


def _from(name: str, part: str) -> str:
    """Return the end of a path that begins with one of its folders."""
    parts = PurePosixPath(name).parts
    return "/".join(parts[parts.index(part) :])


def _recording_of(clip: str, name: str) -> str:
    """Return where Seed-TTS-Eval's archive has the recording of a text; empty for another layout."""
    parts = PurePosixPath(clip).parts
    if _PROMPTS not in parts or not name:
        return ""
    at = parts.index(_PROMPTS)
    return "/".join([*parts[:at], _RECORDINGS, f"{name}{PurePosixPath(clip).suffix}"])


def _language(stem: str) -> str:
    """Return the language in the name of a list such as `seedtts_test_en`; LibriSpeech is English."""
    return "en" if stem.startswith("librispeech") else language_code(stem.rpartition("_")[2])
