"""What a listening test has found, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.listen.differences import Difference
from evaluation.listen.read import Pair, Ratings
from evaluation.statistics.mos import Interval, Opinion


def markdown(ratings: Ratings) -> str:
    """Return the tables of a test: figures first, then who and what was left out."""
    parts = [f"# Listening test {ratings.test} ({ratings.kind})", _counts(ratings)]
    for scale, by_system in ratings.opinions.items():
        parts += [f"## {scale.capitalize()}", _opinions(by_system)]
        if found := ratings.differences.get(scale):
            parts.append(_differences(found))
    if ratings.versus:
        parts += ["## Pairs", _pairs(ratings)]
    if ratings.strengths:
        parts += ["## Strengths (Bradley-Terry, log odds)", _strengths(ratings)]
    if ratings.no_strengths:
        parts.append(f"No strengths (Bradley-Terry): {ratings.no_strengths}")
    if ratings.exclusions:
        rows = [[one.listener, one.rule, one.detail, "yes" if one.kept else "no"] for one in ratings.exclusions]
        parts += ["## Screening", _table(["listener", "rule", "detail", "counts all the same"], rows)]
    if ratings.left_out:
        parts += [
            "## Items that were not in the test",
            _table(["reason", "items"], [[k, str(v)] for k, v in ratings.left_out.items()]),
        ]
    if ratings.faults:
        parts += ["## Faults in files", "\n".join(f"* {fault}" for fault in ratings.faults)]
    return "\n\n".join(parts) + "\n"


def _counts(ratings: Ratings) -> str:
    repeats = ratings.repeats
    lines = [
        f"Listeners: {ratings.counted} counted, {ratings.sheets - ratings.counted} excluded, "
        f"{ratings.incomplete} of the counted incomplete.",
        f"Files: {ratings.files}, of which {ratings.bad_files} cannot be used.",
        f"Ratings: {sum(row.role == 'main' for row in ratings.rows)}.",
        f"Asked twice: {repeats.pairs}, correlation {_number(repeats.correlation)}, "
        f"mean difference {_number(repeats.difference)}.",
    ]
    return "  \n".join(lines)


def _opinions(by_system: dict[str, Opinion]) -> str:
    order = sorted(by_system.values(), key=lambda opinion: -opinion.mean)
    rows = [
        [
            one.system,
            _number(one.mean),
            _interval(one.crossed),
            _interval(one.naive),
            str(one.ratings),
            str(one.listeners),
            str(one.items),
        ]
        for one in order
    ]
    head = ["system", "mean", "95 % (listeners x items)", "95 % (naive)", "ratings", "listeners", "items"]
    return _table(head, rows)


def _differences(found: dict[Pair, Difference]) -> str:
    rows = [
        [f"{first} over {second}", _number(one.mean, sign=True), _interval(one.crossed, sign=True), one.verdict]
        for (first, second), one in found.items()
    ]
    return _table(["pair", "difference", "95 % (listeners x items)", "verdict"], rows)


def _pairs(ratings: Ratings) -> str:
    rows = []
    for (first, second), found in ratings.versus.items():
        one = found.opinion
        rows.append(
            [
                f"{first} over {second}",
                _number(one.mean, sign=True),
                _interval(one.crossed, sign=True),
                _interval(one.naive, sign=True),
                f"{found.wins} / {found.ties} / {found.losses}",
                Difference(one.mean, one.crossed).verdict,
                str(one.listeners),
            ]
        )
    head = ["pair", "mean", "95 % (listeners x items)", "95 % (naive)", "better / same / worse", "verdict", "listeners"]
    return _table(head, rows)


def _strengths(ratings: Ratings) -> str:
    found = ratings.strengths
    assert found is not None
    rows = [
        [
            name,
            _number(found.strength[name], sign=True),
            _interval((found.low[name], found.high[name]) if found.low and found.high else None, sign=True),
        ]
        for name in found.systems
    ]
    return _table(["system", "strength", "95 % (listeners)"], rows)


def _number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:+.2f}" if sign else f"{value:.2f}"


def _interval(found: Interval | None, sign: bool = False) -> str:
    return "–" if found is None else f"{_number(found[0], sign)} to {_number(found[1], sign)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * len(head), *lines[1:]])
