"""Runs of several ranks: processes with torchrun's variables, or torchrun itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from fakes.processes import PATIENCE_S
from forked import Forked, voxmill_train
from train_runs import REPOSITORY

from trainer.config import TrainConfig
from trainer.runtime.ranks import open_rendezvous


def write_config(config: TrainConfig, folder: Path) -> Path:
    """The settings as a YAML file."""
    path = folder / f"{Path(config.output).name}.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    return path


class RankProcesses:
    """The ranks of one run, each a separate process; output goes to files."""

    def __init__(
        self, config: TrainConfig, folder: Path, world: int = 2, call: Callable[[Path], object] = voxmill_train
    ) -> None:
        """call: what each rank does with the file of settings."""
        path = write_config(config, folder)
        # Held by this process for as long as the ranks run: no port is given back and taken by somebody else meanwhile.
        self._rendezvous, shared = open_rendezvous("127.0.0.1")
        shared |= {"WORLD_SIZE": str(world)}
        self._logs = [folder / f"{path.stem}.{rank}.{time.monotonic_ns()}.log" for rank in range(world)]
        self.processes = [
            Forked(log, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}, call, path)
            for rank, log in enumerate(self._logs)
        ]
        self._output = Path(config.output)

    def said(self, rank: int = 0) -> str:
        """What a rank has written to its terminal."""
        return self._logs[rank].read_text(encoding="utf-8")

    def wait_for_step(self, step: int) -> None:
        """Wait until `step` steps are in metrics.jsonl."""
        limit = time.monotonic() + PATIENCE_S
        path = self._output / "metrics.jsonl"
        while time.monotonic() < limit:
            if path.is_file() and path.read_text(encoding="utf-8").count("loss/diffusion") >= step:
                return
            assert all(process.poll() is None for process in self.processes), self.said()
            time.sleep(0.005)
        raise AssertionError(f"step {step} was not reached: {self.said()}")

    def finish(self, seconds: float = PATIENCE_S) -> list[int]:
        """Exit statuses, once all have ended."""
        limit = time.monotonic() + seconds
        return [process.wait(max(0.1, limit - time.monotonic())) for process in self.processes]

    def kill(self) -> None:
        """SIGKILL to all that still run."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
        for process in self.processes:
            process.wait(PATIENCE_S)


def torchrun(config: TrainConfig, folder: Path, world: int = 2, more: Sequence[str] = ()) -> subprocess.Popen[str]:
    """`torchrun ... voxmill train`."""
    path = write_config(config, folder)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        str(world),
        # torchrun's own store takes a port that the kernel chooses, and keeps it.
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
    ]
    command += ["-m", "voxmill.cli", "train", str(path), *more]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
