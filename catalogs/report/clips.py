"""Clips for the report: a choice of segments, compressed so that they fit into the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.corpus.shards import decode
from catalogs.query.views import result_rows
from catalogs.report.charts import waveform_path

if TYPE_CHECKING:
    import duckdb

RATE = 16_000
_LONGEST_S = 15.0
_PEAKS = 64


@dataclass(frozen=True)
class Clip:
    """One playable segment: `source` is a data URL, `cut` is True if it holds only the first 15 s."""

    segment_id: str
    source: str
    path: str
    duration_s: float
    cut: bool
    text: str
    language: str
    speaker: str
    facts: str
    reasons: list[str]
    description: str = ""


class ClipMaker:
    """Make clips until `budget` bytes of audio are used, so that the page is small enough for an e-mail."""

    def __init__(self, corpus: Corpus, budget: int) -> None:
        self._corpus = corpus
        self._left = budget
        self._made: dict[str, Clip] = {}

    def pick(
        self,
        connection: duckdb.DuckDBPyConnection,
        where: str,
        count: int,
        order: str = "",
        given: str | Sequence[str] | None = None,
    ) -> list[Clip]:
        """Return up to `count` clips of segments with audio that match `where`: an arbitrary but deterministic choice.

        given: the value of the `?` in `where`.
        """
        found = _rows(connection, where, count, f"{order}, " if order else "", given)
        return [clip for clip in map(self._clip, found) if clip is not None]

    def of_reasons(
        self, connection: duckdb.DuckDBPyConnection, reasons: Sequence[str], count: int
    ) -> dict[str, list[Clip]]:
        """Return up to `count` clips of each reason, those with the fewest other reasons first.

        All are found in one query: a query for each would read a large corpus for each.
        """
        chosen = result_rows(
            connection,
            f"""
            SELECT reason, segment_id FROM (
                SELECT segment_id, len(reasons) AS others, unnest(reasons) AS reason FROM segments
                WHERE shard IS NOT NULL AND NOT kept
            )
            QUALIFY row_number() OVER (PARTITION BY reason ORDER BY others, md5(segment_id)) <= {count}
            ORDER BY reason, others, md5(segment_id)
            """,
        )
        ids = sorted({row["segment_id"] for row in chosen})
        rows = {
            row["segment_id"]: row for row in _rows(connection, "segment_id IN (SELECT unnest(?))", len(ids), "", ids)
        }
        found: dict[str, list[Clip]] = {}
        for reason in reasons:
            named = (rows[row["segment_id"]] for row in chosen if row["reason"] == reason)
            found[reason] = [clip for clip in map(self._clip, named) if clip is not None]
        return found

    def _clip(self, row: dict[str, Any]) -> Clip | None:
        if row["segment_id"] in self._made:
            return self._made[row["segment_id"]]
        with reading(self._corpus.path / row["shard"]):
            data = self._corpus.shard(row["shard"]).audio_buffer(row["row"])
            audio, rate = decode(data, 0.0, _LONGEST_S)
        kind, encoded = encode_small(audio, rate)
        if len(encoded) > self._left:
            return None
        self._left -= len(encoded)
        clip = Clip(
            segment_id=row["segment_id"],
            source=f"data:{kind};base64,{base64.b64encode(encoded).decode()}",
            path=waveform_path(peaks(audio)),
            duration_s=row["duration_s"],
            cut=row["duration_s"] > _LONGEST_S + 0.01,
            text=row["text"] or "",
            language=row["language"] or "",
            speaker=row["speaker"] or "",
            facts=_facts(row),
            reasons=row["reasons"] or [],
            description=row["description"] or "",
        )
        self._made[row["segment_id"]] = clip
        return clip


def _rows(
    connection: duckdb.DuckDBPyConnection, where: str, count: int, order: str, given: str | Sequence[str] | None
) -> list[dict[str, Any]]:
    """Return what a clip is made from."""
    sql = f"""
        SELECT segment_id, shard, "row", duration_s, text, language, speaker, reasons, dnsmos_ovr, snr_db,
            agreement_cer, chars_per_s, brief.brief AS description
        FROM segments LEFT JOIN (
            SELECT segment_id, any_value(coalesce("full", brief)) AS brief FROM descriptions
            WHERE verdict IS DISTINCT FROM 'dropped' GROUP BY segment_id
        ) AS brief USING (segment_id)
        WHERE shard IS NOT NULL AND ({where}) ORDER BY {order} md5(segment_id) LIMIT {count}
    """
    return result_rows(connection, sql, *(() if given is None else (given,)))


def _facts(row: dict[str, Any]) -> str:
    shown = (
        ("DNSMOS", row["dnsmos_ovr"], "{:.2f}"),
        ("SNR", row["snr_db"], "{:.0f} dB"),
        ("CER", row["agreement_cer"], "{:.2f}"),
        ("", row["chars_per_s"], "{:.1f} chars/s"),
    )
    return " · ".join(f"{name} {form.format(value)}".strip() for name, value, form in shown if value is not None)


def peaks(audio: np.ndarray, count: int = _PEAKS) -> list[float]:
    """Return the peak of each of `count` parts of `[S] float32`, relative to the clip's peak."""
    if len(audio) == 0:
        return [0.0] * count
    edges = np.linspace(0, len(audio), count + 1).astype(int)[:-1]
    tops = np.maximum.reduceat(np.abs(audio), np.minimum(edges, len(audio) - 1))
    return [float(value) for value in tops / max(float(tops.max()), 1e-4)]


def encode_small(audio: np.ndarray, rate: int) -> tuple[str, bytes]:
    """Encode `[S] float32` as (media type, bytes): Opus if libsndfile can write it, otherwise 16 kHz FLAC. For playback only."""
    import soundfile
    import soxr

    small = np.clip(soxr.resample(audio, rate, RATE) if rate != RATE else audio, -1.0, 1.0)
    sink = io.BytesIO()
    if "OPUS" in soundfile.available_subtypes("OGG"):
        soundfile.write(sink, small, RATE, format="OGG", subtype="OPUS")
        return "audio/ogg", sink.getvalue()
    soundfile.write(sink, small, RATE, format="FLAC", subtype="PCM_16")
    return "audio/flac", sink.getvalue()
