"""Tables of measurements: what an operation took, beside what it took before and what it may take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scale_parts.kinds import KINDS, Kind
from scale_parts.operations import OPERATIONS

Found = Mapping[str, Any]
"""One measurement: corpus, operation, at, and wall_s, cpu_s, peak_mb, parts; or stopped_s, peak_mb; or failed."""


@dataclass(frozen=True)
class Bound:
    """Most seconds that an operation may take. part: which of its parts counts; empty: all of it; `each`: the slowest part."""

    seconds: float
    part: str = ""

    def value(self, found: Found) -> float:
        """Return the seconds that count; infinite if the operation failed or was stopped."""
        if "wall_s" not in found:
            return float("inf")
        parts = found["parts"]
        return float(max(parts.values()) if self.part == "each" else parts[self.part] if self.part else found["wall_s"])


BOUNDS: dict[str, dict[str, Bound]] = {
    "million": {
        "connect": Bound(0.3, "connect"),
        "counts": Bound(0.1, "each"),
        "macros": Bound(0.3, "each"),
        "catalog": Bound(20.0),
        "catalog_new": Bound(1.0),
        "report_queries": Bound(5.0),
    },
    "records": {
        "connect": Bound(0.5, "connect"),
        "kept": Bound(1.0, "kept"),
        "resume": Bound(10.0),
        "fsck": Bound(300.0),
    },
}
"""What issue 15 asks for, by corpus and operation."""
PEAK_MB = {"million": 1_000.0, "records": 2_000.0}
"""Most memory of any operation, by corpus."""

HEAD = "| operation | wall | processor | peak memory | per unit | bound | before | parts |\n|---|---|---|---|---|---|---|---|"


def read_lines(path: Path | None) -> dict[tuple[str, str], Found]:
    """Return the last measurement of each (corpus, operation) in a file of JSON lines."""
    if path is None or not path.is_file():
        return {}
    found = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(one["corpus"], one["operation"]): one for one in found}


def title(kind: Kind) -> str:
    """Return what a corpus holds, in words."""
    return f"{kind.name}: {kind.segments:,} segments in {kind.units:,} units"


def row(found: Found, before: Found | None) -> str:
    """Return the row of an operation."""
    kind, name = KINDS[found["corpus"]], found["operation"]
    words, bound = OPERATIONS[name].words, BOUNDS.get(kind.name, {}).get(name)
    limit = f"{bound.seconds:g} s{f' ({bound.part})' if bound and bound.part else ''}" if bound else ""
    limit += " missed" if misses(found) else ""
    cells = [*_cells(found, kind), limit, _short(before) if before else "", _parts(found)]
    return f"| {words} | {' | '.join(cells)} |"


def misses(found: Found) -> list[str]:
    """Return the bounds that an operation misses, one line each."""
    corpus, name = found["corpus"], found["operation"]
    bound, most = BOUNDS.get(corpus, {}).get(name), PEAK_MB.get(corpus)
    lines = []
    if bound and bound.value(found) > bound.seconds:
        lines.append(f"{corpus}, {name}: {bound.value(found):.3g} s of at most {bound.seconds:g}")
    if bound and most and found.get("peak_mb", 0.0) > most:
        lines.append(f"{corpus}, {name}: {found['peak_mb']:,.0f} MB of at most {most:,.0f}")
    return lines


def table(found: Iterable[Found], before: Mapping[tuple[str, str], Found]) -> str:
    """Return the measurements of one corpus as a table."""
    rows = [row(one, before.get((one["corpus"], one["operation"]))) for one in found]
    return "\n".join([HEAD, *rows])


def _cells(found: Found, kind: Kind) -> list[str]:
    if "failed" in found:
        return [f"failed: {found['failed']}", "", "", ""]
    if "stopped_s" in found:
        least = f"over {1e3 * found['stopped_s'] / kind.units:.3g} ms"
        return [_short(found), f"over {found['cpu_s']:.3g} s", f"{found['peak_mb']:,.0f} MB", least]
    per_unit = f"{1e3 * found['wall_s'] / kind.units:.3g} ms"
    return [_short(found), f"{found['cpu_s']:.3g} s", f"{found['peak_mb']:,.0f} MB", per_unit]


def _short(found: Found) -> str:
    if "failed" in found:
        return "failed"
    return f"over {found['stopped_s']:g} s (stopped)" if "stopped_s" in found else f"{found['wall_s']:.3g} s"


def _parts(found: Found) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in found.get("parts", {}).items())
