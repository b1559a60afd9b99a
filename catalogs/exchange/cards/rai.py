"""The RAI keys of Croissant, and the same facts as sections of the card. What is not known is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from catalogs.exchange.cards.limits import DATA_LIMITS, INTENDED_DATA, OUT_OF_SCOPE
from catalogs.exchange.cards.markdown import hours, said

_TEXT_SOURCES = {
    "asr": "recognized by a machine",
    "given": "came with the recordings",
    "repaired": "came with the recordings, corrected at their ends by a machine",
    "human": "corrected by a person",
    "": "without a text",
}


@dataclass(frozen=True)
class StageUse:
    """A stage that made a corpus: its name and version, and the weights that it used with the start of their digests."""

    stage: str
    version: str
    models: Mapping[str, str]

    def words(self) -> str:
        """Return it in one line."""
        models = ", ".join(f"{name} (sha256 {digest[:16]})" for name, digest in self.models.items())
        return f"{self.stage}, version {self.version}" + (f", with {models}" if models else "")


def rai(
    facts: Mapping[str, Any], stages: Sequence[StageUse] | None = None, contact: str | None = None
) -> dict[str, str | list[str]]:
    """Return the values of the RAI extension by key. facts: of `cards.facts`. stages: None if they are not known."""
    return {
        "dataCollection": collection(facts),
        "dataCollectionMissingData": missing(facts),
        "dataCollectionRawData": raw(facts),
        "dataPreprocessingProtocol": protocol(facts, stages),
        "dataAnnotationProtocol": annotation(facts),
        "machineAnnotationTools": tools(facts, stages),
        "dataBiases": biases(facts),
        "dataUseCases": list(INTENDED_DATA),
        "dataLimitations": [*DATA_LIMITS, *(f"Out of scope: {line}" for line in OUT_OF_SCOPE)],
        "dataSocialImpact": "Speech synthesis can give people a voice, and can imitate a person without their agreement.",
        "personalSensitiveInformation": personal(facts),
        "dataReleaseMaintenancePlan": f"Requests to remove a voice: {contact}" if contact else "",
    }


def collection(facts: Mapping[str, Any]) -> str:
    """Say how much was read, and that the rest is not recorded."""
    read = facts["recordings"]
    return (
        f"{read['count']:,} recordings in {read['sessions']:,} sessions, {hours(read['seconds'])} h, read from files. Who "
        "recorded them, when and for what is not recorded beyond the stated credits and addresses."
    )


def missing(facts: Mapping[str, Any]) -> str:
    """Say what of the recordings is not in the clips, by reason."""
    lost = {row["reason"]: row["seconds"] or 0.0 for row in facts["funnel"] if row["outcome"] != "kept"}
    return f"Left out of the recordings, by first reason: {said(lost)}." if lost else ""


def raw(facts: Mapping[str, Any]) -> str:
    """Say of which kind the recordings were."""
    read = facts["recordings"]
    lowest, highest = read["sample_rates"]
    if lowest is None:
        return ""
    rates = f"{lowest:,} Hz" if lowest == highest else f"{lowest:,} to {highest:,} Hz"
    return f"Sample rates {rates}; codecs by hours: {said(read['codecs'])}."


def protocol(facts: Mapping[str, Any], stages: Sequence[StageUse] | None) -> list[str]:
    """Say which stages made the clips with which models, and which thresholds they passed."""
    limits = {name: value for name, value in facts["thresholds"].items() if value not in (None, [], {}, "")}
    lines = [f"Threshold {name}: {_value(value)}" for name, value in sorted(limits.items())]
    if not facts["settings"]:
        return ["The clips were imported as they are: no stage of voxmill measured them.", *lines]
    if stages is None:
        return ["Versions of the stages and models: not known here.", *lines]
    return [*(stage.words() for stage in stages), *lines]


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def annotation(facts: Mapping[str, Any]) -> list[str]:
    """Say where texts, voices and descriptions are from."""
    texts = {_TEXT_SOURCES.get(key, key): seconds for key, seconds in facts["text_sources"].items()}
    lines = [f"Texts by hours: {said(texts)}."] if texts else []
    lines.append(
        "A voice is a cluster of voiceprints within one session; gender is measured from pitch and vocal tract."
    )
    return lines


def tools(facts: Mapping[str, Any], stages: Sequence[StageUse] | None) -> list[str]:
    """Name the models that annotated clips."""
    models = {name: digest for stage in stages or () for name, digest in stage.models.items()}
    lines = [f"{name} (sha256 {digest[:16]})" for name, digest in models.items()]
    for row in facts["descriptions"]:
        model = f" {row['model']}" if row["model"] else ""
        lines.append(f"{row['annotator']}{model}: descriptions of {row['clips']:,} clips")
    return lines


def biases(facts: Mapping[str, Any]) -> list[str]:
    """Say how uneven the clips are."""
    lines = [f"Hours by language: {said(facts['languages'])}."]
    genders = {key or "not measured": seconds for key, seconds in facts["genders"].items()}
    if set(genders) != {"not measured"}:
        lines.append(f"Hours by measured gender: {said(genders)}.")
    if facts["synthetic_seconds"]:
        lines.append(f"{hours(facts['synthetic_seconds'])} h were spoken by a model.")
    return [*lines, "Nothing was done to balance them. Age, region and health of the speakers are not recorded."]


def personal(facts: Mapping[str, Any]) -> list[str]:
    """Say what is known of the people."""
    lines = ["Voices are personal data, and texts may hold names."]
    if facts["owner_speakers"]:
        lines.append(f"Owners name {facts['owner_speakers']:,} speakers by pseudonyms, which are not listed here.")
    lines += personal_words(facts["consents"])
    if facts["purposes"]:
        lines.append(f"Purposes that owners name, by hours: {said(facts['purposes'])}.")
    return lines


def personal_words(consents: Mapping[str, float], synthetic_s: float = 0.0) -> list[str]:
    """Say on what ground voices were used. consents: seconds by stated consent, "" if none is stated."""
    lines = [f"Stated consent by hours: {said(consents)}." if any(consents) else "No consent is stated."]
    return lines + ([f"{hours(synthetic_s)} h of it were spoken by a model."] if synthetic_s else [])
