"""The tables, the curves and the clips of a run, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MARKS = ("<!-- result -->", "<!-- end of result -->")
WER_MARGIN, LIKENESS_MARGIN = 0.25, 0.2
"""The bounds of issue 17: errors at most this much above the recordings' own, likeness at least this much above others'. "25 %
above" is read both as points and as a share."""
CLIPS = 3

Done = Mapping[str, Mapping[str, Any]]


def tables(work: Path, done: Done) -> str:
    """Return what was found so far as Markdown: data, steps with minutes and machine, figures by language."""
    parts = []
    if "recordings" in done:
        rows = [
            [language, *(f"{part['prompts']} ({part['minutes']} min)" for part in parts_of.values())]
            for language, parts_of in done["recordings"]["split"].items()
        ]
        parts.append(markdown(["language", "training", "held out", "near copies, left out"], rows))
    rows = [[name, found["minutes"], _notes(found), found["machine"]] for name, found in done.items()]
    parts.append(markdown(["step", "minutes", "what it made", "machine and load"], rows))
    if "judge" in done:
        parts.append(figures_table(done["judge"]["figures"]))
        parts.append(verdict(done["judge"]["figures"]))
    return "\n\n".join(parts)


def figures_table(figures: Mapping[str, Any]) -> str:
    """Return a row per system and language: errors in unseen and in training sentences, likeness to the own voice and others."""
    rows = []
    for system, lists in figures.items():
        for language, unseen in lists["held_out"].items():
            seen = lists["seen"].get(language, {})
            rows.append(
                [
                    system,
                    language,
                    _with_ends(unseen, "wer", ".1%"),
                    _with_ends(seen, "wer", ".1%") if seen else "",
                    f"{unseen['failed']} of {unseen['items']}",
                    *(f"{unseen[column]:.2f}" if column in unseen else "" for column in ("own", "others")),
                    _with_ends(unseen, "margin", ".2f") if "margin" in unseen else "",
                ]
            )
    return markdown(
        [
            "system", "language", "WER, unseen sentences", "WER, training sentences", "failed, unseen",
            "likeness to own reference", "to other voices", "difference",
        ],
        rows,
    )  # fmt: skip


def last(figures: Mapping[str, Any]) -> str | None:
    """Return the model's last checkpoint. It is chosen without a look at the sentences that it is judged on."""
    return max((name for name in figures if name.startswith("model/")), default=None)


def _errors(by_language: Mapping[str, Mapping[str, float]]) -> float:
    words = sum(found["words"] for found in by_language.values())
    return sum(found["wer"] * found["words"] for found in by_language.values()) / max(words, 1)


def verdict(figures: Mapping[str, Any]) -> str:
    """Return one line per language on the two bounds, for the last checkpoint. The floor is that of the same sentences."""
    name = last(figures)
    if name is None:
        return "No checkpoint was judged."
    lines = []
    for language, found in figures[name]["held_out"].items():
        floor = figures["human"]["held_out"][language]
        if floor["items"] != found["items"]:
            lines.append(
                f"* {language}, {name}: {found['items']} sentences, but the floor is of {floor['items']}: judge again"
            )
            continue
        points, share = floor["wer"] + WER_MARGIN, floor["wer"] * (1 + WER_MARGIN)
        line = (
            f"* {language}, {name}, {found['items']} sentences: WER {_with_ends(found, 'wer', '.1%')} over a floor of "
            f"{_with_ends(floor, 'wer', '.1%')}: "
            f"{_reached(found['wer'] <= points)} (floor + {100 * WER_MARGIN:.0f} points, {points:.1%}), "
            f"{_reached(found['wer'] <= share)} ({1 + WER_MARGIN} times the floor, {share:.1%})"
        )
        if "margin" in found:
            line += (
                f"; likeness to the own voice above others {_with_ends(found, 'margin', '+.2f')}: "
                f"{_reached(found['margin'] >= LIKENESS_MARGIN)} (+{LIKENESS_MARGIN})"
            )
        lines.append(line)
    return "\n".join(lines)


def _reached(yes: bool) -> str:
    return "reached" if yes else "not reached"


def _with_ends(found: Mapping[str, float], name: str, form: str) -> str:
    """Return a figure with its interval, if it has one."""
    if f"{name}_low" not in found:
        return format(found[name], form)
    return f"{found[name]:{form}} [{found[f'{name}_low']:{form}}, {found[f'{name}_high']:{form}}]"


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_docs(work: Path, done: Done, docs: Path) -> None:
    """Put the tables between the marks of result.md; write result/curves.png, figures.json and clips."""
    page = docs / "result.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else f"# The proof\n\n{MARKS[0]}\n{MARKS[1]}\n"
    page.write_text(between_marks(text, tables(work, done)), encoding="utf-8")
    folder = docs / "result"
    folder.mkdir(exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(work, done, folder / "curves.png")
    if "judge" in done:
        _copy_clips(work, done["judge"]["figures"], folder)


def between_marks(text: str, new: str) -> str:
    """Return a page with other text between the marks; a page without them gets both at its end."""
    before, _, rest = text.partition(MARKS[0])
    return f"{before}{MARKS[0]}\n\n{new}\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


def draw(work: Path, done: Done, path: Path) -> None:
    """Draw both losses over steps (all data and parts of it) and the errors of every checkpoint."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from benchmarks.result.learning import losses

    figures = done.get("judge", {}).get("figures", {})
    shares = _last_of_shares(figures)
    columns = 1 + bool(figures) + (len(shares) > 1)
    figure, axes = plt.subplots(1, columns, figsize=(0.5 + 4.75 * columns, 3.4), squeeze=False)
    left = axes[0, 0]
    for run in sorted(work.glob("model*/metrics.jsonl")):
        curve = losses(run.parent)
        share = run.parent.name.removeprefix("model-") if "-" in run.parent.name else "100"
        left.plot([row["step"] for row in curve], [row["diffusion"] for row in curve], label=f"{share} % of the data")
    left.set(xlabel="step", ylabel="diffusion loss", title="Training")
    left.legend()
    if figures:
        _draw_errors(axes[0, 1], figures)
    if len(shares) > 1:
        _draw_shares(axes[0, 2], figures, shares)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


LISTS = (("held_out", "unseen sentences"), ("seen", "training sentences"))
MOST_WER = 200.0
"""Errors that are drawn, %. More of them means that the recognizer repeats words over sound in which it finds no speech."""


def _last_of_shares(figures: Mapping[str, Any]) -> dict[int, str]:
    """Return the last checkpoint of each model by the part of the data that it was trained on, %."""
    found: dict[int, str] = {}
    for name in sorted(figures):
        run = name.partition("/")[0]
        if run.startswith("model"):
            found[int(run.removeprefix("model-")) if "-" in run else 100] = name
    return dict(sorted(found.items()))


def _drawn(by_language: Mapping[str, Mapping[str, float]]) -> float:
    return min(100 * _errors(by_language), MOST_WER)


def _draw_errors(axes: Any, figures: Mapping[str, Any]) -> None:
    """Draw the errors of every checkpoint, and of people and the codec as lines."""
    made = [name for name in figures if name.startswith("model/")]
    for listed, label in LISTS:
        points = [(int(name.rpartition("_")[2]), _drawn(figures[name][listed])) for name in made]
        axes.plot([step for step, _ in points], [wer for _, wer in points], "o-", label=label)
    _draw_bounds(axes, figures)
    axes.set(xlabel="step", title="Over steps, all of the data")


def _draw_shares(axes: Any, figures: Mapping[str, Any], shares: Mapping[int, str]) -> None:
    """Draw the errors of the last checkpoint on each part of the data."""
    for listed, label in LISTS:
        axes.plot(list(shares), [_drawn(figures[name][listed]) for name in shares.values()], "o-", label=label)
    _draw_bounds(axes, figures)
    axes.set(xlabel="part of the data, %", title="Over data, after as many steps")


def _draw_bounds(axes: Any, figures: Mapping[str, Any]) -> None:
    for name, style in (("human", ":"), ("codec", "--")):
        if name in figures:
            axes.axhline(100 * _errors(figures[name]["held_out"]), ls=style, c="k", label=name)
    axes.set(ylabel=f"WER, % (at most {MOST_WER:.0f} drawn)", ylim=(0, 1.05 * MOST_WER))
    axes.legend(fontsize=7)


def _copy_clips(work: Path, figures: Mapping[str, Any], folder: Path) -> None:
    """Write the last checkpoint's unseen sentences with the fewest errors, as Opus."""
    import soundfile

    from benchmarks.result.judging import METRICS
    from evaluation.metrics import load_metrics
    from evaluation.runs.folder import open_run
    from evaluation.runs.score import rows_of

    name = last(figures)
    if name is None:
        return
    run = open_run(work / "runs" / f"{name.replace('/', '-')}-held_out")
    by_name = {metric.name: metric for metric in load_metrics(METRICS)}
    rows = [
        (row["wer"], key)
        for key, row in rows_of(run, by_name["words_clean"], by_name).items()
        if row["wer"] is not None and (run.root / run.audio_name(*key)).is_file()
    ]
    for _, (item_id, seed) in sorted(rows)[:CLIPS]:
        item = run.by_id[item_id]
        samples, rate = soundfile.read(run.root / run.audio_name(item_id, seed))
        target = folder / f"{item.name.replace('/', '_')}.ogg"
        soundfile.write(target, samples, rate, format="OGG", subtype="OPUS")


def _notes(found: Mapping[str, Any]) -> str:
    hidden = ("minutes", "machine", "options", "split", "figures")
    return ", ".join(f"{key} {_short(value)}" for key, value in found.items() if key not in hidden)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_short(inner)}" for key, inner in value.items())
    return str(value)
