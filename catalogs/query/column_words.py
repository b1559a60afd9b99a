"""What every column of the catalog's views means: the one source of DuckDB's comments and of the tables in docs/corpus.md."""

from __future__ import annotations

import re
from typing import NamedTuple


class ColumnWords(NamedTuple):
    """A column's meaning, and its unit (empty if it has none)."""

    meaning: str
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.meaning} [{self.unit}]" if self.unit else self.meaning


W = ColumnWords

VIEW_WORDS: dict[str, str] = {
    "recordings": "One row per source file (or channel of it): what it is and what became of it.",
    "segments": "One row per segment, kept and rejected, with all its scores. What was not measured is null.",
    "reference_pairs": "Clips of the same voice in the same session that may serve a segment as its reference.",
    "descriptions": "The voice of a segment in words, as annotators wrote it.",
    "decoupled": "Clips that combine the delivery of a described segment with the timbre of another voice.",
    "quarantine": "What could not be processed, and why.",
    "units": "One row per commit: sessions that were committed together.",
    "stages": "Busy time of every stage.",
    "funnel": "Where every recorded second went: `seconds` add up to the recordings' duration.",
    "catalog_info": "What the views were built from; voxmill rebuilds them when it changes.",
}

COLUMN_WORDS: dict[str, dict[str, ColumnWords]] = {
    "recordings": {
        "source_id": W("Identity of the recording, from its content and session"),
        "path": W("Where it was read from: a path, a URL without secrets, or a member of a container"),
        "session_id": W(
            "Recordings made together: the folder, or what a manifest says; `#2` is a later part of a long session"
        ),
        "duration_s": W("Length", "s"),
        "sample_rate": W("Sample rate of the file", "Hz"),
        "channels": W("Channels of the file"),
        "codec": W("Codec of the file"),
        "bytes": W("Size of the file", "bytes"),
        "license": W("License that came with it"),
        "status": W("`ok`, `empty` (no speech found) or `quarantined`"),
        "silence_s": W("Time that is in no segment", "s"),
        "content_sha256": W("sha256 of its content"),
    },
    "segments": {
        "segment_id": W("Identity of the segment, from its recording, its times and the settings"),
        "session_id": W("Session of its recording"),
        "source_id": W("Its recording (`recordings.source_id`)"),
        "seq": W("Position among the segments of its session, from 0"),
        "start_s": W("Start, from the start of the recording", "s"),
        "end_s": W("End, from the start of the recording", "s"),
        "duration_s": W("Length", "s"),
        "sample_rate": W("Sample rate of the stored audio, that of the recording", "Hz"),
        "language": W("Language code (ISO 639); null if unknown"),
        "language_p": W("Probability of the language", "0-1"),
        "text": W("What is said, for training"),
        "text_source": W(
            "`asr` (recognized), `given` (came with the recording) or `repaired` (given, mended at the ends)"
        ),
        "asr_logprob": W("Mean log probability of a recognized token", "nats"),
        "no_speech_p": W("Probability, by the recognizer, that nobody speaks", "0-1"),
        "compression_ratio": W("gzip ratio of the text: high in repetition loops"),
        "agreement_cer": W("Character error rate between two passes of recognition", "0 = equal"),
        "other_text": W("The text that was not used: given or recognized"),
        "given_cer": W("Character error rate between the given and the recognized text", "0 = equal"),
        "given_gain": W("How much the audio supports the given text", "nats per token"),
        "dnsmos_sig": W("DNSMOS P.835, quality of the voice", "1-5"),
        "dnsmos_bak": W("DNSMOS P.835, quality of the background", "1-5"),
        "dnsmos_ovr": W("DNSMOS P.835, overall quality", "1-5"),
        "snr_db": W("Level of the speech above the noise", "dB"),
        "clipping": W("Share of samples at full scale", "0-1"),
        "bandwidth_hz": W("Highest frequency that holds signal", "Hz"),
        "loudness_lufs": W("Integrated loudness (EBU R 128)", "LUFS"),
        "chars_per_s": W("Characters of text per second of speech", "1/s"),
        "head_silence_s": W("Silence before the voice", "s"),
        "tail_silence_s": W("Silence after the voice", "s"),
        "head_edge": W("Voice in the first 30 ms: 0 is the background, 1 the level of the speech"),
        "tail_edge": W("Voice in the last 30 ms: 0 is the background, 1 the level of the speech"),
        "clicks_per_s": W("Clicks per second", "1/s"),
        "separated": W("Whether the voice was separated from music or noise"),
        "speaker": W("Voice: a cluster within the session"),
        "speaker_purity": W(
            "Cosine between the part that differs most and the rest: low where there are two voices", "-1 to 1"
        ),
        "gender": W("Gender of the voice, by its pitch"),
        "gender_p": W("Probability of the gender", "0-1"),
        "age": W("Age group of the voice"),
        "age_p": W("Probability of the age group", "0-1"),
        "emotion": W("Emotion"),
        "emotion_p": W("Probability of the emotion", "0-1"),
        "expressive_p": W("How expressive: ranks clips, not a probability of any one emotion", "0-1"),
        "pitch_hz": W("Median pitch", "Hz"),
        "pitch_range_st": W("Pitch from the 10th to the 90th percentile", "semitones"),
        "rate_sps": W("Syllables per second of speech", "1/s"),
        "energy_db": W("Level of the speech", "dB of full scale"),
        "gain_db": W(
            "Gain that brings it to the target loudness without clipping; not applied to the stored audio", "dB"
        ),
        "reverb_s": W("Time in which reverberation falls by 60 dB", "s"),
        "audio_sha256": W("sha256 of the samples"),
        "duplicate_of": W("First segment with this audio (or text); null for the first itself"),
        "duplicate_kind": W("`exact`, `reencode`, `part` or `same_text`"),
        "duplicate_group": W("First of all segments that are linked in any way: keep a group on one side of a split"),
        "flags": W("What stages noted; a reason against it if the threshold `drop_flags` names it"),
        "kept": W("Whether it passes the thresholds and every hard rule"),
        "reasons": W("Why it is not kept, the first that applies first"),
        "license": W("License of its recording"),
        "shard": W("File of the corpus that holds its audio; null if it has none"),
        "row": W("Row in the shard, from 0"),
        "path": W("Path of its recording (`recordings.path`)"),
    },
    "reference_pairs": {
        "segment_id": W("The segment to be spoken"),
        "reference_id": W("The segment that is its reference"),
        "cosine": W("Likeness of the two voices", "-1 to 1"),
        "gap": W("The segment's `seq` minus that of the reference; never 1"),
    },
    "descriptions": {
        "segment_id": W("The described segment"),
        "annotator": W("Who described it"),
        "model": W("Model of the annotator"),
        "prompt_version": W("Version of the prompt or of the rules"),
        "language": W("Language of the description"),
        "brief": W("Description in a few words"),
        "full": W("Description in full"),
        "attributes": W(
            "Single traits: gender, age, accent, texture, emotion, intensity, rate, pitch, energy, scenario"
        ),
        "verdict": W("What measurements say of it: `agree`, `repaired` or `dropped`; null if it was not compared"),
        "disagreements": W("Traits on which the measurements disagree with it"),
        "tokens_in": W("Tokens sent to the annotator", "tokens"),
        "tokens_out": W("Tokens received from the annotator", "tokens"),
        "cost_usd": W("Price of the call", "US dollars"),
        "status": W("`ok` or the reason of the failure"),
    },
    "decoupled": {
        "segment_id": W("The clip that was made"),
        "described_id": W("The segment whose description it follows"),
        "timbre_id": W("The segment whose timbre it has"),
        "text": W("What is said in it"),
        "cer": W("Character error rate of the clip against its text", "0 = equal"),
        "cosine": W("Likeness to the voice of the timbre", "-1 to 1"),
        "accepted": W("Whether it is good enough for training"),
    },
    "quarantine": {
        "path": W("The file or member that failed"),
        "source_id": W("Its recording; null if it failed before it was one"),
        "stage": W("Stage that it failed in"),
        "error": W("Reason, for people"),
        "attempts": W("Workers that it cost in one run, otherwise 1"),
        "at": W("Time of the failure", "UTC"),
        "cause": W("`data` (the recording), `machine` (tried again by the next run) or `bug`"),
        "runs": W("Runs in a row that ended with this cause"),
        "version": W("Version of the code that failed"),
        "log": W("Traceback, relative to the corpus"),
    },
    "units": {
        "unit_id": W("Identity of the unit"),
        "sessions": W("Sessions in it"),
        "segments": W("Segments in it, kept and rejected"),
        "seconds": W("Audio in it", "s"),
        "fingerprint": W("Fingerprint of the settings that made it"),
        "at": W("Time of the commit", "UTC"),
    },
    "stages": {
        "stage": W("Name of the stage"),
        "busy_s": W("Time that its actors worked, added over units and actors", "s"),
        "units": W("Units that it worked on"),
    },
    "funnel": {
        "outcome": W("`quarantined`, `silence`, `rejected`, `kept` or `unaccounted`"),
        "reason": W("The first reason of rejected segments, otherwise the outcome"),
        "segments": W("Segments whose first reason it is"),
        "seconds": W("Their time", "s"),
        "segments_any": W("Segments that it speaks against, whichever reason is first"),
        "seconds_any": W("Their time", "s"),
        "share": W("Share of `seconds` in all recorded time", "0-1"),
    },
    "catalog_info": {
        "state": W("Hash of all that the views were built from"),
        "root": W("Folder of the corpus when they were built"),
        "schema_version": W("Version of the columns"),
    },
}

_DESCRIBE = re.compile(r'\s*(?:describe|desc)\s+(?:table\s+|view\s+)?(?:main\.)?"?(\w+)"?\s*;?\s*', re.IGNORECASE)


def comments_sql() -> str:
    """SQL that gives every view and every column its comment."""
    lines = [f"COMMENT ON VIEW {view} IS {_quote(words)};" for view, words in VIEW_WORDS.items()]
    for view, columns in COLUMN_WORDS.items():
        lines += [f'COMMENT ON COLUMN {view}."{name}" IS {_quote(str(words))};' for name, words in columns.items()]
    return "\n".join(lines)


def with_comments(sql: str) -> str:
    """`describe VIEW` as a SELECT that shows the comments too, which DuckDB's own leaves out; other SQL as it is."""
    found = _DESCRIBE.fullmatch(sql)
    if found is None or found.group(1).lower() not in COLUMN_WORDS:
        return sql
    return (
        "SELECT column_name, data_type AS column_type, comment FROM duckdb_columns() "
        f"WHERE table_name = '{found.group(1).lower()}' ORDER BY column_index"
    )


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
