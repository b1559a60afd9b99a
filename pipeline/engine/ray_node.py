"""Start Ray on this machine, or join a cluster."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_ATTEMPTS = 3
_TOO_SLOW = "timed out during startup"
"""Part of the message of the bare Exception that `ray.init` raises if the node did not come up."""

_ASK_S = 15.0

log = logging.getLogger(__name__)


def start_ray(**options: Any) -> None:
    """Call `ray.init` with `options`, up to three times if this machine is too busy for Ray.

    Ray gives the agents of a node 15 seconds to start and has no setting for it. Raises what `ray.init` raises.
    """
    for left in reversed(range(_ATTEMPTS)):
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except Exception as error:
            if _TOO_SLOW not in str(error) or not left:
                raise
            # The processes of the failed start end with this process.
            log.warning("Ray did not start in time because this machine is busy; starting it again")


def join_ray(address: str | None) -> bool:
    """Start or join Ray, unless this process has already done so. Return True if it was started or joined."""
    if ray.is_initialized():
        return False
    # Without "local", Ray would join any cluster that another user runs on this machine.
    start_ray(address=address or os.environ.get("RAY_ADDRESS") or "local")
    return True


def cluster_resources(address: str) -> tuple[float, float]:
    """Return (CPUs, GPUs) of the cluster at an address. Raises ConnectionError if there is none."""
    joined = join_ray(address)
    try:
        there = ray.cluster_resources()
    finally:
        if joined:
            ray.shutdown()
    return there.get("CPU", 0.0), there.get("GPU", 0.0)


@ray.remote(num_cpus=0, max_retries=0)
def _alive() -> bool:
    return True


def node_answers(node: str) -> bool:
    """Return True if a node of the cluster still answers. Ray's list of nodes lags by up to half a minute, so the node is
    asked."""
    if not any(entry["NodeID"] == node and entry["Alive"] for entry in ray.nodes()):
        return False
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    try:
        return bool(ray.get(_alive.options(scheduling_strategy=where).remote(), timeout=_ASK_S))
    except RayError:
        return False
