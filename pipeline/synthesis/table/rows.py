"""Rows of a table, crossed with voices and descriptions, as lines to be spoken: ids, seeds, and what is wrong with a row."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from catalogs.corpus.ids import short_hash
from pipeline.runtime.paths import beside_list
from pipeline.synthesis.requests import SpeechRequest
from pipeline.synthesis.table.columns import Columns, find_columns, result_names
from pipeline.synthesis.table.read_table import SUFFIXES, SpeechTable, SpeechTableError, open_table, read_rows_of

AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
_LONGEST_NAME = 100
_CFG = (0.1, 10.0)
_MOST_SEED = 2**62


@dataclass(frozen=True)
class Voice:
    """A voice that all texts are crossed with. Paths as they were written, and the folder that they are relative to."""

    name: str
    folder: Path
    reference: str | None = None
    prompt: str | None = None
    prompt_text: str | None = None


@dataclass(frozen=True)
class Line:
    """A row of the result. `row`: the table's, from 0. `request` is None for a row with an `error`, `CODE: words`."""

    row: int
    id: str
    name: str
    """The name of its file, without the suffix."""
    voice: str | None = None
    description: str | None = None
    request: SpeechRequest | None = None
    error: str | None = None


@dataclass(frozen=True)
class Unit:
    """Lines that are spoken and committed together, and their columns of the table, a row per line."""

    number: int
    lines: list[Line]
    carried: pa.Table


@dataclass(frozen=True)
class Survey:
    """What one pass over a table finds. `repeated`: rows whose id an earlier row has."""

    rows: int
    speech_s: float
    """Usual speaking time of all texts, once each."""
    repeated: frozenset[int]


@dataclass(frozen=True)
class Job:
    """A table and what its texts are crossed with."""

    table: SpeechTable
    columns: Columns
    seed: int = 0
    unit: int = 64
    voices: list[Voice] = field(default_factory=list)
    descriptions: list[str] = field(default_factory=list)

    @property
    def folds(self) -> int:
        """Lines of one row."""
        return max(len(self.voices), 1) * max(len(self.descriptions), 1)

    @cached_property
    def survey(self) -> Survey:
        """Read the table once. Raises SpeechTableError for one that cannot be read, or that has no rows."""
        hashes: list[np.ndarray] = []
        rows, speech_s = 0, 0.0
        id_of = self.columns.names.get("id")
        for batch in self.table.batches():
            texts = batch.column(self.columns.names["text"]).to_pylist()
            speech_s += sum(SpeechRequest(str(text), 0).expected_s for text in texts if text and str(text).strip())
            if id_of is not None:
                hashes.append(np.array([_id_hash(given) for given in batch.column(id_of).to_pylist()], dtype=np.uint64))
            rows += len(texts)
        if not rows:
            raise SpeechTableError(f"{self.table.path} has no rows")
        return Survey(rows, speech_s, _repeated(np.concatenate(hashes)) if hashes else frozenset())

    @property
    def lines(self) -> int:
        """Lines of the result."""
        return self.survey.rows * self.folds

    @property
    def units(self) -> int:
        """Units of the result."""
        return -(-self.lines // self.unit)

    @cached_property
    def result_names(self) -> dict[str, str]:
        """See `columns.result_names`."""
        return result_names(self.table.schema, bool(self.voices), bool(self.descriptions))

    @cached_property
    def _is_file(self) -> Callable[[str], bool]:
        # A clip is looked for once, not for each row.
        return lru_cache(maxsize=65_536)(lambda path: Path(path).is_file())

    def read_units(self, done: Collection[int] = ()) -> Iterator[Unit]:
        """Yield the units in order, except for those that are done."""
        window = _Window(self.table)
        for number in range(self.units):
            if number in done:
                continue
            places = range(number * self.unit, min((number + 1) * self.unit, self.lines))
            first, last = places[0] // self.folds, places[-1] // self.folds
            rows = window.rows(first, last + 1)
            values = rows.select(list(self.columns.names.values())).to_pylist()
            lines = [self._line(place, values[place // self.folds - first]) for place in places]
            yield Unit(number, lines, rows.take(pa.array([line.row - first for line in lines])))

    def _line(self, place: int, row: dict[str, object]) -> Line:
        """Return a line of the result by its place."""
        number, fold = divmod(place, self.folds)
        columns = self.columns
        voice_number, words_number = divmod(fold, max(len(self.descriptions), 1))
        voice = self.voices[voice_number] if self.voices else None
        description = self.descriptions[words_number] if self.descriptions else columns.text(row, "description")
        text = columns.text(row, "text") or ""
        clips = (
            (voice.reference, voice.prompt, voice.prompt_text)
            if voice
            else (columns.text(row, "reference"), columns.text(row, "prompt"), columns.text(row, "prompt_text"))
        )
        content: tuple[str | int, ...] = (number, fold, text, description or "", *(clip or "" for clip in clips))
        given = columns.text(row, "id")
        name = given or short_hash("row", *content)
        if given and self.voices:
            name += f"-v{voice_number + 1}"
        if given and self.descriptions:
            name += f"-d{words_number + 1}"
        seed, cfg = columns.value(row, "seed"), columns.value(row, "cfg")
        folder = voice.folder if voice else self.table.folder
        error = self._fault(number, text, description, clips, folder, seed, cfg)
        request = None
        if error is None:
            reference, prompt = (beside_list(clip, folder) if clip else None for clip in clips[:2])
            request = SpeechRequest(
                text=text,
                seed=_whole(seed) if seed is not None else int(short_hash("seed", self.seed, *content)[:7], 16),
                language=columns.text(row, "language"),
                description=description,
                reference=reference,
                prompt=prompt,
                prompt_text=clips[2],
                options={} if cfg is None else {"cfg_value": _number(cfg)},
            )
        return Line(
            row=number,
            id=name,
            name=file_name(name),
            voice=voice.name if voice else None,
            description=description if self.descriptions else None,
            request=request,
            error=error,
        )

    def _fault(
        self,
        number: int,
        text: str,
        description: str | None,
        clips: tuple[str | None, str | None, str | None],
        folder: Path,
        seed: object,
        cfg: object,
    ) -> str | None:
        """Return what is wrong with a row; None if it can be spoken."""
        reference, prompt, prompt_text = clips
        if not text.strip():
            return "empty_text: the text is empty"
        if number in self.survey.repeated:
            return "repeated_id: an earlier row has the same id"
        if prompt and not prompt_text:
            return "prompt_without_text: a prompt needs its transcript in prompt_text"
        if prompt_text and not prompt:
            return "prompt_text_without_prompt: prompt_text needs the clip in prompt"
        if prompt and description:
            return "description_with_prompt: the prompt already sets the style"
        if seed is not None and not 0 <= _whole(seed, -1) < _MOST_SEED:
            return f"bad_seed: {seed!r} is not a whole number of at least 0"
        if cfg is not None and not _CFG[0] <= _number(cfg) <= _CFG[1]:
            return f"bad_cfg: {cfg!r} is not a number in {_CFG[0]:g}..{_CFG[1]:g}"
        for clip in (reference, prompt):
            if clip and not self._is_file(beside_list(clip, folder)):
                return f"missing_clip: no audio file at {clip}"
        return None


class _Window:
    """The rows of a table, taken in ranges that advance."""

    def __init__(self, table: SpeechTable) -> None:
        self._batches = table.batches()
        self._first = 0
        self._held = pa.Table.from_batches([], schema=table.schema)

    def rows(self, first: int, stop: int) -> pa.Table:
        """Return the rows first..stop. Earlier rows are dropped."""
        while self._first + self._held.num_rows < stop:
            batch = next(self._batches, None)
            if batch is None:
                raise SpeechTableError("the table has changed while it was read; run the same command again")
            self._drop(first)
            self._held = pa.concat_tables([self._held, pa.Table.from_batches([batch])])
        self._drop(first)
        return self._held.slice(0, stop - first)

    def _drop(self, first: int) -> None:
        passed = min(max(first - self._first, 0), self._held.num_rows)
        self._held, self._first = self._held.slice(passed), self._first + passed


def open_job(
    table: str | Path, voices: str | Path | None, descriptions: str | Path | None, seed: int, unit: int
) -> Job:
    """Return the job of a table. Raises FileNotFoundError, SpeechTableError."""
    source = open_table(table)
    columns = find_columns(source, "text")
    crossed_voices = read_voices(voices) if voices is not None else []
    crossed_words = read_descriptions(descriptions) if descriptions is not None else []
    for option, found, whats in (
        ("--voices", crossed_voices, ("reference", "prompt", "prompt_text")),
        ("--descriptions", crossed_words, ("description",)),
    ):
        there = [columns.names[what] for what in whats if what in columns.names]
        if found and there:
            raise SpeechTableError(f"{table} has the column {there[0]} itself: leave out {option}, or the column")
    styled = bool(crossed_words) or "description" in columns.names
    if styled and (prompted := next((voice.name for voice in crossed_voices if voice.prompt), None)):
        raise SpeechTableError(
            f"the voice {prompted} has a prompt, which already sets the style: leave out the descriptions, or the prompt"
        )
    job = Job(source, columns, seed, unit, crossed_voices, crossed_words)
    assert job.result_names and job.survey.rows
    return job


def read_voices(argument: str | Path) -> list[Voice]:
    """Return the voices of a table (columns reference, prompt, prompt_text, id), or a voice for each clip of a pattern.

    Raises FileNotFoundError and SpeechTableError: a voice that cannot be used would fail every text.
    """
    if Path(argument).suffix.lower() in SUFFIXES:
        return _voices_of_table(open_table(argument))
    paths = sorted(Path(found) for found in glob.glob(str(argument)))  # noqa: PTH207 - may be absolute
    clips = [path for path in paths if path.is_file() and path.suffix.lower() in AUDIO]
    if not clips:
        raise FileNotFoundError(f"no clips at {argument} ({', '.join(AUDIO)}); a pattern looks like 'voices/*.wav'")
    stems = [clip.stem for clip in clips]
    unique = len(set(stems)) == len(stems)
    return [Voice(clip.stem if unique else str(clip), Path.cwd(), reference=str(clip)) for clip in clips]


def _voices_of_table(table: SpeechTable) -> list[Voice]:
    used = ("reference", "prompt", "prompt_text", "id")
    prompts = "reference" not in table.schema.names and "prompt" in table.schema.names
    columns = find_columns(table, "prompt" if prompts else "reference", used)
    voices = []
    for number, row in enumerate(read_rows_of(table), start=1):
        reference, prompt, words = (columns.text(row, what) for what in used[:3])
        where = f"{table.path}, row {number}"
        if not (reference or prompt):
            raise SpeechTableError(f"{where}: a voice needs a reference, or a prompt with its text")
        if bool(prompt) != bool(words):
            raise SpeechTableError(f"{where}: a prompt and its prompt_text belong together; give both or none")
        for clip in (reference, prompt):
            if clip and not Path(beside_list(clip, table.folder)).is_file():
                raise SpeechTableError(f"{where}: no audio file at {clip}")
        name = columns.text(row, "id") or str(reference or prompt)
        voices.append(Voice(name, table.folder, reference, prompt, words))
    if not voices:
        raise SpeechTableError(f"{table.path} has no rows")
    return voices


def read_descriptions(path: str | Path) -> list[str]:
    """Return the descriptions of a table (column description), or of a text file, one a line. Raises SpeechTableError."""
    path = Path(path)
    if path.suffix.lower() in SUFFIXES:
        table = open_table(path)
        columns = find_columns(table, "description", ("description",))
        found = [words.strip() for row in read_rows_of(table) if (words := columns.text(row, "description"))]
    elif not path.is_file():
        raise FileNotFoundError(f"no descriptions at {path}")
    else:
        try:
            found = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise SpeechTableError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    if not found:
        raise SpeechTableError(f"{path} has no descriptions")
    if len(set(found)) < len(found):
        raise SpeechTableError(f"{path} has the same description twice")
    return found


def file_name(name: str) -> str:
    """Return a file's name for an id: the id itself if it is short and plain, otherwise similar and with a hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:_LONGEST_NAME]
    return name if plain == name else f"{plain}-{short_hash(name)[:8]}"


def _whole(value: Any, otherwise: int = 0) -> int:
    """Return a number, or the text of one, as an int; `otherwise` if it is not a whole number."""
    try:
        return int(value) if isinstance(value, str) or float(value).is_integer() else otherwise
    except (ValueError, OverflowError, TypeError):
        return otherwise


def _number(value: Any) -> float:
    try:
        return float(value)
    except (ValueError, TypeError):
        return float("nan")


def _id_hash(given: object) -> int:
    """Return 64 bits of an id; 0 if there is none."""
    return int(short_hash(str(given)), 16) or 1 if given is not None and str(given).strip() else 0


def _repeated(hashes: np.ndarray) -> frozenset[int]:
    """Return the places of ids, uint64 [N], that an earlier place has. 0 is not an id."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    again = order[1:][(ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)]
    return frozenset(again.tolist())
