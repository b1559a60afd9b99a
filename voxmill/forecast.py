"""The output of `voxmill prepare --dry-run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from catalogs.durations import duration_text
from catalogs.words import counted
from voxmill.terminal import Terminal

if TYPE_CHECKING:
    from catalogs.corpus.locks import Share
    from pipeline.config import PrepareConfig
    from pipeline.forecast.forecast import Estimate


def show_forecast(
    recordings: Sequence[str],
    out: Path,
    config: PrepareConfig,
    sample_s: float | None,
    terminal: Terminal,
    redo: bool = False,
    share: Share | None = None,
) -> None:
    """Forecast a run and print it as a table (or JSON). Writes nothing. Raises ValueError if there is nothing to do."""
    from catalogs.corpus.thresholds import REASON_WORDS, apply_saved, saved_wins
    from pipeline.forecast.forecast import forecast, list_recordings, units_of
    from pipeline.runs.fingerprint import settle
    from pipeline.runs.weights import check_weights

    # Same decisions as the run: `separate.mode: auto` and the thresholds come from the corpus, if there is one.
    settled = settle(config, out, redo)
    for line in (*config.ignored, settled.notice, saved_wins(out, config.thresholds)):
        if line:
            terminal.say(line)
    config = settled.config.model_copy(update={"thresholds": apply_saved(out, config.thresholds)})
    check_weights(config.weights())
    with terminal.printing("pipeline"):
        found = list_recordings(recordings, out, config)
        terminal.say(f"{counted(len(found.sources), 'recording')} found")
        unit_s = units_of(found, config)
        if share:
            found.sources = [source for source in found.sources if share.holds(source.session_id)]
            terminal.say(f"{len(found.sources)} of them are in share {share}")
        result = forecast(found, out, config, sample_s, redo=redo, unit_s=unit_s)
    rows = [
        _row("time", result.wall_s, duration_text),
        _row("kept", result.kept_s, duration_text),
        _row("segments", result.segments, lambda value: f"{value:,.0f}"),
        _row("disk", result.disk_bytes, _size),
    ]
    terminal.table(
        f"{duration_text(result.audio_s)} in {result.recordings} recordings, {result.unreadable} unreadable; "
        f"from {result.excerpts} excerpts, {duration_text(result.sampled_s)}",
        ("", "forecast", "four times out of five between", "and"),
        rows,
    )
    if result.rejected:
        reasons = [
            f"{reason} ({REASON_WORDS.get(reason, reason)}) {share:.0%}" for reason, share in result.rejected.items()
        ]
        terminal.say("rejected, by the seconds of all segments: " + ", ".join(reasons[:3]))
    elif not result.segments.value:
        terminal.say("nothing is kept, for no speech was found")
    slow = sorted(result.stage_cpu_s.items(), key=lambda item: -item[1])[:4]
    terminal.say("core time: " + ", ".join(f"{stage} {duration_text(seconds)}" for stage, seconds in slow))
    gpus = f", {result.gpus:g} GPUs" if result.gpus else ""
    terminal.say(f"computed for {result.cpus:g} CPUs{gpus}")
    terminal.say(
        f"{counted(result.units, 'unit')} of about {duration_text(result.unit_s)}, each committed when it is done"
    )
    for note in result.notes:
        terminal.say(note)
    terminal.say("nothing was written; the same command without --dry-run does the work")
    terminal.result(asdict(result))


def _row(name: str, estimate: Estimate, shown: Callable[[float], str]) -> tuple[str, str, str, str]:
    return name, shown(estimate.value), shown(estimate.low), shown(estimate.high)


def _size(size: float) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"
