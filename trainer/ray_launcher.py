"""`launch.backend: ray`: the same `train(config)`, in one worker per rank on a Ray cluster.

Besides the pipeline's engine, only this file may import Ray. It places processes; no data goes through it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from trainer.config import TrainConfig, TrainError
from trainer.result import Progress, TrainResult
from trainer.runtime.ranks import check_shares, chosen_ranks, open_rendezvous
from trainer.runtime.stop_signal import ask_to_stop, flag_on_signal

log = logging.getLogger(__name__)

T = TypeVar("T")
_POLL_S = 0.5
_PLACING_S = 600.0


class _Lines(logging.Handler):
    """Puts what is logged into a queue, from which the driver takes it."""

    def __init__(self, queue: SimpleQueue[str | Progress]) -> None:
        super().__init__()
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put(record.getMessage())


class _Rank:
    """One worker: an actor on a machine of the cluster. `run` and `heard` may be called at the same time."""

    def __init__(self) -> None:
        self._told: SimpleQueue[str | Progress] = SimpleQueue()
        self._rendezvous: Any = None

    def rendezvous(self) -> dict[str, str]:
        """Open the ranks' rendezvous store on this machine; return the environment variables that lead to it."""
        import ray

        self._rendezvous, environment = open_rendezvous(ray.util.get_node_ip_address())
        return environment

    def heard(self) -> list[str | Progress]:
        """Return the messages and the steps since the last call."""
        return drained(self._told)

    def stop(self) -> None:
        """Ask the run to stop, as SIGTERM does without Ray."""
        ask_to_stop()

    def run(self, values: dict[str, Any], environment: dict[str, str], each_step: bool) -> tuple[str, Any]:
        """Train; return ("done", the result's fields) or ("failed" | "peer", one line). each_step: `heard` returns steps, too."""
        from trainer.loop import train_locally
        from trainer.runtime.ranks import PeerError

        os.environ.update(environment)
        logger = logging.getLogger("trainer")
        logger.addHandler(_Lines(self._told))
        logger.setLevel(logging.INFO)
        try:
            on_step = self._told.put if each_step else None
            return "done", asdict(train_locally(TrainConfig.model_validate(values), on_step))
        except PeerError as error:
            return "peer", str(error)
        except Exception as error:  # passed to the driver as text: the driver may not have its class
            ours = type(error).__module__.split(".")[0] in ("trainer", "voxcpm", "catalogs") or isinstance(
                error, OSError
            )
            return "failed", str(error) if ours else f"{type(error).__name__}: {error}"


def drained(queue: SimpleQueue[T]) -> list[T]:
    """Take all items that are in a queue now, in order. Items that a thread adds meanwhile are not lost."""
    found: list[T] = []
    with suppress(Empty):
        while True:
            found.append(queue.get_nowait())
    return found


def train_on_ray(config: TrainConfig, on_step: Callable[[Progress], None] | None = None) -> TrainResult:
    """Train with `config.launch.workers` ranks on a cluster; the paths in the config must be seen by all its machines.
    `on_step` is called in this process, up to half a second after the step.

    SIGTERM and SIGINT in this process make all ranks save and stop. Raises TrainError if a rank fails or its machine dies (the
    same call resumes from the last checkpoint), or if the cluster has no room.
    """
    import ray
    from ray.exceptions import RayError

    check_shares(config, chosen_ranks(config, 0, config.launch.workers, 0))
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    own = not ray.is_initialized()
    if own:
        try:
            ray.init(
                address=config.launch.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise TrainError(
                f"no Ray cluster at {config.launch.address}: {error}; start one with: ray start --head"
            ) from None
    gpus = config.compute.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
    bundle = {"CPU": 1.0, "GPU": 1.0} if gpus else {"CPU": 1.0}
    group = placement_group([bundle] * config.launch.workers, strategy="PACK")
    actors: list[Any] = []
    try:
        _check_room(config, bundle, ray.cluster_resources())
        if not group.wait(_PLACING_S):
            raise TrainError(
                f"the cluster was too busy for {config.launch.workers} ranks for {_PLACING_S:.0f} s; try again later"
            )
        actor = ray.remote(_Rank)
        actors = [
            actor.options(
                num_cpus=1,
                num_gpus=1 if gpus else 0,
                max_concurrency=3,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            ).remote()
            for rank in range(config.launch.workers)
        ]
        shared = ray.get(actors[0].rendezvous.remote()) | {"WORLD_SIZE": str(config.launch.workers), "LOCAL_RANK": "0"}
        values = config.model_dump(mode="json")
        each_step = on_step is not None
        calls = [actor.run.remote(values, shared | {"RANK": str(rank)}, each_step) for rank, actor in enumerate(actors)]

        def tell(told: str | Progress) -> None:
            if isinstance(told, str):
                log.info(told)
            elif on_step is not None:
                on_step(told)

        return TrainResult(**_follow(ray, actors, calls, tell))
    except RayError as error:
        words = str(error).strip().split("\n")[0]
        raise TrainError(f"a rank was lost ({words}); run again to resume from the last checkpoint") from None
    finally:
        for one in actors:
            ray.kill(one)
        remove_placement_group(group)
        if own:
            ray.shutdown()


def _check_room(config: TrainConfig, bundle: dict[str, float], there: dict[str, float]) -> None:
    for kind, each in bundle.items():
        needed = each * config.launch.workers
        if needed > there.get(kind, 0):
            raise TrainError(
                f"{config.launch.workers} ranks need {needed:.0f} {kind}, the cluster has {there.get(kind, 0):.0f}: set"
                f" launch.workers={there.get(kind, 0) / each:.0f}"
            )


def _follow(ray: Any, actors: list[Any], calls: list[Any], tell: Callable[[str | Progress], None]) -> dict[str, Any]:
    """Forward the first rank's messages and steps until all ranks have ended; return its result."""
    waiting, told_to_stop = list(calls), False
    answers: dict[Any, tuple[str, Any]] = {}
    with flag_on_signal() as asked:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=_POLL_S)
            for told in ray.get(actors[0].heard.remote()):
                tell(told)
            if asked() and not told_to_stop:
                told_to_stop = True
                ray.get([actor.stop.remote() for actor in actors])
            for call in done:
                answers[call] = ray.get(call)
                if answers[call][0] == "failed":
                    # The other ranks notice the failure themselves, unless they had not joined the process group yet.
                    time.sleep(_POLL_S)
                    raise TrainError(f"rank {calls.index(call)}: {answers[call][1]}")
    for told in ray.get(actors[0].heard.remote()):
        tell(told)
    result: dict[str, Any] = answers[calls[0]][1]
    return result
