"""The real `prepare` over Ray with cheap stages in the place of the models: what the tests of kills run as a process.

    python -m fakes.chaos_run SOURCES CORPUS [key=value ...]

Keys are those of `TroubleConfig`, and: executor, address, timeout_s, unit_s, actors. The last line is the summary as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fakes.engine_stages import TroubleConfig
from fakes.lean_ray import spare
from pipeline.config import PrepareConfig, StagedConfig
from pipeline.engine.api import Event, GroupDone, SessionDone
from pipeline.engine.progress import Progress
from pipeline.engine.worker import StageGroup, StageSpec
from pipeline.prepare import prepare
from pipeline.runs.errors import PrepareError
from voxmill.terminal import Terminal


class CheapConfig(StagedConfig):  # type: ignore[valid-type, misc]
    """Settings of a run whose middle stages call no model; decode, segment and cut_clips are the real ones."""

    trouble: TroubleConfig = TroubleConfig()

    def groups(self) -> list[StageGroup]:
        """decode, speech everywhere, segment | trouble | cut_clips: each actor is a process that takes a second to start."""
        speech = StageSpec("fakes.engine_stages:SpeechThroughout", TroubleConfig())
        trouble = StageSpec("fakes.engine_stages:Trouble", self.trouble)
        chain = [(self.stage("decode"), speech, self.stage("segment")), (trouble,), (self.stage("cut_clips"),)]
        engine = self.engine
        return [
            StageGroup(
                tuple(stages), engine.actors.get(stages[0].name, 1), engine.cpus_per_actor, 0.0, engine.timeout_s
            )
            for stages in chain
        ]

    def weights(self) -> list[str]:
        """None."""
        return []

    def fingerprint(self) -> str:
        """Always the same: only the order of deaths differs between the runs."""
        return "c0ffee" + 10 * "0"


def tell(event: Event, progress: Progress) -> None:
    """Print what is done."""
    assert progress.left_s is None or progress.left_s >= 0
    match event:
        case GroupDone():
            print(f"{event.group} done", flush=True)
        case SessionDone():
            print(f"session {event.session.session_id} done", flush=True)


def main(sources: str, corpus: str, *settings: str) -> int:
    """Run; 1 and one line on standard error when it could not."""
    values: dict[str, Any] = {key: json.loads(value) for key, _, value in (s.partition("=") for s in settings)}
    engine = {key: values.pop(key) for key in ("executor", "address", "timeout_s", "actors") if key in values}
    unit_s = values.pop("unit_s", 6.0)
    config: PrepareConfig = CheapConfig(unit_s=unit_s, engine=engine, describe="none", trouble=TroubleConfig(**values))
    try:
        with Terminal().printing("pipeline"):
            summary = prepare([sources], Path(corpus), config, watch=tell)
    except PrepareError as error:
        print(f"voxmill: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(summary)))
    return 0


if __name__ == "__main__":
    if 'executor="inline"' not in sys.argv:
        spare()
    raise SystemExit(main(*sys.argv[1:]))
