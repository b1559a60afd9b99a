"""Charts of an evaluation as inline SVG: intervals side by side, and figures over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from catalogs.report.charts import number_text, ticks

WIDTH = 640
_ROW, _LABEL, _RIGHT, _AXIS = 26, 190, 16, 22


@dataclass(frozen=True)
class Bar:
    """One line of a chart: an estimate with its interval; `kind` is a class of the page (`kept`, `silence`)."""

    label: str
    estimate: float
    low: float | None
    high: float | None
    kind: str = "kept"


def intervals_svg(title: str, bars: Sequence[Bar]) -> str:
    """Return estimates as dots with their intervals as lines, one below the other on a common axis."""
    ends = [end for bar in bars for end in (bar.low, bar.estimate, bar.high) if end is not None]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    inner = WIDTH - _LABEL - _RIGHT
    tall = _ROW * len(bars) + _AXIS
    parts = [f'<svg class="hist intervals" viewBox="0 0 {WIDTH} {tall}" role="img" aria-label="{escape(title)}">']
    for tick in ticks(low, high, 6):
        place = _LABEL + inner * (tick - low) / (high - low)
        parts.append(f'<line class="axis" x1="{place:.1f}" x2="{place:.1f}" y1="0" y2="{tall - _AXIS}"/>')
        parts.append(f'<text x="{place:.1f}" y="{tall - 7}" text-anchor="middle">{number_text(tick)}</text>')
    for number, bar in enumerate(bars):
        middle = _ROW * (number + 0.5)
        place = _LABEL + inner * (bar.estimate - low) / (high - low)
        words = f"{bar.label}: {number_text(bar.estimate)}"
        if bar.low is not None and bar.high is not None:
            words += f" [{number_text(bar.low)}, {number_text(bar.high)}]"
        parts.append(f"<g><title>{escape(words)}</title>")
        parts.append(
            f'<text class="label" x="{_LABEL - 12}" y="{middle + 4:.1f}" text-anchor="end">{escape(_short(bar.label))}</text>'
        )
        if bar.low is not None and bar.high is not None:
            left, right = (_LABEL + inner * (end - low) / (high - low) for end in (bar.low, bar.high))
            size = f'x="{left:.1f}" y="{middle - 3:.1f}" width="{max(right - left, 1):.1f}" height="6" rx="3"'
            parts.append(f'<rect class="{bar.kind} range" {size}/>')
        parts.append(f'<circle class="{bar.kind}" cx="{place:.1f}" cy="{middle:.1f}" r="5"/></g>')
    parts.append("</svg>")
    return "".join(parts)


def lines_svg(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], unit: str) -> str:
    """Return figures over time: one line per series of (seconds, figure)."""
    points = [point for _, line in series for point in line]
    if not points:
        return ""
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    right, high = max(right, left + 1e-6), max(high, low + 1e-6)
    width, height, edge, base = WIDTH, 170, 46, 148
    parts = [f'<svg class="hist lines" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">']
    for tick in ticks(low, high, 4):
        place = base - (base - 8) * (tick - low) / (high - low)
        parts.append(f'<line class="axis" x1="{edge}" x2="{width - 8}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{edge - 6}" y="{place + 4:.1f}" text-anchor="end">{number_text(tick)}</text>')
    for tick in ticks(left, right, 6):
        place = edge + (width - 8 - edge) * (tick - left) / (right - left)
        parts.append(f'<text x="{place:.1f}" y="{height - 6}" text-anchor="middle">{number_text(tick)} s</text>')
    for number, (name, line) in enumerate(series):
        path = " ".join(
            f"{'M' if n == 0 else 'L'}{edge + (width - 8 - edge) * (x - left) / (right - left):.1f} "
            f"{base - (base - 8) * (y - low) / (high - low):.1f}"
            for n, (x, y) in enumerate(line)
        )
        parts.append(f'<path class="line s{number % 4}" d="{path}"><title>{escape(f"{name} ({unit})")}</title></path>')
    parts.append("</svg>")
    return "".join(parts)


def _short(label: str) -> str:
    return label if len(label) <= 28 else label[:27] + "…"
