"""The candidates of a phase, the segments held out of it, and the key of its order."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from catalogs.candidates.held_out import held_out
from catalogs.durations import duration_text
from trainer.config import Phase, TrainError
from trainer.data.candidates import Candidate, Candidates, Pairs, shared, usable
from trainer.data.corpora import Corpora
from trainer.sample_kinds import BY_LAYOUT
from trainer.validation_settings import ValidationSettings

ORDER_VERSION = 3
"""Increased when the rules that turn settings into choices change. 1: the segment first, then a layout that it can serve; keys
had no version then. 2: NumPy's generators. 3: counter-based numbers, and `where` of the corpus that a row is taken from."""


def find_candidates(
    corpora: Corpora, where: str, max_seconds: float, name: str, languages: Sequence[str] | None = None
) -> Candidates:
    """Return the candidates of a phase in order of id, only of the given languages if there are any.

    These are kept segments with text, with their descriptions and kept references, and accepted content-decoupled samples. A
    content-decoupled sample is spoken by a model, so it serves only as such a sample, and not as a reference.

    Raises TrainError if the phase has no segment at all, or none in one of the requested languages.
    """
    table = corpora.table
    able = usable(table) & (table.seconds <= max_seconds) & corpora.chosen_rows(where, name)
    found = Candidates(table, np.flatnonzero(able).astype(np.int32))
    recorded = found.where(~found.made)
    if not len(recorded):
        raise TrainError(
            f"phase {name}: {corpora.title} has no kept segment with text of up to {max_seconds:g} s where {where};"
            f' see what was rejected, and why: voxmill query {shlex.quote(str(corpora.parts[0].path))} "select * from funnel"'
        )
    if languages is None:
        return found
    there = recorded.languages
    missing = [language for language in languages if language not in there]
    if missing:
        raise TrainError(
            f"phase {name}: languages: no kept segment in {', '.join(missing)}; there are some in"
            f" {', '.join(filter(None, there)) or 'no known language'}: correct phases.{name}.languages, or prepare"
            " recordings in it"
        )
    wanted = np.array([language in languages for language in table.languages])
    return found.where(wanted[table.language[found.rows]])


def hold_out(
    candidates: Mapping[str, Sequence[Candidate]],
    settings: ValidationSettings,
    groups: Mapping[str, str] | None = None,
) -> tuple[dict[str, Candidates], Candidates | list[Candidate]]:
    """Return (candidates to train on by phase, segments held out in every phase). A held-out clip is not used as a reference in
    training either. Content-decoupled samples are never held out. They are left out if their description or timbre is from a
    held-out clip.

    Whether a segment is held out depends only on its id. If it is linked to others (copies, excerpts, the same words of the same
    voice), it depends on the group's name instead, and the group is held out together. A group of more than twenty is always
    trained on: it is a jingle, and one draw must not decide over hours. If no segment falls into the share, the nearest one is
    taken. groups: for candidates that are not rows of a corpora's table. Raises TrainError if nothing is left of a phase.
    """
    views = shared(candidates, groups)
    if settings.every is None or not views:
        return views, []
    table = next(iter(views.values())).table
    marks = np.zeros(len(table), dtype=bool)
    for found in views.values():
        marks[found.rows[~found.made]] = True
    everything = np.flatnonzero(marks)
    if not len(everything):
        return views, []
    held, taken = held_out(table, everything, settings.share)
    training = _without(views, held, taken)
    rows = everything[held[everything]].astype(np.int32)
    return training, Candidates(table, rows[np.lexsort((rows, table.draw[rows]))])


def _without(views: Mapping[str, Candidates], held: np.ndarray, taken: np.ndarray) -> dict[str, Candidates]:
    """Return the candidates of each phase that are neither held out nor made from held-out segments."""
    training: dict[str, Candidates] = {}
    pairs: Pairs | None = None
    for name, found in views.items():
        table = found.table
        pairs = pairs or found.pairs.without(held)
        spoken_by = table.described_group[found.rows]
        bare = found.made & (pairs.counts(found.rows) == 0)
        gone = held[found.rows] | ((spoken_by >= 0) & taken[spoken_by]) | bare
        training[name] = Candidates(table, found.rows[~gone], pairs)
        if training[name].made.all():
            raise TrainError(
                f"phase {name}: all of its segments are held out for validation: lower validation.share, or switch it off"
                " with --set validation.every=null"
            )
    return training


def stratified(held: Sequence[Candidate], count: int, used: Sequence[str]) -> list[tuple[Candidate, str]]:
    """Return at most `count` of the held-out segments, each with a layout of `used` that it can serve ("basic" if it serves none).

    Languages have the same shares as in the held-out segments. Each has at least one segment while there is room, so that small
    languages are scored too. A segment gets the layout with the fewest segments so far, so that the layouts are balanced.
    """
    view = Candidates.of(held)
    codes = view.table.language[view.rows]
    able = view.kinds()
    chosen = [at for code, n in _quotas(codes, count) for at in np.flatnonzero(codes == code)[:n].tolist()]
    layouts = dict.fromkeys(used, 0)
    found = {}
    # Segments with the fewest layouts first: one that can serve every layout takes what the others leave.
    for at in sorted(chosen, key=lambda at: (int(able[at]).bit_count(), at)):
        candidate = view[at]
        names = [name for name in candidate.layouts() if name in layouts] or ["basic"]
        layout = min(names, key=lambda name: layouts.get(name, 0))
        layouts[layout] = layouts.get(layout, 0) + 1
        found[at] = candidate, layout
    return [found[at] for at in sorted(found)]


def _quotas(codes: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Return (code, number) for `count` of the codes: by their shares with largest remainders, and at least one each."""
    names, sizes = np.unique(codes, return_counts=True)
    if count >= len(codes):
        return list(zip(names.tolist(), sizes.tolist(), strict=True))
    exact = sizes * count / len(codes)
    quotas = np.maximum(1, np.floor(exact)).astype(int)
    while quotas.sum() > count:
        quotas[int(np.argmax(np.where(quotas > 0, quotas - exact + (quotas > 1) * len(codes), -np.inf)))] -= 1
    while quotas.sum() < count:
        quotas[int(np.argmax(np.where(quotas < sizes, exact - quotas, -np.inf)))] += 1
    return list(zip(names.tolist(), quotas.tolist(), strict=True))


def describe_candidates(candidates: Sequence[Candidate]) -> str:
    """Return one line with the segments, hours and languages to train on, and the layouts that they can serve."""
    found = Candidates.of(candidates)
    recorded = found.where(~found.made)
    languages = sorted(name or "unknown" for name in recorded.languages)
    able = recorded.kinds()
    described, referenced = (int((able >> bit & 1).sum()) for bit in (1, 2))
    made = len(found) - len(recorded)
    return (
        f"{len(recorded)} segments, {duration_text(float(recorded.seconds.sum()))}, languages {' '.join(languages)}; {described}"
        f" with a description, {referenced} with references" + (f"; {made} content-decoupled samples" if made else "")
    )


def data_key(seed: int, phases: dict[str, Phase], candidates: Mapping[str, Sequence[Candidate]]) -> str:
    """Return the key of all that determines the order of the data: seed, phases and what segments offer.

    The length of a phase and the rows of its steps are included only if the phase's weights change over time. The key begins
    with the version of the rules.
    """
    settings, views = {}, {}
    for name, phase in phases.items():
        # Samples that a phase does not use may be added while it runs.
        view = Candidates.of(candidates[name])
        views[name] = view if phase.decoupled else view.where(~view.made)
        free = {"lr", "warmup", "schedule", "decay"}
        if phase.layouts_from is None:
            free |= {"steps", "rows", "accumulate"}
        if not views[name].has_added:
            free |= {"captions", "chinese_captions"}
        settings[name] = phase.model_dump(exclude=free)
        if not views[name].has_added:
            settings[name]["brief"] = phase.brief_share  # as before there were other registers
        for weights in (settings[name]["layouts"], settings[name]["layouts_from"] or {}):
            for layout in [layout for layout, weight in weights.items() if not weight and not BY_LAYOUT[layout].weight]:
                del weights[layout]  # a kind that may be newer than the run, and that the run does not use
    digest = hashlib.sha256(json.dumps([seed, settings], sort_keys=True).encode())
    for name in candidates:
        digest.update(views[name].digest())
    return f"{ORDER_VERSION}:{digest.hexdigest()[:16]}"
