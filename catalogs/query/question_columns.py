"""The macros for questions about a corpus (questions.sql), declared once: what each answers, and its columns."""

from __future__ import annotations

from catalogs.corpus.columns import BOOL, INTEGER, SEGMENT, TEXT, Column
from catalogs.corpus.thresholds import RULES, Rule

#: Columns of `segments` that a macro can group by.
FIELDS = tuple(
    column.name
    for column in SEGMENT
    if column.type in (TEXT, BOOL, INTEGER)
    and column.name not in ("segment_id", "seq", "text", "other_text", "audio_sha256", "kept", "duplicate_of")
)
#: The rules by the score that they limit.
SCORES: dict[str, list[Rule]] = {rule.column: [r for r in RULES if r.column == rule.column] for rule in RULES}

_FIELD = "Fields: " + ", ".join(FIELDS) + "."
_VALUE = Column("value", None, "Value of the field; null if it is unknown")

#: What each macro answers. Parameters stand with their defaults.
QUESTION_WORDS: dict[str, str] = {
    "hours": f"hours(field := 'language'): segments and hours, found and kept, by a field of `segments`. {_FIELD}",
    "losses": "losses(field := 'language'): where the hours of each value of a field went: `kept`, or the first reason. Fields as"
    " those of hours().",
    "balance": "balance(field := 'speaker'): how evenly the kept hours are spread over the values of a field. Fields as those of"
    " hours().",
    "worst": "worst(score := 'dnsmos_ovr', clips := 20): the kept clips nearest to their threshold or furthest beyond it. Scores: "
    + ", ".join(SCORES)
    + ".",
    "pairs": "pairs(segment := ''): the references of a segment, and the segments that it is a reference of.",
    "between_annotators": "between_annotators(): how often two annotators gave a clip the same attribute, as they answered and"
    " without what either was unsure of. Of more than 10,000 common clips, a fixed part of about that many counts.",
    "similar_voices": "similar_voices(voice := '', voices := 10): the voices nearest to that of a speaker or a segment by measured"
    " pitch and vocal tract, over kept clips. The catalog holds no speaker embedding: `voxmill show` compares these.",
    "what_if": "what_if(threshold := 'min_dnsmos_ovr', new_limit := 3.0): hours gained and lost if one threshold had another limit"
    " (null: off), in all and by language. Thresholds: " + ", ".join(rule.setting for rule in RULES) + ".",
    "coverage": "coverage(): how many clips each annotator described, and how many of these descriptions were verified.",
}

#: The columns of each macro.
QUESTION_COLUMNS: dict[str, tuple[Column, ...]] = {
    "hours": (
        _VALUE,
        Column("segments", None, "Number of segments, kept and rejected"),
        Column("hours", None, "Their time", "h"),
        Column("kept_segments", None, "Number of kept segments"),
        Column("kept_hours", None, "Their time", "h"),
        Column("share", None, "Share in all kept hours", "0-1"),
    ),
    "losses": (
        _VALUE,
        Column("reason", None, "The first reason of rejected segments, otherwise `kept`"),
        Column("segments", None, "Number of segments"),
        Column("hours", None, "Their time", "h"),
        Column("share", None, "Share in the hours of this value", "0-1"),
    ),
    "balance": (
        Column("values", None, "Number of different values"),
        Column("largest", None, "Value with the most hours"),
        Column("largest_share", None, "Its share in the kept hours of all known values", "0-1"),
        Column("top_10_share", None, "Share of the ten largest", "0-1"),
        Column("top_100_share", None, "Share of the hundred largest", "0-1"),
        Column("entropy", None, "Entropy of the shares", "bits"),
        Column("effective", None, "Number of equally large values that would have this entropy"),
        Column("hours", None, "Kept time of all known values", "h"),
        Column("unknown_hours", None, "Kept time without a value", "h"),
    ),
    "worst": (
        Column("segment_id", None, "The clip"),
        Column("value", None, "Its score"),
        Column("language", None, "Its language"),
        Column("speaker", None, "Its voice"),
        Column("duration_s", None, "Its length", "s"),
        Column("source_id", None, "Its recording"),
        Column("start_s", None, "Its start in the recording", "s"),
    ),
    "pairs": (
        Column(
            "role", None, "`reference` (of the segment that was asked for) or `spoken` (with that segment as reference)"
        ),
        Column("segment_id", None, "The other segment"),
        Column("cosine", None, "Cosine similarity of the two voices", "-1 to 1"),
        Column("gap", None, "`seq` of the spoken segment minus that of its reference"),
        Column("kept", None, "Whether the other segment is kept"),
        Column("language", None, "Its language"),
        Column("speaker", None, "Its voice"),
        Column("duration_s", None, "Its length", "s"),
    ),
    "between_annotators": (
        Column("annotator", None, "The first annotator, by name"),
        Column("other_annotator", None, "The second one"),
        Column("attribute", None, "Attribute that both gave"),
        Column("clips", None, "Clips that are compared"),
        Column("agree", None, "Share of equal answers", "0-1"),
        Column("kappa", None, "Cohen's kappa: agreement beyond chance; null if both gave one answer only", "-1 to 1"),
    ),
    "similar_voices": (
        Column("speaker", None, "Another voice"),
        Column("distance", None, "Distance of the mean pitch and formant", "standard deviations"),
        Column("gender", None, "Its gender"),
        Column("segments", None, "Its kept segments"),
    ),
    "what_if": (
        Column("language", None, "Language; `all` for the whole corpus, `unknown` if it has none"),
        Column("hours_now", None, "Kept now", "h"),
        Column("hours_gained", None, "Rejected now for this reason alone, kept with the new limit", "h"),
        Column("hours_lost", None, "Kept now, rejected with the new limit", "h"),
        Column("hours_then", None, "Kept with the new limit", "h"),
        Column("segments_gained", None, "Segments gained"),
        Column("segments_lost", None, "Segments lost"),
    ),
    "coverage": (
        Column("annotator", None, "Who wrote the descriptions"),
        Column("clips", None, "Clips that it was asked about"),
        Column("described", None, "Those with a description (status `ok`)"),
        Column("share", None, "Share of the kept segments that it describes", "0-1"),
        Column("verified", None, "Descriptions that were compared with evidence"),
        Column("checks", None, "Claims in `checks`"),
    ),
}
