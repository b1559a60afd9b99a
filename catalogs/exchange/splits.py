"""Splits that share no speaker, session, copy or text: connected components of sessions, filled in the order of a hash.

Sessions are linked if they share a speaker, a group of duplicates or a normalized text. A component is never divided. Held-out
splits are filled first, in the order of a hash of the component and the seed, so that most components stay in their split when the
corpus grows. A component that is larger than what a split has left goes to the first split.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from catalogs.exchange.request import SameText, Split

NO_KEY = np.uint64(0)
"""The value of a key that is null: it links nothing."""
_FULL = 0.2
"""Share of a split that may be missing when it is closed because a component does not fit."""
LEFT_OUT = -1
"""The split of a clip that is left out because another split has its text."""


def key_of(value: str | None) -> int:
    """Return the 64-bit value of a key; 0 for none. Two keys share a value once in 2^64: they are linked without need."""
    return 0 if not value else int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "big") or 1


def text_key(text: str | None) -> str:
    """Return a text without case, marks, spaces and punctuation: two clips with equal keys say the same."""
    plain = unicodedata.normalize("NFKD", text or "").casefold()
    return "".join(sign for sign in plain if sign.isalnum())


@dataclass
class SplitKeys:
    """What links clips, as uint64 `[N]` each (0: nothing), and their seconds. About 48 bytes per clip.

    links: speakers, groups of duplicates and whatever else keeps clips together.
    """

    session: np.ndarray
    links: Sequence[np.ndarray]
    text: np.ndarray
    seconds: np.ndarray


@dataclass
class SplitResult:
    """The split of each clip (int8 `[N]`, `LEFT_OUT` for none), and how it came about."""

    of_clip: np.ndarray
    components: int
    largest_share: float
    """Share of the seconds in the largest component."""
    too_large: int
    """Components that were larger than every held-out split."""
    joined_by_text: int = 0
    """How many components more there would be if equal texts did not link."""
    left_out: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


def assign(keys: SplitKeys, splits: Sequence[Split], seed: int, same_text: SameText) -> SplitResult:
    """Return the split of each clip. The first split takes what the others have no room for."""
    count = len(keys.seconds)
    linking = [*keys.links, keys.text] if same_text == "link" else keys.links
    sessions, place = np.unique(keys.session, return_inverse=True)
    parents = _joined(len(sessions), place, linking)
    component = parents[place]
    members = np.unique(component)
    seconds = np.bincount(component, weights=keys.seconds, minlength=len(sessions)) if count else np.zeros(0)
    # A component is named by the least hash of its sessions: it keeps its name when sessions with greater ones join it.
    hashes = np.array([_mixed(int(session), seed) for session in sessions], dtype=np.uint64)
    names = np.full(len(sessions), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(names, parents, hashes)
    total = float(seconds.sum())
    of_component = np.zeros(len(sessions), dtype=np.int8)
    budgets = [split.share * total for split in splits]
    left, filling = list(budgets), list(range(1, len(splits)))
    too_large = 0
    for member in members[np.argsort(names[members], kind="stable")]:
        own = float(seconds[member])
        # One after the other: then only components near the two ends of a split move when the corpus grows.
        chosen = next((n for n in filling if own <= left[n]), 0)
        filling = [n for n in filling if own <= left[n] or own > budgets[n] or left[n] > _FULL * budgets[n]]
        of_component[member] = chosen
        left[chosen] -= own
        too_large += len(splits) > 1 and own > max(budgets[1:])
    of_clip = of_component[component] if count else np.zeros(0, dtype=np.int8)
    out = 0
    if same_text == "leave-out" and len(splits) > 1:
        out = _leave_out(of_clip, keys.text)
    largest = float(seconds.max()) / total if total else 0.0
    found = {split.name: float(keys.seconds[of_clip == n].sum()) for n, split in enumerate(splits)}
    apart = 0
    if same_text == "link" and len(splits) > 1:
        apart = len(np.unique(_joined(len(sessions), place, keys.links))) - len(members)
    return SplitResult(of_clip, len(members), largest, too_large, apart, out, found)


def _mixed(session: int, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{session}".encode(), digest_size=8).digest(), "big")


def _joined(count: int, place: np.ndarray, keys: Sequence[np.ndarray]) -> np.ndarray:
    """Return the root of each session, int64 `[sessions]`, after sessions with a common key are joined."""
    parents = list(range(count))

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for key in keys:
        order = np.argsort(key, kind="stable")
        sorted_keys, sorted_places = key[order], place[order]
        same = (sorted_keys[1:] == sorted_keys[:-1]) & (sorted_keys[1:] != NO_KEY)
        same &= sorted_places[1:] != sorted_places[:-1]
        pairs = np.unique(np.stack([sorted_places[:-1][same], sorted_places[1:][same]], axis=1), axis=0)
        for first, second in pairs.tolist():
            one, other = root(first), root(second)
            if one != other:
                parents[max(one, other)] = min(one, other)
    return np.array([root(node) for node in range(count)], dtype=np.int64)


def _leave_out(of_clip: np.ndarray, text: np.ndarray) -> int:
    """Mark clips whose text an earlier split has; return their number."""
    out = 0
    for split in range(1, int(of_clip.max(initial=0)) + 1):
        earlier = np.unique(text[(of_clip >= 0) & (of_clip < split) & (text != NO_KEY)])
        repeated = (of_clip == split) & np.isin(text, earlier)
        of_clip[repeated] = LEFT_OUT
        out += int(repeated.sum())
    return out
