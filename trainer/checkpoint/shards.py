"""Resume states of sharded runs: every rank writes its shards with torch.distributed.checkpoint, any number of ranks can read
them.

OUTPUT/resume/step_0000500/   *.distcp and .metadata (torch's format), the lineage, and complete.json: the state of the run, written
                              last.
A folder without complete.json is ignored.
"""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem
from torch.serialization import _get_layout

from catalogs.files import write_atomically
from trainer.config import TrainError
from trainer.runtime.ranks import Ranks

MARKER = "complete.json"


class ShardWriter:
    """Writes resume states, either synchronously or (`background`) while training continues; one at a time."""

    def __init__(self, ranks: Ranks, background: bool) -> None:
        self._ranks, self._background = ranks, background
        # A separate group: background communication must not mix with that of the steps.
        self._group: Any = dist.new_group(backend="gloo") if background else None
        self._pending: tuple[Future[Any], Callable[[], None]] | None = None

    def write(
        self,
        folder: Path,
        tensors: dict[str, Tensor],
        state: dict[str, Any],
        complete: Callable[[Path], None],
        then: Callable[[], None],
    ) -> None:
        """Write tensors (sharded or the same on all ranks) and `state`; all ranks must call it.

        complete: called on the first rank with the folder before the state counts, to write further files into it. then: called
        there when the state is complete. In the background both happen in a later `settle`.
        """
        self.settle()

        def finish() -> None:
            if self._ranks.first:
                complete(folder)
                write_atomically(folder / MARKER, json.dumps(state).encode())
                then()

        if self._ranks.first and folder.exists():
            # Left by a kill, or by a run that was started again: remove the marker first.
            (folder / MARKER).unlink(missing_ok=True)
            shutil.rmtree(folder)
        self._ranks.wait()
        writer = FileSystemWriter(folder, sync_files=True)
        if self._background:
            future = dcp.async_save(tensors, storage_writer=writer, process_group=self._group)
            assert isinstance(future, Future)
            self._pending = (future, finish)
            return
        with _one_error():
            dcp.save(tensors, storage_writer=writer)
        finish()
        self._ranks.wait()

    def settle(self, wait: bool = True) -> None:
        """Complete a state written in the background: wait for it, or only if it is done already. Raises what writing raised."""
        if self._pending is not None and (wait or not self._ranks.any(not self._pending[0].done())):
            future, finish = self._pending
            self._pending = None
            with self._ranks.agreed(), _one_error():
                future.result()
                finish()
        if wait:
            self._ranks.wait()

    def close(self) -> None:
        """Wait for the pending state and complete it, without the other ranks, which may have failed. Errors are suppressed here:
        the run ends for another reason and reports that one."""
        if self._pending is not None:
            future, finish = self._pending
            self._pending = None
            with suppress(Exception, CheckpointException):
                # On the first rank it is done only when all ranks are done.
                future.result()
                finish()


def read_state(folder: Path) -> dict[str, Any]:
    """Read the state of the run that was passed to `write`."""
    found: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    return found


def read_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill the tensors, whole or sharded over any number of ranks, with the values that were written under their names. Every rank
    reads separately."""
    with _one_error(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(tensors, storage_reader=_Reader(folder), planner=_Planner(), no_dist=True)


def is_complete(folder: Path) -> bool:
    """Return True if a resume state was written completely."""
    return (folder / MARKER).is_file()


@contextmanager
def _one_error() -> Iterator[None]:
    """Raise the error of one rank instead of torch's table of all ranks' tracebacks (which is not an Exception)."""
    try:
        yield
    except CheckpointException as error:
        first = next(iter(error.failures.values()), (None,))[0]
        words = " ".join(str(first).split()) or type(first).__name__
        raise TrainError(f"{words}; see that the disk is neither full nor damaged") from None


class _Reader(FileSystemReader):
    """Reads the shards of an untrusted run folder."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        metadata = _Metadata(BytesIO((Path(self.path) / ".metadata").read_bytes())).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(".metadata does not describe tensors")
        for stored in metadata.storage_data.values():
            name = stored.relative_path
            if name == ".." or Path(name).name != name:
                raise pickle.UnpicklingError(f".metadata names the file {name!r}, which is not in this folder")
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Planner(DefaultLoadPlanner):
    """Loads tensors only. torch unpickles every other value without `weights_only`."""

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        raise pickle.UnpicklingError(f"{read_item.dest_index.fqn} is not stored as a tensor")


def _member(kind: object, name: object) -> _MEM_FORMAT_ENCODING:
    """Stand for `getattr` in a pickle: Python 3.11.0 to 3.11.3 (Debian 12) writes members of an enum as calls of it."""
    if kind is not _MEM_FORMAT_ENCODING or name not in _MEM_FORMAT_ENCODING.__members__:
        raise pickle.UnpicklingError(f".metadata holds builtins.getattr of {name}, which describes no tensor")
    return _MEM_FORMAT_ENCODING[str(name)]


class _Metadata(pickle.Unpickler):
    """Unpickles torch's `.metadata`. No name in the file causes an import: each must be in `_KNOWN`."""

    _KNOWN: ClassVar[dict[tuple[str, str], Any]] = {
        ("torch.distributed.checkpoint.metadata", "Metadata"): Metadata,
        ("torch.distributed.checkpoint.metadata", "MetadataIndex"): MetadataIndex,
        ("torch.distributed.checkpoint.metadata", "ChunkStorageMetadata"): ChunkStorageMetadata,
        ("torch.distributed.checkpoint.metadata", "TensorStorageMetadata"): TensorStorageMetadata,
        ("torch.distributed.checkpoint.metadata", "TensorProperties"): TensorProperties,
        ("torch.distributed.checkpoint.metadata", "StorageMeta"): StorageMeta,
        ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"): _MEM_FORMAT_ENCODING,
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _StorageInfo,
        ("builtins", "getattr"): _member,
        ("torch.serialization", "_get_layout"): _get_layout,
        ("torch", "Size"): torch.Size,
        # The folder's path, which is not used here. Python 3.13 writes another module name.
        ("pathlib", "PosixPath"): PurePosixPath,
        ("pathlib._local", "PosixPath"): PurePosixPath,
    } | {
        ("torch", str(dtype).removeprefix("torch.")): dtype
        for dtype in vars(torch).values()
        if isinstance(dtype, torch.dtype)
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f".metadata holds {module}.{name}, which describes no tensor") from None
