"""`launch: ray`: the same `train(config)` in one worker a rank on a Ray cluster.

The second file that may import Ray besides the pipeline's engine: it places processes, no data goes through it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from trainer.config import TrainConfig, TrainError
from trainer.ranks import check_shares, chosen_ranks
from trainer.result import TrainResult
from trainer.signals import ask_to_stop, flag_on_signal

_POLL_S = 0.5
_PLACING_S = 600.0


class _Rank:
    """One worker: an actor on a machine of the cluster. `run` and `heard` may be called at the same time."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def address(self) -> tuple[str, int]:
        """The address of its machine, and a port that is free there now."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return host, int(probe.getsockname()[1])

    def heard(self) -> list[str]:
        """What was said since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def stop(self) -> None:
        """As SIGTERM does elsewhere."""
        ask_to_stop()

    def run(self, values: dict[str, Any], environment: dict[str, str]) -> tuple[str, Any]:
        """("done", the result's fields) or ("failed" | "peer", one line)."""
        from trainer.loop import train
        from trainer.ranks import PeerError

        os.environ.update(environment)
        try:
            return "done", asdict(train(TrainConfig.model_validate(values), lambda line: self._lines.append(line)))
        except PeerError as error:
            return "peer", str(error)
        except Exception as error:  # it crosses to the driver as words: its class may not be there
            ours = type(error).__module__.split(".")[0] in ("trainer", "voxcpm", "catalogs") or isinstance(
                error, OSError
            )
            return "failed", str(error) if ours else f"{type(error).__name__}: {error}"


def train_on_ray(config: TrainConfig, say: Callable[[str], None]) -> TrainResult:
    """Train with `config.workers` ranks on a cluster; the paths in the config must be seen by all its machines.

    SIGTERM and SIGINT here stop all ranks in good order. Raises TrainError when a rank fails or its machine dies (the same call
    goes on from the last checkpoint), or when the cluster has no room.
    """
    import ray
    from ray.exceptions import RayError

    check_shares(config, chosen_ranks(config, 0, config.workers, 0))
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    own = not ray.is_initialized()
    if own:
        try:
            ray.init(address=config.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise TrainError(f"no Ray cluster at {config.address}: {error}; start one with: ray start --head") from None
    gpus = config.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
    bundle = {"CPU": 1.0, "GPU": 1.0} if gpus else {"CPU": 1.0}
    group = placement_group([bundle] * config.workers, strategy="PACK")
    actors: list[Any] = []
    try:
        _check_room(config, bundle, ray.cluster_resources())
        if not group.wait(_PLACING_S):
            raise TrainError(
                f"the cluster was too busy for {config.workers} ranks for {_PLACING_S:.0f} s; try again later"
            )
        actor = ray.remote(_Rank)
        actors = [
            actor.options(
                num_cpus=1,
                num_gpus=1 if gpus else 0,
                max_concurrency=3,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            ).remote()
            for rank in range(config.workers)
        ]
        host, port = ray.get(actors[0].address.remote())
        values = config.model_copy(update={"launch": "here"}).model_dump(mode="json")
        shared = {"WORLD_SIZE": str(config.workers), "MASTER_ADDR": host, "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
        calls = [actor.run.remote(values, shared | {"RANK": str(rank)}) for rank, actor in enumerate(actors)]
        return TrainResult(**_follow(ray, actors, calls, say))
    except RayError as error:
        words = str(error).strip().splitlines()[0]
        raise TrainError(f"a rank was lost ({words}); run again: it goes on from the last checkpoint") from None
    finally:
        for one in actors:
            ray.kill(one)
        remove_placement_group(group)
        if own:
            ray.shutdown()


def _check_room(config: TrainConfig, bundle: dict[str, float], there: dict[str, float]) -> None:
    for kind, each in bundle.items():
        if each * config.workers > there.get(kind, 0):
            raise TrainError(
                f"{config.workers} ranks need {each * config.workers:.0f} {kind}, the cluster has {there.get(kind, 0):.0f}: set"
                f" workers={there.get(kind, 0) / each:.0f}"
            )


def _follow(ray: Any, actors: list[Any], calls: list[Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Pass on what the first rank says until all have ended; returns its result."""
    waiting, told_to_stop = list(calls), False
    answers: dict[Any, tuple[str, Any]] = {}
    with flag_on_signal() as asked:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_S)
            for line in ray.get(actors[0].heard.remote()):
                say(line)
            if asked() and not told_to_stop:
                told_to_stop = True
                ray.get([actor.stop.remote() for actor in actors])
            for call in done:
                answers[call] = ray.get(call)
                if answers[call][0] == "failed":
                    # The others learn of it by themselves unless it was too early for them to have met.
                    time.sleep(_POLL_S)
                    raise TrainError(f"rank {calls.index(call)}: {answers[call][1]}")
    for line in ray.get(actors[0].heard.remote()):
        say(line)
    result: dict[str, Any] = answers[calls[0]][1]
    return result
