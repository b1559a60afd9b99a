"""Every column of a corpus, declared once: its type, its unit, its meaning, and its value for joined segments.

Derived from these declarations are the Arrow schemas (`catalogs.corpus.schema`), the comments in DuckDB, the tables in
docs/corpus.md, the fields of a segment in the pipeline and the join rules. Columns are only added, at the end of their list:
readers fill columns that older files lack with null. Unless a name says otherwise, times are in seconds, levels in dB, rates in Hz.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, get_type_hints

import pyarrow as pa

from catalogs.vocabulary.voices import CLOSED, LISTS

TEXT, TEXTS, BOOL = pa.string(), pa.list_(pa.string()), pa.bool_()
FLOAT, DOUBLE, INTEGER, BIGINT = pa.float32(), pa.float64(), pa.int32(), pa.int64()
TIME = pa.timestamp("ms", tz="UTC")
EXTRA = pa.struct([("name", TEXT), ("value", DOUBLE)])
WORD = pa.struct([("word", TEXT), ("start", FLOAT), ("end", FLOAT), ("p", FLOAT)])
# `binary`, not `large_binary`: with large_binary `datasets` silently degrades the Audio feature to a plain struct.
AUDIO = pa.struct([("bytes", pa.binary()), ("path", TEXT)])
ATTRIBUTES = pa.struct(
    [
        ("gender", TEXT),
        ("age", TEXT),
        ("accent", TEXT),
        ("texture", TEXTS),
        ("emotion", TEXT),
        ("intensity", FLOAT),
        ("rate", TEXT),
        ("pitch", TEXT),
        ("energy", TEXT),
        ("scenario", TEXT),
    ]
)
CAPTIONS = pa.list_(pa.struct([("register", TEXT), ("language", TEXT), ("text", TEXT)]))
LABELS = pa.struct(
    [
        *((name, TEXT) for name in (*CLOSED, "accent", "scenario")),
        *((name, TEXTS) for name in (*LISTS, "emphasis")),
    ]
)


@dataclass(frozen=True)
class Column:
    """A column. `type` is None if only a view has it; `unit` is a unit or a range, empty if it has none.

    optional: whether a file may lack it, because it was written before the column was added; readers find null there.
    histogram: title of its chart in the report, None if it has none.
    """

    name: str
    type: pa.DataType | None
    meaning: str
    unit: str = ""
    optional: bool = False
    histogram: str | None = None

    @property
    def words(self) -> str:
        """Meaning and unit, as in DuckDB's comment."""
        return f"{self.meaning} [{self.unit}]" if self.unit else self.meaning


class Join(Enum):
    """Value of a measure for a clip that is joined from several segments (`pipeline.speech.join`)."""

    UNKNOWN = "null: to be measured of the clip itself"
    SAME = "that of all parts: segments that differ in it are not joined"
    FIRST = "that of the first part"
    LAST = "that of the last part"
    MEAN = "the mean by the number of words"
    MEAN_BY_TIME = "the mean by duration"
    GREATEST = "the greatest"
    LEAST = "the least"
    TEXT = "the texts, one after the other"
    FROM_TEXT = "computed of the joined text"


def _measure(
    meaning: str, unit: str = "", joined: Join = Join.UNKNOWN, default: Any = None, histogram: str | None = None
) -> Any:
    about = {"meaning": meaning, "unit": unit, "optional": True, "histogram": histogram}
    return field(default=default, metadata={"column": about, "joined": joined})


@dataclass(kw_only=True)
class Measures:
    """What stages measure of a segment: the fields of `pipeline.records.Segment` that are columns of the same name."""

    language: str | None = _measure("Language code (ISO 639); null if unknown", joined=Join.SAME)
    language_p: float | None = _measure("Probability of the language", "0-1", joined=Join.MEAN)
    text: str | None = _measure("Transcript for training", joined=Join.TEXT)
    text_source: str | None = _measure(
        "`asr` (recognized), `given` (came with the recording), `repaired` (given, corrected at its ends) or `human` (corrected by"
        " a person)",
        joined=Join.SAME,
    )
    asr_logprob: float | None = _measure(
        "Mean log probability of a recognized token",
        "nats",
        joined=Join.MEAN,
        histogram="Log probability of the recognizer",
    )
    no_speech_p: float | None = _measure("Probability of no speech, from the recognizer", "0-1", joined=Join.GREATEST)
    compression_ratio: float | None = _measure("gzip ratio of the text: high in repetition loops", joined=Join.GREATEST)
    agreement_cer: float | None = _measure(
        "Character error rate between two passes of recognition",
        "0 = equal",
        joined=Join.GREATEST,
        histogram="Disagreement of two transcripts",
    )
    other_text: str | None = _measure("The text that was not used: given or recognized", joined=Join.TEXT)
    given_cer: float | None = _measure(
        "Character error rate between the given and the recognized text", "0 = equal", joined=Join.MEAN
    )
    given_gain: float | None = _measure(
        "How much the audio supports the given text", "nats per token", joined=Join.MEAN
    )
    dnsmos_sig: float | None = _measure("DNSMOS P.835, quality of the voice", "1-5")
    dnsmos_bak: float | None = _measure("DNSMOS P.835, quality of the background", "1-5")
    dnsmos_ovr: float | None = _measure("DNSMOS P.835, overall quality", "1-5", histogram="DNSMOS overall")
    snr_db: float | None = _measure("Level of the speech above the noise", "dB", histogram="Signal to noise")
    clipping: float | None = _measure("Share of samples at full scale", "0-1")
    bandwidth_hz: float | None = _measure("Highest frequency that holds signal", "Hz")
    loudness_lufs: float | None = _measure("Integrated loudness (EBU R 128)", "LUFS", histogram="Loudness")
    chars_per_s: float | None = _measure(
        "Characters of text per second of speech", "1/s", joined=Join.FROM_TEXT, histogram="Speaking rate"
    )
    head_silence_s: float | None = _measure("Silence before the voice", "s")
    tail_silence_s: float | None = _measure("Silence after the voice", "s")
    head_edge: float | None = _measure(
        "Voice in the first 30 ms: 0 is the background, 1 the level of the speech", joined=Join.FIRST
    )
    tail_edge: float | None = _measure(
        "Voice in the last 30 ms: 0 is the background, 1 the level of the speech", joined=Join.LAST
    )
    clicks_per_s: float | None = _measure("Clicks per second", "1/s", joined=Join.MEAN_BY_TIME)
    separated: bool = _measure("Whether the voice was separated from music or noise", joined=Join.SAME, default=False)
    speaker: str | None = _measure("Voice: a cluster within the session", joined=Join.SAME)
    speaker_purity: float | None = _measure(
        "Cosine between the part that differs most and the rest: low if there are two voices",
        "-1 to 1",
        joined=Join.LEAST,
        histogram="Speaker purity",
    )
    gender: str | None = _measure("Gender of the voice, by its pitch and its vocal tract; null if they leave it open")
    gender_p: float | None = _measure("Probability of the gender", "0-1")
    age: str | None = _measure("Age group of the voice")
    age_p: float | None = _measure("Probability of the age group", "0-1")
    emotion: str | None = _measure("Emotion")
    emotion_p: float | None = _measure("Probability of the emotion", "0-1")
    expressive_p: float | None = _measure("How expressive: ranks clips, not a probability of any one emotion", "0-1")
    pitch_hz: float | None = _measure("Median pitch", "Hz", histogram="Pitch")
    pitch_range_st: float | None = _measure("Pitch from the 10th to the 90th percentile", "semitones")
    rate_sps: float | None = _measure("Syllables per second of speech", "1/s", joined=Join.FROM_TEXT)
    energy_db: float | None = _measure("Level of the speech", "dB of full scale")
    gain_db: float | None = _measure(
        "Gain that brings it to the target loudness without clipping; not applied to the stored audio", "dB"
    )
    reverb_s: float | None = _measure("Time in which reverberation falls by 60 dB", "s")
    audio_sha256: str | None = _measure("sha256 of the samples")
    pitch_low_hz: float | None = _measure("Lower quartile of the pitch: close to where the voice rests", "Hz")
    formant_hz: float | None = _measure(
        "Median fourth formant, which depends on the length of the vocal tract; null in narrow-band audio", "Hz"
    )
    effort_db: float | None = _measure(
        "Level of 1-5 kHz relative to that below 1 kHz in voiced sound: rises with vocal effort, whatever the gain",
        "dB",
    )
    voiced_share: float | None = _measure("Share of the clip that is voiced sound; low in whispered speech", "0-1")

    @staticmethod
    def columns() -> tuple[Column, ...]:
        """Return the measures as columns, in order."""
        types = {str | None: TEXT, float | None: FLOAT, bool: BOOL}
        hints = get_type_hints(Measures)
        return tuple(Column(f.name, types[hints[f.name]], **f.metadata["column"]) for f in dataclasses.fields(Measures))

    @staticmethod
    def joining() -> dict[str, Join]:
        """Return the join rule of each measure."""
        return {f.name: f.metadata["joined"] for f in dataclasses.fields(Measures)}


_DUPLICATES = (
    Column("duplicate_of", TEXT, "First segment with this audio (or text); null for the first itself"),
    Column("duplicate_kind", TEXT, "`exact`, `reencode`, `part` or `same_text`"),
    Column(
        "duplicate_group", TEXT, "First of all segments that are linked in any way: keep a group on one side of a split"
    ),
)

#: Columns of every segment, kept and rejected.
SEGMENT = (
    Column("segment_id", TEXT, "Identity of the segment, from its recording, its times and the settings"),
    Column("session_id", TEXT, "Session of its recording"),
    Column("source_id", TEXT, "Its recording (`recordings.source_id`)"),
    Column("seq", INTEGER, "Position among the segments of its session, from 0"),
    Column("start_s", DOUBLE, "Start, from the start of the recording", "s"),
    Column("end_s", DOUBLE, "End, from the start of the recording", "s"),
    Column("duration_s", DOUBLE, "Length", "s", histogram="Duration"),
    Column("sample_rate", INTEGER, "Sample rate of the stored audio, that of the recording", "Hz"),
    *Measures.columns(),
    *_DUPLICATES,
    Column("flags", TEXTS, "What stages noted; a reason against it if the threshold `drop_flags` names it"),
    Column("kept", BOOL, "Whether it passes the thresholds and every hard rule"),
    Column("reasons", TEXTS, "Why it is not kept, the first that applies first"),
    Column("license", TEXT, "License of its recording"),
    Column(
        "extra",
        pa.list_(EXTRA),
        "Measures of stages of other packages by name, e.g. `extra['longest_pause_s']`; a list of name and value in the files",
        optional=True,
    ),
    Column("synthetic", BOOL, "Whether a model spoke it (`voxmill decouple`); null: no", optional=True),
)
#: Columns that only the index has: where the audio is.
PLACE = (
    Column("shard", TEXT, "File of the corpus that holds its audio; null if it has none"),
    Column("row", INTEGER, "Row in the shard, from 0"),
)
#: Columns that only the shards have: too large for an index. Times in `words` are from the start of the segment.
HEAVY = (
    Column("words", pa.list_(WORD), "Words with their times from the start of the segment", "s"),
    Column("embedding", pa.list_(FLOAT), "Speaker embedding, of unit length"),
    Column("audio_print", pa.binary(), "Audio fingerprint (`pipeline.duplicates.audio_print`), uint16"),
    Column("audio", AUDIO, "The clip as FLAC"),
)
#: Result of the duplicate search over the whole corpus. It fills the columns of the same names in the index, which are null there.
DUPLICATES = (
    Column("segment_id", TEXT, "Identity of the segment, from its recording, its times and the settings"),
    *_DUPLICATES,
)
#: What is stated of the rights to a recording, beside its license. Nothing of it is inferred.
RIGHTS = (
    Column(
        "license_source",
        TEXT,
        "Who states the license: `manifest`, `sidecar` (a file beside it in its container), `rules` (of the run) or `corpus`",
        optional=True,
    ),
    Column("attribution", TEXT, "Credit to give, as its author words it", optional=True),
    Column("source_url", TEXT, "Page or address that it was published at, without secrets", optional=True),
    Column(
        "consent",
        TEXT,
        "Ground on which the voice may be used: `explicit`, `license`, `public-domain`, `employment`, `none` or `unknown`",
        optional=True,
    ),
    Column("purposes", TEXTS, "Uses that the owner names, such as `tts-training` or `research`", optional=True),
    Column("owner_speaker", TEXT, "The data owner's own pseudonym for the speaker, across sessions", optional=True),
)
#: duration_s = silence_s + the sum of the recording's segments, kept and rejected. Every second is accounted for.
RECORDINGS = (
    Column("source_id", TEXT, "Identity of the recording, from its content and session"),
    Column("path", TEXT, "Where it was read from: a path, a URL without secrets, or a member of a container"),
    Column(
        "session_id",
        TEXT,
        "Recordings made together: the folder, or what a manifest says; `#2` is a later part of a long session",
    ),
    Column("duration_s", DOUBLE, "Length", "s"),
    Column("sample_rate", INTEGER, "Sample rate of the file", "Hz"),
    Column("channels", INTEGER, "Channels of the file"),
    Column("codec", TEXT, "Codec of the file"),
    Column("bytes", BIGINT, "Size of the file", "bytes"),
    Column("license", TEXT, "License as an SPDX identifier or `LicenseRef-...`; null if nobody states one"),
    Column("status", TEXT, "`ok`, `empty` (no speech found) or `quarantined`"),
    Column("silence_s", DOUBLE, "Time that is in no segment", "s"),
    Column("content_sha256", TEXT, "sha256 of its content"),
    Column("marks", TEXTS, "What it says of itself: `marked_synthetic`, `no_training`", optional=True),
    *RIGHTS,
)
REFERENCES = (
    Column("segment_id", TEXT, "The segment to be spoken"),
    Column("reference_id", TEXT, "The segment that is its reference"),
    Column("cosine", FLOAT, "Cosine similarity of the two voices", "-1 to 1"),
    Column("gap", INTEGER, "The segment's `seq` minus that of the reference; never 1"),
)
DESCRIPTIONS = (
    Column("segment_id", TEXT, "The described segment"),
    Column("annotator", TEXT, "Who described it"),
    Column("model", TEXT, "Model of the annotator"),
    Column("prompt_version", TEXT, "Version of the prompt or of the rules"),
    Column("language", TEXT, "Language of the description"),
    Column("brief", TEXT, "Description in a few words"),
    Column("full", TEXT, "Description in full"),
    Column(
        "attributes",
        ATTRIBUTES,
        "Single traits: gender, age, accent, texture, emotion, intensity, rate, pitch, energy, scenario",
    ),
    Column(
        "verdict", TEXT, "What measurements say of it: `agree`, `repaired` or `dropped`; null if it was not compared"
    ),
    Column("disagreements", TEXTS, "Traits on which the measurements disagree with it"),
    Column("tokens_in", BIGINT, "Tokens sent to the annotator", "tokens"),
    Column("tokens_out", BIGINT, "Tokens received from the annotator", "tokens"),
    Column("cost_usd", DOUBLE, "Price of the call", "US dollars"),
    Column("status", TEXT, "`ok` or the reason of the failure"),
    Column("style", TEXT, "Description of the delivery only, without the voice's identity", optional=True),
    Column("persona", TEXT, "The voice as a role and its situation", optional=True),
    Column(
        "captions",
        CAPTIONS,
        "All captions: register (`brief`, `style`, `full`, `persona`), language of the text, text",
        optional=True,
    ),
    Column(
        "labels",
        LABELS,
        "All attributes in closed vocabularies (`catalogs.vocabulary.voices`); `unsure` if two listeners could differ",
        optional=True,
    ),
    Column("evidence", TEXT, "What the annotator heard that led to its answer", optional=True),
    Column("model_version", TEXT, "Model that answered, as its service names it", optional=True),
    Column("pass_key", TEXT, "Identity of the question: audio, model, prompt, schema and settings", optional=True),
    Column(
        "answered",
        TEXT,
        "The annotator's own description as JSON, if `voxmill verify` changed it; null if it stands as it was given",
        optional=True,
    ),
)
#: What `voxmill verify` found: one row per claim of a description that evidence could speak to.
CHECKS = (
    Column("segment_id", TEXT, "The described segment"),
    Column("annotator", TEXT, "Who described it"),
    Column("attribute", TEXT, "Attribute of the claim, or `leak`"),
    Column("claimed", TEXT, "Value that was claimed; `not VALUE` for a denial"),
    Column("found", TEXT, "Value by the evidence; null if it only refutes"),
    Column("source", TEXT, "Measured column, expert or vote that it was compared with; null if there was none"),
    Column("p", FLOAT, "Probability that the evidence is right", "0-1"),
    Column("state", TEXT, "`agree`, `contradict` or `unchecked`"),
    Column(
        "action",
        TEXT,
        "`none`, `value` (the attribute was set), `phrase` (one phrase was exchanged), `rendered` (the caption was written"
        " again), `caption_dropped` or `dropped` (the whole description)",
    ),
    Column("where", TEXT, "`json` or `prose`"),
    Column("register", TEXT, "Register of the caption; null for `json`"),
    Column("language", TEXT, "Language of the caption; null for `json`"),
)
#: What people said of segments (`voxmill browse`): one row per mark, none is ever changed.
MARKS = (
    Column("mark_id", TEXT, "Identity of the mark"),
    Column("segment_id", TEXT, "The marked segment"),
    Column("unit", TEXT, "Unit of the segment"),
    Column("by", TEXT, "Person who marked it"),
    Column("at", TIME, "Time of the mark", "UTC"),
    Column("verdict", TEXT, "`keep` or `drop`; null if the person left that open"),
    Column("text", TEXT, "Corrected text; null if the person did not change it"),
    Column(
        "words", pa.list_(WORD), "Corrected words with their times from the start of the segment; null likewise", "s"
    ),
    Column("note", TEXT, "Remark of the person"),
    Column("undoes", TEXT, "The mark that this row takes back; such a row says nothing else"),
)
DECOUPLED = (
    Column("segment_id", TEXT, "The clip that was made"),
    Column("described_id", TEXT, "The segment whose description it follows"),
    Column("timbre_id", TEXT, "The segment whose timbre it has"),
    Column("text", TEXT, "Its text"),
    Column("cer", FLOAT, "Character error rate of the clip against its text", "0 = equal"),
    Column("cosine", FLOAT, "Cosine similarity to the voice of the timbre", "-1 to 1"),
    Column("accepted", BOOL, "Whether it is good enough for training"),
    Column("source_cosine", FLOAT, "Cosine similarity to the voice of the described segment", "-1 to 1", optional=True),
    Column(
        "voice_margin",
        FLOAT,
        "Cosine similarity to the described segment's voice minus that to the most similar other voice of the corpus",
        "-2 to 2",
        optional=True,
    ),
    Column("pitch_st", FLOAT, "Its median pitch above that of the described segment", "semitones", optional=True),
    Column("range_st", FLOAT, "Its pitch range minus that of the described segment", "semitones", optional=True),
    Column(
        "rate_octaves", FLOAT, "Its syllables per second over those of the described segment", "octaves", optional=True
    ),
    Column("energy_db", FLOAT, "Level of its speech minus that of the described segment", "dB", optional=True),
    Column("expressive", FLOAT, "Its `expressive_p` minus that of the described segment", "-1 to 1", optional=True),
    Column(
        "faults",
        TEXTS,
        "`silent`, `never_ended`, `stops_early`, `repeats`, `tail`: faults that no bound excuses",
        optional=True,
    ),
    Column(
        "reasons",
        TEXTS,
        "Why it is not accepted: its faults, the bounds that it breaks, or `below_thresholds`, `another_attempt`, `source_gone`",
        optional=True,
    ),
    Column("text_id", TEXT, "The segment that its text is from", optional=True),
    Column("pair_id", TEXT, "Identity of the described segment and the text: the same for all attempts", optional=True),
    Column("caption", TEXT, "Description that the model was given; null if only the reference was", optional=True),
    Column("attempt", INTEGER, "Number of the attempt, from 1", optional=True),
    Column("seed", BIGINT, "Seed of its noise", optional=True),
    Column("model", TEXT, "Digest of the checkpoint that made it", optional=True),
    Column("ending", TEXT, "Why it ended: `stop`, `max_len` or `context`", optional=True),
    Column("relatedness", FLOAT, "How related its text is to that of the described segment", "0-1", optional=True),
    Column("distance_rule", TEXT, "Rule that judged the distance of the texts", optional=True),
)
QUARANTINE = (
    Column("path", TEXT, "The file or member that failed"),
    Column("source_id", TEXT, "Its recording; null if it failed before it was one"),
    Column("stage", TEXT, "Stage that it failed in"),
    Column("error", TEXT, "Reason of the failure"),
    Column("attempts", INTEGER, "Workers that it cost in one run, otherwise 1"),
    Column("at", TIME, "Time of the failure", "UTC"),
    Column("cause", TEXT, "`data` (the recording), `machine` (tried again by the next run) or `bug`", optional=True),
    Column("runs", INTEGER, "Runs in a row that ended with this cause", optional=True),
    Column("version", TEXT, "Version of the code that failed", optional=True),
    Column("log", TEXT, "Traceback, relative to the corpus", optional=True),
)
UNITS = (
    Column("unit_id", TEXT, "Identity of the unit"),
    Column("sessions", INTEGER, "Sessions in it"),
    Column("segments", BIGINT, "Segments in it, kept and rejected"),
    Column("seconds", DOUBLE, "Audio in it", "s"),
    Column("fingerprint", TEXT, "Fingerprint of the settings that made it"),
    Column("at", TIME, "Time of the commit", "UTC"),
)
