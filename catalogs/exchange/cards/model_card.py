"""The card of a checkpoint or an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogs.exchange.cards import attribution
from catalogs.exchange.cards.attribution import attribution_lines
from catalogs.exchange.cards.hub import license_head
from catalogs.exchange.cards.limits import INTENDED_MODEL, MODEL_LIMITS, OUT_OF_SCOPE, watermark_words
from catalogs.exchange.cards.markdown import bullets, cell, section, table
from catalogs.exchange.cards.model_facts import ModelFacts, drawn, model_credits, model_facts
from catalogs.exchange.cards.rai import personal_words
from catalogs.exchange.cards.write import Card
from catalogs.lineage.record import Lineage
from catalogs.vocabulary.licenses import canonical, summary

UNKNOWN = "Unknown training data: the folder has no lineage.json."


@dataclass(frozen=True)
class ModelOptions:
    """What a person says of a model, since nothing else knows it.

    license: of the weights; None: the card has none, since none follows from the data. watermark: `public`, `none` or the id of a
    private key. evaluation: a section of results in Markdown. corpora: folders of the corpora, for their credits.
    """

    name: str | None = None
    license: str | None = None
    contact: str | None = None
    languages: Sequence[str] = ()
    base_model: str | None = None
    datasets: Sequence[str] = ()
    watermark: str = "public"
    evaluation: str = ""
    corpora: Sequence[Path] = ()


def model_card(folder: Path, options: ModelOptions) -> tuple[Card, list[str]]:
    """Return the card of a model, and notices. Raises CardError, LineageError or CorpusError, in one line."""
    facts = model_facts(folder, options.name)
    files: dict[str, Callable[[], Iterable[str]]] = {}
    notices: list[str] = []
    lineage = facts.lineage
    if lineage is not None and options.corpora:
        credits, missing = model_credits(lineage, options.corpora)
        files[attribution.FILE] = lambda: attribution_lines(facts.name, credits)
        if missing:
            notices.append(
                f"{missing:,} recordings of the lineage are in none of the given corpora: no credit is known for them"
            )
    elif lineage is not None and lineage.corpora:
        notices.append(f"no {attribution.FILE}: give the corpora that the model was trained on with --corpus")
    if lineage is None:
        notices.append(f"{folder} has no lineage.json: the card says that the training data is unknown")
    return Card(_head(facts, options), _body(facts, options, bool(files)), files), notices


def _head(facts: ModelFacts, options: ModelOptions) -> dict[str, Any]:
    head: dict[str, Any] = {
        "language": list(options.languages),
        **(license_head([canonical(options.license)]) if options.license else {}),
        "library_name": "voxcpm",
        "pipeline_tag": "text-to-speech",
        "base_model": options.base_model or _hub_parent(facts.lineage),
        "datasets": list(options.datasets),
        "tags": ["voxmill", "text-to-speech", *(["lora"] if facts.kind.startswith("adapter") else [])],
    }
    return {key: value for key, value in head.items() if value not in ([], None)}


def _hub_parent(lineage: Lineage | None) -> str | None:
    """Return the parent's name if it looks like one of the Hub: `owner/name`."""
    names = [one.name for one in (lineage.parents if lineage else ()) if one.name.count("/") == 1]
    return names[0] if names and not names[0].startswith(("/", ".")) and not names[0].endswith("/") else None


def _body(facts: ModelFacts, options: ModelOptions, with_credits: bool) -> str:
    size = f"{facts.parameters:,} weights" if facts.parameters is not None else "size not known"
    rates = " to ".join(f"{rate:,} Hz" for rate in facts.rates)
    what = (
        f"Text-to-speech, {facts.kind}, {size}{f', {rates}' if rates else ''}. Digest of its files: `{facts.digest}`."
    )
    no_license = (
        "" if options.license else "No license of the weights is stated. None follows from the licenses of the data."
    )
    credits = f"Credits of the recordings: {attribution.FILE}." if with_credits else ""
    sections = [
        f"# {cell(facts.name)}",
        what,
        no_license,
        section("Intended use", bullets(INTENDED_MODEL)),
        section("Out of scope", bullets(OUT_OF_SCOPE)),
        *(_training(facts.lineage) if facts.lineage else [section("Training data", UNKNOWN)]),
        section("Attribution", credits),
        section("Watermark", bullets(watermark_words(options.watermark))),
        section("Evaluation", options.evaluation or "No results are given."),
        section("Limits", bullets(MODEL_LIMITS)),
        section("Contact", f"To have a voice removed: {cell(options.contact)}" if options.contact else ""),
    ]
    return "\n\n".join(part for part in sections if part) + "\n"


def _training(lineage: Lineage) -> list[str]:
    """Return the sections on what a model was trained on, by its lineage."""
    found = drawn(lineage)
    shares = sorted(lineage.licenses.items(), key=lambda item: (-item[1].drawn_hours, item[0]))
    by_license = [
        (_license(name), f"{one.recordings:,}", f"{one.hours:.2f}", f"{one.drawn_hours:.2f}") for name, one in shares
    ]
    corpora = [(one.name, one.fingerprint or "unknown", one.digest) for one in lineage.corpora]
    parents = [
        f"{one.role} {one.name}" + (f", digest `{one.digest}`" if one.digest else ", digest unknown")
        for one in lineage.parents
    ]
    held = lineage.held_out
    facts = [
        f"{found.recordings:,} recordings were used up to step {lineage.step:,}, by this run and its known parents.",
        f"{held.segments:,} segments of {held.recordings:,} recordings ({held.hours:.2f} h) were held out.",
        *(f"Made from: {words}" for words in parents),
        *([] if parents else ["Made from: nothing, its weights were random."]),
        *personal_words(found.consents, found.synthetic_seconds),
        *lineage.notes,
    ]
    obligations = summary({name: one.hours for name, one in lineage.licenses.items()})
    return [
        section(
            "Training data",
            bullets(facts),
            table(("license", "recordings", "hours", "hours in batches"), by_license) if by_license else "",
            table(("corpus", "fingerprint", "digest"), corpora) if corpora else "",
        ),
        section("What is not known of the training data", bullets(lineage.unknown) if lineage.unknown else ""),
        section("Obligations", "The strictest first, as the licenses of the data state them.", bullets(obligations))
        if obligations
        else "",
    ]


def _license(name: str) -> str:
    return "not stated" if name == "NOASSERTION" else name
