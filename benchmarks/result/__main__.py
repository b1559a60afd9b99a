"""From raw recordings to sentences that were never heard, in one command.

    python -m benchmarks.result run OUT [--budget-minutes 90] [--languages en,it] [--docs docs]

Fetches Debian's prompts (55 MB), holds sentences out before anything is made, then `voxmill prepare`, `train-codec`, `encode`,
`train`, and `evaluate` on people, the codec and every checkpoint. The budget is that of the training; `prepare` and the judging
come on top. Finished steps are skipped: after an interruption run the same command to resume. `--until learn` stops there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result.steps import Steps, exit_on_sigterm

STEPS = ("recordings", "prepare", "codec", "learn", "shares", "judge")
SHARES = (0.25, 0.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the unfinished steps and print the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.result", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "report"), help="report: only the table and the docs of a run")
    parser.add_argument("out", type=Path, help="a folder for everything that is made")
    parser.add_argument("--budget-minutes", type=float, default=90, help="minutes of training (default 90)")
    parser.add_argument("--languages", default="en,it", help="of en,es,fr,it,ru (default en,it)")
    parser.add_argument("--per-language", type=int, default=32, help="held-out sentences of a language (default 32)")
    parser.add_argument("--shortest-s", type=float, default=0.9, help="seconds of a training prompt at least (0.9)")
    parser.add_argument("--minutes", type=float, help="of training recordings of a language at most (default: all)")
    parser.add_argument("--shares", default=",".join(map(str, SHARES)), help="parts of the data; empty: none")
    parser.add_argument(
        "--judge-most", type=int, help="sentences of a list and language that are judged (default: all)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the choice of sentences (default 1)")
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1], help="the last step to do")
    parser.add_argument(
        "--docs", type=Path, help="write the tables into result.md there, and curves and clips to result/"
    )
    given = parser.parse_args(arguments)
    exit_on_sigterm()
    work: Path = given.out.absolute()
    work.mkdir(parents=True, exist_ok=True)
    steps = Steps(work / "steps.json")
    if given.command == "run":
        shares = [float(share) for share in given.shares.split(",") if share]
        make = recipe(
            work,
            lambda: _recordings(
                work, given.languages.split(","), given.per_language, given.seed, given.shortest_s, given.minutes
            ),
            given.budget_minutes,
            shares,
            given.judge_most,
        )
        try:
            run(steps, make, given.until, options_of(given, shares))
        except ValueError as error:
            parser.exit(1, f"{error}\n")
    from benchmarks.result.report import tables, write_docs

    print(tables(work, steps.done))
    if given.docs:
        write_docs(work, steps.done, given.docs)


def run(
    steps: Steps,
    make: Mapping[str, Callable[[], Mapping[str, Any] | None]],
    until: str,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Do the unfinished steps in order. A step's name up to the first `:` is one of STEPS; after the last of `until` it ends.

    options: what each step depends on. Raises ValueError if a finished one was done with others.
    """
    last = STEPS.index(until)
    for name, work in make.items():
        kind = name.partition(":")[0]
        if STEPS.index(kind) <= last:
            steps.do(name, work, (options or {}).get(kind))


def options_of(given: argparse.Namespace, shares: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Return what each step depends on. The steps before it are named with theirs."""
    training = {"budget-minutes": given.budget_minutes, "shares": list(shares)}
    return {
        "recordings": {
            "languages": given.languages,
            "per-language": given.per_language,
            "seed": given.seed,
            "shortest-s": given.shortest_s,
            "minutes": given.minutes,
        },
        "codec": training,
        "learn": training,
        "shares": training,
        "judge": {"judge-most": given.judge_most, "shares": list(shares)},
    }


def recipe(
    work: Path,
    recordings: Callable[[], Mapping[str, Any]],
    minutes: float,
    shares: Sequence[float],
    judged: int | None = None,
) -> dict[str, Callable[[], Mapping[str, Any] | None]]:
    """Return the steps by name, in order. Checkpoints to be judged are found when `judge` begins."""
    from benchmarks.result import judging, learning

    plan = learning.Plan.of(minutes, shares, learning.on_gpu())
    return {
        "recordings": recordings,
        "prepare": lambda: learning.prepare(work),
        "codec": lambda: learning.train_codec(work, plan),
        "learn": lambda: learning.learn(work, plan),
        **{f"shares:{share:g}": _share(work, share, plan) for share in shares},
        "judge": lambda: judging.judge_all(work, shares, judged),
    }


def _share(work: Path, share: float, plan: Any) -> Callable[[], Mapping[str, Any]]:
    from benchmarks.result import learning

    return lambda: learning.learn_share(work, share, plan)


def _recordings(
    work: Path, languages: Sequence[str], per_language: int, seed: int, shortest_s: float, minutes: float | None
) -> dict[str, Any]:
    from benchmarks.result.recordings import make_recordings

    parts = make_recordings(work, languages, per_language, seed, shortest_s, minutes)
    found: dict[str, Any] = {}
    for language in languages:
        found[language] = {}
        for name in ("training", "held_out", "near_copies"):
            chosen = [prompt for prompt in getattr(parts, name) if prompt.language == language]
            minutes = round(sum(prompt.seconds for prompt in chosen) / 60, 1)
            found[language][name] = {"prompts": len(chosen), "minutes": minutes}
    return {"split": found}


if __name__ == "__main__":
    main()
