"""Choose the segments that are cloned, the texts that they are cloned onto, and the clips of their timbre."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalogs.candidates.held_out import hash_number, held_out_draw
from catalogs.corpus.columns import RIGHTS
from catalogs.query.views import connect, query, result_rows
from catalogs.vocabulary.speech_length import generous_seconds
from pipeline.synthesis.pairs import Pair, pair_id
from pipeline.synthesis.settings import PairingConfig
from pipeline.synthesis.texts.distance import Texts
from pipeline.synthesis.texts.relatedness import Relatedness, relatedness

RIGHTS_NAMES = tuple(column.name for column in RIGHTS)
_KEPT = """
CREATE TEMP TABLE kept AS
SELECT segment_id, session_id, source_id, speaker, language, text, duration_s, shard, "row", pitch_hz, pitch_range_st, rate_sps,
    energy_db, expressive_p, license, coalesce(duplicate_group, segment_id) AS held_name,
    quantile_cont(pitch_hz, 0.25) OVER (PARTITION BY session_id, speaker) AS rest_hz
FROM segments
WHERE kept AND "row" IS NOT NULL AND language IS NOT NULL AND trim(coalesce(text, '')) <> '' AND NOT coalesce(synthetic, false)
"""
_DESCRIBED = """
WITH words AS (
    SELECT segment_id, arg_max(style, rank) AS caption, arg_max(labels, rank) AS labels
    FROM (SELECT *, CASE WHEN annotator = 'acoustic' THEN '' ELSE annotator END AS rank FROM descriptions)
    WHERE status = 'ok' AND coalesce(verdict, '') <> 'dropped' AND style IS NOT NULL
    GROUP BY segment_id
), pairs AS (
    SELECT r.segment_id, arg_min(r.reference_id, coalesce(k.expressive_p, 1) - r.cosine) AS timbre_id
    FROM reference_pairs r JOIN kept k ON k.segment_id = r.reference_id
    GROUP BY r.segment_id
)
SELECT kept.*, words.caption, words.labels, pairs.timbre_id, timbre.shard AS timbre_shard, timbre."row" AS timbre_row,
    timbre.held_name AS timbre_held_name, {rights}
FROM kept JOIN words USING (segment_id) LEFT JOIN pairs USING (segment_id) LEFT JOIN recordings AS r ON r.source_id = kept.source_id
LEFT JOIN kept AS timbre ON timbre.segment_id = pairs.timbre_id
WHERE kept.segment_id IN (SELECT segment_id FROM segments WHERE ({where}))
    AND coalesce(kept.expressive_p, 1) >= {least} AND kept.duration_s BETWEEN {shortest} AND {longest}
ORDER BY kept.segment_id
"""
_TEXTS = """
SELECT segment_id, language, text, held_name FROM kept
QUALIFY row_number() OVER (PARTITION BY language, text ORDER BY segment_id) = 1
ORDER BY segment_id
"""


@dataclass
class _Caps:
    """How often each text, voice and style is used so far, and the most that each may be."""

    text: Counter[str] = field(default_factory=Counter)
    voice: Counter[str] = field(default_factory=Counter)
    style: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Text:
    """A text that segments may be cloned onto."""

    segment_id: str
    text: str
    seconds: float


def find_pairs(corpus: Path, config: PairingConfig, seed: int, before: Sequence[Pair] = ()) -> list[Pair]:
    """Return the pairs of segments that have none in `before`, and a Pair with a reason for those that get none.

    The paper clones a described utterance onto a semantically unrelated transcript. A segment is described, expressive and has a
    reference; the text is of the same language, of fitting length and distant (`pipeline.synthesis.texts`). Caps bound the use of a
    text, a voice and a style. What the trainer may hold out is neither cloned nor read, nor a timbre. The choice depends on the
    corpus, the settings and the seed alone. Raises QueryError for a wrong condition.
    """
    rule = relatedness(config.embedding_model)
    query(corpus, f"select count(*) from segments where ({config.where})")  # raises QueryError in one line
    with connect(corpus) as catalog:
        catalog.execute(_KEPT)
        sources = result_rows(
            catalog,
            _DESCRIBED.format(
                where=config.where,
                least=config.min_expressive,
                shortest=config.min_s,
                longest=config.max_s,
                rights=", ".join(f'r."{name}"' for name in RIGHTS_NAMES),
            ),
        )
        texts = _texts(result_rows(catalog, _TEXTS), config, seed)
    known = {pair.described_id for pair in before}
    fresh = [row for row in sources if row["segment_id"] not in known]
    fresh.sort(key=lambda row: hash_number("source", seed, row["segment_id"]))
    caps = _caps(before, sources)
    limits = _limits(config, sum(pair.reason is None for pair in before) + len(fresh) * config.per_segment)
    found: list[Pair] = []
    for row in fresh:
        found += _pairs_of(row, texts.get(row["language"], []), config, seed, rule, caps, limits)
    return found


def _caps(before: Sequence[Pair], sources: Sequence[Mapping[str, Any]]) -> _Caps:
    rows = {row["segment_id"]: row for row in sources}
    caps = _Caps()
    for pair in before:
        if pair.reason is None:
            caps.text[str(pair.text)] += 1
            if row := rows.get(pair.described_id):
                caps.voice[_voice(row)] += 1
                caps.style[_style(row)] += 1
    return caps


@dataclass(frozen=True)
class _Limits:
    text: int
    voice: int
    style: int


def _limits(config: PairingConfig, expected: int) -> _Limits:
    """Return the caps for an expected number of samples."""
    return _Limits(
        config.per_text,
        max(config.least_per_voice, int(config.per_voice * expected)),
        max(config.least_per_style, int(config.per_style * expected)),
    )


def _texts(rows: Sequence[Mapping[str, Any]], config: PairingConfig, seed: int) -> dict[str, list[_Text]]:
    """Return the texts of each language by speaking time: `pool` of them, drawn by a hash."""
    pools: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if not _may_be_held_out(row["held_name"], config):
            pools[row["language"]].append(row)
    found = {}
    for language, pool in pools.items():
        drawn = sorted(pool, key=lambda row: hash_number("text", seed, row["segment_id"]))[: config.pool]
        texts = [_Text(row["segment_id"], row["text"], generous_seconds(row["text"]) - 2.0) for row in drawn]
        found[language] = sorted(texts, key=lambda text: (text.seconds, text.segment_id))
    return found


def _may_be_held_out(name: str, config: PairingConfig) -> bool:
    """Return True if the trainer may hold a segment out: with a share of validation of up to `held_out`."""
    return held_out_draw(name) < config.held_out


def _pairs_of(
    row: Mapping[str, Any],
    texts: Sequence[_Text],
    config: PairingConfig,
    seed: int,
    rule: Relatedness,
    caps: _Caps,
    limits: _Limits,
) -> list[Pair]:
    """Return the pairs of one segment, or one Pair with the reason why there is none."""
    bare = _bare(row, config)
    if bare.reason is not None:
        return [bare]
    voice, style = _voice(row), _style(row)
    found: list[Pair] = []
    for text, score in _distant_texts(row, texts, config, seed, rule, caps.text, limits.text):
        if caps.voice[voice] >= limits.voice or caps.style[style] >= limits.style:
            break
        caps.text[text.text] += 1
        caps.voice[voice] += 1
        caps.style[style] += 1
        found.append(
            replace(
                bare,
                pair_id=pair_id(bare.described_id, text.segment_id),
                text_id=text.segment_id,
                text=text.text,
                relatedness=score,
                distance_rule=rule.name,
            )
        )
        if len(found) == config.per_segment:
            return found
    if found:
        return found
    if caps.voice[voice] >= limits.voice:
        return [replace(bare, reason="voice_used_up")]
    if caps.style[style] >= limits.style:
        return [replace(bare, reason="style_used_up")]
    return [replace(bare, reason="no_distant_text")]


def _bare(row: Mapping[str, Any], config: PairingConfig) -> Pair:
    """Return the Pair of a segment without a text; its `reason` is set if the segment cannot be cloned."""
    timbre = {name: row[name] for name in ("timbre_id", "timbre_shard", "timbre_row")}
    reason = None
    if timbre["timbre_id"] is not None and _may_be_held_out(row["timbre_held_name"], config):
        timbre = dict.fromkeys(timbre)
    if timbre["timbre_id"] is None and config.own_timbre:
        timbre = {"timbre_id": row["segment_id"], "timbre_shard": row["shard"], "timbre_row": row["row"]}
    if timbre["timbre_id"] is None:
        reason = "no_reference"
    if _may_be_held_out(row["held_name"], config):
        reason = "held_out"
    measures = ("pitch_hz", "pitch_range_st", "rate_sps", "energy_db", "expressive_p", "rest_hz")
    return Pair(
        pair_id=pair_id(row["segment_id"], ""),
        described_id=row["segment_id"],
        language=row["language"],
        reason=reason,
        caption=row["caption"],
        license=row["license"],
        rights=json.dumps({name: row[name] for name in RIGHTS_NAMES if row[name] is not None}, ensure_ascii=False),
        voice=_voice(row),
        described_shard=row["shard"],
        described_row=row["row"],
        **timbre,
        **{name: row[name] for name in measures},
    )


def _distant_texts(
    row: Mapping[str, Any],
    texts: Sequence[_Text],
    config: PairingConfig,
    seed: int,
    rule: Relatedness,
    used: Counter[str],
    most: int,
) -> Iterator[tuple[_Text, float]]:
    """Yield the distant texts of fitting length that are not used up, in an order drawn by a hash, with their relatedness."""
    own = max(generous_seconds(row["text"]) - 2.0, 0.1)
    fitting = [text for text in texts if own / config.length <= text.seconds <= own * config.length]
    fitting.sort(key=lambda text: hash_number("pair", seed, row["segment_id"], text.segment_id))
    # The tries do not depend on what is used up, so that a later run finds nothing for a segment that had nothing.
    tried = [text for text in fitting[: config.tries] if used[text.text] < most]
    if not tried:
        return
    both = Texts.of([row["text"], *(text.text for text in tried)], row["language"], rule)
    reasons = both.reasons(0, (row["labels"] or {}).get("emotion"))[1:]
    for text, reason, score in zip(tried, reasons, both.scores(0)[1:].tolist(), strict=True):
        if reason is None:
            yield text, float(score)


def _voice(row: Mapping[str, Any]) -> str:
    return str(row["speaker"] or row["session_id"])


def _style(row: Mapping[str, Any]) -> str:
    labels = row["labels"] or {}
    return " ".join(str(labels.get(name)) for name in ("emotion", "rate", "pitch", "energy"))
