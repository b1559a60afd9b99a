"""Rights to recordings: license, attribution, source, consent, purposes and the owner's name of the speaker.

They are what manifests, tables, files beside a recording and the rules of a run state. Nothing is inferred: what nobody states
is missing, and each license is recorded with who states it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import translate
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from catalogs.settings import SettingsError, load_yaml, validate_settings
from catalogs.urls import public
from catalogs.vocabulary.licenses import allowed
from catalogs.vocabulary.rights import NO_RIGHTS, RIGHTS_NAMES, Rights, purposes_of, rights_of
from catalogs.words import counted
from pipeline.records import Source
from pipeline.stage import StageError


class LicenseError(StageError):
    """The license of a recording is not one that the run takes."""


class ForgottenError(StageError):
    """A recording was forgotten (`voxmill forget`): no run takes it again."""


class RightsRule(BaseModel):
    """What the recordings that match are stated to be. A license of a rule is `license_source: rules`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str
    """Glob on the recorded path (`recordings.path`), all of it: `*` and `?` match slashes, too, and case matters."""
    license: str | None = None
    attribution: str | None = None
    source_url: str | None = None
    consent: str | None = None
    purposes: tuple[str, ...] = ()
    owner_speaker: str | None = None

    @field_validator("match")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("give a pattern, e.g. /data/talks/* or *")
        return value

    @field_validator("purposes", mode="before")
    @classmethod
    def _a_list_or_a_text(cls, value: Any) -> Any:
        return purposes_of(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _states_something(self) -> RightsRule:
        # Raises for a consent that is not known.
        if self.rights() == NO_RIGHTS:
            raise ValueError(f"the rule for {self.match} states nothing: give one of {', '.join(RIGHTS_NAMES)}")
        return self

    def as_written(self) -> dict[str, Any]:
        """Return the fields that are given, as plain values."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def rights(self) -> Rights:
        """Return what the rule states."""
        return rights_of(self.model_dump(exclude={"match"}), "rules")


def load_rules(path: str | Path) -> list[RightsRule]:
    """Return the rules of a YAML file: a list of {match: PATTERN, license: ..., consent: ...}. Raises SettingsError with one
    line that names the rule."""
    try:
        loaded = load_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the rules {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, list) or not all(isinstance(one, dict) for one in loaded):
        raise SettingsError(
            f"{path} must hold a list of rules such as - {{match: '/data/talks/*', license: CC-BY-4.0}}"
        )
    rules = []
    for number, one in enumerate(loaded, start=1):
        try:
            rules.append(validate_settings(RightsRule, one))
        except SettingsError as error:
            raise SettingsError(f"{path}, rule {number}: {error}") from None
    return rules


class RightsDesk:
    """Decides the rights of the recordings of a run, and which recordings it takes.

    Rules are applied in their order, field by field: a later rule wins over an earlier one, and a rule over what came with the
    recording. The license of the corpus is used where nobody states one.
    """

    def __init__(
        self,
        rules: Sequence[RightsRule] = (),
        licenses: Sequence[str] = ("any",),
        of_corpus: str | None = None,
        is_committed: Callable[[str], bool] = lambda source: False,
        forgotten: Mapping[str, str] | None = None,
    ) -> None:
        """licenses: those that the run takes (`catalogs.vocabulary.licenses.allowed`). is_committed: whether a source id is in the
        corpus already; such a recording is not refused for its license. forgotten: ids of tombstones by content hash."""
        self._forgotten = forgotten or {}
        self._rules = [(re.compile(translate(rule.match)), rule.rights()) for rule in rules]
        self._matches = [rule.match for rule in rules]
        self._met: set[int] = set()
        self._licenses, self._is_committed = licenses, is_committed
        self._of_corpus = rights_of({"license": of_corpus}, "corpus")
        self._changed: list[str] = []
        self._refused: Counter[str] = Counter()
        self._stay = 0
        self._verdicts: dict[str | None, bool] = {}

    def settled(self, source: Source) -> Source:
        """Return a source with its rights. Raises LicenseError or ForgottenError if the run does not take it."""
        if (tombstone := self._forgotten.get(source.content_sha256)) is not None:
            raise ForgottenError(f"it was forgotten and is not taken again (tombstones/{tombstone}.json)")
        rights = source.rights
        place = public(source.path) if self._rules else ""
        for number, (pattern, stated) in enumerate(self._rules):
            if pattern.match(place):
                self._met.add(number)
                rights = stated.over(rights)
        if rights.license_source == "rules" and source.rights.license not in (None, rights.license):
            self._changed.append(place)
        rights = rights.over(self._of_corpus)
        if not self._takes(rights.license):
            if not self._is_committed(source.source_id):
                self._refused[rights.license or ""] += 1
                raise LicenseError(self._refusal(rights.license))
            self._stay += 1
        return source if rights == source.rights else replace(source, rights=rights)

    def _takes(self, license: str | None) -> bool:
        if license not in self._verdicts:
            self._verdicts[license] = allowed(license, self._licenses)
        return self._verdicts[license]

    def _refusal(self, license: str | None) -> str:
        asked = f"sources.licenses: {', '.join(self._licenses)}"
        if license is None:
            return f"no license is stated, and this run takes only recordings with one ({asked})"
        return f"its license {license} is not one that this run takes ({asked})"

    def notices(self, places: Iterable[str]) -> list[str]:
        """Return what to say when all recordings are settled. places: paths or locations of all recordings of the run, also those
        that others process."""
        lines = []
        if self._refused:
            parts = [f"{count} {name or 'without a license'}" for name, count in self._refused.most_common(5)]
            more = ", ..." if len(self._refused) > 5 else ""
            lines.append(
                f"refused for their license ({', '.join(self._licenses)}): {counted(self._refused.total(), 'recording')} "
                f"({', '.join(parts)}{more}); a later run takes them if a manifest or --rights states one that is allowed"
            )
        if self._stay:
            lines.append(
                f"in the corpus already, with a license that is not allowed now: {counted(self._stay, 'recording')}; they stay, "
                "training leaves them out with data.licenses"
            )
        if self._changed:
            lines.append(
                f"rules state another license than came with {counted(len(self._changed), 'recording')}, e.g. {self._changed[0]}: "
                "the rules count"
            )
        if unmet := [number for number in range(len(self._rules)) if number not in self._met]:
            seen = [public(place) for place in places]
            for number in unmet:
                if not any(self._rules[number][0].match(place) for place in seen):
                    example = f", e.g. {min(seen)}" if seen else ""
                    lines.append(
                        f"rule {number + 1} of the rights matches no recording: {self._matches[number]} is compared with whole "
                        f"paths{example}"
                    )
        return lines
