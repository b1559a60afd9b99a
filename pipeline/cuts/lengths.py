"""How long clips become: a mix of lengths, drawn so that the same recording always gives the same clips."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence


def draw_runs(
    durations: Sequence[float], pauses: Sequence[float], lengths: Mapping[float, float], seed: str
) -> list[int]:
    """Sizes of the groups that neighbours are joined in: their sum is len(durations).

    durations: seconds of each neighbour, in order; pauses: seconds between them (one fewer). lengths: {up to so many
    seconds: share of the time}; 0 stands for neighbours that stay alone. A length is drawn for each clip, evenly between
    the class's own limit and the next smaller one; classes that the rest of the run cannot fill are not drawn. Drawing by
    share over length gives shares of the time. No clip is longer than its class.
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
