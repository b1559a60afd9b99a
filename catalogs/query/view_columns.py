"""The views and the macros of the catalog, declared once: what each holds, and its columns."""

from __future__ import annotations

from catalogs.corpus.columns import (
    CHECKS,
    DECOUPLED,
    DESCRIPTIONS,
    MARKS,
    PLACE,
    QUARANTINE,
    RECORDINGS,
    REFERENCES,
    RIGHTS,
    SEGMENT,
    UNITS,
    Column,
)
from catalogs.query.question_columns import QUESTION_COLUMNS, QUESTION_WORDS

#: Contents of each view of the catalog.
VIEW_WORDS: dict[str, str] = {
    "recordings": "One row per source file (or channel of it): what it is and what became of it.",
    "segments": "One row per segment, kept and rejected, with all its scores. What was not measured is null.",
    "reference_pairs": "Clips of the same voice in the same session that may serve a segment as its reference.",
    "descriptions": "The voice of a segment in words, as annotators wrote it.",
    "checks": "Claims of descriptions that were compared with evidence (`voxmill verify`), in attributes and in prose.",
    "decoupled": "Clips that combine the delivery of a described segment with the timbre of another voice.",
    "marks": "What people said of segments (`voxmill browse`), every mark in the order of time.",
    "quarantine": "What could not be processed, and why.",
    "units": "One row per commit: sessions that were committed together.",
    "stages": "Busy time of every stage.",
    "funnel": "Where every recorded second went: `seconds` add up to the recordings' duration.",
    "catalog_info": "What the views were built from; voxmill rebuilds them when it changes.",
}

#: The columns of each view of the catalog.
VIEW_COLUMNS: dict[str, tuple[Column, ...]] = {
    "recordings": RECORDINGS,
    "segments": (
        *SEGMENT,
        *PLACE,
        Column("path", None, "Path of its recording (`recordings.path`)"),
        Column("human", None, "What people decided: `keep` or `drop`; null if nobody did. It overrides the thresholds"),
        Column("uncorrected_text", None, "The text before a person corrected it; null if nobody did"),
        *RIGHTS,
    ),
    "reference_pairs": REFERENCES,
    "descriptions": DESCRIPTIONS,
    "checks": CHECKS,
    "decoupled": DECOUPLED,
    "marks": (
        *MARKS,
        Column("undone", None, "Whether a later row takes it back"),
        Column("counts", None, "Whether it is the last mark of this person on the segment that was not undone"),
    ),
    "quarantine": QUARANTINE,
    "units": UNITS,
    "stages": (
        Column("stage", None, "Name of the stage"),
        Column("busy_s", None, "Time that its actors worked, added over units and actors", "s"),
        Column("units", None, "Units that it worked on"),
    ),
    "funnel": (
        Column("outcome", None, "`quarantined`, `silence`, `rejected`, `kept` or `unaccounted`"),
        Column("reason", None, "The first reason of rejected segments, otherwise the outcome"),
        Column("segments", None, "Segments whose first reason it is"),
        Column("seconds", None, "Their time", "s"),
        Column("segments_any", None, "Segments that have this reason, first or not"),
        Column("seconds_any", None, "Their time", "s"),
        Column("share", None, "Share of `seconds` in all recorded time", "0-1"),
    ),
    "catalog_info": (
        Column("state", None, "Hash of all that the views were built from"),
        Column("schema_version", None, "Version of the columns"),
    ),
}

_ANNOTATOR = Column("annotator", None, "Who wrote the descriptions")
_ATTRIBUTE = Column("attribute", None, "Attribute of the claim")
_WHERE = Column("where", None, "`json` (the attributes) or `prose` (the captions)")

#: Contents of each table macro of the catalog: `SELECT * FROM confusion()`.
MACRO_WORDS: dict[str, str] = {
    "human_agreement": "How often two people agree on the segments that both marked.",
    "confusion": "What annotators claimed against what the evidence found.",
    "agreement": "How the attributes of descriptions compare with the evidence. The four shares are of the descriptions.",
    "verdicts": "What `voxmill verify` decided, by annotator and spoken language.",
    "repairs": "What became of claims that were contradicted or not allowed in their caption.",
    "discarded": "Clips without a usable description, and why.",
    "voice_consistency": "How often two clips of one voice are described alike. Each clip is compared with the next of its voice;"
    " of more than 10,000 clips, a fixed part of the voices counts.",
    "caption_variety": "Length and variety of the captions, in words, or in characters in scripts without spaces. Of more than"
    " 20,000 clips, a fixed part counts. Length, distinct-2 and openings are of about 1,000 clips at most, because distinct-2"
    " falls with their number.",
    "spending": "What annotators cost, by the model that answered.",
    **QUESTION_WORDS,
}

#: The columns of each table macro.
MACRO_COLUMNS: dict[str, tuple[Column, ...]] = {
    "human_agreement": (
        Column("first", None, "One person"),
        Column("second", None, "The other one"),
        Column("segments", None, "Segments on which both have a verdict"),
        Column("agree", None, "Segments with the same verdict"),
        Column("share", None, "Share of `agree` in `segments`", "0-1"),
        Column("kappa", None, "Cohen's kappa of the verdicts; null if both gave one verdict only", "-1 to 1"),
        Column("texts", None, "Segments whose text both corrected"),
        Column("same_text", None, "Those corrected alike"),
        Column("disputed", None, "Up to ten segments on which they disagree"),
    ),
    "confusion": (
        _ANNOTATOR,
        _ATTRIBUTE,
        _WHERE,
        Column("claimed", None, "Value that was claimed; `not VALUE` for a denial"),
        Column("found", None, "Value by the evidence"),
        Column("claims", None, "Number of claims"),
        Column("contradicted", None, "Those that are outside the tolerance"),
    ),
    "agreement": (
        _ANNOTATOR,
        _ATTRIBUTE,
        Column("descriptions", None, "Descriptions with attributes"),
        Column("unsure", None, "Share whose annotator was unsure; null if the attribute has no such value", "0-1"),
        Column("agree", None, "Share whose attribute agrees with the evidence", "0-1"),
        Column("contradict", None, "Share whose attribute is contradicted", "0-1"),
        Column("unchecked", None, "Share whose attribute no evidence speaks of", "0-1"),
        Column("prose_claims", None, "Claims in captions that evidence speaks of"),
        Column("prose_contradict", None, "Share of these that is contradicted", "0-1"),
    ),
    "verdicts": (
        _ANNOTATOR,
        Column("language", None, "Language that is spoken"),
        Column("descriptions", None, "Descriptions (status `ok`)"),
        Column("agree", None, "Those that stand as they were given"),
        Column("repaired", None, "Those that were changed"),
        Column("dropped", None, "Those that were dropped as a whole"),
        Column("not_compared", None, "Those without a verdict"),
        Column("leaks", None, "Those that repeat words of the clip"),
    ),
    "repairs": (
        _ANNOTATOR,
        _ATTRIBUTE,
        _WHERE,
        Column("action", None, "`checks.action`"),
        Column("claims", None, "Number of claims"),
    ),
    "discarded": (
        _ANNOTATOR,
        Column("outcome", None, "`blocked`, `failed`, `unasked` or, after `voxmill verify`, `dropped`"),
        Column("reason", None, "Kind of the failure, or the contradicted attributes"),
        Column("clips", None, "Number of clips"),
        Column("share", None, "Share in all clips of the annotator", "0-1"),
        Column("example", None, "One of the statuses"),
    ),
    "voice_consistency": (
        _ANNOTATOR,
        Column("voices", None, "Voices with two clips or more"),
        Column("pairs", None, "Pairs of clips that are compared"),
        Column("gender", None, "Share of equal genders, of pairs in which neither is unsure", "0-1"),
        Column("age", None, "Share of equal ages, of pairs in which neither is unsure", "0-1"),
        Column("gender_answered", None, "The same for what the annotator answered, before any repair", "0-1"),
        Column("age_answered", None, "The same for what the annotator answered, before any repair", "0-1"),
        Column("texture", None, "Mean Jaccard index of the textures, of pairs in which one has any", "0-1"),
    ),
    "caption_variety": (
        _ANNOTATOR,
        Column("register", None, "Register of the captions"),
        Column("language", None, "Language of the captions"),
        Column("captions", None, "Number of captions"),
        Column("duplicates", None, "Captions that repeat another one, beyond the first of each text"),
        Column("length", None, "Median length", "words or characters"),
        Column("longest", None, "95th percentile of the length", "words or characters"),
        Column("distinct_2", None, "Different pairs of neighboring words or characters, as a share of all", "0-1"),
        Column("opening", None, "The most frequent first three words or four characters"),
        Column("opening_share", None, "Share of captions that begin so", "0-1"),
    ),
    "spending": (
        _ANNOTATOR,
        Column("model", None, "Model that was asked"),
        Column("model_version", None, "Model that answered, as its service names it"),
        Column("prompt_version", None, "Version of the prompt or of the rules"),
        Column("clips", None, "Clips that were asked about"),
        Column("described", None, "Those with a description (status `ok`)"),
        Column("seconds", None, "Audio of the clips", "s"),
        Column("tokens_in", None, "Tokens sent", "tokens"),
        Column("tokens_out", None, "Tokens received", "tokens"),
        Column("cost_usd", None, "Price, as far as answers were received", "US dollars"),
        Column("usd_per_hour", None, "Price per hour of audio", "US dollars"),
        Column("captions", None, "Captions that can be used"),
        Column("usd_per_1000_captions", None, "Price per thousand of these", "US dollars"),
    ),
    **QUESTION_COLUMNS,
}
