"""Who holds a row of the ledger: a process by id, start time and boot, because the system gives an id again."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "fuse",
    "ceph",
    "glusterfs",
    "lustre",
    "9p",
    "afs",
    "beegfs",
    "gpfs",
    "pvfs",
    "ocfs",
    "gfs2",
)


def this_process() -> str:
    """Return the name of the running process as an owner: "PID:START:BOOT:PID NAMESPACE"."""
    return f"{os.getpid()}:{_start(os.getpid())}:{_boot()}:{_namespace()}"


def is_alive(owner: str, hidden: bool = True) -> bool:
    """Return True if the owner still runs.

    hidden: the answer for a process of another PID namespace (container) of this boot, which cannot be seen. It counts as alive
    for some time, because asking twice costs money.
    """
    parts = owner.split(":")
    if len(parts) != 4 or not parts[0].isdigit() or not parts[1]:
        return False
    pid, start, boot, namespace = parts
    if boot != _boot():
        return False
    if namespace != _namespace():
        return hidden
    return _start(int(pid)) == start


def file_system(path: Path) -> str:
    """Return the type of the file system of a path that exists, e.g. "ext4"; "" if unknown."""
    real = str(path.resolve())
    best, kind = "", ""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        # Blanks in a mount point are written in octal.
        point = before.split()[4].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # A later mount at the same place hides the earlier one.
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Return True if locks of SQLite are not safe on this type of file system."""
    return kind.startswith(_NETWORK)


def _start(pid: int) -> str:
    """Return the start time of a process in clock ticks since the boot; "" if it does not run (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@cache
def _namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink()).removeprefix("pid:").strip("[]")
