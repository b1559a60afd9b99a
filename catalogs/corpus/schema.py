"""Column names and types of everything in a corpus: the contract that reports, the trainer and outside users rely on.

Times are in seconds, levels in dB, rates in Hz unless a name says otherwise. `words` times count from the start of the
segment, so that a segment stays whole when it is copied out of its recording.
"""

from __future__ import annotations

import json

import pyarrow as pa

SCHEMA_VERSION = 3
"""Raised when columns change. 1: development before the columns of given transcripts and flags; 2: before those of
duplicates, gain, reverberation, edges and clicks."""

WORD = pa.struct([("word", pa.string()), ("start", pa.float32()), ("end", pa.float32()), ("p", pa.float32())])
# `binary`, not `large_binary`: with large_binary `datasets` silently degrades the Audio feature to a plain struct.
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

_SEGMENT_FIELDS: list[tuple[str, pa.DataType]] = [
    ("segment_id", pa.string()),
    ("session_id", pa.string()),
    ("source_id", pa.string()),
    ("seq", pa.int32()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("duration_s", pa.float64()),
    ("sample_rate", pa.int32()),
    ("language", pa.string()),
    ("language_p", pa.float32()),
    ("text", pa.string()),
    ("text_source", pa.string()),
    ("asr_logprob", pa.float32()),
    ("no_speech_p", pa.float32()),
    ("compression_ratio", pa.float32()),
    ("agreement_cer", pa.float32()),
    ("other_text", pa.string()),
    ("given_cer", pa.float32()),
    ("given_gain", pa.float32()),
    ("dnsmos_sig", pa.float32()),
    ("dnsmos_bak", pa.float32()),
    ("dnsmos_ovr", pa.float32()),
    ("snr_db", pa.float32()),
    ("clipping", pa.float32()),
    ("bandwidth_hz", pa.float32()),
    ("loudness_lufs", pa.float32()),
    ("chars_per_s", pa.float32()),
    ("head_silence_s", pa.float32()),
    ("tail_silence_s", pa.float32()),
    ("head_edge", pa.float32()),
    ("tail_edge", pa.float32()),
    ("clicks_per_s", pa.float32()),
    ("separated", pa.bool_()),
    ("speaker", pa.string()),
    ("speaker_purity", pa.float32()),
    ("gender", pa.string()),
    ("gender_p", pa.float32()),
    ("age", pa.string()),
    ("age_p", pa.float32()),
    ("emotion", pa.string()),
    ("emotion_p", pa.float32()),
    ("expressive_p", pa.float32()),
    ("pitch_hz", pa.float32()),
    ("pitch_range_st", pa.float32()),
    ("rate_sps", pa.float32()),
    ("energy_db", pa.float32()),
    ("gain_db", pa.float32()),
    ("reverb_s", pa.float32()),
    ("audio_sha256", pa.string()),
    ("duplicate_of", pa.string()),
    ("duplicate_kind", pa.string()),
    ("duplicate_group", pa.string()),
    ("flags", pa.list_(pa.string())),
    ("kept", pa.bool_()),
    ("reasons", pa.list_(pa.string())),
    ("license", pa.string()),
]

#: Rows of `index/**.parquet`: every segment, kept and rejected, without audio; `shard`, `row` point at the audio.
INDEX = pa.schema([*_SEGMENT_FIELDS, ("shard", pa.string()), ("row", pa.int32())])

#: Rows of `segments/**.arrow`: the segments that have audio, with audio, word times and the speaker embedding.
SEGMENTS = pa.schema(
    [
        *_SEGMENT_FIELDS,
        ("words", pa.list_(WORD)),
        ("embedding", pa.list_(pa.float32())),
        ("audio_print", pa.binary()),
        ("audio", AUDIO),
    ]
)

#: One row a source file. `status`: ok | empty (no speech) | quarantined. `silence_s` is the time in no segment, so that
#: duration_s = silence_s + the sum of the recording's segments (kept and rejected): every second is accounted for.
RECORDINGS = pa.schema(
    [
        ("source_id", pa.string()),
        ("path", pa.string()),
        ("session_id", pa.string()),
        ("duration_s", pa.float64()),
        ("sample_rate", pa.int32()),
        ("channels", pa.int32()),
        ("codec", pa.string()),
        ("bytes", pa.int64()),
        ("license", pa.string()),
        ("status", pa.string()),
        ("silence_s", pa.float64()),
        ("content_sha256", pa.string()),
    ]
)

#: `gap` is the segment's seq minus the reference's; 1 never occurs (the reference would be the clip directly before).
REFERENCES = pa.schema(
    [
        ("segment_id", pa.string()),
        ("reference_id", pa.string()),
        ("cosine", pa.float32()),
        ("gap", pa.int32()),
    ]
)

ATTRIBUTES = pa.struct(
    [
        ("gender", pa.string()),
        ("age", pa.string()),
        ("accent", pa.string()),
        ("texture", pa.list_(pa.string())),
        ("emotion", pa.string()),
        ("intensity", pa.float32()),
        ("rate", pa.string()),
        ("pitch", pa.string()),
        ("energy", pa.string()),
        ("scenario", pa.string()),
    ]
)

DESCRIPTIONS = pa.schema(
    [
        ("segment_id", pa.string()),
        ("annotator", pa.string()),
        ("model", pa.string()),
        ("prompt_version", pa.string()),
        ("language", pa.string()),
        ("brief", pa.string()),
        ("full", pa.string()),
        ("attributes", ATTRIBUTES),
        ("verdict", pa.string()),
        ("disagreements", pa.list_(pa.string())),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("cost_usd", pa.float64()),
        ("status", pa.string()),
    ]
)

DECOUPLED = pa.schema(
    [
        ("segment_id", pa.string()),
        ("described_id", pa.string()),
        ("timbre_id", pa.string()),
        ("text", pa.string()),
        ("cer", pa.float32()),
        ("cosine", pa.float32()),
        ("accepted", pa.bool_()),
    ]
)

#: What the pass over all of a corpus found twice; laid over the columns of the same names in the index, which are empty there.
#: `duplicate_of`: the first segment with this audio (or text), null for a first itself; `duplicate_kind`: exact | reencode |
#: part | same_text; `duplicate_group`: the first of all that are linked in any way, which a split must keep on one side.
DUPLICATES = pa.schema(
    [
        ("segment_id", pa.string()),
        ("duplicate_of", pa.string()),
        ("duplicate_kind", pa.string()),
        ("duplicate_group", pa.string()),
    ]
)

#: `cause`: data | machine | bug (`catalogs.corpus.attempts`). `attempts`: workers it cost in one run, else 1. `runs`: runs in
#: a row that ended with this cause. `version`: of the code that failed. `log`: the traceback, relative to the corpus.
QUARANTINE = pa.schema(
    [
        ("path", pa.string()),
        ("source_id", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("at", pa.timestamp("ms", tz="UTC")),
        ("cause", pa.string()),
        ("runs", pa.int32()),
        ("version", pa.string()),
        ("log", pa.string()),
    ]
)

LATER_COLUMNS = frozenset({"cause", "runs", "version", "log"})
"""Columns that files of this format from before may lack: readers fill them with null."""


def is_readable(found: pa.Schema, expected: pa.Schema) -> bool:
    """Return True if a table has the columns of a schema, or lacks only columns that were added later."""
    missing = set(expected.names) - set(found.names)
    if not missing <= LATER_COLUMNS:
        return False
    return found.equals(pa.schema([field for field in expected if field.name not in missing]))


UNITS = pa.schema(
    [
        ("unit_id", pa.string()),
        ("sessions", pa.int32()),
        ("segments", pa.int64()),
        ("seconds", pa.float64()),
        ("fingerprint", pa.string()),
        ("at", pa.timestamp("ms", tz="UTC")),
    ]
)


def segments_schema(fingerprint: str) -> pa.Schema:
    """`SEGMENTS` with the metadata a shard carries: schema version, fingerprint, and the `datasets` Audio feature."""
    features: dict[str, object] = {
        name: _feature(kind) for name, kind in zip(SEGMENTS.names, SEGMENTS.types, strict=True)
    }
    features["audio"] = {"_type": "Audio"}
    return SEGMENTS.with_metadata(
        {
            b"voxmill": json.dumps({"schema_version": SCHEMA_VERSION, "fingerprint": fingerprint}).encode(),
            b"huggingface": json.dumps({"info": {"features": features}}).encode(),
        }
    )


def _feature(kind: pa.DataType) -> object:
    """The `datasets` feature that stands for an Arrow type."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {kind.field(i).name: _feature(kind.field(i).type) for i in range(kind.num_fields)}
    names = {
        pa.float32(): "float32",
        pa.float64(): "float64",
        pa.int32(): "int32",
        pa.bool_(): "bool",
        pa.binary(): "binary",
    }
    return {"dtype": names.get(kind, "string"), "_type": "Value"}
