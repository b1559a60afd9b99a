"""Word error rates of a demo corpus compared with faster-whisper run directly on the same prompts, one by one.

    python benchmarks/wer.py demo            # a folder that `voxmill demo` made

The direct run gets each prompt cut at the known times and its language; with --detect it detects the language.
Exits with 1 if a language of the corpus is more than --margin points worse.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

# This folder's pipeline.py must not shadow the package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from voxmill.demo_recordings import make_demo_recordings  # noqa: E402
from voxmill.score import LanguageScore, score_corpus, score_direct  # noqa: E402


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the folder with recordings/, gold.jsonl and corpus/")
    parser.add_argument(
        "--model", default="whisper-base", help="a name of models.toml or a folder of CTranslate2 weights"
    )
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument(
        "--detect", action="store_true", help="the direct run finds the language of each prompt by itself"
    )
    parser.add_argument("--margin", type=float, default=3.0, help="points by which the corpus may be worse")
    parser.add_argument("--json", action="store_true", help="print the figures for programs")
    arguments = parser.parse_args()
    if not (arguments.demo / "gold.jsonl").is_file():
        sys.exit(f"{arguments.demo} has no gold.jsonl: give a folder that voxmill demo made")
    recordings = make_demo_recordings(arguments.demo / "recordings", say=lambda line: print(line, file=sys.stderr))
    if not recordings.gold:
        sys.exit(f"{recordings.folder} holds none of the recordings that {recordings.gold_file} describes")
    pipeline = score_corpus(arguments.demo / "corpus", recordings.folder, recordings.gold)
    started = time.perf_counter()
    direct = score_direct(recordings.folder, recordings.gold, arguments.model, arguments.beam, arguments.detect)
    seconds = time.perf_counter() - started
    pairs = list(zip(direct, pipeline, strict=True))
    if arguments.json:
        rows = [{"direct": vars(alone), "pipeline": vars(ours)} for alone, ours in pairs]
        print(json.dumps({"scores": rows, "direct_s": seconds}))
    else:
        print_table(pairs)
        print(f"\nThe direct run took {seconds:.0f} s.")
    worse = [ours.language for alone, ours in pairs if 100 * (ours.wer - alone.wer) > arguments.margin]
    if worse:
        sys.exit(f"more than {arguments.margin:g} points worse than the direct run: {', '.join(worse)}")


def print_table(pairs: list[tuple[LanguageScore, LanguageScore]]) -> None:
    """Return one row per language of (direct, pipeline), as Markdown."""
    print("| language | prompts | words | direct | pipeline | difference, points |")
    print("|---|---|---|---|---|---|")
    for alone, ours in pairs:
        print(
            f"| {ours.language} | {ours.prompts} | {ours.words} | {alone.wer:.1%} | {ours.wer:.1%}"
            f" | {100 * (ours.wer - alone.wer):+.1f} |"
        )


if __name__ == "__main__":
    main()
