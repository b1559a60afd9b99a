"""What a paid pass still has to ask: the corpus is walked unit by unit, and what the ledger has answered is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice

from annotators.paid.clips import Place, asks_of, units_of
from annotators.paid.ledger import Ledger
from annotators.paid.outcomes import Outcome, compile_unit, outcome_of, parser_of, settled_unit
from annotators.paid.pass_options import PassOptions
from annotators.providers.remote import Ask, RemoteProvider, Request
from annotators.rows import description_path
from catalogs.corpus.reader import Corpus

SLICE = 128
"""Clips whose audio is held at once, beside those of requests in flight."""


@dataclass(frozen=True)
class Planned:
    """A request and the number of replies that each of its clips has already."""

    request: Request
    replies: int = 0


@dataclass
class Unit:
    """A unit of the corpus during a pass."""

    unit: str
    places: Sequence[Place]
    keys: dict[str, str] = field(default_factory=dict)
    """Key of each segment, as far as known."""
    held: bool = False
    """Whether a clip is being asked about by somebody else: the unit is looked at again at the end."""


class Planner:
    """Finds what to ask. Its methods block, so they run in threads; it holds one slice of clips."""

    def __init__(
        self, corpus: Corpus, name: str, provider: RemoteProvider, ledger: Ledger, options: PassOptions, pool: Executor
    ) -> None:
        self.corpus, self.name, self.provider, self.ledger, self.options = corpus, name, provider, ledger, options
        self._pool = pool
        self.left = options.limit
        """Clips that may still be asked about in this run; None: any number."""

    def units(self, only: set[str] | None = None) -> Iterator[Unit]:
        """Yield the units, those in `only`."""
        for unit, places in units_of(self.corpus, self.options.chosen):
            if only is None or unit in only:
                yield Unit(unit, places)

    def settled(self, unit: Unit) -> Counter[str] | None:
        """Return the clips of a unit that needs nothing, by kind of status. Otherwise fill in its known keys and return None."""
        path = description_path(self.corpus.path, self.name, unit.unit)
        found = settled_unit(path, unit.places, self.provider.identity)
        if found is None:
            unit.keys = self.ledger.clips(unit.unit, self.options.vote, self.provider.identity)
        return found

    def slices(self, unit: Unit) -> Iterator[list[Planned]]:
        """Yield the requests of a unit, slice by slice. The unit's keys are complete afterwards."""
        chosen = (place for place in unit.places if place.chosen)
        seen: set[str] = set()
        while part := list(islice(chosen, SLICE)):
            if self.left is not None and self.left <= 0:
                return
            yield self._slice(unit, part, seen)

    def _slice(self, unit: Unit, places: list[Place], seen: set[str]) -> list[Planned]:
        """Return the requests about some clips of a unit; `seen` are the keys that were planned for this unit already."""
        asks = {ask.segment_id: ask for ask in self.asks([p for p in places if p.segment_id not in unit.keys])}
        fresh = {segment: ask.key for segment, ask in asks.items()}
        if fresh:
            self.ledger.add_clips(unit.unit, self.options.vote, self.provider.identity, fresh)
            unit.keys.update(fresh)
        outcomes = self.outcomes([unit.keys[place.segment_id] for place in places])
        todo: list[tuple[Place, Outcome | None]] = []
        for place in places:
            key = unit.keys[place.segment_id]
            outcome = outcomes.get(key)
            if key in seen or (outcome and outcome.final) or (self.left is not None and self.left <= 0):
                continue
            seen.add(key)
            if outcome and outcome.is_open:
                unit.held = True
                continue
            todo.append((place, outcome))
            self.left = None if self.left is None else self.left - 1
        known = [place for place, _ in todo if place.segment_id not in asks]
        asks |= {ask.segment_id: ask for ask in self.asks(known)}
        return self._grouped([(asks[place.segment_id], outcome) for place, outcome in todo])

    def _grouped(self, todo: Sequence[tuple[Ask, Outcome | None]]) -> list[Planned]:
        together = [ask for ask, outcome in todo if outcome is None or not outcome.alone]
        found = [Planned(request) for request in self.provider.group(together)] if together else []
        found += [
            Planned(request, outcome.replies)
            for ask, outcome in todo
            if outcome is not None and outcome.alone
            for request in self.provider.group([ask])
        ]
        return found

    def compiled(self, unit: Unit, identity: str | None = None) -> Counter[str]:
        """Write the file of a unit from the ledger and return its clips by kind of status; see `compile_unit`."""
        return compile_unit(
            self.corpus.path, self.name, unit.unit, unit.places, unit.keys, self.ledger, self.provider, identity
        )

    def outcomes(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """Return the outcome of each key that was asked about before."""
        parsed = parser_of(self.ledger, self.provider)
        history = self.ledger.history(keys)
        return {key: outcome_of(key, entries, parsed) for key, entries in history.items()}

    def asks(self, places: Sequence[Place]) -> list[Ask]:
        """Return what the provider is asked about some clips, with their audio."""
        return asks_of(self.corpus, places, self.provider.identity, self.options.vote, self._pool) if places else []
