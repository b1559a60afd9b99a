"""`voxmill export`: write the clips of a corpus in the format of another tool.

The clips are chosen once (`selection`), then written part by part. OUT/.export holds the state of an export that is not finished:
the selection and one record per part that is written. A killed export continues after the last record, and its result equals that
of an unbroken one. export.json is written last: without it, an export is not done.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from catalogs.corpus.commit import corpus_info
from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.corpus.tombstones import read_tombstones
from catalogs.exchange.cards.data_card import description
from catalogs.exchange.cards.facts import corpus_facts
from catalogs.exchange.cards.write import write_card
from catalogs.exchange.clips import Clip
from catalogs.exchange.export_card import export_card, selection_facts
from catalogs.exchange.exports import note_export
from catalogs.exchange.formats import format_named
from catalogs.exchange.formats.base import Format, Job, Part, write_lines
from catalogs.exchange.request import ExchangeError, Request, known, request_key
from catalogs.exchange.selection import ALWAYS, PRIVATE, RIGHTS, available, choose, parts_of, rows_of
from catalogs.files import write_atomically

MANIFEST = "export.json"
_STATE = ".export"
_DRAFT = re.compile(r"\..+\.([0-9a-f]{8}|part)")
"""Names that `catalogs.files` and `formats.base` give to drafts."""


@dataclass(frozen=True)
class ExportSummary:
    """What an export holds. done_before: whether it was finished already, so that nothing was written."""

    out: Path
    clips: int
    seconds: float
    splits: dict[str, dict[str, Any]]
    counts: dict[str, int]
    notes: tuple[str, ...]
    done_before: bool = False


Progress = Callable[[int, int], None]
"""Called with (clips written, clips in all)."""


def export(
    corpus: str | Path,
    to: str,
    out: str | Path,
    *,
    where: str = "kept",
    license_allow: Sequence[str] = (),
    splits: Sequence[Any] | None = None,
    seed: int = 0,
    same_text: Any = "link",
    columns: Sequence[str] = (),
    text: str = "text",
    audio: str | None = None,
    sample_rate: int | None = None,
    prefix: str | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Write the clips of a corpus to the folder `out` in the format `to`. See `Request` for the arguments.

    Run it again with the same arguments to continue after a kill. Raises ExchangeError, in one line, for arguments that do not
    fit and for a folder that holds something else; QueryError for a wrong condition; DamagedFileError for a damaged corpus.
    """
    root, target = Path(corpus), Path(out)
    corpus_info(root)
    form = format_named(to)
    request = _request(
        form, to, where, license_allow, splits, seed, same_text, columns, text, audio, sample_rate, prefix
    )
    done = _finished(target, request)
    if done is not None:
        if (target / _STATE).is_dir():  # The run that finished it was killed before it removed this.
            shutil.rmtree(target / _STATE)
        return done
    _refuse_other(target, root)
    with _alone(target):
        return _Export(root, target, form, request).run(progress)


def _request(
    form: Format,
    to: str,
    where: str,
    license_allow: Sequence[str],
    splits: Sequence[Any] | None,
    seed: int,
    same_text: Any,
    columns: Sequence[str],
    text: str,
    audio: str | None,
    sample_rate: int | None,
    prefix: str | None,
) -> Request:
    kind = audio or form.audio[0]
    if kind not in form.audio:
        raise ExchangeError(f"{to} takes audio as {' or '.join(form.audio)}, not as {kind}")
    if form.sample_rate is not None and sample_rate not in (None, form.sample_rate):
        raise ExchangeError(f"the readers of {to} take {form.sample_rate} Hz only: leave out --sample-rate")
    rate = form.sample_rate if sample_rate is None else sample_rate
    if rate is not None and not 4000 <= rate <= 384_000:
        raise ExchangeError(f"a sample rate is between 4000 and 384000 Hz, not {rate}")
    known(same_text, ("link", "leave-out"), "way to treat equal texts")
    return Request(
        to=to,
        where=where.strip(),
        license_allow=tuple(license_allow),
        splits=Request.splits if splits is None else tuple(splits),
        seed=seed,
        same_text=same_text,
        columns=tuple(columns),
        text=text,
        audio=kind,
        sample_rate=rate,
        prefix=form.prefix if prefix is None else prefix,
    )


def _finished(out: Path, request: Request) -> ExportSummary | None:
    """Return the summary of an export that is done; None if there is none. Raises ExchangeError if it is another export."""
    manifest = out / MANIFEST
    if not manifest.is_file():
        return None
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
        same = found["request"] == request.described()
        summary = _summary(out, found)
    except (ValueError, KeyError, TypeError):
        raise ExchangeError(f"{manifest} is not that of an export; choose another folder") from None
    if not same:
        raise ExchangeError(f"{out} holds an export with other options (see {manifest}); choose another folder")
    return replace(summary, done_before=True)


def _summary(out: Path, manifest: dict[str, Any]) -> ExportSummary:
    splits = manifest["splits"]
    clips = sum(split["clips"] for split in splits.values())
    seconds = sum(split["seconds"] for split in splits.values())
    return ExportSummary(out, clips, seconds, splits, manifest["counts"], tuple(manifest["notes"]))


def _refuse_other(out: Path, root: Path) -> None:
    if out.resolve().is_relative_to(root.resolve()):
        raise ExchangeError(f"{out} is in the corpus; choose a folder outside of it for the export")
    if out.exists() and not out.is_dir():
        raise ExchangeError(f"{out} is a file; choose a folder for the export")
    if out.is_dir() and any(out.iterdir()) and not (out / _STATE).is_dir():
        raise ExchangeError(f"{out} is not empty and not an export; choose another folder for the export")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the lock of an export: two processes must not write one."""
    (out / _STATE).mkdir(parents=True, exist_ok=True)
    with (out / _STATE / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ExchangeError(f"another process is writing the export {out}; wait for it or stop it first") from None
        yield


class _Export:
    """One export that is being made."""

    def __init__(self, root: Path, out: Path, form: Format, request: Request) -> None:
        self._root, self._out, self._format, self._request = root, out, form, request
        self._state = out / _STATE
        self._begun = self._state / "begun.json"

    def run(self, progress: Progress | None) -> ExportSummary:
        """Do what is left to do."""
        _sweep(self._out)
        begun = self._begin()
        files = self._selection()
        job = Job(
            self._out,
            self._request,
            tuple(begun["columns"]),
            pq.read_schema(next(iter(files.values()))),
            begun["facts"],
        )
        parts = [part for split, file in files.items() for part in _parts(split, file)]
        corpus = Corpus(self._root)
        total, done = sum(part.rows for part in parts), 0
        for part in parts:
            if not self._record(part).is_file():
                lines = self._format.write_part(job, part, self._clips(corpus, files[part.split], part))
                write_atomically(self._record(part), json.dumps(lines, ensure_ascii=False).encode())
            done += part.rows
            if progress:
                progress(done, total)
        return self._finish(job, parts, begun)

    def _begin(self) -> dict[str, Any]:
        """Choose the clips, or return what an earlier run chose. Raises ExchangeError if it was asked for something else."""
        # An export that was begun before something was forgotten has chosen it.
        state = str(corpus_info(self._root).get("fingerprint"))
        key = request_key(self._request, f"{state}{''.join(sorted(one.id for one in read_tombstones(self._root)))}")
        if self._begun.is_file():
            begun: dict[str, Any] = json.loads(self._begun.read_text(encoding="utf-8"))
            if begun["key"] != key:
                raise ExchangeError(
                    f"{self._out} holds an export with other options or of another corpus that was not finished: give these "
                    "again to continue it, or choose another folder (if the corpus has forgotten something since: remove it)"
                )
            if "digest" not in begun["facts"]:  # An older version began it.
                begun["facts"] = self._facts(
                    self._selection(), list(pq.read_schema(next(iter(self._selection().values()))).names)
                )
            return begun
        columns, own = self._columns()
        selection = self._state / "selection"
        chosen = choose(self._root, self._request, columns, self._format.needs_text, self._format.part_rows, selection)
        facts = self._facts(chosen.files, columns)
        begun = {"key": key, "columns": own, "facts": facts, "counts": chosen.counts, "components": chosen.splits}
        # From here on clips leave the corpus: whoever forgets one has to know where they are.
        clips = sum(split["clips"] for split in facts["splits"].values())
        begun["is_noted"] = note_export(self._root, self._out, self._request.to, clips)
        write_atomically(self._begun, json.dumps(begun, ensure_ascii=False, default=str).encode())
        return begun

    def _selection(self) -> dict[str, Path]:
        """Return the files of the chosen clips by split."""
        return {split.name: self._state / "selection" / f"{split.name}.parquet" for split in self._request.splits}

    def _facts(self, files: dict[str, Path], columns: Sequence[str]) -> dict[str, Any]:
        facts = corpus_facts(self._root) | selection_facts(files, columns)
        return facts | {"description": description(facts)}

    def _columns(self) -> tuple[list[str], list[str]]:
        """Return the columns to select, and those of them that the format writes beside what it always has."""
        there = available(self._root)
        usable = [name for name, kind in there.items() if not kind.startswith("MAP")]
        for name in self._request.columns:
            known(name, usable, "column")
        if there.get(self._request.text) != "VARCHAR":
            texts = ", ".join(name for name in usable if name in ("text", "other_text"))
            raise ExchangeError(f"{self._request.text} is not a column of text; there are: {texts}")
        wanted = (
            [name for name in usable if name not in PRIVATE]
            if "*" in self._format.columns
            else list(self._format.columns)
        )
        own = [
            name
            for name in (*RIGHTS, *wanted, *self._request.columns)
            if name in there and name not in ("shard", "row")
        ]
        own = list(dict.fromkeys(own))
        columns = [name for name in dict.fromkeys((*ALWAYS, self._request.text, *own)) if name in there]
        return columns, own

    def _record(self, part: Part) -> Path:
        return self._state / "parts" / f"{part.split}-{part.number:06d}.json"

    def _clips(self, corpus: Corpus, file: Path, part: Part) -> Iterator[Clip]:
        """Yield the clips of a part, one at a time."""
        request, with_audio = self._request, self._request.audio != "none"
        for row in rows_of(file, part.number):
            shard = corpus.shard(row["shard"])
            with reading(self._root / row["shard"]):
                words = None
                if self._format.needs_words:
                    own = {"segment_id": row["segment_id"], "words": shard.column(row["row"], "words")}
                    words = corpus.marks.over_row(own)["words"]
                flac = shard.audio_buffer(row["row"]).to_pybytes() if with_audio else None
                yield Clip(row, words, flac, request.audio, request.sample_rate)

    def _finish(self, job: Job, parts: Sequence[Part], begun: dict[str, Any]) -> ExportSummary:
        """Collect the lines of all parts, write the card, and say that the export is done."""
        names = dict.fromkeys(name for part in parts for name in self._lines(part))
        for name in names:
            write_lines(self._out / name, (line for part in parts for line in self._lines(part).get(name, ())))
        facts, request = begun["facts"], self._request
        notes = _notes(request, begun)
        patterns = {split: self._format.data_files(split) for split in _with_clips(facts)}
        texts = self._format.finish(job, parts)
        made = export_card(facts, request, self._format.reader, self._selection(), patterns, notes, texts)
        write_card(self._out, made, force=True)  # A run that was killed here may have written some of it.
        manifest = {
            "voxmill": facts["voxmill"],
            "corpus": {name: facts[name] for name in ("name", "fingerprint", "created_at")},
            "request": request.described(),
            "splits": facts["splits"],
            "counts": begun["counts"],
            "components": begun["components"],
            "languages": facts["languages"],
            "licenses": facts["licenses"],
            "thresholds": facts["thresholds"],
            "funnel": facts["funnel"],
            "settings": facts["settings"],
            "notes": notes,
        }
        write_atomically(self._out / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, default=str).encode())
        shutil.rmtree(self._state, ignore_errors=True)
        return _summary(self._out, manifest)

    def _lines(self, part: Part) -> dict[str, list[str]]:
        found: dict[str, list[str]] = json.loads(self._record(part).read_text(encoding="utf-8"))
        return found


def _sweep(out: Path) -> None:
    """Remove the drafts that a killed writer left: hidden files beside the files that they would have become."""
    for folder, _, names in os.walk(out):
        for name in names:
            if _DRAFT.fullmatch(name):
                Path(folder, name).unlink(missing_ok=True)


def _parts(split: str, file: Path) -> list[Part]:
    rows = parts_of(file)
    return [Part(split, number, len(rows), count) for number, count in enumerate(rows)]


def _with_clips(facts: dict[str, Any]) -> list[str]:
    return [split for split, own in facts["splits"].items() if own["clips"]]


def _notes(request: Request, begun: dict[str, Any]) -> list[str]:
    """Return what a user should know of the splits, in whole sentences."""
    notes = []
    if not begun.get("is_noted", True):
        notes.append("The corpus cannot be written to: voxmill forget does not know of this export.")
    if len(request.splits) == 1:
        return notes
    found, counts = begun["components"], begun["counts"]
    if found["larger_than_held_out"]:
        share = found["largest_component_share"]
        first = request.splits[0].name
        many = found["larger_than_held_out"]
        notes.append(
            f"{many} of {found['components']} groups of clips that belong together (same voice, session, copy or text) are larger "
            f"than a held-out split and are in {first}; the largest has {share:.1%} of the time."
        )
    empty = [split.name for split in request.splits if not begun["facts"]["splits"][split.name]["clips"]]
    if empty:
        advice = " Equal texts join some: try --same-text leave-out." if found["joined_by_text"] else ""
        notes.append(f"Without clips: {', '.join(empty)}. No group is small enough.{advice}")
    if counts.get("left_out_same_text"):
        notes.append(f"{counts['left_out_same_text']} clips are left out: another split has their text.")
    return notes
