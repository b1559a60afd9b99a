"""The processes of one run and their exchanges. torchrun starts them, or Ray, or anything that sets the same variables.

RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are read from the environment. Without WORLD_SIZE there is one process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from trainer.config import TrainConfig, TrainError

T = TypeVar("T")
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
"""torch's variable: the store at MASTER_ADDR:MASTER_PORT exists already, no rank opens it."""
_PATIENCE = timedelta(hours=2)
"""How long a rank waits for the others: the first may train a codec and a tokenizer before anything else begins."""


class PeerError(TrainError):
    """Another rank has failed and reports why; this rank ends without a message."""


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among the processes of the run. `mode`: none, ddp or fsdp."""

    rank: int = 0
    world: int = 1
    local: int = 0
    mode: str = "none"

    @property
    def first(self) -> bool:
        """Return True if this process prints messages, and writes the files that are written once per run."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Return True if each rank holds only a part of every weight."""
        return self.mode == "fsdp"

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sums of the values over the ranks, in float64 (exact for counts)."""
        if self.world == 1:
            return list(values)
        vector = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(vector)
        return list(map(float, vector))

    def by_rank(self, values: Sequence[float]) -> list[list[float]]:
        """Return the values of every rank, float64, in one exchange; all ranks must give the same number of values."""
        if self.world == 1:
            return [list(values)]
        mine = torch.tensor(list(values), dtype=torch.float64)
        found = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(found, mine)
        return [row.tolist() for row in found]

    def any(self, flag: bool) -> bool:
        """Return True if `flag` is set on any rank."""
        return self.sums([float(flag)])[0] > 0

    def gathered(self, value: Any) -> list[Any]:
        """Return one picklable value of each rank, by rank."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait until all ranks have reached this call."""
        if self.world > 1:
            self.sums([0.0])

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Make a failure inside the block on one rank end all ranks, so that the others do not wait forever.

        The lowest rank that failed raises its own error, the others raise PeerError. Nothing inside may wait for other ranks.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:  # it is raised again below, once everybody knows
            error = caught
        # One exchange of numbers; exchanging pickled errors would take two.
        bad = self.sums([float(error is not None and rank == self.rank) for rank in range(self.world)])
        self._raise_first(error, bad)

    def count_unless(self, stop: bool, work: Callable[[], T], count: Callable[[T], int]) -> tuple[T, int] | None:
        """Return the result of `work` on this rank, and the sum of its counts over the ranks; None if any rank is asked to stop.

        This takes one exchange. A rank that is asked to stop does not call `work`. The failure of another rank is then not
        raised, so that the run ends and saves. Otherwise errors are those of `agreed`.
        """
        error: Exception | None = None
        mine: list[T] = []
        try:
            if not stop:
                mine.append(work())
        except Exception as caught:  # it is raised again below, once everybody knows
            error = caught
        rows = self.by_rank([float(stop), float(error is not None), float(sum(map(count, mine)))])
        stops, bad, counts = zip(*rows, strict=True)
        if any(stops):
            return None
        self._raise_first(error, bad)
        return mine[0], round(sum(counts))

    def _raise_first(self, error: Exception | None, bad: Sequence[float]) -> None:
        """Raise this rank's error if it is the lowest failed rank, or PeerError if any other failed. bad: nonzero for each failed
        rank."""
        failed = [rank for rank, flag in enumerate(bad) if flag]
        if error is not None and failed[0] == self.rank:
            raise error
        if failed:
            raise PeerError(f"rank {failed[0]} has failed")

    def in_turn(self, work: Callable[[], T]) -> T:
        """Call `work` on rank 0 first, then on the others: for work whose result rank 0 leaves on the disk."""
        found: list[T] = []
        for turn in (self.first, not self.first):
            with self.agreed():
                if turn:
                    found.append(work())
        return found[0]


def planned_ranks(config: TrainConfig) -> Ranks:
    """Read the rank of this process from the environment, before any process group is joined. Raises TrainError if the
    environment is invalid or does not fit the config."""
    try:
        rank, world, local = (int(os.environ.get(name, default)) for name, default in _NAMES)
    except ValueError:
        raise TrainError(
            "RANK, WORLD_SIZE and LOCAL_RANK must be numbers: start with torchrun, or unset them"
        ) from None
    if not 0 <= rank < world:
        raise TrainError(f"RANK is {rank}, WORLD_SIZE {world}: start with torchrun, or unset both")
    return chosen_ranks(config, rank, world, local)


def chosen_ranks(config: TrainConfig, rank: int, world: int, local: int) -> Ranks:
    """Return one of `world` processes with the mode that `launch.parallel` resolves to. Raises TrainError if it is impossible."""
    if world == 1:
        return Ranks(0, 1, local)
    if config.launch.parallel == "none":
        raise TrainError(f"{world} processes were started, but parallel is none: set launch.parallel=fsdp, ddp or auto")
    if config.launch.parallel == "fsdp" and config.model.lora is not None:
        raise TrainError(
            "parallel is fsdp, but adapters are trained: their gradients are small, set launch.parallel=ddp"
        )
    if config.launch.parallel != "auto":
        return Ranks(rank, world, local, config.launch.parallel)
    # Adapters' gradients and optimizer state are small: sharding them would gather the frozen weights in every pass.
    return Ranks(rank, world, local, "ddp" if config.model.lora is not None else "fsdp")


_NAMES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def check_shares(config: TrainConfig, ranks: Ranks) -> None:
    """Raise TrainError if the rows of a step cannot be divided equally among the ranks."""
    for name, phase in config.phases.items():
        rows = phase.rows * phase.accumulate
        if rows % ranks.world:
            better = -(-rows // ranks.world) * ranks.world
            setting = (
                f"phases.{name}.accumulate={better // phase.rows}"
                if better % phase.rows == 0
                else f"phases.{name}.rows={better} phases.{name}.accumulate=1"
            )
            raise TrainError(
                f"phase {name}: the {rows} rows of a step (rows x accumulate) cannot be shared by {ranks.world} processes:"
                f" set {setting}"
            )


def open_rendezvous(host: str) -> tuple[dist.TCPStore, dict[str, str]]:
    """Return (store, environment): the rendezvous store of the ranks, and the variables that lead to it.

    The kernel chooses the port, and the store keeps it as long as the returned object lives. If the port were only probed,
    another process could take it before the first rank opens it.
    """
    store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
    return store, {"MASTER_ADDR": host, "MASTER_PORT": str(store.port), _AGENT_STORE: str(True)}


@contextmanager
def joined(config: TrainConfig, ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Join the process group inside the block: gloo, and nccl for tensors on GPUs. A process that has already joined stays
    joined."""
    if ranks.world == 1:
        yield
        return
    check_shares(config, ranks)
    mine = not dist.is_initialized()
    if mine:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise TrainError(
                f"{' and '.join(missing)} not set: start with torchrun --nproc-per-node N -m voxmill.cli train ..."
            )
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", rank=ranks.rank, world_size=ranks.world, timeout=_PATIENCE
        )
    try:
        yield
    finally:
        if mine:
            dist.destroy_process_group()


@contextmanager
def only_first_logs(ranks: Ranks) -> Iterator[None]:
    """Keep what `trainer` logs to the first rank: the others are silent."""
    logger = logging.getLogger("trainer")
    before = logger.level
    if not ranks.first:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
