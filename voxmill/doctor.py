"""`voxmill doctor`: what this machine has, what is missing, and known problems."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "notice", "problem"]

#: Distribution, module, and what needs it.
_LIBRARIES = (
    ("torch", "torch", "the model"),
    ("pyarrow", "pyarrow", "corpora"),
    ("duckdb", "duckdb", "catalogs"),
    ("soundfile", "soundfile", "audio files"),
    ("ray", "ray", "prepare with more than one process (--executor inline works without)"),
    ("av", "av", "recordings in video and compressed containers"),
    ("silero-vad", "silero_vad", "prepare"),
    ("faster-whisper", "faster_whisper", "prepare"),
    ("onnxruntime", "onnxruntime", "prepare"),
    ("demucs", "demucs", "source separation"),
    ("speechbrain", "speechbrain", "the studio profile's speaker encoder"),
    ("google-genai", "google.genai", "descriptions by Gemini"),
    ("datasets", "datasets", "export to Hugging Face datasets"),
    ("tensorboard", "tensorboard", "training curves in TensorBoard"),
)


@dataclass(frozen=True)
class Finding:
    """The result of one check; a `problem` makes the doctor exit with status 1."""

    status: Status
    what: str
    finding: str


def examine() -> list[Finding]:
    """Return the results of all checks, in display order."""
    return [*_python(), *_machine(), *_libraries(), *_torch(), *_voxcpm(), *_weights()]


def mend() -> Iterator[str]:
    """Repair what can be repaired without asking; yield one line per repair.

    The torchaudio wheel of the package index contains extensions linked against CUDA, which fail to load beside a CPU build of
    torch. Without them torchaudio runs in pure Python, which is enough for speechbrain. So they are removed if, and only if, torch
    has no CUDA.
    """
    for library in _cuda_extensions_beside_cpu_torch():
        library.unlink()
        yield f"removed torchaudio/lib/{library.name}: it needs CUDA, which this torch does not have"


def _python() -> Iterator[Finding]:
    yield Finding("ok", "Python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.prefix}")


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    yield Finding("ok" if pages >= 7 else "notice", "machine", f"{cores} cores, {pages:.0f} GiB of memory")
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding("ok" if free > 5 else "notice", "disk", f"{free:.0f} GiB free in {Path.cwd()}")
    shm = Path("/dev/shm")
    if shm.is_dir() and shutil.disk_usage(shm).total < 2**30:
        size = shutil.disk_usage(shm).total / 2**20
        yield Finding("notice", "/dev/shm", f"{size:.0f} MiB: Ray will be slow; start the container with --shm-size=2g")


def _libraries() -> Iterator[Finding]:
    for distribution, module, use in _LIBRARIES:
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            core = module in ("torch", "pyarrow", "duckdb", "soundfile")
            yield Finding("problem" if core else "notice", distribution, f"not installed; needed for {use}")
            continue
        if importlib.util.find_spec(module.split(".")[0]) is None:
            yield Finding("problem", distribution, f"{version}, but {module} cannot be found: install it again")
        else:
            yield Finding("ok", distribution, version)


def _torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("ok", "GPU", names)
    elif torch.version.cuda is not None:
        yield Finding("notice", "GPU", f"torch is built for CUDA {torch.version.cuda} but sees no device")
    else:
        from voxcpm.kernels.packed_linear import is_slow

        slow = is_slow(torch.bfloat16, torch.device("cpu"))
        words = "; it has no bfloat16 instructions: float32 is faster" if slow else ""
        yield Finding("ok", "GPU", f"none, and torch is a CPU build: everything runs on the CPU{words}")
    if importlib.util.find_spec("torchaudio") is None:
        return
    if _cuda_extensions_beside_cpu_torch():
        yield Finding(
            "problem",
            "torchaudio",
            "its CUDA extensions cannot load beside this CPU torch; `voxmill doctor --fix` removes them",
        )
        return
    try:
        importlib.import_module("torchaudio")
        yield Finding("ok", "torchaudio", importlib.metadata.version("torchaudio"))
    except (OSError, ImportError) as error:
        yield Finding("problem", "torchaudio", f"does not import: {' '.join(str(error).split())[:120]}")


def _voxcpm() -> Iterator[Finding]:
    spec = importlib.util.find_spec("voxcpm")
    ours = Path(__file__).resolve().parent.parent / "voxcpm"
    try:
        official = importlib.metadata.version("voxcpm")
    except importlib.metadata.PackageNotFoundError:
        official = None
    where = Path(spec.origin).resolve().parent if spec and spec.origin else None
    if where != ours:
        yield Finding(
            "problem", "voxcpm", f"the import name is taken by {where}; install voxmill in a separate environment"
        )
    elif official is not None:
        yield Finding(
            "problem",
            "voxcpm",
            f"the official voxcpm {official} is installed here too: pip uninstall voxcpm, then reinstall",
        )
    else:
        yield Finding("ok", "voxcpm", "ours")


def _weights() -> Iterator[Finding]:
    from catalogs.weights import registry

    small = set(registry.profile("small"))
    for name, weights in registry.registry().items():
        if registry.available(name):
            yield Finding("ok", f"weights {name}", weights.role)
        elif name == "htdemucs":
            yield Finding(
                "notice", f"weights {name}", "not here: source separation will be off; voxmill models pull htdemucs"
            )
        elif name in small:
            yield Finding("notice", f"weights {name}", f"{weights.role}: not here; voxmill models pull {name}")


def _cuda_extensions_beside_cpu_torch() -> list[Path]:
    found = importlib.util.find_spec("torchaudio")
    if found is None or found.origin is None or importlib.util.find_spec("torch") is None:
        return []
    import torch

    if torch.version.cuda is not None:
        return []
    return sorted((Path(found.origin).parent / "lib").glob("*.so"))
