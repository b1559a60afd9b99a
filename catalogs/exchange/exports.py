"""exports.jsonl: the exports that were made of a corpus, one a line. What is forgotten later is still in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalogs.compaction.compact import NOT_WRITABLE
from catalogs.files import fsync_path

FILE = "exports.jsonl"


def note_export(root: Path, out: Path, form: str, clips: int) -> bool:
    """Append a line about an export that begins. Return False for a corpus that cannot be written to."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"path": str(out.resolve()), "format": form, "at": at, "clips": clips}, ensure_ascii=False)
    path = root / FILE
    try:
        is_new = not path.exists()
        with path.open("ab", buffering=0) as file:
            # Half a line that a killed export left ends here.
            ends = is_new or path.stat().st_size == 0 or path.read_bytes().endswith(b"\n")
            file.write(("" if ends else "\n").encode() + line.encode("utf-8", "surrogateescape") + b"\n")
            os.fsync(file.fileno())
        if is_new:
            fsync_path(root)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        return False
    return True


def known_exports(root: Path) -> Iterator[dict[str, Any]]:
    """Yield `path`, `format`, `at` and `clips` of the exports of a corpus; of one folder, the last line counts."""
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = (root / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            row = json.loads(line)
            found[str(row["path"])] = {name: row[name] for name in ("path", "format", "at", "clips")}
        except (ValueError, KeyError, TypeError):
            continue
    yield from found.values()
