"""Published files of other projects that tests run or read: fetched by pip once, pinned by digest, never committed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

_PYPI = "https://files.pythonhosted.org/packages"
_SDIST = "voxcpm-2.0.3.tar.gz"
_SDIST_SHA256 = "db11caa8b24eb91ba94190f3707b06dbca82bb6b6911c04eccd12bde5b59086f"
_OMNI = "vllm_omni-0.30.0-py3-none-any.whl"
_OMNI_SHA256 = "141cb0c7b9c07970e5c92a99aab9696e81682dbfa3d2bfcde359c3c1533385f4"
#: The first is 15 s of a core quicker: pip builds the metadata of a source distribution, in a fresh environment if it may.
_SDIST_REQUESTS = (
    (
        "--no-build-isolation",
        f"voxcpm @ {_PYPI}/0b/8f/af41f058baa72ff8788d797f30966fc905abe4a62bb72940f38bf32279ec/{_SDIST}",
    ),
    ("--no-binary=:all:", "voxcpm==2.0.3"),
)


def official_sdist(config: pytest.Config) -> Path:
    """Return the unpacked source distribution of the official package, 2.0.3. Skips the test where it cannot be fetched."""
    archive = _fetched(config, _SDIST, _SDIST_SHA256, _SDIST_REQUESTS)
    folder = archive.parent / archive.name.removesuffix(".tar.gz")
    if not folder.is_dir():
        with tarfile.open(archive) as file:
            file.extractall(archive.parent, filter="data")
    return folder


def vllm_omni_wheel(config: pytest.Config) -> Path:
    """Return the wheel of vLLM-Omni 0.30.0. Skips the test where it cannot be fetched."""
    return _fetched(config, _OMNI, _OMNI_SHA256, (("vllm-omni==0.30.0",),))


def _fetched(config: pytest.Config, name: str, sha256: str, requests: tuple[tuple[str, ...], ...]) -> Path:
    assert config.cache is not None
    folder = config.cache.mkdir("official")
    path = folder / name
    said = ""
    for request in requests:
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return path
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "--timeout", "30"]
        done = subprocess.run([*pip, "-d", str(folder), *request], capture_output=True, text=True)
        said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    pytest.skip(f"{name} could not be fetched: {said}")
