"""How many actors each group of stages gets, and what each may be promised, from what the machine or cluster has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pipeline.engine.worker import StageGroup
from pipeline.stage import LoadError
from pipeline.stages import stage_class

MOST_PROMISED = 0.9
"""Share of the CPUs that may be promised to actors. With every CPU promised, Ray has none left to start the next worker
on and hangs without a word."""
_ACTORS_PER_CPU = 4
_SPARE = 0.1
"""Part of an actor that a group may want for: one too many costs its memory, one too few leaves a core idle."""


def size_pools(groups: Sequence[StageGroup], cpus: float, gpus: float) -> list[StageGroup]:
    """The groups with `actors` filled in where it is 0 (automatic).

    The stages' declared `resources.cpus` are the shares of a core that they are busy for when one actor of each runs.
    Each group gets at least one actor, and enough that on `cpus` cores all are busy alike. Groups with a GPU share get one
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
    """The groups with their CPU promises scaled down where together they would take the whole of `cpus`.

    Promises only keep Ray's books; how many threads a stage runs is its own setting. Raises LoadError if too many actors
    are asked for to scale sensibly, or more GPUs than there are.
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
    # Ray counts in ten thousandths.
    scale = MOST_PROMISED * cpus / asked
    return [replace(group, cpus=max(0.001, int(group.cpus * scale * 1000) / 1000)) for group in groups]
