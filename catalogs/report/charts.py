"""Small inline SVG charts for the report. They take their colors from the page, so light and dark themes both work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 340, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 6, 6, 18, 20


@dataclass(frozen=True)
class Histogram:
    """Counts of kept and rejected segments in bins of equal width from `low` to `high`; `limits` are drawn as lines."""

    label: str
    unit: str
    low: float
    high: float
    kept: Sequence[int]
    rejected: Sequence[int]
    limits: Sequence[float] = ()


def histogram_svg(data: Histogram, lines: bool = True) -> str:
    """Return the histogram as an SVG element: kept at the bottom, rejected stacked on it, limits as dashed lines.

    lines: False if the page draws the limits itself.
    """
    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    bins = len(data.kept)
    top = max((k + r for k, r in zip(data.kept, data.rejected, strict=True)), default=0) or 1
    step = inner_width / max(bins, 1)
    width = (data.high - data.low) / max(bins, 1)
    # Enough decimals to tell neighboring bins apart.
    digits = max(3, 1 - math.floor(math.log10(width))) if width > 0 else 3
    parts = [f'<svg class="hist" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(data.label)}">']
    base = _TOP + inner_height
    for number, (kept, rejected) in enumerate(zip(data.kept, data.rejected, strict=True)):
        left = _LEFT + number * step
        tall_kept, tall_rejected = inner_height * kept / top, inner_height * rejected / top
        first = data.low + number * width
        span = f"{number_text(first, digits)} to {number_text(first + width, digits)}"
        words = f"{span} {data.unit}: {kept} kept, {rejected} rejected"
        parts.append(f"<g><title>{escape(words)}</title>")
        parts.append(f'<rect class="hit" x="{left:.1f}" y="{_TOP}" width="{step:.1f}" height="{inner_height}"/>')
        if kept:
            parts.append(_bar("kept", left, base - tall_kept, step, tall_kept))
        if rejected:
            parts.append(_bar("rejected", left, base - tall_kept - tall_rejected, step, tall_rejected))
        parts.append("</g>")
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    for tick in ticks(data.low, data.high):
        place = _LEFT + inner_width * (tick - data.low) / (data.high - data.low)
        anchor = "start" if place < 16 else "end" if place > WIDTH - 16 else "middle"
        parts.append(f'<text class="tick" x="{place:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">')
        parts.append(f"{number_text(tick, digits)}</text>")
    for limit in data.limits if lines else ():
        if data.low <= limit <= data.high:
            place = _LEFT + inner_width * (limit - data.low) / (data.high - data.low)
            anchor, shift = ("end", -4) if place > WIDTH * 0.75 else ("start", 4)
            parts.append(f'<line class="limit" x1="{place:.1f}" x2="{place:.1f}" y1="4" y2="{base}"/>')
            parts.append(f'<text class="limit-label" x="{place + shift:.1f}" y="12" text-anchor="{anchor}">')
            parts.append(f"{number_text(limit)}</text>")
    parts.append("</svg>")
    return "".join(parts)


def _bar(kind: str, left: float, top: float, width: float, height: float) -> str:
    size = f'x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(width - 1, 0.5):.1f}" height="{max(height, 0.8):.1f}"'
    return f'<rect class="{kind}" {size}/>'


def waveform_path(peaks: Sequence[float], width: int = 160, height: int = 28) -> str:
    """Return the `d` of an SVG path that draws peaks (0..1) as vertical strokes around the middle."""
    middle = height / 2
    strokes = []
    for number, peak in enumerate(peaks):
        place = (number + 0.5) * width / len(peaks)
        reach = max(peak * (middle - 1), 0.6)
        strokes.append(f"M{place:.1f} {middle - reach:.1f}V{middle + reach:.1f}")
    return "".join(strokes)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return about `wanted` round numbers between low and high."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if magnitude * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def number_text(value: float, digits: int = 3) -> str:
    """Format a number with at most `digits` decimals and without trailing zeros."""
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"
    return "0" if text == "-0" else text
