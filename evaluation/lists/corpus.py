"""The held-out segments of a voxmill corpus: what a model that was trained on it with the same share has never heard.

The rule is the trainer's (`catalogs.candidates.held_out`). A run with `validation.every: null` holds nothing out: it has heard
these segments. A text that is also in a segment that is trained on is left out.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.candidates import HELD_OUT_SHARE
from catalogs.candidates.captions import COLUMNS
from catalogs.candidates.held_out import held_out
from catalogs.candidates.stored import CandidateTableError, candidate_table
from catalogs.candidates.table import ACCEPTED, MADE, Table, has_text
from catalogs.corpus.commit import CorpusError
from catalogs.corpus.reader import Corpus
from catalogs.words import counted
from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.lists.base import Pick, cache_root, choice, keep_clip

_LOG = logging.getLogger(__name__)
_RECIPES = ("clone", "design", "controllable")
_CHUNK = 65_536
_COLUMNS = ("segment_id", "session_id", "source_id", "speaker", "seq", "gender")
SHORTEST_S = 1.5
"""Minimum length of a reference that was not mined, in seconds: that of `mine_references`."""
_LENGTHS = ((3.0, "under 3 s"), (6.0, "3-6 s"), (12.0, "6-12 s"))


def read(
    argument: str,
    *,
    pick: Pick,
    recipe: str = "clone",
    share: float = HELD_OUT_SHARE,
    unseen_text: bool = True,
    cache: str | None = None,
) -> list[Item]:
    """Return the held-out segments of a corpus as items, in order of id.

    recipe: `clone`: with a reference; `design`: with the description as instruction and without a reference; `controllable`: with
    both. share: the run's `validation.share`. unseen_text: leave out texts that are also in a segment that is trained on.
    The reference is a mined one, if possible held out too, otherwise another segment of the same voice in the session, never the
    one directly before. Clips are stored in the cache as FLAC. Raises EvaluationError if the corpus cannot be read.
    """
    choice("recipe", recipe, _RECIPES)
    if not 0 < share < 1:
        raise EvaluationError(f"share={share:g} is not between 0 and 1; give validation.share of the training run")
    root = Path(argument).expanduser()
    try:
        corpus = Corpus(root)
        with tempfile.TemporaryDirectory(prefix="voxmill-") as spare:
            table = candidate_table([corpus], Path(spare))
            return _read(corpus, table, pick, recipe, share, unseen_text, cache)
    except (CorpusError, CandidateTableError) as error:
        raise EvaluationError(str(error)) from None


@dataclass(frozen=True)
class _Segment:
    """What the index states of a segment beside the candidate table."""

    row: int
    session: str
    source: str
    speaker: str | None
    seq: int
    gender: str | None


def _read(
    corpus: Corpus, table: Table, pick: Pick, recipe: str, share: float, unseen_text: bool, cache: str | None
) -> list[Item]:
    name = f"corpus-{corpus.path.name}"
    recorded = np.flatnonzero(has_text(table.flags) & ((table.flags & MADE) == 0))
    if not len(recorded):
        raise EvaluationError(f"{corpus.path} has no kept segment with text; see: voxmill status {corpus.path}")
    held, _ = held_out(table, recorded, share)
    rows = recorded[held[recorded]]
    if unseen_text:
        rows = _unseen(table, rows, held, name)
    if recipe != "clone":
        rows = _described(table, rows, name)
    segments = _segments(corpus, table, rows)
    items: list[Item] = []
    references: dict[str, int] = {}
    for row in rows.tolist():
        segment = segments.of[row]
        given = None if recipe == "design" else _reference(table, segment, segments, held)
        words = "" if given is None else table.texts[given]
        items.append(_item(table, segment, name, words, _caption(table, row) if recipe != "clone" else ""))
        if given is not None:
            references[items[-1].name] = given
    alone = 0 if recipe == "design" else len(items) - len(references)
    if alone:
        _LOG.warning("%s: %s without another clip of the voice: no reference", name, counted(alone, "item"))
    done = []
    for item in pick(items):
        given = references.get(item.name)
        clip = None if given is None else _clip(corpus, table, given, cache)
        done.append(replace(item, reference=clip, human=_clip(corpus, table, table.find(item.name), cache)))
    return done


def text_key(text: str) -> int:
    """Return a 64-bit hash of a text without case, punctuation, spaces and presentation forms."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(sign for sign in folded if unicodedata.category(sign)[0] in "LMN")
    return int.from_bytes(hashlib.blake2b((plain or text).encode(), digest_size=8).digest(), "little")


def _unseen(table: Table, rows: np.ndarray, held: np.ndarray, name: str) -> np.ndarray:
    """Return the rows whose text is in no segment that may be trained on: neither in a recording nor in synthetic speech."""
    keys = {row: text_key(table.texts[row]) for row in rows.tolist()}
    wanted = set(keys.values())
    trained = has_text(table.flags) & (((table.flags & MADE) == 0) | ((table.flags & ACCEPTED) != 0)) & ~held
    seen: set[int] = set()
    for start in range(0, len(table), _CHUNK):
        texts = table.texts.stretch(start, min(start + _CHUNK, len(table)))
        for text, is_trained in zip(texts, trained[start : start + _CHUNK].tolist(), strict=True):
            if is_trained and (key := text_key(text)) in wanted:
                seen.add(key)
    left = np.array([row for row, key in keys.items() if key not in seen], dtype=np.int64)
    if len(left) < len(rows):
        _LOG.warning(
            "%s: %d of %s left out: their text is also in a segment that is trained on",
            name,
            len(rows) - len(left),
            counted(len(rows), "held-out segment"),
        )
    if not len(left):
        raise EvaluationError(
            f"{name}: every held-out text is also trained on; prepare more recordings, or add ,unseen_text=no and state it"
        )
    return left


def _described(table: Table, rows: np.ndarray, name: str) -> np.ndarray:
    left = np.array([row for row in rows.tolist() if _caption(table, row)], dtype=np.int64)
    if not len(left):
        raise EvaluationError(f"{name}: no held-out segment has a description; run: voxmill describe")
    if len(left) < len(rows):
        _LOG.warning("%s: %d of %d segments left out: they have no description", name, len(rows) - len(left), len(rows))
    return left


def _caption(table: Table, row: int) -> str:
    """Return the first of its captions in the order of COLUMNS; empty if it has none."""
    return next(filter(None, (getattr(table, name)[row] for name in COLUMNS)), "")


@dataclass(frozen=True)
class _Segments:
    of: dict[int, _Segment]
    """By row of the table: the held-out ones."""
    by_voice: dict[tuple[str, str], list[_Segment]]
    """All segments of the sessions and voices that have held-out ones."""


def _segments(corpus: Corpus, table: Table, rows: Sequence[int] | np.ndarray) -> _Segments:
    """Read the index once, unit by unit, and keep the sessions of some rows. A session is within one unit."""
    wanted = {table.ids[row]: row for row in np.asarray(rows).tolist()}
    found = _Segments({}, defaultdict(list))
    for part in corpus.kept_parts(_COLUMNS):
        values = part.to_pylist()
        sessions = {value["session_id"] for value in values if value["segment_id"] in wanted}
        for value in values:
            if value["session_id"] not in sessions:
                continue
            try:
                row = table.find(value["segment_id"])
            except KeyError:
                continue
            segment = _segment(value, row)
            if value["segment_id"] in wanted:
                found.of[row] = segment
            if segment.speaker:
                found.by_voice[segment.session, segment.speaker].append(segment)
    if missing := len(wanted) - len(found.of):
        raise EvaluationError(
            f"{corpus.path} has changed while it was read ({missing} segments); run the command again"
        )
    return found


def _segment(value: dict[str, Any], row: int) -> _Segment:
    return _Segment(
        row, value["session_id"], value["source_id"], value["speaker"], int(value["seq"] or 0), value["gender"]
    )


def _reference(table: Table, segment: _Segment, segments: _Segments, held: np.ndarray) -> int | None:
    """Return the row of a segment's reference; None if there is none."""
    own = text_key(table.texts[segment.row])

    def fits(row: int) -> bool:
        # A copy, or the same words spoken again, would let a system repeat the reference.
        return bool(table.group[row] != table.group[segment.row]) and text_key(table.texts[row]) != own

    at = table.pairs_at[segment.row : segment.row + 2]
    mined = [row for row in table.pairs[int(at[0]) : int(at[1])].tolist() if fits(row)]
    if mined:
        return min(mined, key=lambda row: not held[row])  # the closest one, if no held-out one is among them
    others = [
        other.row
        for other in segments.by_voice.get((segment.session, segment.speaker or ""), ())
        if other.row != segment.row
        and not (other.source == segment.source and segment.seq - other.seq == 1)
        and table.seconds[other.row] >= SHORTEST_S
        and fits(other.row)
    ]
    return min(others, key=lambda row: (not held[row], _pair_rank(table, segment.row, row)), default=None)


def _pair_rank(table: Table, row: int, other: int) -> str:
    return hashlib.sha256(f"{table.ids[row]} {table.ids[other]}".encode()).hexdigest()


def _item(table: Table, segment: _Segment, name: str, words: str, instruction: str) -> Item:
    row = segment.row
    seconds = float(table.seconds[row])
    groups = {
        "speaker": segment.speaker or segment.session,
        "session": segment.session,
        "duration": next((label for below, label in _LENGTHS if seconds < below), "12 s and more"),
    }
    if segment.gender:
        groups["gender"] = segment.gender
    language = table.languages[int(table.language[row])] or "und"
    return Item(
        text=table.texts[row],
        language=language,
        name=table.ids[row],
        list_name=name,
        reference_text=words,
        instruction=instruction,
        groups=groups,
    )


def _clip(corpus: Corpus, table: Table, row: int, cache: str | None) -> Path:
    """Store the FLAC of a segment as it is in its shard, and return the path."""
    _, shard = table.shards[int(table.shard[row])]
    try:
        data = corpus.shard(shard).audio_buffer(int(table.row[row])).to_pybytes()
    except (OSError, ValueError, IndexError) as error:
        raise CorpusError(f"{corpus.path / shard} cannot be read ({error}); run: voxmill fsck {corpus.path}") from None
    return keep_clip(data, ".flac", cache_root(cache))
