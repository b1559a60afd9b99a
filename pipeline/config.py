"""Settings of `voxmill prepare`: one group of keys per stage, thresholds and the engine, on top of a profile."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model, field_validator, model_validator

from annotators.providers import provider
from catalogs.corpus.thresholds import Thresholds
from catalogs.extensions import ExtensionError
from catalogs.settings import SettingsError, load_settings, parse_yaml, validate_settings
from catalogs.vocabulary.licenses import allowed_sql
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.inputs.rights import RightsRule
from pipeline.inputs.store_access import Stores
from pipeline.stages import stage_class
from pipeline.stages.chain import AddedStage, Chain, chain_fault, make_chain
from pipeline.voice.encoders import EncoderName
from pipeline.voice.purity import LEAST_PURITY

#: Stages that compute or compare voiceprints. All use one encoder: a threshold has no meaning for another encoder's
#: cosines.
ENCODER_STAGES: tuple[str, ...] = ("find_turns", "embed_speaker", "mine_references")


class EngineConfig(BaseModel):
    """How the stages are run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: Literal["ray", "inline"] = "ray"
    address: str | None = None
    """Ray cluster to join; None starts one on this machine for the run."""
    actors: dict[str, int] = Field(default_factory=dict)
    """Actors per group, by the name of the group's first stage, e.g. {transcribe: 2}. A group that is not listed gets as
    many as the cores and GPUs allow."""
    cpus_per_actor: float = Field(0.2, gt=0)
    """Fraction of a CPU that each actor reserves. The sum over all actors must stay below the node's CPUs; otherwise all
    are scaled down."""
    gpus: dict[str, float] = Field(default_factory=dict)
    """GPU share per actor of a group, e.g. {transcribe: 0.5}."""
    in_flight: int | None = Field(None, ge=1)
    """Sessions that are processed at once. None: actors + 1."""
    attempts: int = Field(3, ge=1)
    """Number of runs that try a recording if it fails because of the machine (a store's time-out, the network, memory, a
    lost worker)."""
    timeout_s: float = Field(3600.0, gt=0)
    """Seconds that a stage may take for one recording or segment. After that its worker is killed, which counts as a
    strike."""
    timeouts: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """The same limit for single stages, by name, e.g. {transcribe: 600}."""


class SourceConfig(BaseModel):
    """What is known about the sources in addition to their files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: Literal["folder", "file"] = "folder"
    """Which recordings form a session: those of one folder, or each file separately. A session that a manifest names takes
    precedence."""
    session_s: float = Field(7200.0, gt=0)
    """Maximum seconds of recordings that go through the stages together. A longer session is processed in parts (`talks`,
    `talks#2` ...), in order of file names. The audio of one part is held in memory: 115 MB per hour."""
    largest_gb: float = Field(8.0, gt=0)
    """Maximum GB that one recording of an archive, a table or a URL may unpack to. A larger one is refused before it is
    unpacked."""
    language: str | None = None
    """Language of all sources for which a manifest gives none. None: it is detected."""
    rights: tuple[RightsRule, ...] = ()
    """What is stated of recordings by their paths, e.g. [{match: "/data/talks/*", license: CC-BY-4.0}]. Rules are applied in their
    order: a later one wins, and a rule wins over what came with a recording. `--rights FILE` reads them from a file."""
    licenses: tuple[str, ...] = ("any",)
    """Licenses that recordings are taken with: SPDX identifiers, globs such as CC-BY-*, or the words `commercial`, `stated` and
    `any`. Others are refused with their reason; recordings that are in the corpus already stay."""

    @field_validator("licenses")
    @classmethod
    def _licenses_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        allowed_sql(value)
        return value


class PrepareConfig(BaseModel):
    """All settings except those of the stages. `load_config` adds one field per stage, with the stage's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Literal["small", "studio"] = "small"
    name: str = "corpus"
    """Name of the corpus, written to corpus.json when the corpus is created."""
    unit_s: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Seconds of audio after which a group of sessions is committed together. `auto`: such that a run has about 20,000
    units, each 10 minutes to 9 hours. The seconds of the run are estimated from the bytes of its files and a few headers of
    each kind. It may change from run to run: a corpus does not depend on it."""
    speaker_encoder: EncoderName = "ge2e"
    """Encoder of the voiceprints of all stages. Every threshold on their cosines depends on it."""
    sources: SourceConfig = Field(default_factory=lambda: SourceConfig())
    describe: str = "acoustic"
    """Annotator that describes the kept segments when all sessions are committed. Give its name, its entry point
    (`voxmill.annotators`) or `module:Class`; or `none`. `voxmill describe` runs other annotators later."""
    stages: tuple[AddedStage, ...] = ()
    """Stages of other packages, e.g. [{stage: "my_package.pauses:Pauses", after: transcribe}]. The settings of each are
    under its name, as for the built-in stages."""
    thresholds: Thresholds = Field(default_factory=Thresholds)
    engine: EngineConfig = Field(default_factory=lambda: EngineConfig())

    REMOVED: ClassVar[dict[tuple[str, str], str]] = {
        ("transcribe", "batch_size"): "segments are recognized one by one, because batches were not faster"
    }
    """Settings of stages that no longer exist, and why. Files and `--set` may still name them: they are ignored."""
    _ignored: list[str] = PrivateAttr(default_factory=list)

    @property
    def ignored(self) -> list[str]:
        """One line for each removed setting that was given."""
        return list(self._ignored)

    @model_validator(mode="before")
    @classmethod
    def _hand_out_encoder(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        encoder = values.get("speaker_encoder", cls.model_fields["speaker_encoder"].default)
        stages = {name: values.get(name) or {} for name in ENCODER_STAGES}
        limits = values.get("thresholds") or {}
        if encoder in LEAST_PURITY and isinstance(limits, dict):
            values = values | {"thresholds": {"min_speaker_purity": LEAST_PURITY[encoder]} | limits}
        return values | {n: {"encoder": encoder} | own if isinstance(own, dict) else own for n, own in stages.items()}

    @model_validator(mode="after")
    def _one_encoder(self) -> PrepareConfig:
        for name in ENCODER_STAGES:
            own = getattr(self, name).encoder if hasattr(self, name) else self.speaker_encoder
            if own != self.speaker_encoder:
                raise ValueError(
                    f"{name}.encoder is {own}, the other stages' is {self.speaker_encoder}: all stages compare the same "
                    f"voice prints; set speaker_encoder: {own} instead"
                )
        return self

    @model_validator(mode="after")
    def _chain_holds(self) -> PrepareConfig:
        # On a cluster, this process may run on a small machine that only drives the others.
        memory = math.inf if self.engine.address else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if fault := chain_fault(self.chain.kinds(), memory):
            raise ValueError(fault)
        if self.describe != "none":
            provider(self.describe)
        return self

    @property
    def chain(self) -> Chain:
        """The stages of this run in order."""
        return make_chain(self.stages)

    def stage(self, name: str) -> StageSpec:
        """The stage with its settings."""
        return StageSpec(self.chain.place(name), getattr(self, name))

    def stores(self) -> Stores:
        """Return the limits for requests to stores, from the settings of `decode`."""
        stores: Stores = self.decode.stores()  # type: ignore[attr-defined]
        return stores

    def groups(self) -> list[StageGroup]:
        """Return the chain as groups of stages, sized by the engine's settings. Raises SettingsError if a setting names an
        unknown group or stage, or if a stage requires a GPU that its actors do not get."""
        known = {group[0] for group in self.chain.groups}
        for key, table in (("actors", self.engine.actors), ("gpus", self.engine.gpus)):
            for name in table:
                if name not in known:
                    raise SettingsError(f"setting engine.{key}: no group {name}; groups: {', '.join(sorted(known))}")
        for name in self.engine.timeouts:
            if name not in self.chain.names:
                raise SettingsError(f"setting engine.timeouts: no stage {name}; stages: {', '.join(self.chain.names)}")
        self._check_devices()
        return [
            StageGroup(
                stages=tuple(self.stage(name) for name in group),
                actors=self.engine.actors.get(group[0], 0),
                cpus=self.engine.cpus_per_actor,
                gpus=self.engine.gpus.get(group[0], 0.0),
                timeout_s=self.engine.timeout_s,
                timeouts={n: limit for n, limit in self.engine.timeouts.items() if n in group},
            )
            for group in self.chain.groups
        ]

    def _check_devices(self) -> None:
        """Raise SettingsError if a stage requires a GPU that its actors would not get."""
        if self.engine.executor != "ray":
            return
        for group in self.chain.groups:
            asking = [name for name in group if getattr(getattr(self, name), "device", "auto") == "cuda"]
            if asking and not self.engine.gpus.get(group[0]):
                raise SettingsError(
                    f"setting {asking[0]}.device: cuda needs a share of a GPU; give one with engine.gpus.{group[0]}=0.2"
                )

    def weights(self) -> list[str]:
        """Names of all weights the stages will use, each once, in order of use."""
        names: dict[str, None] = {}
        for stage in self.chain.names:
            for name in self.stage(stage).build().weights():
                names[name] = None
        return list(names)


class _Staged(PrepareConfig):
    """Settings with a field per stage."""

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], PrepareConfig], tuple[dict[str, Any]]]:
        """Pickle the values: the class is made from the stages, so another process must make it again."""
        return _built, (self.model_dump(),)


def _with_stages(base: type[PrepareConfig], names: Iterable[str], chain: Chain) -> type[PrepareConfig]:
    """Return `base` with one field per stage, named like the stage. Raises SettingsError if a setting has that name
    already."""
    types = {name: stage_class(chain.place(name)).config_type for name in names}
    if taken := types.keys() & base.model_fields.keys():
        raise SettingsError(f"setting stages: {taken.pop()} is the name of a setting; give the stage another name")
    fields: dict[str, Any] = {name: (kind, Field(default_factory=kind)) for name, kind in types.items()}
    return create_model("PrepareConfig", __base__=base, **fields)


StagedConfig: type[PrepareConfig] = _with_stages(_Staged, make_chain(()).names, make_chain(()))


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> PrepareConfig:
    """Return the settings: the profile's recipe, then the YAML file, then `--set` overrides. Raises SettingsError."""
    overrides = list(overrides)
    asked = load_settings(_Anything, path, overrides).model_dump()
    profile = asked.get("profile", "small")
    recipe = files("pipeline.stages") / "recipes" / f"{profile}.yaml"
    if not recipe.is_file():
        raise SettingsError(f"no profile {profile!r}; profiles: small, studio")
    values = _merge(parse_yaml(recipe.read_text(encoding="utf-8"), recipe.name), asked)
    ignored = _drop_removed(values)
    config = _built(values)
    config._ignored = ignored
    return config


def _built(values: dict[str, Any]) -> PrepareConfig:
    """Return the settings with a field per stage, those of other packages included. Raises SettingsError."""
    added = validate_settings(_Added, {"stages": values.get("stages", ())}).stages
    try:
        chain = make_chain(added)
    except ExtensionError as error:
        raise SettingsError(f"setting stages: {error}") from error
    return validate_settings(_with_stages(StagedConfig, chain.places, chain) if added else StagedConfig, values)


def _drop_removed(values: dict[str, Any]) -> list[str]:
    """Remove settings that no longer exist, in place; return one line for each."""
    lines = []
    for (stage, key), reason in PrepareConfig.REMOVED.items():
        own = values.get(stage)
        if isinstance(own, dict) and key in own:
            del own[key]
            lines.append(f"setting {stage}.{key} is ignored: {reason}; remove it")
    return lines


class _Added(BaseModel):
    """The setting that determines which other settings exist."""

    stages: tuple[AddedStage, ...]


class _Anything(BaseModel):
    """Accepts every key: the YAML file and the overrides are merged onto the recipe first and validated afterwards."""

    model_config = ConfigDict(extra="allow")


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
