"""What the marks of one checkpoint have in common: the name of the model, the digest of its files, the keys of the watermark."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from voxcpm.provenance.statement import Statement
from voxcpm.provenance.watermark_hook import NO_WATERMARK, Watermark
from voxcpm.watermark.keys import PUBLIC_KEY, Key
from voxcpm.watermark.registry import remember
from voxcpm.watermark.speech import checkpoint_payload, speech_mark

_FILES = ("*.json", "*.safetensors", "*.bin", "*.pth", "*.py")
_LINEAGE = "lineage.json"
"""Names the digest, so it cannot be part of it; no speech depends on it."""


def checkpoint_digest(folder: Path, lora: Path | None = None) -> str:
    """Return 16 hex digits over the digests of a checkpoint's files, and of an adapter's.

    This is the digest of `catalogs.weights.checkpoint_files`, which this package must not import; a test compares the two.
    """
    return checkpoint_digests(folder, {} if lora is None else {"": lora})[None if lora is None else ""]


def checkpoint_digests(folder: Path, adapters: Mapping[str, Path]) -> dict[str | None, str]:
    """Return the digest of a checkpoint for each adapter, and for none (None). The checkpoint's files are read once."""
    base = _digests(folder, "")
    found = {name: base | _digests(lora, "lora/") for name, lora in adapters.items()}
    return {name: _joined(digests) for name, digests in ({None: base} | found).items()}


def _joined(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def _digests(folder: Path, prefix: str) -> dict[str, str]:
    if folder.is_file():
        files = {folder}
    else:
        files = {
            path for pattern in _FILES for path in folder.glob(pattern) if path.is_file() and path.name != _LINEAGE
        }
    digests = {}
    for path in sorted(files):
        with path.open("rb") as file:
            digests[f"sha256 {prefix}{path.name}"] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


class Source:
    """Makes the statements and watermarks of one checkpoint. Its files are read by a thread meanwhile: weights have gigabytes."""

    def __init__(
        self,
        folder: Path | None,
        name: str | Path | None = None,
        lora: Path | None = None,
        states: bool = True,
        keys: Sequence[Key] = (PUBLIC_KEY,),
    ) -> None:
        """folder: the checkpoint; None: not known. name: a hub id; otherwise the name of the folder is used.

        states: whether files state that they are synthetic. keys: of the watermark; none: the audio has no watermark.
        """
        self._name, self._states, self._keys = _name(folder, name), states, tuple(keys)
        self._digest: str | None = None
        self._reading: threading.Thread | None = None
        if folder is not None and (states or self._keys):
            # It ends with the program: a command that fails does not wait for it.
            self._reading = threading.Thread(target=self._read, args=(folder, lora), daemon=True)
            self._reading.start()

    @property
    def digest(self) -> str | None:
        """Digest of the files, as soon as it is known; None if they cannot be read."""
        if self._reading is not None:
            self._reading.join()
        return self._digest

    @property
    def payload(self) -> int | None:
        """Payload of the watermark; None: there is none."""
        return checkpoint_payload(self.digest) if self._keys else None

    def statement(self, seed: int | None, request_id: str | None = None) -> Statement:
        """Return a statement of now, with the digest as soon as it is known."""
        return Statement(self._name, self.digest, seed, request_id)

    def mark(self, seed: int | None) -> Statement | bool:
        """Return what a file with this seed states; False: nothing."""
        return self.statement(seed) if self._states else False

    def watermark(self, *request: object) -> Watermark:
        """Return the watermark of an utterance. request: what it was made from, e.g. its seed and text."""
        return speech_mark(self.digest, self._keys, *request) if self._keys else NO_WATERMARK

    def _read(self, folder: Path, lora: Path | None) -> None:
        try:
            self._digest = checkpoint_digest(folder, lora)
            if self._keys:
                remember(self._digest, self._name)
        except OSError:
            self._digest = None  # A file that is gone by now does not stop speech that is made already.


def _name(folder: Path | None, name: str | Path | None) -> str | None:
    if name is not None and not Path(name).expanduser().is_dir():
        return str(name)
    # `latest` is a link to the folder that is loaded. Only the last name: a path may tell who the user is.
    return None if folder is None else folder.resolve().name
