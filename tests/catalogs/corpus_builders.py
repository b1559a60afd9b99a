"""Small units made of real FLAC clips, as the pipeline would hand them to the commit."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import soundfile

from catalogs.corpus.commit import UnitContent, bind_fingerprint, commit_unit, create_corpus
from catalogs.corpus.ids import segment_id, short_hash, source_id, unit_id
from catalogs.corpus.schema import DECOUPLED, DESCRIPTIONS
from catalogs.corpus.shards import to_table

FINGERPRINT = "0123456789abcdef"
RATE = 16_000


@dataclasses.dataclass(frozen=True)
class SmallUnit(UnitContent):
    """A unit whose rows a test may still change."""

    rows: list[dict[str, Any]]
    recordings: list[dict[str, Any]]


def tone(seconds: float, pitch_hz: float = 220.0, rate: int = RATE) -> np.ndarray:
    """int16 [S]: a tone with a little noise."""
    times = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(pitch_hz)).normal(0, 0.01, len(times))
    return ((0.3 * np.sin(2 * np.pi * pitch_hz * times) + noise) * 32767).clip(-32768, 32767).astype(np.int16)


def flac(samples: np.ndarray, rate: int = RATE) -> bytes:
    """The samples as a FLAC file."""
    sink = io.BytesIO()
    soundfile.write(sink, samples, rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def good_row(number: int, source: str, session: str, start_s: float, seconds: float = 1.5) -> dict[str, Any]:
    """A segment that passes every default threshold."""
    return {
        "segment_id": segment_id(source, round(start_s * RATE), round((start_s + seconds) * RATE), FINGERPRINT),
        "session_id": session,
        "source_id": source,
        "seq": number,
        "start_s": start_s,
        "end_s": start_s + seconds,
        "duration_s": seconds,
        "sample_rate": RATE,
        "language": "en",
        "language_p": 0.98,
        "text": "good evening everyone",
        "text_source": "asr",
        "words": [{"word": "good", "start": 0.1, "end": 0.4, "p": 0.9}],
        "asr_logprob": -0.2,
        "no_speech_p": 0.01,
        "compression_ratio": 1.1,
        "agreement_cer": 0.02,
        "dnsmos_sig": 3.6,
        "dnsmos_bak": 4.0,
        "dnsmos_ovr": 3.2,
        "snr_db": 35.0,
        "clipping": 0.0,
        "bandwidth_hz": 7600.0,
        "loudness_lufs": -23.0,
        "chars_per_s": 14.0,
        "head_silence_s": 0.1,
        "tail_silence_s": 0.15,
        "separated": False,
        "speaker": f"{session}-spk0",
        "speaker_purity": 0.9,
        "gender": "female",
        "gender_p": 0.95,
        "pitch_hz": 205.0,
        "pitch_range_st": 6.0,
        "rate_sps": 4.0,
        "energy_db": -25.0,
        "kept": True,
        "reasons": [],
        "license": "CC0-1.0",
        "embedding": np.full(8, 8**-0.5, dtype=np.float32),
        "audio": flac(tone(seconds, 150.0 + 10 * number)),
    }


def make_unit(name: str = "a", segments: int = 3, seconds: float = 1.5, **changes: Any) -> SmallUnit:
    """A unit of one session, one recording and `segments` clips with half a second of silence after each.

    The last clip is hard-rejected (no audio) when there are at least three; without any, four seconds are silence.
    """
    path = f"{name}/talk.wav"
    source = source_id(path, name * 8)
    session = short_hash("session", name)
    rows = [good_row(n, source, session, n * (seconds + 0.5), seconds) for n in range(segments)]
    if segments >= 3:
        rows[-1] |= {"reasons": ["too_short"], "kept": False, "audio": None, "text": None}
    recording = {
        "source_id": source,
        "path": path,
        "session_id": session,
        "duration_s": segments * (seconds + 0.5) or 4.0,
        "sample_rate": RATE,
        "channels": 1,
        "codec": "pcm_s16le",
        "bytes": 1000,
        "license": "CC0-1.0",
        "status": "ok" if segments else "empty",
        "silence_s": segments * 0.5 or 4.0,
        "content_sha256": name * 8,
    }
    references = (
        [{"segment_id": rows[2]["segment_id"], "reference_id": rows[0]["segment_id"], "cosine": 0.8, "gap": 2}]
        if segments >= 4
        else []
    )
    content: dict[str, Any] = {
        "unit_id": unit_id([(source, 1000, name * 8)], FINGERPRINT),
        "fingerprint": FINGERPRINT,
        "sessions": [session],
        "rows": rows,
        "recordings": [recording],
        "references": references,
        "stats": {"busy_s": {"decode": 0.5, "transcribe": 2.0}, "wall_s": 3.0, "settings": "abc"},
    }
    return SmallUnit(**(content | changes))


def both(first: UnitContent, second: UnitContent, **changes: Any) -> UnitContent:
    """One unit of two sessions."""
    names = ("rows", "recordings", "references", "quarantine", "sessions")
    joined: dict[str, Any] = {name: [*getattr(first, name), *getattr(second, name)] for name in names}
    return dataclasses.replace(first, **joined, **changes)


def annotate(root: Path, unit: str, segments: Sequence[str], said: str) -> None:
    """A description and a decoupled sample of each segment, as passes leave them beside a unit."""
    of_voice = {"annotator": "acoustic", "full": said, "brief": said, "status": "ok", "verdict": "agree"}
    of_made = {"described_id": "x", "timbre_id": "y", "text": said, "accepted": True}
    for folder, row, schema in (("acoustic", of_voice, DESCRIPTIONS), ("made", of_made, DECOUPLED)):
        path = root / "annotations" / folder / unit[:2] / f"{unit}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        # As passes do: whoever is killed here leaves a draft, not half of a file.
        draft = root / "tmp" / f"{folder}-{unit}"
        pq.write_table(to_table([{"segment_id": segment} | row for segment in segments], schema), draft)
        draft.replace(path)


def redone_in_part(root: Path) -> tuple[list[str], list[str]]:
    """A corpus with unit ffff of the recordings a and b, of which unit 0000 holds a again; only ffff is annotated ("old").

    Returns the ids of the kept segments of a and of b. Those of a are the same in both units.
    """
    create_corpus(root)
    bind_fingerprint(root, FINGERPRINT)
    a, b = make_unit("a", 4), make_unit("b", 4)
    kept = [[row["segment_id"] for row in unit.rows if row["kept"]] for unit in (a, b)]
    commit_unit(root, both(a, b, unit_id="f" * 16))
    annotate(root, "f" * 16, [*kept[0], *kept[1]], "old")
    commit_unit(root, dataclasses.replace(a, unit_id="0" * 16, generation=1))
    return kept[0], kept[1]


def verdict(path: str = "a/broken.wav", stage: str = "decode") -> dict[str, Any]:
    """A quarantine row."""
    return {
        "path": path,
        "source_id": short_hash(path),
        "stage": stage,
        "error": "not an audio file",
        "attempts": 1,
        "at": datetime.now(UTC),
    }
