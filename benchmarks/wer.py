"""Word error rates of a demo corpus beside faster-whisper run directly on the same prompts, one by one.

python benchmarks/wer.py demo            # a folder that `voxmill demo` made
"""

from __future__ import annotations

import argparse
from pathlib import Path

from voxmill.demo_recordings import make_demo_recordings
from voxmill.score import score_corpus, score_direct


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--model", default="whisper-base")
    arguments = parser.parse_args()
    recordings = make_demo_recordings(arguments.demo / "recordings")
    pipeline = score_corpus(arguments.demo / "corpus", recordings.folder, recordings.gold)
    direct = score_direct(recordings.folder, recordings.gold, arguments.model)
    print("| language | prompts | words | direct | pipeline | difference, points |")
    print("|---|---|---|---|---|---|")
    for ours, theirs in zip(pipeline, direct, strict=True):
        print(
            f"| {ours.language} | {ours.prompts} | {ours.words} | {theirs.wer:.1%} | {ours.wer:.1%}"
            f" | {100 * (ours.wer - theirs.wer):+.1f} |"
        )


if __name__ == "__main__":
    main()
