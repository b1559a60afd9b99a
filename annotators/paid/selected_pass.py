"""A paid pass over the selected clips: the selection's order, as far as the cap surely reaches, and what is reported of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from annotators.paid.estimate import Estimate, estimate
from annotators.paid.ledger import Ledger, Totals
from annotators.paid.paid_pass import describe_paid
from annotators.paid.pass_options import (
    CannotWorkError,
    PassOptions,
    PassStats,
    PassStoppedError,
    check_cap,
    is_free,
    ledger_path,
    pass_name,
)
from annotators.paid.prices import MICRO, micro_usd
from annotators.paid.selection import Order, Selection, order
from annotators.providers.remote import FatalError, RemoteProvider
from annotators.runner import describe_corpus
from catalogs.corpus.commit import write_in_corpus
from catalogs.corpus.reader import Corpus
from catalogs.files import one_line
from catalogs.words import counted

SUMMARY = "pass.json"
"""File in the folder of a pass that the report reads."""
_ROUNDS = 8
"""Most passes of one run. Each commits what is surely left of the cap; replies cost less than their worst case."""
_TRIES = 5
"""Most estimates until the number of clips fits the cap."""
_ENOUGH = 0.9
"""Share of the money left that a number of clips has to use in the worst case."""
_FEWEST = 0.02
"""Share of the clips asked about so far below which another round is not worth a walk over the corpus."""
MakeProvider = Callable[[], RemoteProvider]


@dataclass(frozen=True)
class Wanted:
    """The clips that a pass is for: the first `first` of `order`."""

    order: Order
    first: int

    @property
    def line(self) -> str:
        """The selection as one line for the log."""
        share = f" of {counted(self.order.kept, 'kept segment')}"
        limited = f"the first {self.first} of " if self.first < len(self.order) else ""
        return f"selected: {limited}{len(self.order)}{share}; the others keep their offline descriptions"


def wanted(root: str | Path, limit: int | None = None, everything: bool = False) -> Wanted:
    """Return the clips to describe. everything: all kept segments instead of the selection, in the same order.

    Raises ValueError for a limit below 1 and CorpusError.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the limit is {limit} clips: give at least 1")
    corpus = Corpus(root)
    found = order(corpus.kept_parts, Selection(rest=everything))
    return Wanted(found, len(found) if limit is None else min(limit, len(found)))


def describe_selected(
    root: str | Path, make: MakeProvider, options: PassOptions | None = None, clips: Wanted | None = None
) -> PassStats:
    """Describe the wanted clips by a service, in the order of the selection as far as the cap reaches, and all by `acoustic`.

    What the cap cannot surely pay for is left out from the end of the order, so that any cap leaves a balanced set; a higher cap
    extends it. Writes the offline descriptions, annotations/NAME/, and annotations/NAME/pass.json for the report.
    Raises as `describe_paid`.
    """
    options = options or PassOptions()
    provider = make()
    check_cap(provider, options)
    try:
        provider.check()
    except FatalError as error:
        raise CannotWorkError(str(error)) from None
    clips = clips or wanted(root)
    # No segment is without a description, whatever the service or the cap leave out.
    describe_corpus(root, "acoustic")
    stats, asked = PassStats(pass_name(provider, options)), 0
    try:
        for number in range(_ROUNDS):
            first = affordable(root, make(), options, clips)
            # The first round is made in any case: it collects batches, whose holds may leave no money for other clips.
            if number and first - asked <= _FEWEST * asked:
                break
            asked, stats = first, _added(describe_paid(root, make(), _first(options, clips, first)), stats)
            # What is said at the start of a pass is said once.
            options = replace(options, say=None)
            if stats.jobs_running or stats.cap_reached or first == clips.first:
                break
    except PassStoppedError as stop:
        _summarize(root, provider, options, clips, stop.stats or stats, one_line(stop))
        raise
    if asked < clips.first:
        stats.cap_reached = True
        stats.clips["unasked"] += clips.first - asked
    _summarize(root, provider, options, clips, stats, None)
    return stats


def estimate_selected(
    root: str | Path, make: MakeProvider, options: PassOptions | None = None, clips: Wanted | None = None
) -> tuple[Estimate, int | None]:
    """Return what the wanted clips would still cost, and how many of them the cap surely pays for (None without a cap).

    Nothing is sent or written. Raises PriceError and CorpusError.
    """
    options = options or PassOptions()
    clips = clips or wanted(root)
    found = estimate(root, make(), _first(options, clips, clips.first))
    return found, None if options.cap_usd is None else affordable(root, make(), options, clips)


def affordable(root: str | Path, provider: RemoteProvider, options: PassOptions, clips: Wanted) -> int:
    """Return how many clips of the order the cap pays for even in the worst case, those that are answered already included."""
    if options.cap_usd is None:
        return clips.first
    left = micro_usd(options.cap_usd) - _committed(root, provider, options)
    fits, first = 0, clips.first
    for _ in range(_TRIES):
        found = estimate(root, provider, _first(options, clips, first))
        if found.worst <= left:
            fits = max(fits, first)
            if first == clips.first or found.worst >= _ENOUGH * left:
                break
        if not found.worst:
            break
        # The answered clips of the order cost nothing more.
        first = min(clips.first, found.answered + int(found.clips * max(left, 0) / found.worst * 0.98))
        if first <= fits:
            break
    return fits


def _committed(root: str | Path, provider: RemoteProvider, options: PassOptions) -> int:
    """Return what the pass has spent and holds, in micro-dollars."""
    totals = _totals(root, provider, options)
    return 0 if totals is None else totals.spent + totals.held


def _totals(root: str | Path, provider: RemoteProvider, options: PassOptions) -> Totals | None:
    name = pass_name(provider, options)
    path = ledger_path(Path(root), name, options)
    if not path.is_file():
        return None
    ledger = Ledger(path, name, options.force_ledger)
    try:
        return ledger.totals()
    finally:
        ledger.close()


def _first(options: PassOptions, clips: Wanted, first: int) -> PassOptions:
    return replace(options, chosen=clips.order.first(first))


def _added(found: PassStats, before: PassStats) -> PassStats:
    """Return the counts of a round with the requests of the earlier ones; its clips include theirs."""
    found.requests += before.requests
    found.underestimated += before.underestimated
    return found


def _summarize(
    root: str | Path,
    provider: RemoteProvider,
    options: PassOptions,
    clips: Wanted,
    stats: PassStats,
    stopped: str | None,
) -> None:
    """Write the file of a pass that the report reads."""
    totals = stats.totals or _totals(root, provider, options)
    summary: dict[str, Any] = {
        "annotator": stats.name,
        "provider": provider.name,
        "model": provider.model,
        "prompt_version": provider.prompt_version,
        "languages": list(getattr(provider, "languages", ())),
        "free": is_free(provider, options),
        "kept": clips.order.kept,
        "selected": clips.first,
        "clips": {kind: stats.clips[kind] for kind in ("ok", "blocked", "failed", "unasked")},
        "cap_usd": options.cap_usd,
        "cap_reached": stats.cap_reached,
        "jobs_running": stats.jobs_running,
        "stopped": stopped,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if totals is not None:
        summary |= {
            "requests": dict(totals.requests),
            "spent_usd": totals.spent / MICRO,
            "unknown_usd": totals.unknown / MICRO,
        }
    path = Path(root) / "annotations" / stats.name / SUMMARY
    write_in_corpus(Path(root), path, json.dumps(summary, indent=1).encode())
