"""The number of actors per group of stages and the CPUs that each reserves, from the resources of the machine or cluster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pipeline.engine.worker import StageGroup
from pipeline.stage import LoadError
from pipeline.stages import stage_class

MOST_PROMISED = 0.9
"""Maximum share of the CPUs that actors may reserve. With every CPU reserved, Ray has none left to start the next worker
and hangs without a message."""
_ACTORS_PER_CPU = 4
_SPARE = 0.1
"""Fraction of an actor that a group may lack: one actor too many costs its memory, one too few leaves a core idle."""


def size_pools(groups: Sequence[StageGroup], cpus: float, gpus: float) -> list[StageGroup]:
    """Return the groups with `actors` filled in if it is 0 (automatic).

    The stages' declared `resources.cpus` are the shares of a core that they use when one actor of each runs. Each group
    gets at least one actor, and enough that all groups are equally busy on `cpus` cores. Groups with a GPU share get one
    actor for each whole set of shares that fits on the GPUs.
    """
    needs = [sum(stage_class(spec.name).resources.cpus for spec in group.stages) for group in groups]
    on_cpu = sum(need for need, group in zip(needs, groups, strict=True) if not group.gpus) or 1.0
    on_gpu = sum(group.gpus for group in groups) or 1.0
    sized = []
    for need, group in zip(needs, groups, strict=True):
        actors = group.actors or max(1, int(gpus / on_gpu) if group.gpus else math.ceil(need * cpus / on_cpu - _SPARE))
        sized.append(replace(group, actors=actors))
    return sized


def fit_promises(groups: Sequence[StageGroup], cpus: float, gpus: float) -> list[StageGroup]:
    """Return the groups with their reserved CPUs scaled down if together they would take all of `cpus`.

    Reservations only serve Ray's accounting; the number of threads of a stage is a separate setting. Raises LoadError if
    too many actors are requested to scale sensibly, or more GPUs than there are.
    """
    asked_gpus = sum(group.actors * group.gpus for group in groups)
    if asked_gpus > gpus + 1e-6:
        raise LoadError(
            f"the stages ask for {asked_gpus:g} GPUs and Ray has {gpus:g}; "
            "lower engine.gpus or engine.actors, or choose profile: small, which needs none"
        )
    asked = sum(group.actors * group.cpus for group in groups)
    actors = sum(group.actors for group in groups)
    if asked <= MOST_PROMISED * cpus:
        return list(groups)
    if cpus <= 0 or actors > len(groups) + _ACTORS_PER_CPU * cpus:
        raise LoadError(
            f"the stages ask for {asked:g} CPUs ({actors} actors) and Ray has {cpus:g}; "
            "lower engine.actors or engine.cpus_per_actor"
        )
    # Ray counts CPUs in units of 1/10,000.
    scale = MOST_PROMISED * cpus / asked
    return [replace(group, cpus=max(0.001, int(group.cpus * scale * 1000) / 1000)) for group in groups]
