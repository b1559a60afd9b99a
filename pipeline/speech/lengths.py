"""Lengths of clips: a mix of lengths, drawn so that the same recording always gives the same clips."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

#: Mixes for the paper's three stages, each up to the longest clip that the stage trains on (60 s, 3 minutes, 5 minutes):
#: shares of the time by longest length (s). Every mix keeps segments as they were cut, because most texts for a model have
#: one or two sentences. Stage 3 has the fewest of them, because only this stage learns clips of minutes. Segments below its
#: 2 s are left to the trainer (`where`).
LENGTH_MIXES: dict[str, dict[float, float]] = {
    "as_cut": {0.0: 1.0},
    "stage1": {0.0: 0.7, 60.0: 0.3},
    "stage2": {0.0: 0.6, 60.0: 0.2, 180.0: 0.2},
    "stage3": {0.0: 0.4, 60.0: 0.2, 180.0: 0.2, 300.0: 0.2},
}


def named_mix(lengths: object) -> object:
    """Return the mix of that name; anything that is not a name is returned unchanged. Raises ValueError, which names the
    mixes."""
    if not isinstance(lengths, str):
        return lengths
    if lengths not in LENGTH_MIXES:
        raise ValueError(f"no mix of lengths {lengths!r}; mixes: {', '.join(LENGTH_MIXES)}")
    return LENGTH_MIXES[lengths]


def draw_runs(
    durations: Sequence[float], pauses: Sequence[float], lengths: Mapping[float, float], seed: str
) -> list[int]:
    """Return the sizes of the groups that neighbors are joined in: their sum is len(durations).

    durations: seconds of each neighbor, in order; pauses: seconds between them (one fewer). lengths: {longest clip in
    seconds: share of the time}; 0 stands for neighbors that stay alone. A length is drawn for each clip, evenly between the
    class's own limit and the next smaller one. Classes that the rest of the run cannot fill are not drawn. Drawing by share
    over length gives shares of the time. No clip is longer than its class.
    """
    dice = random.Random(seed)
    limits = sorted(limit for limit, share in lengths.items() if share > 0)
    sizes: list[int] = []
    place = 0
    while place < len(durations):
        left = sum(durations[place:]) + sum(pauses[place:])
        own = durations[place]
        classes = []
        for index, limit in enumerate(limits):
            least = limits[index - 1] if index else 0.0
            if limit == 0:
                classes.append((own, own, lengths[limit] / max(own, 0.1)))
            elif own < limit and left >= least:
                classes.append((max(least, own), limit, lengths[limit] / ((least + limit) / 2)))
        size = 1
        if classes:
            least, most, _ = dice.choices(classes, [weight for *_, weight in classes])[0]
            wanted = dice.uniform(least, most)
            total = own
            while place + size < len(durations) and most > own:
                longer = total + pauses[place + size - 1] + durations[place + size]
                if longer > most or (total >= least and longer > wanted):
                    break
                total, size = longer, size + 1
        sizes.append(size)
        place += size
    return sizes
