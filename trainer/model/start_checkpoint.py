"""The checkpoint that a run starts from: a folder, or a hub id that is fetched before anything is written."""

from __future__ import annotations

import re
from pathlib import Path

from catalogs.files import one_line
from trainer.config import TrainError
from voxcpm.weights.checkpoint import HUB_ID, find_checkpoint

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OF_A_RUN = re.compile(r"latest|merged|start|step_\d+")
"""Names of the folders that training makes: not taken for the name of a model on the hub."""


def is_hub_id(start: str) -> bool:
    """Return True if `start` is the name of a checkpoint on the hub (`owner/name`) and not a missing folder."""
    if start == HUB_ID:
        return True
    owner, _, name = start.partition("/")
    return bool(_HUB_ID.fullmatch(start)) and not _OF_A_RUN.fullmatch(name) and not Path(owner).exists()


def local_start(start: str) -> Path | None:
    """Return the local folder of a checkpoint; None for a hub id that is not fetched yet. Raises TrainError if it is neither."""
    folder = Path(start).expanduser()
    if folder.is_dir():
        return folder
    if not is_hub_id(start):
        raise TrainError(
            f"no checkpoint at {start}: train it first (a stage starts from the one before it), or give another with --set"
            " model.start=FOLDER"
        )
    try:
        return find_checkpoint(start, local_files_only=True)
    except FileNotFoundError:
        return None


def fetch_start(start: str) -> None:
    """Fetch a checkpoint unless it is local. Raises TrainError if that fails.

    Several processes of a machine may call it at once: the hub's client locks the files it writes.
    """
    if local_start(start) is not None:
        return
    try:
        find_checkpoint(start)
    except Exception as error:  # whatever the client's HTTP library raises without a network
        raise TrainError(
            f"{start} could not be fetched ({one_line(error)}): fetch it with hf download {start}, or give a folder with --set"
            " model.start=FOLDER"
        ) from None
