"""The fingerprint of a corpus and the settings that a bound corpus keeps. They do not depend on the weights of one machine."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from catalogs.corpus.commit import CorpusError, corpus_info
from catalogs.extensions import ExtensionError
from catalogs.settings import SettingsError, read_yaml
from catalogs.weights import registry

if TYPE_CHECKING:
    from pipeline.config import PrepareConfig

#: Keys that change speed, or what is refused, but not results. They are left out, so that nothing is processed again on
#: another machine. Marks are what files say of themselves: with or without them, the segments are the same.
RUNTIME_KEYS = frozenset(
    {"threads", "device", "batch_size", "timeout_s", "store_timeout_s", "store_tries", "largest_gb", "read_marks"}
)


#: Keys of `sources` that are left out: what is stated of recordings, and which are refused, changes no segment.
_SOURCE_KEYS = RUNTIME_KEYS | {"rights", "licenses"}


@dataclass(frozen=True)
class Settled:
    """Settings with `separate.mode: auto` decided for the whole run, their fingerprint, and one line to log (or None)."""

    config: PrepareConfig
    fingerprint: str
    notice: str | None = None


def fingerprint(config: PrepareConfig, versions: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return 16 hex digits over everything that determines the output: settings, stage versions, digests of the weights.

    Thresholds are not included: they are a query over recorded scores. `separate.mode: auto` counts as `always`. versions: those
    of stages that a corpus of an earlier version was made with; default: the present ones.
    """
    if _mode(config) == "auto":
        config = _separating(config, "always")
    sources = config.sources.model_dump(mode="json", exclude=set(_SOURCE_KEYS))
    return _hash([["sources", sources], *_stages(config, versions)])


def settle(config: PrepareConfig, root: Path, redo: bool = False) -> Settled:
    """Decide `separate.mode: auto` once for the whole run: as the corpus at `root` is bound, otherwise by this machine's
    weights.

    A corpus that an older version bound keeps its fingerprint, which depended on the weights that were on the machine, and so
    does one that was made with a version of a stage that the present one continues.
    """
    bound = None if redo else _bound(root)
    here = registry.available(_model(config))
    modes = {"auto": ("always", "off") if here else ("off", "always")}.get(_mode(config), (_mode(config),))
    variants = [(mode, _separating(config, mode)) for mode in modes]
    for versions, (mode, variant) in product(_continued(config), variants):
        if bound == fingerprint(variant, versions):
            return Settled(variant, bound, _notice(config, mode, here, root))
    for versions, (mode, variant) in product(_continued(config), variants):
        found = legacy_fingerprint(config, mode == "always", versions)
        if bound is not None and bound == found and _same_sources(config, root):
            return Settled(variant, bound, _notice(config, mode, here, root))
    mode, variant = variants[0]
    return Settled(variant, fingerprint(variant), _notice(config, mode, here, None))


def made_with(root: Path) -> list[tuple[str, str, dict[str, str]]] | None:
    """Return (stage, version, digests of weights by name) of each stage that made a corpus, in order.

    None if this version of voxmill cannot tell: the corpus was made by other stages or models, or it was imported.
    """
    from pipeline.config import load_config

    bound, prepared = _bound(root), root / "prepare.yaml"
    if bound is None or not prepared.is_file():
        return None
    try:
        config = load_config(prepared)
        modes = ("always", "off") if _mode(config) == "auto" else (_mode(config),)
        for versions, mode in product(_continued(config), modes):
            variant = _separating(config, mode)
            if bound == fingerprint(variant, versions):
                return [(part[0], part[1], part[3]) for part in _stages(variant, versions)]
    except (SettingsError, ExtensionError):
        return None
    return None


def _continued(config: PrepareConfig) -> list[dict[str, str]]:
    """Return the combinations of stage versions whose corpora a run continues, the present ones first."""
    kinds = [kind for kind in config.chain.kinds() if kind.continues]
    choices = [[(kind.name, version) for version in (kind.version, *kind.continues)] for kind in kinds]
    return [dict(versions) for versions in product(*choices)]


def legacy_fingerprint(
    config: PrepareConfig, separated: bool, versions: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return the fingerprint as of commit fae81e6: without `sources`, and with the separator's digest only if it was on the
    machine."""
    parts = _stages(_separating(config, "always" if separated else "off"), versions)
    for name, _, settings, _ in parts:
        if name == "separate":
            settings["mode"] = _mode(config)
    return _hash(parts)


def _stages(config: PrepareConfig, versions: Mapping[str, str]) -> list[list[Any]]:
    parts: list[list[Any]] = []
    for name in config.chain.names:
        spec = config.stage(name)
        stage = spec.build()
        settings = {k: v for k, v in spec.config.model_dump(mode="json").items() if k not in RUNTIME_KEYS}
        parts.append(
            [
                config.chain.identity(name),
                versions.get(name, stage.version),
                settings,
                {w: registry.digest(w) for w in stage.weights()},
            ]
        )
    return parts


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _notice(config: PrepareConfig, mode: str, here: bool, bound: Path | None) -> str | None:
    """Return the message about a decision that `auto` left open, or None."""
    if _mode(config) != "auto" or mode == "always":
        return None
    model = _model(config)
    if not here:
        return f"source separation is off: weights {model} are not here (voxmill models pull {model})"
    return (
        f"{shlex.quote(str(bound))} was made without source separation, so it stays off, although weights {model} are now on this "
        "machine; to separate: add --redo (processes all of it again), or another --out"
    )


def _bound(root: Path) -> str | None:
    try:
        bound: str | None = corpus_info(root).get("fingerprint")
    except CorpusError:
        return None  # no corpus yet, or one that the run will refuse with its own message
    return bound


def _same_sources(config: PrepareConfig, root: Path) -> bool:
    """Return True unless the corpus' prepare.yaml has other rules for its sources, which its fingerprint does not cover."""
    written = root / "prepare.yaml"
    try:
        before = read_yaml(written).get("sources") if written.is_file() else None
    except SettingsError:
        return True
    now = config.sources.model_dump(mode="json", exclude=set(_SOURCE_KEYS))
    return not isinstance(before, dict) or all(before.get(name, now[name]) == now[name] for name in now)


def _mode(config: PrepareConfig) -> str:
    return str(config.stage("separate").config.model_dump()["mode"])


def _model(config: PrepareConfig) -> str:
    return str(config.stage("separate").config.model_dump()["model"])


def _separating(config: PrepareConfig, mode: str) -> PrepareConfig:
    own = config.stage("separate").config.model_copy(update={"mode": mode})
    return config.model_copy(update={"separate": own})
