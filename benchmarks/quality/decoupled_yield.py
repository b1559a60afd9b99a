"""How many pairs of `decouple` pass their verification, with a small model that speaks.

    python benchmarks/quality/decoupled_yield.py WORK [--shared ../shared] [--pairs 200] [--set model.phases.all.steps=4500]

The toy of `benchmarks/overfit.py` hears each sentence in few voices, and a voice says only its own sentences: it cannot clone.
Here its codec and model, with the same settings, learn a grid instead: EmoDB's ten German sentences, said angrily and neutrally
by a man and a woman, 40 clips. A session is one voice in one emotion, so that the reference tells both. What `decouple` clones is
then in the grid, although not as a recording that the model could copy from its reference.

Finished steps are skipped: after an interruption run the same command to resume. About 45 minutes on two idle cores.
Exits with 1 if fewer than half of the pairs pass.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from catalogs.query.views import connect, result_rows  # noqa: E402

SPEAKERS = ("03", "08")
EMOTIONS = {"W": "angry", "N": "neutral"}
SETTINGS = ROOT / "benchmarks" / "overfit"
#: All pairs of the grid are wanted, however often a text or a voice comes, and calm sources too.
PAIRING = {
    "pairing.min_expressive": 0.0, "pairing.per_segment": 9, "pairing.per_text": 1000, "pairing.per_voice": 1.0,
    "pairing.per_style": 1.0, "pairing.length": 2.5, "pairing.held_out": 0.0,
}  # fmt: skip


def make_recordings(folder: Path, shared: Path) -> None:
    """Link one take of each sentence, speaker and emotion, and list them with their words. Raises FileNotFoundError."""
    rows = [json.loads(line) for line in (shared / "corpora" / "manifest.jsonl").read_text("utf-8").splitlines()]
    texts = {Path(row["path"]).name: row["text"] for row in rows}
    lines = []
    for speaker in SPEAKERS:
        seen = set()
        for clip in sorted((shared / "corpora" / "emodb" / f"speaker_{speaker}").glob("*.flac")):
            emotion = EMOTIONS.get(clip.stem[5])
            if emotion is None or (emotion, clip.stem[:5]) in seen:
                continue
            seen.add((emotion, clip.stem[:5]))
            place = folder / f"{speaker}_{emotion}" / clip.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(clip.read_bytes())
            lines.append({"path": f"{place.parent.name}/{clip.name}", "session": place.parent.name, "language": "de",
                          "text": texts[clip.name]})  # fmt: skip
    if not lines:
        raise FileNotFoundError(f"{shared}/corpora/emodb holds none of the recordings")
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


Started = tuple["subprocess.Popen[bytes]", Path]
"""A command and its log."""


def voxmill(work: Path, *arguments: str) -> Started:
    """Start a command in WORK, one thread; its output goes to a log of the command's name and first argument."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    name = f"{arguments[0]}-{Path(arguments[1]).stem}.log"
    print("$ voxmill", *arguments, f"(log: {name})", flush=True)
    with (work / name).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "voxmill.cli", *arguments], cwd=work, env=environment, stdout=log, stderr=log
        )
    return process, work / name


def finish(*commands: Started) -> None:
    """Wait for commands. Raises CalledProcessError if one failed, RuntimeError if a training was stopped; the others then end."""
    try:
        for process, log in commands:
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, process.args)
            if "stopped early" in log.read_text(encoding="utf-8").splitlines()[-1]:
                raise RuntimeError(f"a training was stopped: run the same command to continue ({log})")
    finally:
        for process, _ in commands:
            if process.poll() is None:
                process.terminate()
                process.wait()


def settings_of(changes: list[str], run: str) -> list[str]:
    """Return the `--set` arguments of a run from RUN.SETTING=VALUE."""
    return [x for change in changes if change.startswith(f"{run}.") for x in ("--set", change.removeprefix(f"{run}."))]


def learn(work: Path, changes: list[str]) -> Path:
    """Train codec, decoder and model where they are not finished; return the checkpoint with the finished decoder."""
    if not (work / "codec" / "audiovae.safetensors").is_file():
        finish(voxmill(work, "train-codec", str(SETTINGS / "codec.yaml"), *settings_of(changes, "codec")))
    speaking = work / "speaking"
    if not speaking.is_dir():
        finish(
            voxmill(work, "train", str(SETTINGS / "model.yaml"), *settings_of(changes, "model")),
            voxmill(work, "train-codec", str(SETTINGS / "decoder.yaml"), *settings_of(changes, "decoder")),
        )
        last = sorted((work / "model" / "checkpoints").glob("step_*"))[-1]
        made = work / "speaking.partial"
        made.mkdir(exist_ok=True)
        for file in last.iterdir():
            if file.is_file():
                source = work / "decoder" / file.name if file.name == "audiovae.safetensors" else file
                (made / file.name).write_bytes(source.read_bytes())
        made.rename(speaking)
    return speaking


def report(out: Path) -> tuple[int, int]:
    """Print pairs, what passed, and the reasons of those that did not; return (pairs, passed)."""
    with connect(out) as catalog:
        rows = result_rows(catalog, "SELECT * FROM decoupled ORDER BY ALL")
    passed = [row for row in rows if row["accepted"]]
    pairs = {row["pair_id"] for row in rows}
    reasons = Counter(reason for row in rows if not row["accepted"] for reason in row["reasons"])
    print(f"{len(pairs)} pairs, {len({row['pair_id'] for row in passed})} passed, {len(rows)} attempts")
    for reason, count in reasons.most_common():
        print(f"  {reason:24} {count}")
    return len(pairs), len({row["pair_id"] for row in passed})


def main() -> None:
    """Run the unfinished steps and print the yield."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder for everything that is made")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="the folder with corpora/emodb")
    parser.add_argument("--pairs", type=int, default=200, help="pairs to make (200)")
    parser.add_argument("--set", action="append", default=[], metavar="RUN.SETTING=VALUE",
                        help="a setting of codec, decoder or model, e.g. model.phases.all.steps=100")  # fmt: skip
    arguments = parser.parse_args()
    work: Path = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "corpus" / "catalog.duckdb").is_file():
        make_recordings(work / "recordings", arguments.shared)
        finish(voxmill(work, "prepare", str(work / "recordings" / "lines.jsonl"), "--out", "corpus",
                       "--set", "mine_references.threshold=0.6"))  # fmt: skip
    checkpoint = learn(work, arguments.set)
    lifted = [x for name, value in PAIRING.items() for x in ("--set", f"{name}={value}")]
    finish(voxmill(work, "decouple", "corpus", "--model", str(checkpoint), "--limit", str(arguments.pairs), *lifted))
    pairs, passed = report(work / "corpus-decoupled")
    sys.exit(0 if 2 * passed >= pairs else 1)


if __name__ == "__main__":
    main()
