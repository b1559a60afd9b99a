"""The card of clips: of a corpus as it is, or of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from catalogs.exchange.cards import attribution
from catalogs.exchange.cards.hub import creators_head, license_head, size_category
from catalogs.exchange.cards.limits import DATA_LIMITS, INTENDED_DATA, OUT_OF_SCOPE
from catalogs.exchange.cards.markdown import TOP, bullets, cell, hours, hours_table, section, table
from catalogs.exchange.cards.rai import StageUse, annotation, missing, personal, protocol, raw, tools
from catalogs.vocabulary.licenses import summary


def description(facts: Mapping[str, Any]) -> str:
    """Return one sentence on the clips."""
    clips = sum(split["clips"] for split in facts["splits"].values())
    seconds = sum(split["seconds"] for split in facts["splits"].values())
    languages = ", ".join(language for language in list(facts["languages"])[:10] if language) or "unknown"
    return f"{clips:,} clips of transcribed speech, {seconds / 3600:,.2f} hours; languages: {languages}."


def data_head(facts: Mapping[str, Any], configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the head of the card. configs: what `datasets` loads."""
    head: dict[str, Any] = {
        "pretty_name": facts["name"],
        "language": [language for language in facts["languages"] if language][:TOP],
        **license_head(facts["licenses"]),
        "task_categories": ["text-to-speech"],
        "annotations_creators": creators_head(facts["text_sources"]),
        "tags": ["voxmill", "speech"],
        "size_categories": [size_category(sum(split["clips"] for split in facts["splits"].values()))],
        "configs": list(configs),
    }
    return {key: value for key, value in head.items() if value != []}


def data_body(
    facts: Mapping[str, Any],
    origin: str,
    stages: Sequence[StageUse] | None = None,
    contact: str | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the text of the card. origin: where the clips come from, as a section. stages: None if they are not known."""
    obligations = summary({key or None: seconds / 3600 for key, seconds in facts["licenses"].items()})
    credits = [*facts["credits"], f"All credits and sources: {attribution.FILE}."]
    sections = [
        f"# {cell(facts['name'])}",
        facts["description"],
        _splits(facts),
        hours_table("Languages", "language", facts["languages"]),
        hours_table("Gender, as measured", "gender", _stated(facts["genders"])),
        hours_table("Licenses", "license", facts["licenses"]),
        section(
            "Obligations",
            f"The strictest first, as the licenses state them.\n\n{bullets(obligations)}" if obligations else "",
        ),
        section("Attribution", bullets(credits)),
        section("Intended use", bullets(INTENDED_DATA)),
        section("Out of scope", bullets(OUT_OF_SCOPE)),
        section("People", bullets(personal(facts))),
        section("How it was made", bullets([*protocol(facts, stages), *annotation(facts), *tools(facts, stages)])),
        _funnel(facts),
        origin,
        *notes,
        section("Limits", bullets(DATA_LIMITS)),
        section("Contact", f"To have a voice removed: {cell(contact)}" if contact else ""),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def _stated(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return hours by a key, or nothing if the key is never stated."""
    return {key or "unknown": value for key, value in seconds.items()} if any(seconds) else {}


def _splits(facts: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{own['clips']:,}", hours(own["seconds"]), f"{own['speakers']:,}", f"{own['sessions']:,}")
        for name, own in facts["splits"].items()
    ]
    return table(("split", "clips", "hours", "voices", "sessions"), rows)


def _funnel(facts: Mapping[str, Any]) -> str:
    rows = [
        (row["outcome"], row["reason"], f"{row['segments']:,}", hours(row["seconds"] or 0)) for row in facts["funnel"]
    ]
    head = ("outcome", "reason", "segments", "hours")
    return section("What became of the recordings", missing(facts), raw(facts), table(head, rows)) if rows else ""
