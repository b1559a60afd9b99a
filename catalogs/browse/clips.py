"""Pages of segments and everything about one of them. The browser names segments by id only, never a file."""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from catalogs.browse.catalog import Catalog, rows_of
from catalogs.browse.conditions import FACETS, Asked
from catalogs.browse.marking import Marking
from catalogs.browse.texts import Texts
from catalogs.corpus.columns import PLACE
from catalogs.corpus.damage import reading
from catalogs.corpus.marks import HUMAN, together
from catalogs.corpus.reader import Corpus
from catalogs.corpus.schema import INDEX
from catalogs.corpus.shards import decode
from catalogs.inspection.sound import peaks, spectrogram
from catalogs.query.view_columns import VIEW_COLUMNS

PAGE_ROWS = 50
_LIGHT = (
    "segment_id, session_id, source_id, seq, start_s, end_s, duration_s, language, speaker, text, text_source, kept, reasons, "
    'human, uncorrected_text, shard, "row"'
)
_DECIDED = 'segment_id, kept, reasons, human, shard, "row"'
_STORED = [
    name
    for name in (part.strip().strip('"') for part in _LIGHT.split(","))
    if name in INDEX.names and name not in _DECIDED
]
_HIDDEN = frozenset({"words", "embedding", "audio_print", "extra", *(column.name for column in PLACE)})
_KNOWN = 50_000
_NEIGHBORS = 4


class Clips:
    """The segments of a corpus. Safe for threads."""

    def __init__(self, root: Path, catalog: Catalog, marking: Marking) -> None:
        self._corpus, self._catalog, self._marking = Corpus(root), catalog, marking
        self.texts = Texts(catalog)
        self._rows: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()
        self.columns = [
            {"name": column.name, "words": column.words, "unit": column.unit} for column in VIEW_COLUMNS["segments"]
        ]

    def page(self, asked: Asked, offset: int) -> dict[str, Any]:
        """Return up to 50 segments from `offset` on, and whether there are more."""
        shown = f', "{asked.sort}" AS sorted_by' if asked.sort else ""
        with self._catalog.cursor() as connection:
            where, values = asked.sql(connection, self.texts.matching(connection))
            sql = f"SELECT {_DECIDED}{shown} FROM segments WHERE {where} {asked.order} LIMIT {PAGE_ROWS + 1} OFFSET {offset:d}"
            found = [self._filled(row) for row in rows_of(connection, sql, values)]
        return {"rows": [self._slim(row) for row in found[:PAGE_ROWS]], "more": len(found) > PAGE_ROWS}

    def facets(self, asked: Asked) -> dict[str, Any]:
        """Return how many segments match and how long they are, in all and for each value of each facet."""
        columns = ", ".join(f"coalesce({sql}, '') AS \"{name}\"" for name, sql in FACETS.items())
        with self._catalog.cursor() as connection:
            where, values = asked.sql(connection, self.texts.matching(connection))
            sql = f"SELECT {columns}, count(*) AS n, sum(duration_s) AS s FROM segments WHERE {where} GROUP BY ALL"
            found = rows_of(connection, sql, values)
        counts: dict[str, dict[str, int]] = {name: {} for name in FACETS}
        for row in found:
            for name, values_of in counts.items():
                values_of[row[name]] = values_of.get(row[name], 0) + row["n"]
        return {
            "segments": sum(row["n"] for row in found),
            "seconds": sum(row["s"] or 0.0 for row in found),
            "facets": {
                name: sorted(of.items(), key=lambda pair: (-pair[1], pair[0]))[:40] for name, of in counts.items()
            },
        }

    def _filled(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row of _DECIDED as one of _LIGHT, from its shard: the catalog would decompress the text of every segment."""
        if row["row"] is None:
            return dict.fromkeys(_STORED) | {"uncorrected_text": None} | row
        shard = self._corpus.shard(row["shard"])
        with reading(shard.path):
            found = {name: shard.column(row["row"], name) for name in _STORED}
        text = together(self._marking.of(row["segment_id"]).values()).text
        before = {"uncorrected_text": None}
        if text is not None:
            before = {"uncorrected_text": found["text"]}
            found |= {"text": text, "text_source": HUMAN}
        return found | before | row

    def _slim(self, row: dict[str, Any]) -> dict[str, Any]:
        """Remember a row, and return it as the browser gets it."""
        found = {name: value for name, value in row.items() if name not in ("shard", "row")}
        with self._lock:
            if row["session_id"] is not None:
                self._rows[row["segment_id"]] = {name: value for name, value in row.items() if name != "sorted_by"}
                self._rows.move_to_end(row["segment_id"])
            while len(self._rows) > _KNOWN:
                self._rows.popitem(last=False)
        return plain(found | {"has_audio": row["row"] is not None, "mine": self._marking.verdict(row["segment_id"])})

    def row(self, segment: str) -> dict[str, Any]:
        """Return the row of a segment in the catalog. Raises KeyError if it is unknown."""
        with self._lock:
            found = self._rows.get(segment)
        if found is None:
            rows = self._catalog.rows(f"SELECT {_LIGHT} FROM segments WHERE segment_id = ?", [segment])
            if not rows:
                raise KeyError(segment)
            self._slim(rows[0])
            found = rows[0]
        return found

    def forget(self, segment: str) -> None:
        """Ask for a segment again: people said something else of it."""
        with self._lock:
            self._rows.pop(segment, None)

    def clip(self, segment: str) -> dict[str, Any]:
        """Return everything that is measured of one segment, its words, the peaks of its waveform and this person's mark."""
        row = self.row(segment)
        if row["row"] is None:
            ((found),) = self._catalog.rows("SELECT * EXCLUDE (extra) FROM segments WHERE segment_id = ?", [segment])
            words, drawn = list[Any](), list[float]()
        else:
            shard = self._corpus.shard(row["shard"])
            with reading(shard.path):
                found = shard.row(row["row"])
                samples, _ = decode(shard.audio_buffer(row["row"]))
            words, drawn = found["words"] or [], peaks(samples)
        scores = {name: value for name, value in found.items() if name not in _HIDDEN} | _of(row, _LIGHT)
        marks = self._marking.of(segment)
        own = marks.get(self._marking.by)
        corrected = together(marks.values()).words
        extra = found.get("extra") or []
        return plain(
            {
                "segment_id": segment,
                "has_audio": row["row"] is not None,
                "scores": scores,
                "extra": {pair["name"]: pair["value"] for pair in extra},
                "words": own["words"]
                if own and own["words"] is not None
                else words
                if corrected is None
                else corrected,
                "peaks": drawn,
                "mine": own,
                # Whoever has not decided yet is not told what others said.
                "others": [mark for by, mark in marks.items() if by != self._marking.by] if own else [],
            }
        )

    def context(self, segment: str) -> dict[str, Any]:
        """Return what is around a segment: neighbors of its session, references, descriptions and their checks."""
        row = self.row(segment)
        pairs = self._catalog.rows(
            "SELECT reference_id, cosine FROM reference_pairs WHERE segment_id = ? ORDER BY cosine DESC LIMIT 8",
            [segment],
        )
        cosines = {pair["reference_id"]: pair["cosine"] for pair in pairs}
        # References are clips of the same session, so one look at its rows finds all of them.
        is_reference = f"OR segment_id IN ({', '.join('?' * len(cosines))})" if cosines else ""
        near = self._catalog.rows(
            f"SELECT {_LIGHT} FROM segments WHERE session_id = ? AND (seq BETWEEN ? AND ? {is_reference}) ORDER BY seq",
            [row["session_id"], row["seq"] - _NEIGHBORS, row["seq"] + _NEIGHBORS, *cosines],
        )
        shown = {one["segment_id"]: self._slim(one) for one in near}
        descriptions = self._catalog.rows(
            'SELECT annotator, model, language, "full", brief, style, persona, captions, verdict, disagreements, status, '
            "to_json(labels) AS labels FROM descriptions WHERE segment_id = ? ORDER BY annotator",
            [segment],
        )
        for one in descriptions:
            one["labels"] = json.loads(one["labels"]) if one["labels"] else {}
        checks = self._catalog.rows(
            'SELECT annotator, attribute, claimed, found, source, p, state, action, "where" FROM checks '
            "WHERE segment_id = ? AND state <> 'unchecked' ORDER BY annotator, attribute",
            [segment],
        )
        return plain(
            {
                "neighbors": [one for one in shown.values() if abs(one["seq"] - row["seq"]) <= _NEIGHBORS],
                "references": [shown[name] | {"cosine": cosine} for name, cosine in cosines.items() if name in shown],
                "descriptions": descriptions,
                "checks": checks,
            }
        )

    def audio(self, segment: str) -> bytes:
        """Return the FLAC file of a segment. Raises KeyError if it is unknown or has no audio."""
        row = self.row(segment)
        if row["row"] is None:
            raise KeyError(segment)
        shard = self._corpus.shard(row["shard"])
        with reading(shard.path):
            return shard.audio_buffer(row["row"]).to_pybytes()

    def spectrogram(self, segment: str) -> tuple[bytes, int, float]:
        """Return (levels row by row from the lowest frequency, columns, highest frequency in Hz): see `sound.spectrogram`."""
        samples, rate = decode(self.audio(segment))
        levels, top = spectrogram(samples, rate)
        return levels.tobytes(), levels.shape[1], top

    def unit(self, segment: str) -> str | None:
        """Return the unit of a segment, which is in the name of its shard; None for a segment without audio."""
        shard = self.row(segment)["shard"]
        return None if shard is None else str(shard).rpartition("/")[2].partition(".")[0]

    def agreement(self) -> dict[str, Any]:
        """Return how many segments each person marked, and how often two of them agree."""
        people = self._catalog.rows(
            "SELECT \"by\", count(*) AS segments, count(*) FILTER (verdict = 'keep') AS keep, "
            "count(*) FILTER (verdict = 'drop') AS drop, count(text) AS texts, max(\"at\") AS last "
            'FROM marks WHERE counts GROUP BY "by" ORDER BY segments DESC'
        )
        return plain({"people": people, "pairs": self._catalog.rows("FROM human_agreement() LIMIT 50")})


def _of(row: Mapping[str, Any], names: str) -> dict[str, Any]:
    """What the catalog says of a segment replaces what was committed."""
    wanted = {name.strip().strip('"') for name in names.split(",")} - {"shard", "row"}
    return {name: value for name, value in row.items() if name in wanted}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: times as text, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)
