"""Clips for the report: a choice of segments, compressed so that they fit into the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from catalogs.corpus.damage import reading
from catalogs.corpus.reader import Corpus
from catalogs.corpus.shards import decode
from catalogs.inspection.sound import peaks
from catalogs.report.charts import waveform_path
from catalogs.report.spectrogram import spectrogram_png

if TYPE_CHECKING:
    import duckdb

RATE = 16_000
_LONGEST_S = 15.0
_PEAKS = 64


@dataclass(frozen=True)
class Clip:
    """One playable segment. `source` and `picture` (spectrogram) are data URLs; `cut` is True if it holds the first 15 s only."""

    segment_id: str
    source: str
    path: str
    picture: str
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

    def load(self, connection: duckdb.DuckDBPyConnection, ids: Iterable[str]) -> dict[str, Clip]:
        """Return the clips of segments by id, in order, as long as there is room. Segments without audio are left out.

        All are found in one query: each query reads a large corpus.
        """
        wanted = list(dict.fromkeys(ids))
        rows = {row["segment_id"]: row for row in _rows(connection, wanted)} if wanted and self._left > 0 else {}
        made = ((segment, self._clip(rows[segment])) for segment in wanted if segment in rows)
        return {segment: clip for segment, clip in made if clip is not None}

    def _clip(self, row: dict[str, Any]) -> Clip | None:
        if self._left <= 0:
            return None
        with reading(self._corpus.path / row["shard"]):
            data = self._corpus.shard(row["shard"]).audio_buffer(row["row"])
            audio, rate = decode(data, 0.0, _LONGEST_S)
        kind, encoded = encode_small(audio, rate)
        picture = spectrogram_png(audio, rate)
        if len(encoded) + len(picture) > self._left:
            return None
        self._left -= len(encoded) + len(picture)
        return Clip(
            segment_id=row["segment_id"],
            source=f"data:{kind};base64,{base64.b64encode(encoded).decode()}",
            path=waveform_path(shape(audio)),
            picture=f"data:image/png;base64,{base64.b64encode(picture).decode()}",
            duration_s=row["duration_s"],
            cut=row["duration_s"] > _LONGEST_S + 0.01,
            text=row["text"] or "",
            language=row["language"] or "",
            speaker=row["speaker"] or "",
            facts=_facts(row),
            reasons=row["reasons"] or [],
            description=row["description"] or "",
        )


def kept_ids(connection: duckdb.DuckDBPyConnection, count: int) -> list[str]:
    """Return up to `count` kept segments: described ones first, and one of every speaker before a second of any."""
    ids: list[str] = []
    for is_described, least_s in ((True, 1.5), (False, 1.5), (False, 0.0)):
        described = "AND segment_id IN (SELECT segment_id FROM descriptions)" if is_described else ""
        found = connection.execute(
            f"""
            SELECT unnest(ids) AS id, generate_subscripts(ids, 1) AS place FROM (
                SELECT min(segment_id, {count}) AS ids FROM scanned
                WHERE kept AND has_audio AND duration_s >= {least_s} {described} GROUP BY speaker
            ) ORDER BY place, id LIMIT {count}
            """
        ).fetchall()
        ids += [segment for segment, _ in found if segment not in ids]
        if len(ids) >= count:
            break
    return ids[:count]


def ids_of_reasons(connection: duckdb.DuckDBPyConnection, count: int) -> dict[str, list[str]]:
    """Return up to `count` rejected segments of each reason, those with the fewest other reasons first."""
    found = connection.execute(
        f"""
        SELECT reason, min((len(reasons), segment_id), {count}) AS chosen FROM (
            SELECT unnest(reasons) AS reason, reasons, segment_id FROM scanned WHERE NOT kept AND has_audio
        ) GROUP BY reason
        """
    ).fetchall()
    return {reason: [segment for _, segment in pairs] for reason, pairs in found}


def _rows(connection: duckdb.DuckDBPyConnection, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return what clips are made from."""
    sql = """
        SELECT segment_id, shard, "row", duration_s, text, language, speaker, reasons, dnsmos_ovr, snr_db,
            agreement_cer, chars_per_s, said.said AS description
        FROM segments LEFT JOIN (
            SELECT segment_id, any_value(coalesce("full", brief)) AS said FROM descriptions
            WHERE verdict IS DISTINCT FROM 'dropped' AND segment_id IN (SELECT unnest($ids)) GROUP BY segment_id
        ) AS said USING (segment_id)
        WHERE shard IS NOT NULL AND segment_id IN (SELECT unnest($ids))
    """
    found: list[dict[str, Any]] = connection.sql(sql, params={"ids": list(ids)}).to_arrow_table().to_pylist()
    return found


def _facts(row: dict[str, Any]) -> str:
    shown = (
        ("DNSMOS", row["dnsmos_ovr"], "{:.2f}"),
        ("SNR", row["snr_db"], "{:.0f} dB"),
        ("CER", row["agreement_cer"], "{:.2f}"),
        ("", row["chars_per_s"], "{:.1f} chars/s"),
    )
    return " · ".join(f"{name} {form.format(value)}".strip() for name, value, form in shown if value is not None)


def shape(audio: np.ndarray, parts: int = _PEAKS) -> list[float]:
    """Return the peak of each of at most `parts` parts of `[S] float32`, relative to the clip's peak."""
    found = peaks(audio, parts)
    return [value / max(max(found), 1e-4) for value in found]


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
