"""Save the checkpoints of a run: the official folder that `speak` loads, and beside it the resume state.

OUTPUT/checkpoints/step_0000500/   official layout, in the config's dtype (LoRA: lora_weights.safetensors, lora_config.json), and
                                   lineage.json, lineage.parquet (`catalogs.lineage`)
OUTPUT/resume/step_0000500.pt      trained float32 weights, optimizer, moving average, data cursor (random numbers depend only on
                                   seed, step and sample); if the model is sharded, a folder of shards instead
OUTPUT/latest                      link to the newest checkpoint

A checkpoint that the panel has found to be the best, or has yet to judge, is not removed (`protected`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from catalogs.files import fsync_path, open_atomically
from trainer.checkpoint.lineage import LineageRecorder, Snapshot
from trainer.checkpoint.restore import Resumable, described, run_tensors, step_name, step_paths
from trainer.checkpoint.shards import MARKER, ShardWriter, is_complete
from trainer.config import TrainConfig
from trainer.model.build import Trainee
from trainer.model.ema import averaged
from trainer.runtime.ranks import Ranks
from trainer.runtime.run_folder import hold_folder
from voxcpm.model.backbone import VoxCPM2
from voxcpm.weights.atomic import put_back
from voxcpm.weights.checkpoint import save_pretrained
from voxcpm.weights.lora import LoRAConfig, lora_state_dict, merge_lora, save_lora


class CheckpointWriter:
    """Saves a run's checkpoints. All ranks must make the same calls."""

    def __init__(
        self,
        output: Path,
        config: TrainConfig,
        ranks: Ranks,
        protected: Callable[[], set[str]] = set,
        lineage: LineageRecorder | None = None,
    ) -> None:
        """protected: returns the names of checkpoints whose official folders are kept, however old they are.

        lineage: written beside every checkpoint. None on all ranks but the first.
        """
        self._lineage = lineage
        self._output, self._config, self._ranks, self._protected = output, config, ranks, protected
        self._shards = ShardWriter(ranks, config.checkpoint.background) if ranks.sharded else None
        self._thread = ThreadPoolExecutor(1, "save") if config.checkpoint.background and not ranks.sharded else None
        self._pending: Future[Path] | None = None

    def save(self, run: Resumable, last: bool = False, export: bool = False) -> None:
        """Save a checkpoint of this step atomically; remove the oldest beyond `keep`. last: it is the last one of the run, which is
        complete on return and in the official layout. export: it is in the official layout, also if the model is sharded."""
        if self._shards is None:
            self.settle(wait=True)
            with self._ranks.agreed():
                if self._ranks.first:
                    self._save_whole(run, last)
            return
        name, keep = step_name(run.state.step), self._config.checkpoint.keep
        every = self._config.checkpoint.export_every
        snapshot = self._snapshot(run)
        self._shards.write(
            self._output / "resume" / name,
            run_tensors(run),
            described(run),
            lambda folder: snapshot.write(folder, digest=False) if snapshot is not None else None,
            lambda: _prune_shards(self._output, name, keep),
        )
        if last or export or (every is not None and run.state.step % every == 0):
            self._export(run)
        if last:
            self._shards.settle()

    def settle(self, wait: bool = False) -> None:
        """Complete checkpoints written in the background (wait: also pending ones). Raises what writing raised, on all ranks."""
        if self._shards is not None:
            self._shards.settle(wait)
        elif self._thread is not None:
            with self._ranks.agreed():
                pending = self._pending
                if pending is not None and (wait or pending.done()):
                    self._pending = None
                    pending.result()

    def close(self) -> None:
        """Wait for pending checkpoints, also after an error: the folder stays locked until then, and the checkpoint counts."""
        if self._thread is not None:
            self._thread.shutdown()
        if self._shards is not None:
            self._shards.close()

    def _save_whole(self, run: Resumable, last: bool) -> None:
        """Save a model that is not sharded: at once, or from a copy in the CPU's memory while training continues."""
        keep = self._config.checkpoint.keep
        snapshot = self._snapshot(run)
        if self._thread is None or last:
            _Checkpoint.of(run, snapshot).write(self._output, keep, self._protected)
        else:
            copied = _Checkpoint.of(run, snapshot, copied=True)
            self._pending = self._thread.submit(copied.write, self._output, keep, self._protected)

    def _snapshot(self, run: Resumable) -> Snapshot | None:
        return self._lineage.snapshot(run.state.step) if self._lineage is not None else None

    def _export(self, run: Resumable) -> None:
        """Write checkpoints/step_N in the official layout: the whole weights are gathered on the first rank."""
        trainee = run.trainee
        with averaged(trainee.model, run.average):
            whole = whole_weights(trainee.model, self._ranks)
        with self._ranks.agreed():
            if self._ranks.first:
                folder, snapshot = self._output / "checkpoints" / step_name(run.state.step), self._snapshot(run)
                _make_way(self._output, folder)
                save_pretrained(
                    folder,
                    whole,
                    trainee.config,
                    source=trainee.assets,
                    codec=trainee.codec,
                    complete=snapshot.write if snapshot is not None else None,
                )
                _point_at(self._output, folder)
                protected = self._protected()
                for old in _mine(self._output, folder.name)[: -self._config.checkpoint.keep]:
                    if old.name not in protected:
                        _remove(old)


def whole_weights(model: VoxCPM2, ranks: Ranks) -> dict[str, Tensor]:
    """Gather the whole weights on the first rank's CPU; return {} on the others. All ranks must call it."""
    whole: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        # One after the other, so that a GPU holds only one whole matrix at a time.
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if ranks.first:
            whole[name] = full.cpu()
    return whole


@dataclass(frozen=True)
class _Checkpoint:
    """The content of a checkpoint of an unsharded run."""

    resume: dict[str, Any]
    published: dict[str, Tensor]
    """The whole model's weights, or the adapter's; their moving average if there is one."""
    trainee: Trainee
    lineage: Snapshot | None = None

    @classmethod
    def of(cls, run: Resumable, lineage: Snapshot | None = None, copied: bool = False) -> _Checkpoint:
        """Collect the run's own tensors, or copies in CPU memory (`copied`), so that training may continue."""
        trainee, average = run.trainee, run.average.values if run.average is not None else {}
        model = trainee.model
        own = model.state_dict() if trainee.lora is None else lora_state_dict(model)
        resume = {
            "weights": {name: p.detach() for name, p in model.named_parameters() if p.requires_grad},
            "average": average if run.average is not None else None,
            "optimizer": run.optimizer.state_dict(),
            "state": asdict(run.state),
        }
        published = {name: average.get(name, value) for name, value in own.items()}
        if copied:
            resume, published = _copied((resume, published), {})
        return cls(resume, published, trainee, lineage)

    def write(self, output: Path, keep: int, protected: Callable[[], set[str]] = set) -> Path:
        """Write checkpoints/step_N atomically, point `latest` at it, and remove the oldest beyond `keep`."""
        folder, trainee = output / "checkpoints" / step_name(self.resume["state"]["step"]), self.trainee
        _make_way(output, folder)
        _save_resume(output / "resume" / f"{folder.name}.pt", self.resume)
        complete = self.lineage.write if self.lineage is not None else None
        if trainee.lora is None:
            save_pretrained(
                folder,
                self.published,
                trainee.config,
                source=trainee.assets,
                codec=trainee.codec,
                complete=complete,
            )
        else:
            _save_adapter(folder, self.published, trainee.lora, trainee.start, complete)
        _point_at(output, folder)
        _prune(output, folder.name, keep, protected())
        return folder


def _copied(value: Any, done: dict[tuple[Any, ...], Tensor]) -> Any:
    """Copy all tensors in dicts, lists and tuples to CPU memory; tensors that share memory share the copy (`done`)."""
    if isinstance(value, Tensor):
        key = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if key not in done:
            done[key] = value.detach().to("cpu", copy=True)
        return done[key]
    if isinstance(value, dict):
        return {name: _copied(item, done) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item, done) for item in value)
    return value


def _prune(output: Path, newest: str, keep: int, protected: set[str]) -> None:
    """Remove the oldest checkpoints of this run beyond `keep`. Of protected ones the official folder remains."""
    for old in _mine(output, newest)[:-keep]:
        # The resume state goes first: without it, a folder that a kill leaves half removed is not resumed from.
        (output / "resume" / f"{old.name}.pt").unlink(missing_ok=True)
        if old.name not in protected:
            _remove(old)
    names = {path.name for path in step_paths(output / "checkpoints")}
    for state in _states(output):
        if state.stem not in names:
            state.unlink()
    # Shards of a run that was resumed with one process.
    oldest = _mine(output, newest)[-keep:][0].name
    for shards in _shards(output, newest):
        if shards.name < oldest:
            _remove_shards(shards)


def _prune_shards(output: Path, newest: str, keep: int) -> None:
    kept = _shards(output, newest)
    for old in kept[:-keep]:
        _remove_shards(old)
    for state in _states(output):
        if state.stem < kept[-keep:][0].name:
            state.unlink()


def _remove_shards(folder: Path) -> None:
    (folder / MARKER).unlink(missing_ok=True)
    _remove(folder)


def _remove(folder: Path) -> None:
    rest = folder.with_name(f".{folder.name}.old")
    folder.rename(rest)
    shutil.rmtree(rest)


def _mine(output: Path, newest: str) -> list[Path]:
    """Return this run's official folders, oldest first.

    Folders with a later step than the newest belong to another run, whose resume states are gone. They are not touched and not
    counted: otherwise the target of `latest` could count as old.
    """
    return [path for path in step_paths(output / "checkpoints") if path.name <= newest]


def _shards(output: Path, newest: str) -> list[Path]:
    return [path for path in step_paths(output / "resume") if path.is_dir() and path.name <= newest]


def _states(output: Path) -> list[Path]:
    """Return the resume states of unsharded runs."""
    return [path for path in step_paths(output / "resume") if path.suffix == ".pt"]


def save_merged(output: Path, run: Resumable, lineage: LineageRecorder) -> Path:
    """Write OUTPUT/merged: the base with the adapters merged, as an official folder that needs no adapter. The run cannot continue
    afterwards, since the model has no adapters any more."""
    model, snapshot = run.trainee.model, lineage.snapshot(run.state.step)
    with averaged(model, run.average):
        merge_lora(model)
        return save_pretrained(
            output / "merged",
            model,
            run.trainee.config,
            source=run.trainee.assets,
            codec=run.trainee.codec,
            complete=lambda folder: snapshot.write_merged(folder, (output / "latest").resolve()),
        )


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Hold the output folder, and remove what killed runs left half-written. Raises TrainError if another run writes there."""
    with hold_folder(output):
        for name in ("start", "merged"):
            put_back(output / name)
        for pattern in ("checkpoints/.step_*", ".start.*", ".merged.*", "resume/.step_*"):
            for rest in output.glob(pattern):
                if _is_latest(output, rest):
                    continue  # it replaces a checkpoint that a killed run was about to write again
                shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
        for shards in step_paths(output / "resume"):
            if shards.is_dir() and not is_complete(shards):
                shutil.rmtree(shards)
        yield


def _save_resume(path: Path, values: dict[str, Any]) -> None:
    with open_atomically(path) as file:
        torch.save(values, file)


def _save_adapter(
    folder: Path,
    tensors: dict[str, Tensor],
    lora: LoRAConfig,
    base: str,
    complete: Callable[[Path], None] | None = None,
) -> None:
    fresh = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    save_lora(fresh, tensors, lora, base)
    if complete is not None:
        complete(fresh)
    for path in fresh.iterdir():
        fsync_path(path)
    fresh.rename(folder)
    fsync_path(folder.parent)


def _make_way(output: Path, folder: Path) -> None:
    """Remove a checkpoint that is about to be written again. If `latest` points at it, the link first moves to a copy (of hard
    links, if the disk supports them), so that it always has a target."""
    if not folder.exists():
        return
    if _is_latest(output, folder):
        copy = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
        shutil.copytree(folder, copy, copy_function=_link_or_copy)
        fsync_path(copy)
        fsync_path(copy.parent)
        _point(output / "latest", Path("checkpoints") / copy.name)
    _remove(folder)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _is_latest(output: Path, folder: Path) -> bool:
    link = output / "latest"
    return link.is_symlink() and link.resolve() == folder.resolve()


def _point_at(output: Path, folder: Path) -> None:
    """Point `latest` at a checkpoint. Its former target is removed if it was only the copy of a replaced checkpoint."""
    before = (output / "latest").resolve()
    _point(output / "latest", Path("checkpoints") / folder.name)
    if before.parent == folder.parent.resolve() and before.name.startswith(".") and before.is_dir():
        shutil.rmtree(before)


def _point(link: Path, target: Path) -> None:
    """Make the link point at the target, in one rename."""
    temporary = link.with_name(f".{link.name}.tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)
