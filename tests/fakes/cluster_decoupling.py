"""`decouple` with scripted stages on three Ray nodes, one of which goes down at work: run as a process by the tests.

python -m fakes.cluster_decoupling CORPUS MODEL OUT
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fakes import scripted_speech
from fakes.cluster_run import take_away, three_nodes
from fakes.decoupling_run import SETTINGS
from fakes.lean_ray import spare
from pipeline.engine.api import Event, SessionDone
from pipeline.engine.progress import Progress


def main(corpus: str, model: str, out: str) -> None:
    """Start the nodes, run, take one away after the first session came through; print the summary."""
    import ray

    import pipeline.synthesis.settings as module
    from pipeline.synthesis.decouple import decouple

    names: Any = module
    names.GROUPS = scripted_speech.GROUPS
    os.environ["SCRIPTED_SPEECH_S"] = "1.0"
    cluster, nodes = three_nodes()
    thieves: list[threading.Thread] = []

    def watch(event: Event, progress: Progress) -> None:
        if isinstance(event, SessionDone) and not thieves:
            thieves.append(threading.Thread(target=take_away, args=(cluster, nodes)))
            thieves[0].start()

    overrides = [line for line in SETTINGS if not line.startswith(("engine.", "unit"))]
    overrides += ["engine.executor=ray", f"engine.address={cluster.address}", "unit=2"]
    overrides += ["engine.actors={scripted_speech: 3}"]
    try:
        summary = decouple(corpus, model, Path(out), module.load_decouple_settings(None, overrides), watch=watch)
        for thief in thieves:
            thief.join()
        print(json.dumps(asdict(summary)), flush=True)
    finally:
        if ray.is_initialized():
            ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    spare()
    os.environ.setdefault("RAY_grpc_keepalive_time_ms", "2000")
    main(*sys.argv[1:])
