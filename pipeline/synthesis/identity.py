"""The checkpoint of a run, and the fingerprint that a corpus of made clips is bound to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from catalogs.weights import registry
from catalogs.weights.checkpoint_files import checkpoint_digest
from pipeline.runs.fingerprint import RUNTIME_KEYS
from pipeline.synthesis.settings import DecoupleSettings

VERSION = 1
"""Increased when the same settings would make other clips."""
_NOT_OF_THE_CLIPS = RUNTIME_KEYS | {"model", "lora", "batch", "bounds"}


def find_model(model: str | Path, lora: str | Path | None = None) -> tuple[Path, str]:
    """Return (folder, digest) of a checkpoint, a folder or a hub id that was fetched before. Raises FileNotFoundError, also for an
    adapter that does not exist."""
    from voxcpm.weights.checkpoint import find_checkpoint

    # `latest` is a link that a training run moves: the folder behind it is what is loaded.
    folder = find_checkpoint(model, None, True, None).resolve()
    if lora and not Path(lora).is_dir():
        raise FileNotFoundError(f"no LoRA adapter at {lora}")
    return folder, checkpoint_digest(folder, Path(lora) if lora else None)


def decouple_fingerprint(settings: DecoupleSettings, digest: str) -> str:
    """Return 16 hex digits over everything that determines the clips and their scores.

    The bounds, the pairing and the number of attempts are not included: they decide which clips are made and accepted.
    """
    parts: list[object] = [VERSION, digest, settings.seed, settings.style]
    for spec in (spec for group in settings.groups() for spec in group.stages):
        stage = spec.build()
        own = {k: v for k, v in spec.config.model_dump(mode="json").items() if k not in _NOT_OF_THE_CLIPS}
        weights = {name: registry.digest(name) for name in stage.weights()}
        parts.append([stage.name, stage.version, own, weights])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
