"""The rows of a block of units as Arrow columns, drawn from a seed: the same seed and block always give the same rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scale_parts.kinds import Kind
from scale_parts.speech import LANGUAGES, LINES, audio_prints, heavy_columns, masked, texts

from catalogs.corpus.ids import segment_id, short_hash, source_id
from catalogs.corpus.schema import INDEX, RECORDINGS, REFERENCES
from catalogs.corpus.thresholds import Thresholds, apply_thresholds

FINGERPRINT = "5ca1ab1e5ca1ab1e"
"""Fingerprint of the settings that a synthetic corpus claims to be made with."""
_SHARES = (0.42, 0.2, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.03, 0.02)
_RATES = (16_000, 24_000, 44_100, 48_000)
_LICENSES = ("CC0-1.0", "CC-BY-4.0", None)
_TOO_SHORT, _COPIES, _SAME_TEXT, _COMMON = 0.03, 0.01, 0.004, 0.006
"""Shares of the segments: failed a hard rule; copies of another's audio; another's words in the same voice; a common line."""


@dataclass(frozen=True)
class Block:
    """The rows of consecutive units. Every unit has the same number of rows of `index` and of `recordings`."""

    index: pa.Table
    """INDEX columns of all segments; `shard` is null everywhere, `row` is set where there is audio."""
    heavy: pa.Table
    """Columns of a shard that an index lacks, for the same rows; `audio` is null where there is none."""
    recordings: pa.Table
    references: pa.Table
    reference_unit: np.ndarray
    """`[N] int64`: the unit of each pair, from 0, ascending."""


def block(kind: Kind, first: int, count: int, seed: int) -> Block:
    """Return the rows of the units `first` to `first + count - 1`."""
    rng = np.random.default_rng([seed, first])
    rows, units, own = kind.rows * count, count, kind.recordings
    unit = np.repeat(np.arange(units), kind.rows)
    sources = _sources(kind, first, units, rng)
    # Segments are dealt to the recordings with speech in stretches of nearly equal length.
    recording = unit * own + np.tile(np.arange(kind.rows) * kind.spoken // kind.rows, units)
    session = sources.session[recording]
    hard = rng.random(rows) < _TOO_SHORT
    rate = sources.rate[recording]
    seconds = np.clip(rng.lognormal(1.6, 0.65, rows), 0.6, 25.0)
    seconds = np.where(hard, rng.uniform(0.1, 0.45, rows), seconds)
    copied = _earlier(rng, rows, _COPIES, ~hard, session, 0)
    seconds = seconds[copied]
    samples = np.rint(seconds * rate).astype(np.int64)
    gap = np.rint(rng.uniform(0.1, 5.0, rows) * rate).astype(np.int64)
    start, tail = _timeline(recording, samples, gap)
    seconds = samples / rate
    speaker, voice = _speakers(rng, session, sources.session_names, units * len(set(kind.sessions)))
    language = sources.language[recording]
    # A copy has the words of its original; some clips speak those of another clip in their voice, or a common line.
    heard = ~hard & (copied == np.arange(rows))
    text_of = _earlier(rng, rows, _SAME_TEXT, heard, voice, 1)[copied]
    common = heard & (rng.random(rows) < _COMMON)
    lines = rows + language * LINES + np.floor(LINES * rng.random(rows) ** 2).astype(np.int64)
    text_of = np.where(common, lines, text_of)
    words, text = texts(rng, seconds, language, text_of, hard)
    ids = [
        segment_id(sources.ids[at], a, b, FINGERPRINT)
        for at, a, b in zip(recording.tolist(), start.tolist(), (start + samples).tolist(), strict=True)
    ]
    prints, exact = audio_prints(rng, seconds, copied, hard)
    sha = [
        None if out else short_hash("pcm", ids[at]) * 4 for at, out in zip(exact.tolist(), hard.tolist(), strict=True)
    ]
    values = _measures(rng, seconds, text, language, voice, hard)
    columns: dict[str, object] = {
        "segment_id": ids,
        "session_id": pa.array(sources.session_names).take(pa.array(session)),
        "source_id": pa.array(sources.ids).take(pa.array(recording)),
        "seq": np.arange(rows) - np.searchsorted(session, session),
        "start_s": start / rate,
        "end_s": (start + samples) / rate,
        "duration_s": seconds,
        "sample_rate": rate,
        "language": masked(pa.array(LANGUAGES).take(pa.array(language)), hard),
        "text": text,
        "text_source": masked(pa.array(np.where(rng.random(rows) < 0.2, "given", "asr")), hard),
        "separated": rng.random(rows) < 0.1,
        "speaker": masked(speaker, hard),
        "audio_sha256": sha,
        "flags": _flags(rng, hard),
        "reasons": pa.array([["too_short"] if out else [] for out in hard.tolist()], pa.list_(pa.string())),
        "license": pa.array(sources.license).take(pa.array(recording)),
        "row": masked(pa.array(_places(unit, hard), pa.int32()), hard),
        **values,
    }
    arrays = [_array(columns[f.name], f.type) if f.name in columns else pa.nulls(rows, f.type) for f in INDEX]
    index = apply_thresholds(pa.table(arrays, schema=INDEX), Thresholds())
    recordings = _recordings(kind, sources, recording, seconds, tail, units)
    references, reference_unit = _references(rng, index, unit, session, voice)
    return Block(index, heavy_columns(rng, ids, words, prints, voice, hard), recordings, references, reference_unit)


@dataclass(frozen=True)
class _Sources:
    """The recordings of a block, all arrays by recording; sessions are numbered through the block."""

    paths: list[str]
    hashes: list[str]
    ids: list[str]
    session: np.ndarray
    session_names: list[str]
    language: np.ndarray
    rate: np.ndarray
    license: list[str | None]
    damaged: np.ndarray


def _sources(kind: Kind, first: int, units: int, rng: np.random.Generator) -> _Sources:
    own, sessions = kind.recordings, len(set(kind.sessions))
    numbers = [(first + unit, at) for unit in range(units) for at in range(own)]
    folders = [f"talks/{first + unit:06d}-{session}" for unit in range(units) for session in range(sessions)]
    session = (np.arange(units)[:, None] * sessions + np.array(kind.sessions)).ravel()
    paths = [f"{folders[place]}/{at:02d}.flac" for place, (_, at) in zip(session.tolist(), numbers, strict=True)]
    hashes = [short_hash("content", kind.name, unit, at) * 4 for unit, at in numbers]
    ids = [source_id(path, sha) for path, sha in zip(paths, hashes, strict=True)]
    language = rng.choice(len(LANGUAGES), units * sessions, p=_SHARES)
    rate = rng.choice(_RATES, units * sessions, p=(0.5, 0.1, 0.2, 0.2))
    license_of = rng.choice(len(_LICENSES), units * sessions, p=(0.3, 0.6, 0.1))
    # The last recording of some units cannot be decoded.
    damaged = (np.arange(units * own) % own == own - 1) & (rng.random(units * own) < (0.08 if kind.silent else 0.0))
    return _Sources(
        paths,
        hashes,
        ids,
        session,
        [short_hash("session", folder) for folder in folders],
        language[session],
        rate[session],
        [_LICENSES[at] for at in license_of[session].tolist()],
        damaged,
    )


def _earlier(
    rng: np.random.Generator, rows: int, share: float, usable: np.ndarray, group: np.ndarray, same: int
) -> np.ndarray:
    """Return `[N] int64`: for a share of the usable rows an earlier usable row (of the same group if `same`), otherwise the row."""
    found = np.arange(rows)
    for place in np.flatnonzero(usable & (rng.random(rows) < share)).tolist():
        low = int(np.searchsorted(group, group[place])) if same else 0
        other = int(rng.integers(low, place + 1)) if place > low else place
        if usable[other] and found[other] == other and (not same or group[other] == group[place]):
            found[place] = other
    return found


def _timeline(recording: np.ndarray, samples: np.ndarray, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (start of each segment, end of the last gap of its recording), in samples from the start of the recording."""
    before = np.cumsum(gap + samples) - samples
    opening = np.searchsorted(recording, recording)
    start = before - (before - gap)[opening]
    return start, start + samples + gap


def _speakers(
    rng: np.random.Generator, session: np.ndarray, names: list[str], sessions: int
) -> tuple[pa.Array, np.ndarray]:
    """Return (name of the speaker, number of the voice) of each segment; a session has one to four voices."""
    voices = rng.integers(1, 5, sessions)
    own = np.floor(voices[session] * rng.random(len(session)) ** 1.5).astype(np.int64)
    labels = [f"{names[at]}-spk{number}" for at, number in zip(session.tolist(), own.tolist(), strict=True)]
    return pa.array(labels), session * 4 + own


def _measures(
    rng: np.random.Generator,
    seconds: np.ndarray,
    text: pa.Array,
    language: np.ndarray,
    voice: np.ndarray,
    hard: np.ndarray,
) -> dict[str, object]:
    """Return the scores. Their tails fall below the thresholds of every soft rule; all are null where a hard rule failed."""
    rows = len(seconds)
    traits = np.random.default_rng(int(voice[0]) + 1).random((int(voice.max()) + 1, 2))[voice]
    female = traits[:, 0] < 0.47
    pitch = np.where(female, 205.0, 118.0) * (0.8 + 0.4 * traits[:, 1]) * rng.normal(1, 0.06, rows)
    characters = pc.fill_null(pc.utf8_length(text), 0).to_numpy()
    numbers = {
        "language_p": 1 - rng.beta(1, 22, rows),
        "asr_logprob": -rng.gamma(2.2, 0.12, rows),
        "no_speech_p": rng.beta(1, 30, rows),
        "compression_ratio": rng.normal(1.35, 0.2, rows).clip(0.8),
        "agreement_cer": rng.gamma(0.6, 0.07, rows),
        "dnsmos_sig": rng.normal(3.5, 0.3, rows).clip(1, 5),
        "dnsmos_bak": rng.normal(3.9, 0.3, rows).clip(1, 5),
        "dnsmos_ovr": rng.normal(3.1, 0.35, rows).clip(1, 5),
        "snr_db": rng.normal(32, 9, rows),
        "clipping": rng.gamma(0.05, 0.002, rows).clip(0, 1),
        "bandwidth_hz": rng.normal(9_500, 2_200, rows).clip(2_500, 20_000),
        "loudness_lufs": rng.normal(-24, 5, rows),
        "chars_per_s": characters / seconds,
        "head_silence_s": rng.gamma(1.5, 0.08, rows),
        "tail_silence_s": rng.gamma(1.5, 0.1, rows),
        "head_edge": rng.gamma(0.6, 0.06, rows),
        "tail_edge": rng.gamma(0.6, 0.06, rows),
        "clicks_per_s": rng.gamma(0.1, 0.3, rows),
        "speaker_purity": 1 - rng.beta(2, 16, rows),
        "gender_p": 0.5 + 0.5 * rng.beta(6, 1, rows),
        "expressive_p": rng.beta(1.3, 2.5, rows),
        "pitch_hz": pitch,
        "pitch_range_st": rng.gamma(6, 1.1, rows),
        "rate_sps": rng.normal(4.4, 0.8, rows).clip(1),
        "energy_db": rng.normal(-26, 4, rows),
        "gain_db": rng.normal(3, 4, rows),
        "reverb_s": rng.gamma(3, 0.08, rows),
        "pitch_low_hz": 0.88 * pitch,
        "formant_hz": np.where(female, 4_150, 3_650) * rng.normal(1, 0.03, rows),
        "effort_db": rng.normal(-14, 4, rows),
        "voiced_share": rng.beta(6, 3, rows),
    }
    found: dict[str, object] = {name: pa.array(values, pa.float32(), mask=hard) for name, values in numbers.items()}
    return found | {"gender": masked(pa.array(np.where(female, "female", "male")), hard)}


def _recordings(
    kind: Kind, sources: _Sources, recording: np.ndarray, seconds: np.ndarray, tail: np.ndarray, units: int
) -> pa.Table:
    """Return the RECORDINGS rows: every second is in a segment or is silence."""
    count = units * kind.recordings
    length = np.full(count, 47.0)
    np.maximum.at(length, recording, tail / sources.rate[recording])
    length = np.maximum(length, kind.recording_s)
    speech = np.bincount(recording, seconds, count)
    status = np.where(sources.damaged, "quarantined", np.where(speech > 0, "ok", "empty"))
    columns = {
        "source_id": sources.ids,
        "path": sources.paths,
        "session_id": pa.array(sources.session_names).take(pa.array(sources.session)),
        "duration_s": length,
        "sample_rate": sources.rate,
        "channels": np.ones(count),
        "codec": np.full(count, "flac"),
        "bytes": np.rint(length * sources.rate * 1.1),
        "license": sources.license,
        "status": status,
        "silence_s": length - speech,
        "content_sha256": sources.hashes,
    }
    columns["license_source"] = [license and "manifest" for license in sources.license]
    missing = pa.nulls(count)
    return pa.table([_array(columns.get(f.name, missing), f.type) for f in RECORDINGS], schema=RECORDINGS)


def _references(
    rng: np.random.Generator, index: pa.Table, unit: np.ndarray, session: np.ndarray, voice: np.ndarray
) -> tuple[pa.Table, np.ndarray]:
    """Return pairs of kept clips of one voice in one session, at most four for a clip, and the unit of each pair."""
    kept = index.column("kept").to_numpy()
    place = np.arange(len(kept))
    pairs = []
    for gap in (2, 3, 5, -4):
        other = place - gap
        inside = (other >= 0) & (other < len(kept))
        other = np.where(inside, other, place)
        good = inside & kept & kept[other] & (session == session[other]) & (voice == voice[other])
        pairs.append(np.stack([place[good], other[good]]))
    first, second = np.concatenate(pairs, axis=1)
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    ids, seq = index.column("segment_id"), index.column("seq").to_numpy()
    columns = {
        "segment_id": ids.take(pa.array(first)).combine_chunks(),
        "reference_id": ids.take(pa.array(second)).combine_chunks(),
        "cosine": rng.uniform(0.6, 0.95, len(first)),
        "gap": seq[first] - seq[second],
    }
    return pa.table([_array(columns[f.name], f.type) for f in REFERENCES], schema=REFERENCES), unit[first]


def _flags(rng: np.random.Generator, hard: np.ndarray) -> pa.Array:
    names = ("given_trimmed", "upsampled", "language_switch", "looping_text", "foreign_language")
    kinds = [[], *([name] for name in names)]
    drawn = rng.choice(len(kinds), len(hard), p=(0.9, 0.03, 0.04, 0.01, 0.01, 0.01))
    return pa.array(kinds, pa.list_(pa.string())).take(pa.array(np.where(hard, 0, drawn)))


def _places(unit: np.ndarray, hard: np.ndarray) -> np.ndarray:
    """Return the row of each segment with audio in the shard of its unit."""
    total = np.cumsum(~hard) - 1
    opening = np.searchsorted(unit, unit)
    return total - (total[opening] - ~hard[opening]) - 1


def _array(values: object, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values).cast(kind)
