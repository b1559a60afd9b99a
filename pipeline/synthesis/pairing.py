"""Choose the segments that are cloned, the texts that they are cloned onto, and the clips of their timbre."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.candidates.held_out import hash_number, held_out_draw
from catalogs.corpus.columns import RIGHTS
from catalogs.query.views import connect, query, result_rows
from catalogs.vocabulary.speech_length import usual_seconds
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
    SELECT r.segment_id, list({{'id': k.segment_id, 'shard': k.shard, 'row': k."row", 'held_name': k.held_name}}
        ORDER BY coalesce(k.expressive_p, 1) - r.cosine, k.segment_id) AS timbres
    FROM reference_pairs r JOIN kept k ON k.segment_id = r.reference_id
    GROUP BY r.segment_id
)
SELECT kept.*, words.caption, words.labels, pairs.timbres, {rights},
    kept.segment_id IN (SELECT segment_id FROM segments WHERE ({where})) AS is_wanted
FROM kept JOIN words USING (segment_id) LEFT JOIN pairs USING (segment_id) LEFT JOIN recordings AS r ON r.source_id = kept.source_id
ORDER BY kept.segment_id
"""
_TEXTS = """
SELECT segment_id, language, text, held_name FROM kept
QUALIFY row_number() OVER (PARTITION BY language, text ORDER BY segment_id) = 1
ORDER BY segment_id
"""


class _Caps:
    """How often each text, voice and style is used so far. A share is of the pairs so far, so that it holds at any limit."""

    def __init__(self, config: PairingConfig, before: Sequence[Pair]) -> None:
        self._config = config
        self.text: Counter[str] = Counter()
        self._voice: Counter[str] = Counter()
        self._style: Counter[str] = Counter()
        for pair in before:
            self.add(pair)

    def add(self, pair: Pair) -> None:
        """Count a pair."""
        self.text[str(pair.text)] += 1
        self._voice[pair.voice] += 1
        self._style[pair.style] += 1

    def reason(self, pair: Pair) -> str | None:
        """Return why no further pair of this voice and style is allowed now."""
        config, following = self._config, self._voice.total() + 1
        if self._voice[pair.voice] >= max(config.least_per_voice, int(config.per_voice * following)):
            return "voice_used_up"
        if self._style[pair.style] >= max(config.least_per_style, int(config.per_style * following)):
            return "style_used_up"
        return None


@dataclass(frozen=True)
class _Text:
    """A text that segments may be cloned onto. seconds: its usual speaking time."""

    segment_id: str
    text: str
    seconds: float


@dataclass(frozen=True)
class Pairing:
    """The pairs of a corpus, earlier ones first, and why segments got none. left_out: counts of kept segments without a row, by
    reason: `not_described`, `not_expressive`, `too_short`, `too_long`, `not_wanted` (by `where`), `beyond_limit`."""

    pairs: list[Pair]
    left_out: dict[str, int]


def find_pairs(
    corpus: Path, config: PairingConfig, seed: int, before: Sequence[Pair] = (), limit: int | None = None
) -> Pairing:
    """Pair the segments that have no pair in `before`, up to `limit` pairs in all; those of `before` get a reason if they have
    become invalid (`source_gone`, `held_out`). A segment that gets no pair is a Pair with a reason.

    The paper clones a described utterance onto a semantically unrelated transcript. A segment is described, expressive and has a
    reference; the text is of the same language, of fitting length and distant (`pipeline.synthesis.texts`). Caps bound the use of a
    text, a voice and a style. What the trainer may hold out is neither cloned nor read, nor a timbre. Raises QueryError for a wrong
    condition.
    """
    rule = relatedness(config.embedding_model)
    query(corpus, f"select count(*) from segments where ({config.where})")  # raises QueryError in one line
    with connect(corpus) as catalog:
        catalog.execute(_KEPT)
        held = {
            row["segment_id"]: row["held_name"]
            for row in result_rows(catalog, "SELECT segment_id, held_name FROM kept")
        }
        rights = ", ".join(f'r."{name}"' for name in RIGHTS_NAMES)
        described = result_rows(catalog, _DESCRIBED.format(where=config.where, rights=rights))
        texts = _texts(result_rows(catalog, _TEXTS), config, seed)
    found = [replace(pair, reason=_fault(pair, held, config)) for pair in before]
    valid = [pair for pair in found if pair.reason is None]
    known = {pair.described_id for pair in before}
    left_out: Counter[str] = Counter({"not_described": len(held) - len(described)})
    waiting = []
    for row in described:
        if row["segment_id"] not in known:
            reason = _unfit(row, config)
            left_out[reason or ""] += reason is not None
            waiting += [] if reason else [row]
    waiting.sort(key=lambda row: hash_number("source", seed, row["segment_id"]))
    room = len(waiting) * config.per_segment if limit is None else max(limit - len(valid), 0)
    new, beyond = _paired(waiting, texts, config, seed, rule, _Caps(config, valid), room)
    left_out["beyond_limit"] = beyond
    return Pairing(found + new, {reason: count for reason, count in left_out.items() if count})


def _paired(
    waiting: list[dict[str, Any]],
    texts: Mapping[str, Sequence[_Text]],
    config: PairingConfig,
    seed: int,
    rule: Relatedness,
    caps: _Caps,
    room: int,
) -> tuple[list[Pair], int]:
    """Return the new pairs and the Pairs with a reason, and how many segments the limit leaves out.

    A share that is used up may be free again when others were paired: such segments are tried until nothing changes.
    """
    found: list[Pair] = []
    made = 0
    while True:
        before = made
        again: list[tuple[dict[str, Any], Pair]] = []
        for at, row in enumerate(waiting):
            if made >= room:
                return found, len(waiting) - at + len(again)
            bare = _bare(row, config)
            if bare.reason is None and (reason := caps.reason(bare)):
                again.append((row, replace(bare, reason=reason)))
                continue
            pairs = (
                [bare]
                if bare.reason
                else _pairs_of(row, bare, texts.get(row["language"], []), config, seed, rule, caps)
            )
            pairs = pairs[: room - made]
            made += sum(pair.reason is None for pair in pairs)
            found += pairs
        if not again or made == before:
            return found + [pair for _, pair in again], 0
        waiting = [row for row, _ in again]


def _fault(pair: Pair, held: Mapping[str, str], config: PairingConfig) -> str | None:
    """Return why an earlier pair has become invalid; None if it is valid."""
    names = [held.get(str(name)) for name in (pair.described_id, pair.timbre_id)]
    if None in names:
        return "source_gone"
    read = [*names, held.get(str(pair.text_id))]
    return "held_out" if any(name is not None and _may_be_held_out(name, config) for name in read) else None


def _unfit(row: Mapping[str, Any], config: PairingConfig) -> str | None:
    """Return why a described segment is not to be cloned; None if it is."""
    expressive = row["expressive_p"]
    if not row["is_wanted"]:
        return "not_wanted"
    if expressive is not None and expressive < config.min_expressive:
        return "not_expressive"
    if row["duration_s"] < config.min_s:
        return "too_short"
    return "too_long" if row["duration_s"] > config.max_s else None


def _texts(rows: Sequence[Mapping[str, Any]], config: PairingConfig, seed: int) -> dict[str, list[_Text]]:
    """Return the texts of each language by speaking time: `pool` of them, drawn by a hash."""
    pools: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if not _may_be_held_out(row["held_name"], config):
            pools[row["language"]].append(row)
    found = {}
    for language, pool in pools.items():
        drawn = sorted(pool, key=lambda row: hash_number("text", seed, row["segment_id"]))[: config.pool]
        texts = [_Text(row["segment_id"], row["text"], usual_seconds(row["text"])) for row in drawn]
        found[language] = sorted(texts, key=lambda text: (text.seconds, text.segment_id))
    return found


def _may_be_held_out(name: str, config: PairingConfig) -> bool:
    """Return True if the trainer may hold a segment out: with a share of validation of up to `held_out`."""
    return held_out_draw(name) < config.held_out


def _pairs_of(
    row: Mapping[str, Any],
    bare: Pair,
    texts: Sequence[_Text],
    config: PairingConfig,
    seed: int,
    rule: Relatedness,
    caps: _Caps,
) -> list[Pair]:
    """Return the pairs of one segment, or one Pair with the reason why there is none."""
    found: list[Pair] = []
    for text, score in _distant_texts(row, texts, config, seed, rule, caps.text):
        made = replace(
            bare,
            pair_id=pair_id(bare.described_id, text.segment_id),
            text_id=text.segment_id,
            text=text.text,
            relatedness=score,
            distance_rule=rule.name,
        )
        caps.add(made)
        found.append(made)
        if len(found) == config.per_segment or caps.reason(bare):
            return found
    return found or [replace(bare, reason="no_distant_text")]


def _bare(row: Mapping[str, Any], config: PairingConfig) -> Pair:
    """Return the Pair of a segment without a text; its `reason` is set if the segment cannot be cloned."""
    free = [one for one in row["timbres"] or () if not _may_be_held_out(one["held_name"], config)]
    timbre = free[0] if free else None
    if timbre is None and config.own_timbre:
        timbre = {"id": row["segment_id"], "shard": row["shard"], "row": row["row"]}
    reason = None if timbre else "no_reference"
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
        voice=str(row["speaker"] or row["session_id"]),
        style=_style(row),
        described_shard=row["shard"],
        described_row=row["row"],
        timbre_id=timbre and timbre["id"],
        timbre_shard=timbre and timbre["shard"],
        timbre_row=timbre and timbre["row"],
        **{name: row[name] for name in measures},
    )


def _distant_texts(
    row: Mapping[str, Any],
    texts: Sequence[_Text],
    config: PairingConfig,
    seed: int,
    rule: Relatedness,
    used: Counter[str],
) -> Iterator[tuple[_Text, float]]:
    """Yield the distant texts of fitting length that are not used up, in an order drawn by a hash, with their relatedness."""
    own = max(usual_seconds(row["text"]), 0.05)
    # Sorted by speaking time.
    first = bisect_left(texts, own / config.length, key=lambda text: text.seconds)
    last = bisect_right(texts, own * config.length, key=lambda text: text.seconds)
    random = np.random.default_rng(hash_number("pair", seed, row["segment_id"]))
    count = max(last - first, 0)
    places: list[int] = random.choice(count, min(config.tries, count), replace=False).tolist() if count else []
    # The tries do not depend on what is used up, so that a later run finds nothing for a segment that had nothing.
    fitting = [texts[first + place] for place in places]
    tried = [text for text in fitting if used[text.text] < config.per_text]
    if not tried:
        return
    both = Texts.of([row["text"], *(text.text for text in tried)], row["language"], rule)
    reasons = both.reasons(0, (row["labels"] or {}).get("emotion"))[1:]
    for text, reason, score in zip(tried, reasons, both.scores(0)[1:].tolist(), strict=True):
        if reason is None:
            yield text, float(score)


def _style(row: Mapping[str, Any]) -> str:
    labels = row["labels"] or {}
    return " ".join(str(labels.get(name)) for name in ("emotion", "rate", "pitch", "energy"))
