"""`voxmill import`: the clips of another tool's manifests, tables or tars as a corpus.

Each clip becomes a segment with its identity, text, words, language, speaker and license, and a separate recording. Everything
that the pipeline measures stays null. Units are committed as `prepare` commits them. A unit is a fixed number of consecutive rows
and has an identity that follows from their places: a killed import skips the units that it committed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.corpus.commit import (
    UnitContent,
    UnitPart,
    bind_fingerprint,
    create_corpus,
    link_unit,
    record_path,
    write_unit_files,
)
from catalogs.corpus.ids import id_values, short_hash
from catalogs.corpus.ids import source_id as id_of_source
from catalogs.corpus.locks import only_run
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import Thresholds, load_thresholds
from catalogs.corpus.tombstones import read_tombstones
from catalogs.exchange.request import ExchangeError
from catalogs.exchange.sources import reader_of
from catalogs.exchange.sources.row import BadRow, Roots, Row, RowError
from catalogs.exchange.stored_audio import StoredAudio, stored
from catalogs.query.views import build_catalog
from catalogs.vocabulary.languages import language
from catalogs.vocabulary.rights import NO_RIGHTS, Rights, rights_of

FINGERPRINT = short_hash("import", 1)
"""What an imported corpus is bound to in the place of the pipeline's settings."""
_UNIT_ROWS = 256
_PART_ROWS = 8
"""Clips whose audio is in memory at a time."""
_LONGEST_ID = 200


@dataclass
class ImportSummary:
    """What an import did. already: clips that an earlier run had committed; reasons: rows that are in the quarantine."""

    corpus: Path
    clips: int = 0
    seconds: float = 0.0
    already: int = 0
    rounded: int = 0
    """Clips whose samples FLAC cannot hold exactly: lossy codecs, and floats of more than 24 bits."""
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


Progress = Callable[[int, int | None], None]
"""Called with (rows read, None)."""


def import_corpus(
    source: str | Path,
    out: str | Path,
    *,
    roots: Sequence[str | Path] = (),
    language: str | None = None,
    license: str | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> ImportSummary:
    """Read a source into the corpus `out`: a new one, or one that imports made. Run it again to continue after a kill.

    roots: folders beside that of the source from which audio may be read. language, license: for rows that have none.
    Rows that cannot be used are in the view `quarantine`, with their reason. Raises ExchangeError for a source that cannot be
    read, CorpusError for a folder that holds something else, CorpusBusyError while another run is at work on it.
    """
    place = Path(source)
    reader, files = reader_of(place)
    root = Path(out)
    fallback = {"language": language, "license": license}
    create_corpus(root, name=name or place.resolve().name.partition(".")[0])
    with only_run(root):
        bind_fingerprint(root, FINGERPRINT)
        work = _Import(root, place.resolve().name, fallback, ImportSummary(root))
        base = place if place.is_dir() else place.parent
        allowed = Roots.of(base, map(Path, roots))
        rows = (row for file in files for row in reader.rows(file, allowed))
        count = 0
        while batch := list(islice(rows, _UNIT_ROWS)):
            work.commit(batch)
            count += len(batch)
            if progress:
                progress(count, None)
        if not count:
            raise ExchangeError(f"{place} holds no rows")
        build_catalog(root)
    return work.summary


class _Import:
    """One run: which identities are taken, and what it has done."""

    def __init__(self, root: Path, title: str, fallback: dict[str, str | None], summary: ImportSummary) -> None:
        self._root, self._title, self._fallback, self.summary = root, title, fallback, summary
        self._thresholds: Thresholds = load_thresholds(root)
        tombstones = read_tombstones(root)
        self._forgotten = {name for found in tombstones for name in (*found.source_ids, *found.content_sha256)}
        self._rights: Rights = rights_of({"license": fallback["license"]}, "corpus")
        ids, sources = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for table in Corpus(root).parts("index", ("segment_id", "source_id")):
            ids.append(id_values(table.column("segment_id").to_pylist()))
            sources.append(id_values(table.column("source_id").to_pylist()))
        before = np.concatenate(ids)
        order = np.argsort(before)
        # Arrays: an import may add to a corpus of millions of clips.
        self._before, self._sources = before[order], np.concatenate(sources)[order]
        self._new: set[int] = set()
        self._seq = 0

    def commit(self, batch: Sequence[Row | BadRow]) -> None:
        """Commit one unit, unless an earlier run did."""
        unit = short_hash("import", FINGERPRINT, self._title, *(row.name for row in batch))
        first, self._seq = self._seq, self._seq + len(batch)
        if record_path(self._root, unit).is_file():
            self.summary.already += sum(isinstance(row, Row) for row in batch)
            return
        sessions: list[str] = []
        quarantine: list[dict[str, Any]] = []
        content = UnitContent(
            unit, FINGERPRINT, sessions, (), (), quarantine=quarantine, stats={"busy_s": {}, "wall_s": 0.0}
        )
        # The lists are filled while the parts are taken: the audio of a few clips is in memory at a time.
        parts = self._parts(batch, first, sessions, quarantine)
        link_unit(self._root, write_unit_files(self._root, content, parts))

    def _parts(
        self, batch: Sequence[Row | BadRow], first: int, sessions: list[str], quarantine: list[dict[str, Any]]
    ) -> Iterator[UnitPart]:
        rows: list[dict[str, Any]] = []
        recordings: list[dict[str, Any]] = []
        for number, row in enumerate(batch, first):
            try:
                if isinstance(row, BadRow):
                    raise RowError(row.reason)
                made = self._clip(row, number)
            except RowError as error:
                quarantine.append(self._bad(row, str(error)))
                continue
            if made is None:
                continue
            rows.append(made[0])
            recordings.append(made[1])
            if made[0]["session_id"] not in sessions:
                sessions.append(made[0]["session_id"])
            if len(rows) == _PART_ROWS:
                yield UnitPart(rows, recordings)
                rows, recordings = [], []
        yield UnitPart(rows, recordings)

    def _clip(self, row: Row, number: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the rows of a clip and of its recording; None if the corpus has it. Raises RowError."""
        name = str(row.facts.get("id") or short_hash("clip", self._title, row.name))
        if len(name) > _LONGEST_ID or not name.isprintable():
            raise RowError(f"its id is longer than {_LONGEST_ID} characters or holds signs that cannot be printed")
        path = f"{self._title}/{row.name}"
        source = id_of_source(path, name)
        if self._is_there(name, source):
            self.summary.already += 1
            return None
        facts = self._facts(row)
        audio = stored(row.audio(), row.start_s, row.stop_s)
        content = hashlib.sha256(audio.flac).hexdigest()
        if source in self._forgotten or content in self._forgotten:
            raise RowError("it was forgotten and is not taken again")
        self._new.add(int(id_values([name])[0]))
        session = str(facts.get("session") or short_hash("session", self._title, facts.get("speaker") or name))
        clip = self._segment(name, session, source, number, facts, audio)
        self.summary.clips += 1
        self.summary.seconds += clip["duration_s"]
        self.summary.rounded += not audio.is_exact
        recording = {
            "source_id": source,
            "path": path,
            "session_id": session,
            "duration_s": clip["duration_s"],
            "sample_rate": audio.rate,
            "channels": 1,
            "codec": "flac",
            "bytes": len(audio.flac),
            "status": "ok",
            "silence_s": 0.0,
            "content_sha256": content,
        }
        return clip, recording | facts["rights"].row()

    def _is_there(self, name: str, source: str) -> bool:
        """Return True if an earlier run committed this row. Raises RowError if another row has its id."""
        value, own = id_values([name])[0], id_values([source])[0]
        at = int(np.searchsorted(self._before, value))
        if at < len(self._before) and self._before[at] == value:
            if self._sources[at] == own:
                return True
        elif int(value) not in self._new:
            return False
        raise RowError(f"its id {name} is that of another clip of the corpus")

    def _facts(self, row: Row) -> dict[str, Any]:
        facts = {key: value for key, value in row.facts.items() if value is not None}
        facts["rights"] = facts.get("rights", NO_RIGHTS).over(self._rights)
        said = facts.get("language") or self._fallback["language"]
        if said:
            found = language(str(said))
            facts["language"] = found.code if found else str(said)[:20]
        return facts

    def _segment(
        self, name: str, session: str, source: str, number: int, facts: dict[str, Any], audio: StoredAudio
    ) -> dict[str, Any]:
        seconds = audio.frames / audio.rate
        clip: dict[str, Any] = {
            "segment_id": name,
            "session_id": session,
            "source_id": source,
            "seq": number,
            "start_s": 0.0,
            "end_s": seconds,
            "duration_s": seconds,
            "sample_rate": audio.rate,
            "separated": False,
            "flags": [],
            "words": facts.get("words"),
            "text_source": "given" if facts.get("text") else None,
            **{key: facts.get(key) for key in ("text", "language", "speaker", "gender")},
            "license": facts["rights"].license,
        }
        reasons = self._thresholds.reasons(clip)
        return clip | {"reasons": reasons, "kept": not reasons, "audio": audio.flac}

    def _bad(self, row: Row | BadRow, reason: str) -> dict[str, Any]:
        self.summary.quarantined += 1
        # The reason without what differs from row to row, for the count.
        kind = reason.split("'")[0].split('"')[0].split(" (")[0].strip()
        self.summary.reasons[kind] = self.summary.reasons.get(kind, 0) + 1
        return {
            "path": f"{self._title}/{row.name}",
            "source_id": None,
            "stage": "import",
            "error": reason,
            "attempts": 1,
            "at": datetime.now(UTC),
            "cause": "data",
            "runs": 1,
            "version": importlib.metadata.version("voxmill"),
        }
