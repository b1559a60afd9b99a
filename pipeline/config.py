"""Settings of `voxmill prepare`: one group of keys per stage, a profile beneath them, thresholds and the engine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from annotators.providers import provider
from catalogs.corpus.thresholds import Thresholds
from catalogs.extensions import ExtensionError
from catalogs.settings import SettingsError, load_settings, parse_yaml, validate_settings
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.inputs.store_access import Stores
from pipeline.stages import stage_class
from pipeline.stages.chain import AddedStage, Chain, chain_fault, make_chain
from pipeline.voice.encoders import EncoderName
from pipeline.voice.purity import LEAST_PURITY

#: Stages that make or judge voice prints. One encoder for all: a threshold means nothing for another encoder's cosines.
ENCODER_STAGES: tuple[str, ...] = ("find_turns", "embed_speaker", "mine_references")


class EngineConfig(BaseModel):
    """How the stages are driven."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    executor: Literal["ray", "inline"] = "ray"
    address: str | None = None
    """Ray cluster to join; None starts one on this machine for the run."""
    actors: dict[str, int] = Field(default_factory=dict)
    """Actors per group, by the name of the group's first stage, e.g. {transcribe: 2}; where not given, as many as the
    cores and GPUs bear."""
    cpus_per_actor: float = Field(0.2, gt=0)
    """CPUs promised to each actor: a fraction, as the sum over all actors must stay below the node's CPUs (scaled down
    where it does not)."""
    gpus: dict[str, float] = Field(default_factory=dict)
    """GPU share per actor of a group, e.g. {transcribe: 0.5}."""
    in_flight: int | None = Field(None, ge=1)
    """Sessions on their way at once; None: actors + 1."""
    attempts: int = Field(3, ge=1)
    """Runs that try a recording which failed because of a machine (a store's time-out, the network, memory, a lost worker)."""
    timeout_s: float = Field(3600.0, gt=0)
    """A stage that is at one recording or segment for longer than this is killed, and that is a strike."""
    timeouts: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """The same for single stages, by name, e.g. {transcribe: 600}."""


class SourceConfig(BaseModel):
    """What is known of the sources beyond their files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: Literal["folder", "file"] = "folder"
    """Which recordings were made together: those of a folder, or each file for itself. A manifest's word counts first."""
    session_s: float = Field(7200.0, gt=0)
    """Seconds of recordings that go through the stages together at most: a longer session is done in parts (`talks`,
    `talks#2` ...), in order of file names. The audio of one is held in memory whole, 115 MB an hour."""
    largest_gb: float = Field(8.0, gt=0)
    """GB that one recording of an archive, a table or a URL may unpack to. A larger one is refused before it is unpacked."""
    language: str | None = None
    """Language of all sources for which a manifest says nothing; None: found by listening."""


class PrepareConfig(BaseModel):
    """All settings but the stages' own, which `load_config` adds: one field per stage, named like it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Literal["small", "studio"] = "small"
    name: str = "corpus"
    """Name of the corpus, written to corpus.json when it is made."""
    unit_s: float = Field(600.0, gt=0)
    """Recorded seconds after which a group of sessions is committed together."""
    speaker_encoder: EncoderName = "ge2e"
    """What makes the voice prints of all stages; every threshold on their cosines follows from it."""
    sources: SourceConfig = Field(default_factory=lambda: SourceConfig())
    describe: str = "acoustic"
    """Annotator that describes the kept segments when all is committed: its name, entry point (`voxmill.annotators`) or
    `module:Class`; or `none`. Others run later with `voxmill describe`."""
    stages: tuple[AddedStage, ...] = ()
    """Stages of other packages, e.g. [{stage: "my_package.pauses:Pauses", after: transcribe}]. The settings of each are
    under its name, like those of ours."""
    thresholds: Thresholds = Field(default_factory=Thresholds)
    engine: EngineConfig = Field(default_factory=lambda: EngineConfig())

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
        # On a cluster the machine of this process may be a small one that drives the others.
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
        """How stores are asked, by the settings of `decode`."""
        stores: Stores = self.decode.stores()  # type: ignore[attr-defined]
        return stores

    def groups(self) -> list[StageGroup]:
        """The chain as groups of stages, sized by the engine's settings."""
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
        """Raise SettingsError where a stage insists on a GPU that its actors would not be given."""
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


def _with_stages(base: type[PrepareConfig], names: Iterable[str], chain: Chain) -> type[PrepareConfig]:
    """`base` with one field for each of these stages, named like it."""
    types = {name: stage_class(chain.place(name)).config_type for name in names}
    if taken := types.keys() & base.model_fields.keys():
        raise SettingsError(f"setting stages: {taken.pop()} is the name of a setting; give the stage another name")
    fields: dict[str, Any] = {name: (kind, Field(default_factory=kind)) for name, kind in types.items()}
    return create_model("PrepareConfig", __base__=base, **fields)


StagedConfig: type[PrepareConfig] = _with_stages(PrepareConfig, make_chain(()).names, make_chain(()))


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> PrepareConfig:
    """Settings from the profile's recipe, then the YAML file, then `--set` overrides; raises SettingsError."""
    overrides = list(overrides)
    asked = load_settings(_Anything, path, overrides).model_dump()
    profile = asked.get("profile", "small")
    recipe = files("pipeline") / "recipes" / f"{profile}.yaml"
    if not recipe.is_file():
        raise SettingsError(f"no profile {profile!r}; profiles: small, studio")
    values = _merge(parse_yaml(recipe.read_text(encoding="utf-8"), recipe.name), asked)
    added = validate_settings(_Added, {"stages": values.get("stages", ())}).stages
    try:
        chain = make_chain(added)
    except ExtensionError as error:
        raise SettingsError(f"setting stages: {error}") from error
    return validate_settings(_with_stages(StagedConfig, chain.places, chain) if added else StagedConfig, values)


class _Added(BaseModel):
    """The setting that says which other settings there are."""

    stages: tuple[AddedStage, ...]


class _Anything(BaseModel):
    """Takes every key: the YAML and the overrides are merged onto the recipe first and checked after."""

    model_config = ConfigDict(extra="allow")


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
