"""Three Ray nodes on this machine, one of which goes down while `prepare` is at work: run as a process by the tests.

    python -m fakes.cluster_run SOURCES CORPUS NODE

NODE: `worker` to lose one that does work, `none` to lose nobody. Prints what happened; the summary is the last line.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

from fakes import chaos_run
from fakes.lean_ray import spare
from pipeline.engine.api import Event, SessionDone
from pipeline.engine.progress import Progress
from pipeline.engine.strikes import Strike, Strikes

SESSIONS_BEFORE = 2


def three_nodes() -> tuple[Any, list[Any]]:
    """Start a cluster of three nodes with one CPU each; return it, and the two that may be taken away."""
    from ray.cluster_utils import Cluster

    # Both are read when a node starts: it is dead after seconds and not after half a minute.
    system = {
        "health_check_initial_delay_ms": 1000,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 3,
    }
    arguments = {"num_cpus": 1, "object_store_memory": 100 * 1024**2, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=arguments | {"_system_config": system})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=100 * 1024**2) for _ in range(2)]
    cluster.wait_for_nodes()
    return cluster, nodes


def take_away(cluster: Any, nodes: list[Any]) -> None:
    """Take away the node with most actors that is not the driver's own."""
    import ray
    from ray._private import state

    time.sleep(0.3)
    here = ray.get_runtime_context().get_node_id()
    until = time.monotonic() + 20
    while True:
        homes = [actor["Address"]["NodeID"] for actor in state.actors().values() if actor["State"] == "ALIVE"]
        node = max((n for n in nodes if n.node_id != here), key=lambda n: homes.count(n.node_id))
        # On a busy machine the actors of the other nodes start late.
        if homes.count(node.node_id) or time.monotonic() > until:
            break
        time.sleep(0.05)
    print(f"taking away a node with {homes.count(node.node_id)} of {len(homes)} actors", flush=True)
    cluster.remove_node(node, allow_graceful=False)


def main(sources: str, corpus: str, lose: str) -> int:
    """Start the nodes, join them through `engine.address`, take one away after the first sessions came through."""
    import ray

    cluster, nodes = three_nodes()
    told = chaos_run.tell
    done: list[str] = []
    thieves: list[threading.Thread] = []

    def tell(event: Event, progress: Progress) -> None:
        told(event, progress)
        if not isinstance(event, SessionDone):
            return
        done.append("")
        if lose != "none" and len(done) == SESSIONS_BEFORE:
            print("nodes before", sum(node["Alive"] for node in ray.nodes()), flush=True)
            thieves.append(threading.Thread(target=take_away, args=(cluster, nodes)))
            thieves[0].start()

    charge = Strikes.add

    def add(self: Strikes, session_id: str, stage: str, reason: str, source_id: str = "") -> Strike:
        print(f"STRIKE {session_id}: {reason}", flush=True)
        return charge(self, session_id, stage, reason, source_id)

    Strikes.add = add  # type: ignore[method-assign]
    chaos_run.tell = tell
    try:
        status = chaos_run.main(
            sources,
            corpus,
            f'address="{cluster.address}"',
            "seconds=0.5",
            "unit_s=16",
            'actors={"decode": 2, "trouble": 3}',
        )
        for thief in thieves:
            thief.join()
        return status
    finally:
        if ray.is_initialized():
            ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    spare()
    os.environ.setdefault("RAY_grpc_keepalive_time_ms", "2000")
    raise SystemExit(main(*sys.argv[1:]))
