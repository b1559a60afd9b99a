"""What became of each clip of a paid pass, from the replies in the ledger, and the Parquet files that are compiled of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from annotators.paid.clips import Place
from annotators.paid.ledger import ANSWERED, KILLED, OTHER_MODEL, RESERVED, SENT, UNKNOWN, Entry, Ledger, storable
from annotators.paid.prices import MICRO
from annotators.paid.retries import RULES, Event, event_of_reason
from annotators.providers.remote import RemoteProvider
from annotators.rows import described_rows, description_columns, description_path
from annotators.schema import VoiceDescription
from catalogs.corpus.commit import write_in_corpus
from catalogs.corpus.damage import reading
from catalogs.corpus.row_files import parquet_bytes
from catalogs.corpus.schema import DESCRIPTIONS
from catalogs.files import one_line

UNASKED = "unasked"
_IDENTITY = b"voxmill.identity"
_NO_REPLY = "failed:no reply: "
_NOT_FINAL = "failed:to be asked alone: "
"""These two begin the status of a clip that a later run asks about again. Other failures were answered, and are final."""
Parsed = Callable[[Entry], Mapping[str, VoiceDescription | str]]


@dataclass(frozen=True)
class Outcome:
    """What is known of one clip. status: ok, blocked:REASON, failed:REASON or unasked."""

    status: str
    final: bool
    """Whether it is not asked about again."""
    replies: int = 0
    """Usable replies so far."""
    alone: bool = False
    """Whether it must be asked about alone, because a group with it failed."""
    is_open: bool = False
    """Whether it is being asked about now."""
    description: VoiceDescription | None = None
    entry: Entry | None = None
    """The request whose reply decided."""
    entries: tuple[Entry, ...] = ()


def outcome_of(key: str, entries: Sequence[Entry], parsed: Parsed) -> Outcome:
    """Return the outcome of a key from its history. A description wins over a failure, a later failure over an earlier one."""
    usable = [e for e in entries if e.state == ANSWERED and e.error != OTHER_MODEL]
    is_open = any(e.state in (RESERVED, SENT) for e in entries)
    reason: str = "empty"
    for entry in usable:
        said = parsed(entry).get(key, "empty")
        if not isinstance(said, str):
            return Outcome("ok", True, len(usable), False, is_open, said, entry, tuple(entries))
        reason = said
    if not usable:
        return Outcome(_unanswered(entries), False, 0, _refused_in_group(entries), is_open, entries=tuple(entries))
    last = usable[-1]
    final = is_final(reason, last.keys, len(usable))
    status = reason if reason.startswith("blocked:") else f"failed:{reason}"
    # The pass stopped before the clip was asked about alone. Its unit must not count as complete.
    status = status if final else f"{_NOT_FINAL}{reason}"
    return Outcome(status, final, len(usable), True, is_open, None, last, tuple(entries))


def is_final(reason: str, keys: int, replies: int) -> bool:
    """Return True if a clip whose reply gave no description is not asked about again. keys: clips of that request."""
    event = event_of_reason(reason)
    if keys > 1:
        return False
    return event is Event.BLOCKED or replies > RULES[event].tries


def _unanswered(entries: Sequence[Entry]) -> str:
    """Return the status of a clip without a reply."""
    failed = [e for e in entries if e.error and e.state not in (RESERVED, SENT)]
    if not failed or (failed[-1].error == KILLED and failed[-1].state != UNKNOWN):
        return UNASKED
    return f"{_NO_REPLY}{failed[-1].error}"


def _refused_in_group(entries: Sequence[Entry]) -> bool:
    return any(e.keys > 1 and (e.error or "").startswith(Event.REFUSED.value) for e in entries)


def parser_of(ledger: Ledger, provider: RemoteProvider) -> Parsed:
    """Return a function that parses the stored reply of an entry, once per reply."""
    known: dict[tuple[str, int], Mapping[str, VoiceDescription | str]] = {}

    def parsed(entry: Entry) -> Mapping[str, VoiceDescription | str]:
        name = (entry.request, entry.attempt)
        if name not in known:
            raw, keys = ledger.reply(*name)
            known[name] = parse(provider, raw, keys)
        return known[name]

    return parsed


def parse(provider: RemoteProvider, raw: str, keys: Sequence[str]) -> Mapping[str, VoiceDescription | str]:
    """Return the description or the reason of each key. A reply that the parser cannot take fails; it never stops a pass."""
    try:
        return provider.parse(raw, keys)
    except Exception as error:
        # A reply is text from outside: whatever it does to a parser, the other replies still count.
        return dict.fromkeys(keys, f"invalid: the parser failed ({type(error).__name__}: {one_line(error)})")


def description_row(name: str, provider: RemoteProvider, segment: str, key: str, outcome: Outcome) -> dict[str, Any]:
    """Return the row of DESCRIPTIONS of one clip, with the columns that the schema has."""
    said = outcome.description
    by_register = (
        {} if said is None else {c.register: c.text for c in reversed(said.captions) if c.language == _main(said)}
    )
    usage = [(e.usage, e.keys) for e in outcome.entries if e.usage]
    values = {
        **(description_columns(said) if said else {}),
        "segment_id": segment,
        "annotator": name,
        "model": provider.model,
        "prompt_version": provider.prompt_version,
        "language": _main(said) if said else None,
        "model_version": outcome.entry.model_version if outcome.entry else None,
        "pass_key": key,
        "disagreements": [],
        "tokens_in": round(sum((u.text_in + u.audio_in) / keys for u, keys in usage)),
        "tokens_out": round(sum(u.out / keys for u, keys in usage)),
        "cost_usd": sum(e.cost / e.keys for e in outcome.entries) / MICRO,
        "status": outcome.status,
        **by_register,
    }
    return {field.name: _fit(values.get(field.name), field.type) for field in DESCRIPTIONS}


def _main(said: VoiceDescription) -> str | None:
    """Return the language of the columns of one caption each: English if there is any."""
    languages = [caption.language for caption in said.captions]
    return "en" if "en" in languages else next(iter(languages), None)


def _fit(value: Any, kind: pa.DataType) -> Any:
    """Return a value as a column's type takes it; None if it cannot."""
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {f.name: _fit(value.get(f.name), f.type) for f in kind} if isinstance(value, Mapping) else None
    if pa.types.is_list(kind):
        return [_fit(item, kind.value_type) for item in value] if isinstance(value, list | tuple) else None
    if pa.types.is_string(kind):
        return storable(value) if isinstance(value, str) else None
    return None if isinstance(value, str | list | tuple | Mapping) else value


def compile_unit(
    root: Path,
    name: str,
    unit: str,
    places: Sequence[Place],
    keys: Mapping[str, str],
    ledger: Ledger,
    provider: RemoteProvider,
    identity: str | None = None,
) -> Counter[str]:
    """Write a unit's Parquet file from the ledger; return its clips by kind of status. No file is written if nothing was asked.

    It has the chosen clips, and the others that were asked about earlier. A description of an earlier run that asked otherwise
    (another prompt or other languages) stays until there is one of this run.
    identity: that of all keys, from which all rows are made (default: the provider's).
    """
    parsed = parser_of(ledger, provider)
    path = description_path(root, name, unit)
    with ledger.compiling():
        history = ledger.history(keys.values())
        earlier = described_rows(path) if history and identity is None else {}
        rows = []
        counts: Counter[str] = Counter()
        made_by = provider.identity if identity is None else identity
        for place in places:
            key = keys.get(place.segment_id, "")
            kept = earlier.get(place.segment_id)
            if kept is not None and kept["pass_key"] == key and key in history:
                kept = None
            if not (key in history or place.chosen):
                rows += [kept] if kept else []
                made_by = "" if kept else made_by
                continue
            outcome = outcome_of(key, history.get(key, ()), parsed)
            counts[kind_of(outcome.status)] += 1
            if kept and outcome.description is None:
                rows.append(kept)
                made_by = ""
            else:
                rows.append(description_row(name, provider, place.segment_id, key, outcome))
        if history:
            schema = DESCRIPTIONS.with_metadata({_IDENTITY: made_by.encode()})
            write_in_corpus(root, path, parquet_bytes(pa.Table.from_pylist(rows, schema=schema)))
    return counts


def kind_of(status: str) -> str:
    """Return ok, blocked, failed or unasked."""
    return status.partition(":")[0]


def settled_unit(path: Path, places: Sequence[Place], identity: str) -> Counter[str] | None:
    """Return the chosen clips of a unit by kind of status if its file has a final answer for all of them, otherwise None."""
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    with reading(path), pq.ParquetFile(path) as file:
        if (file.schema_arrow.metadata or {}).get(_IDENTITY) != identity.encode():
            return None
        columns = file.read(columns=["segment_id", "status"])
    found = dict(zip(*(columns.column(name).to_pylist() for name in ("segment_id", "status")), strict=True))
    statuses = [found.get(place.segment_id, UNASKED) for place in places if place.chosen]
    if any(status == UNASKED or status.startswith((_NO_REPLY, _NOT_FINAL)) for status in statuses):
        return None
    return Counter(kind_of(status) for status in statuses)
