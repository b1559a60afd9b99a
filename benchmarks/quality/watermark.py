"""The watermark: what it survives, how often it is found where it is not, what it costs; beside Perth on the same clips.

    nice -n 10 python benchmarks/quality/watermark.py --write      # about three hours on one core, two of them for words; resumes

Parts: attacks (found after each attack, plain search), null (decoy keys on the unmarked clips after the same attacks), quality,
speeds (thorough search), perth, words (what Whisper hears in 347 emotional utterances of which the words are known), control (the
same with noise that nobody hears, in place of the mark: how much of a change is chance), passages and passages_control (the same of
hours of synthetic speech: --passages). Results of each clip and key are kept in --scratch: a run that was stopped continues, and a
table says how many clips it has. AudioVAE and neural codecs are not tested: no trained weights can be had offline.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from tables import table, write_between

sys.path.insert(0, str(Path(__file__).parent / "watermark_parts"))

import hearing
import measures
from clips import Clip, labeled_clips, measured_clips, tuning_clips

from voxcpm.watermark.search import GRID
from voxcpm.watermark.thresholds import MARKED, MARKED_WITH_PAYLOAD, passes

PARTS = ("attacks", "null", "quality", "speeds", "perth", "words", "control", "passages", "passages_control")


def main() -> int:
    """Measure the parts that are missing, print the tables; return 1 if an unmarked clip was called marked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "corpora")
    parser.add_argument("--scratch", type=Path, default=Path.home() / ".cache" / "voxmill" / "watermark-benchmark")
    parser.add_argument("--clips", type=int, default=49)
    parser.add_argument(
        "--keys", type=int, default=16, help="decoy keys; each has 63 rotations, on each clip and attack"
    )
    parser.add_argument("--tuning", action="store_true", help="the clips that constants may be chosen on")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument(
        "--passages", type=Path, help="folder of benchmarks/workers/piper_passages.py; without, that part is left out"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args()
    clips = tuning_clips(options.corpora) if options.tuning else measured_clips(options.corpora, options.clips)
    scratch = options.scratch / ("tuning" if options.tuning else "measured")
    for part in options.parts:
        _measure(part, clips, scratch, options)
    text = report(clips, scratch)
    print(text)
    if options.write:
        write_between("watermark", "Watermark", text)
    return 0


def _measure(part: str, clips: list[Clip], scratch: Path, options: argparse.Namespace) -> None:
    """Measure what a part lacks."""
    (scratch / part).mkdir(parents=True, exist_ok=True)
    if part == "null":
        folded = [np.load(path) for path in sorted((scratch / "attacks").glob("*.npy"))]
        cells = np.concatenate(folded) if folded else np.zeros((0, 2, 128, 64), np.float32)
        for number in range(options.keys):
            _keep(scratch / part / f"{number:03}.json", lambda n=number: measures.null_tail(cells, n))
        return
    do = _by_clip(part, scratch, options.corpora)
    if part.startswith("passages"):
        clips = [] if options.passages is None else hearing.spoken_passages(options.passages)
    elif part in ("words", "control"):
        clips = labeled_clips(options.corpora)
    for number, clip in enumerate(clips):
        _keep(scratch / part / f"{number:03}.json", lambda n=number, c=clip: do(c, n))


def _by_clip(part: str, scratch: Path, corpora: Path) -> Callable[[Clip, int], Any]:
    """Return what a part does with a clip and its number."""
    if part == "attacks":
        return lambda clip, n: measures.after_attacks(clip, n, corpora, scratch / part / f"{n:03}.npy")
    if part == "speeds":
        return measures.at_other_speeds
    if part == "quality":

        def both(clip: Clip, n: int) -> dict[str, float]:
            return measures.quality(clip.samples, measures.marked_clip(clip, n)[0], clip.rate) | measures.cost(clip)

        return both
    if part == "perth":
        from perth_parts import after_attacks

        return lambda clip, n: after_attacks(clip, corpora, scratch.parent)
    from pipeline.speech.whisper import Recognizer

    recognizer = Recognizer("whisper-base", window_margin_s=1.0)
    listen = hearing.control if part.endswith("control") else hearing.words
    return lambda clip, n: listen(clip, n, recognizer)


def _keep(path: Path, measured: Callable[[], Any]) -> None:
    """Write what is measured to a file that does not exist yet."""
    if not path.exists():
        found = json.dumps(measured())
        path.with_suffix(".part").write_text(found, encoding="utf-8")
        path.with_suffix(".part").rename(path)
        print(path, file=sys.stderr, flush=True)


def _kept(scratch: Path, part: str) -> Iterator[Any]:
    """Yield what a part measured so far."""
    for path in sorted((scratch / part).glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def report(clips: list[Clip], scratch: Path) -> str:
    """Return all tables as Markdown."""
    rows, perth = list(_kept(scratch, "attacks")), list(_kept(scratch, "perth"))
    languages = len({clip.language for clip in clips[: len(rows)]})
    lines = [
        f"{len(rows)} clips of 3 s in {languages} languages, of other corpora than the clips that constants were chosen on.",
        "",
    ]
    if rows:
        lines.append(_attack_table(rows, perth))
    speeds = list(_kept(scratch, "speeds"))
    if speeds:
        lines += ["", f"Thorough search, {len(speeds)} clips:", "", _speed_table(speeds)]
    lines += ["", _null_lines(list(_kept(scratch, "null")))]
    if rows:
        shares = {s: [_share([r["length"][s] for r in rows], i) for i in (0, 2)] for s in rows[0]["length"]}
        lines += ["", "By length, not attacked: " + "; ".join(f"{s} s {a} / {b}" for s, (a, b) in shares.items()) + "."]
    costs = list(_kept(scratch, "quality"))
    if costs:
        lines += ["", _cost_lines(costs, [row["quality"] for row in perth])]
    for part, noise, what in (
        ("words", "control", "emotional utterances of actors"),
        ("passages", "passages_control", "passages of synthetic speech"),
    ):
        noisy = chain(_kept(scratch, noise), repeat({}))
        if heard := [row | other for row, other in zip(_kept(scratch, part), noisy, strict=False)]:
            lines += ["", hearing.word_line(heard, what)]
    return "\n".join(lines)


def _attack_table(rows: list[Any], perth: list[Any]) -> str:
    head = ["attack", "marked", "payload right", "lowest score", "unmarked called marked"]
    head += [f"Perth > 0.5 ({len(perth)} clips)", "Perth, unmarked"] if perth else []
    lines = []
    for name in rows[0]["marked"]:
        found = [row["marked"][name] for row in rows]
        false = sum(passes(*row["plain"][name]) for row in rows)
        line = [name, _share(found, 0), _share(found, 2), f"{min(f[0] for f in found):.1f}", str(false)]
        for kind in ("marked", "plain") if perth else ():
            line.append(f"{np.mean([row[kind][name] > 0.5 for row in perth]):.0%}")
        lines.append(line)
    for name in ("AudioVAE", "neural codecs"):
        lines.append([name, "not tested: no trained weights offline", *[""] * (len(head) - 2)])
    return table(head, lines)


def _speed_table(rows: list[Any]) -> str:
    lines = []
    for name in rows[0]:
        found = [row[name] for row in rows]
        marked = np.mean([passes(f[0], f[1], 1 + len(GRID)) for f in found])
        right = np.mean([passes(f[0], f[1], 1 + len(GRID)) and f[2] for f in found])
        lines.append([name, f"{marked:.0%}", f"{right:.0%}"])
    return table(["change", "marked", "payload right"], lines)


def _share(found: list[Any], which: int) -> str:
    """Return the share that is marked (0), or marked with the right payload (2)."""
    return f"{np.mean([passes(f[0], f[1]) and (which == 0 or f[2]) for f in found]):.0%}"


def _null_lines(rows: list[Any]) -> str:
    trials, tail = sum(row["trials"] for row in rows), [pair for row in rows for pair in row["tail"]]
    if not trials:
        return "False alarms: not measured."
    false = sum(passes(*pair) for pair in tail)
    counts = {level: sum(score > level for score, _ in tail) for level in (6.5, 7.0, 7.4, 7.7, 8.0, 8.3)}
    return (
        f"False alarms: {false} of {trials:,} trials (decoy key x clip x attack). Trials above a score: "
        + ", ".join(f"{level}: {count}" for level, count in counts.items())
        + f"; highest {max((score for score, _ in tail), default=0):.2f}. "
        + f"A mark is a score above {MARKED}, or above {MARKED_WITH_PAYLOAD} with a fitting checksum."
    )


def _cost_lines(rows: list[Any], perth: list[Any]) -> str:
    lines = []
    for name, found in (("ours", rows), ("Perth", perth)):
        if found:
            of = {key: np.array([row[key] for row in found]) for key in found[0]}
            line = [name, len(found), f"{of['pesq'].mean():.2f} / {of['pesq'].min():.2f}", f"{of['snr'].mean():.1f}"]
            line += [f"{of['stoi'].mean():.4f}", f"{of['cosine'].mean():.4f} / {of['cosine'].min():.4f}"]
            line += [f"{of['dnsmos'].mean():+.3f}"]
            line += [f"{np.median(of[k]):.4f}" for k in ("embed", "detect") if k in of]
            lines.append(line + [""] * (9 - len(line)))
    head = [
        "",
        "clips",
        "PESQ mean / min",
        "SNR dB",
        "STOI",
        "voice cosine mean / min",
        "DNSMOS",
        "embed RTF",
        "detect RTF",
    ]
    return table(head, lines)


if __name__ == "__main__":
    sys.exit(main())
