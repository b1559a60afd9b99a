"""Test that the model learns to speak: a small codec and a small model from scratch, on two dozen real utterances.

    python benchmarks/overfit.py WORK [--shared ../shared] [--docs docs/overfit]

The steps are those of a real run: recordings -> `voxmill prepare` -> `voxmill train-codec` (encoder and decoder, then the
decoder alone, in parallel with `voxmill train`) -> `VoxCPM.generate` -> Whisper and GE2E. Finished steps are skipped: after an
interruption run the same command to resume.

Exits with 1 if Whisper's WER on training sentences is above 30 %. Also exits with 1 if, for sentences that several voices said,
a reference clip does not move the generated voice toward its own voice (by 0.1 of GE2E's cosine, compared with the other
voice's clip). Needs about two hours on two idle cores or some minutes of a GPU, and the weights of the profile small.
`--until prepare` and `--until say` stop at the steps where a GPU machine can take over WORK and return it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

WER_LIMIT = 0.30
MOVED = 0.1
#: Larger settings for a GPU, which replace the YAML files' settings for two CPU cores.
ON_GPU = {
    "codec": ["steps=1200", "batch=16", "crop_s=0.96", "config.encoder_dim=16", "config.decoder_dim=384"],
    "decoder": ["steps=2500", "batch=16", "crop_s=0.96"],
    "model": ["phases.all.steps=1600", "phases.all.max_positions=2048", "phases.all.lr=0.0005", "phases.all.warmup=200",
              "checkpoint.every=200", "compute.dtype=bfloat16"],
}  # fmt: skip


def main() -> None:
    """Run the unfinished steps, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder for everything that is made")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="the folder with corpora/ravdess")
    parser.add_argument("--docs", type=Path, help="also write curves, tables and three samples there")
    parser.add_argument("--until", choices=("prepare", "say"),
                        help="stop after it; run the same command to resume, on another machine too")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="RUN.SETTING=VALUE",
                        help="a setting of codec, decoder or model, e.g. model.phases.all.steps=100")  # fmt: skip
    arguments = parser.parse_args()
    work: Path = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    device, overrides = settings_here()
    for setting in arguments.set:
        run, _, rest = setting.partition(".")
        if run not in overrides or "=" not in rest:
            parser.error(f"--set {setting}: give codec., decoder. or model. and a setting")
        overrides[run].append(rest)
    clock = Clock(work / "minutes.json")
    with clock("prepare") as wanted:
        if wanted:
            from overfit.recordings import make_recordings

            make_recordings(work / "recordings", arguments.shared)
            prepare(work)
    if arguments.until == "prepare":
        return
    with clock("codec") as wanted:
        if wanted:
            (work / "device").write_text(device, encoding="utf-8")
            wait(start(work, "train-codec", "codec", overrides["codec"]), work / "codec.log")
    with clock("learn") as wanted:
        if wanted:
            learn(work, overrides)
    with clock("say") as wanted:
        if wanted:
            give_decoder(work)
            say_all(work)
    if arguments.until == "say":
        return
    with clock("listen"):
        result = listen(work)
    report(result, clock)
    if arguments.docs:
        write_docs(work, result, clock, arguments.docs)
    sys.exit(verdict(result["summary"]))


def settings_here() -> tuple[str, dict[str, list[str]]]:
    """Return the device to use, and its settings of codec, decoder and model that differ from their files."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), {run: list(settings) for run, settings in ON_GPU.items()}
    return "two CPU cores", {run: [] for run in ON_GPU}


class Clock:
    """Minutes that each step took, kept in a file: a step with minutes is done."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.minutes: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}

    def __call__(self, step: str) -> Clock:
        self._step = step
        return self

    def __enter__(self) -> bool:
        """Return True if the step is not finished yet."""
        self._started = time.perf_counter()
        return self._step not in self.minutes

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._step not in self.minutes:
            self.minutes[self._step] = round((time.perf_counter() - self._started) / 60, 1)
            self._path.write_text(json.dumps(self.minutes))


def start(work: Path, command: str, run: str, overrides: list[str]) -> subprocess.Popen[bytes]:
    """Start `voxmill train` or `train-codec` with this experiment's settings, one thread, in the folder of the work."""
    arguments = [sys.executable, "-m", "voxmill.cli", command, str(HERE / "overfit" / f"{run}.yaml")]
    for setting in overrides:
        arguments += ["--set", setting]
    log = (work / f"{run}.log").open("ab")
    print(f"$ voxmill {command} {run}.yaml {' '.join(overrides)} (log: {work / run}.log)", flush=True)
    return subprocess.Popen(arguments, cwd=work, env=environment(), stdout=log, stderr=subprocess.STDOUT)


def environment() -> dict[str, str]:
    """For voxmill's commands: this checkout's code, one thread."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def wait(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a run. Raises CalledProcessError if it failed, RuntimeError if it was stopped: its step is not finished then."""
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, process.args)
    if "stopped early" in log.read_text(encoding="utf-8").splitlines()[-1]:
        raise RuntimeError(f"a run was stopped: run the same command to continue ({log})")


def prepare(work: Path) -> None:
    """Run `voxmill prepare` on the recordings. Each session has one voice, so a lower similarity threshold is enough."""
    source = str(work / "recordings" / "lines.jsonl")
    arguments = [sys.executable, "-m", "voxmill.cli", "prepare", source, "--out", str(work / "corpus")]
    arguments += ["--set", "mine_references.threshold=0.6"]
    subprocess.run(arguments, check=True, env=environment())


def learn(work: Path, overrides: dict[str, list[str]]) -> None:
    """Train the decoder and the model in parallel: both learn from the latents of the same, finished encoder."""
    decoder = start(work, "train-codec", "decoder", overrides["decoder"])
    model = start(work, "train", "model", overrides["model"])
    try:
        wait(model, work / "model.log")
        wait(decoder, work / "decoder.log")
    finally:
        for process in (decoder, model):
            if process.poll() is None:
                process.terminate()
                process.wait()


def give_decoder(work: Path) -> None:
    """Put the finished decoder into every checkpoint of the model. Raises ValueError if it belongs to another encoder."""
    from safetensors.torch import load_file

    tensors = load_file(work / "decoder" / "audiovae.safetensors")
    for checkpoint in checkpoints(work):
        old = load_file(checkpoint / "audiovae.safetensors")
        for name, tensor in old.items():
            if name.startswith("encoder.") and not tensor.equal(tensors[name]):
                raise ValueError(f"{checkpoint} was trained on the latents of another encoder: remove {work}/model")
        shutil.copyfile(work / "decoder" / "audiovae.safetensors", checkpoint / "audiovae.safetensors")


def checkpoints(work: Path) -> list[Path]:
    """The model's checkpoints, oldest first."""
    return sorted((work / "model" / "checkpoints").glob("step_*"))


def say_all(work: Path) -> None:
    """Speak the training sentences with every checkpoint; with the last one, every text with every voice's reference."""
    from overfit.speaking import every_pairing, learnt_pairing, say, training_clips

    clips = training_clips(work / "corpus")
    for checkpoint in checkpoints(work):
        say(checkpoint, clips, learnt_pairing(clips), work / "spoken" / checkpoint.name)
        print(f"{checkpoint.name} has spoken", flush=True)
    say(checkpoints(work)[-1], clips, every_pairing(clips), work / "spoken" / "all")


def listen(work: Path) -> dict[str, Any]:
    """Return all measurements, from result.json if it exists."""
    from overfit.judging import as_rows, hear, summary, through_codec
    from overfit.listening import Ears
    from overfit.speaking import training_clips

    path = work / "result.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    ears, clips = Ears(), training_clips(work / "corpus")
    heard = []
    for folder in sorted((work / "spoken").glob("step_*")):
        heard.append({"step": float(folder.name.removeprefix("step_")), **summary(hear(folder, clips, ears))})
        print(f"{folder.name}: WER {heard[-1]['wer_reference']:.1%}", flush=True)
    said = hear(work / "spoken" / "all", clips, ears)
    result = {
        "clips": len(clips),
        "seconds": round(sum(len(clip.samples) for clip in clips) / 16_000, 1),
        "device": (work / "device").read_text(encoding="utf-8"),
        "codec": through_codec(work / "decoder", clips, ears),
        "checkpoints": heard,
        "summary": summary(said),
        "said": as_rows(said),
    }
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def similarity_table(said: list[dict[str, Any]], learnt: bool | None = None) -> dict[str, dict[str, float]]:
    """Return {given reference, or "none": {voice: mean GE2E cosine of the generated speech}}."""
    table: dict[str, dict[str, float]] = {}
    for given in dict.fromkeys(one["reference"] for one in said):
        chosen = [one for one in said if one["reference"] == given and learnt in (None, one["learnt"])]
        if chosen:
            voices = chosen[0]["similarity"]
            means = {voice: sum(one["similarity"][voice] for one in chosen) / len(chosen) for voice in voices}
            table[given or "none"] = means
    return table


def report(result: dict[str, Any], clock: Clock) -> None:
    """Return the figures as lines of text."""
    print(f"{result['clips']} clips, {result['seconds']} s; minutes: {clock.minutes}")
    for name, value in {**result["codec"], **result["summary"]}.items():
        print(f"  {name:40} {value:.3f}")
    for given, row in similarity_table(result["said"], learnt=True).items():
        print(f"  given {given:10}" + "".join(f"  {voice} {value:.3f}" for voice, value in row.items()))


def write_docs(work: Path, result: dict[str, Any], clock: Clock, docs: Path) -> None:
    """Write curves, tables and three samples."""
    import soundfile
    from overfit.figures import draw_codec, draw_model, draw_similarity

    docs.mkdir(parents=True, exist_ok=True)
    draw_codec([("encoder and decoder", work / "codec"), ("decoder alone", work / "decoder")], docs)
    draw_model(work / "model", result["checkpoints"], docs)
    draw_similarity(similarity_table(result["said"], learnt=True), docs)
    (docs / "result.json").write_text(json.dumps({**result, "minutes": clock.minutes}, indent=1), encoding="utf-8")
    learnt = [one for one in result["said"] if one["reference"] and one["learnt"]]
    for voice in dict.fromkeys(one["reference"] for one in learnt):
        best = min((one for one in learnt if one["reference"] == voice), key=lambda one: (one["wer"], -one["seconds"]))
        samples, rate = soundfile.read(work / "spoken" / "all" / best["file"])
        soundfile.write(docs / f"{Path(best['file']).stem}.flac", samples, rate, subtype="PCM_16")


def verdict(found: dict[str, float]) -> int:
    """Return 0 if both bounds are met: that of the words and that of the voice."""
    words = found["wer_reference"] <= WER_LIMIT
    moved = found["similarity_moved_by_reference"]
    voice = moved >= MOVED
    print(f"WER of training sentences {found['wer_reference']:.1%} ({'reached' if words else 'not reached'}: <= 30 %)")
    print(f"a reference brings the voice {moved:+.2f} nearer ({'reached' if voice else 'not reached'}: >= {MOVED})")
    return 0 if words and voice else 1


if __name__ == "__main__":
    main()
