"""From the recordings to a model: `prepare`, `train-codec`, `encode`, then the model and the codec's decoder at the same time."""

from __future__ import annotations

import json
import resource
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result.recordings import share_limit
from benchmarks.result.steps import run_for, trained_s, voxmill, wait

RECIPES = Path(__file__).resolve().parent
PREPARE = (
    # The texts are exact and every clip has one voice, which is known: what would find that out is made cheap or left out.
    "describe=none",
    "mine_references.threshold=0.6",
    "transcribe.beam_size=1",
    "transcribe.second_pass=off",
)
ON_GPU = {
    "codec": ["batch=16", "crop_s=0.96", "config.encoder_dim=16", "config.decoder_dim=384"],
    "decoder": ["batch=16", "crop_s=0.96"],
    "model": [
        "compute.dtype=bfloat16",
        *(f"phases.{phase}.max_positions=4096" for phase in ("words", "all")),
        "model.config.lm_config.num_hidden_layers=6",
        "model.config.dit_config.num_layers=4",
        "model.config.dit_config.hidden_dim=256",
        "model.config.dit_config.ffn_dim=768",
    ],
}
"""Larger settings for a GPU: 7.1 million weights. Only planned (`--dry-run`), not run: no GPU was at hand."""


LEAST_STEPS = 20
"""Steps of the codec from which their seconds are measured: starting takes the time of some."""


@dataclass(frozen=True)
class Plan:
    """How the minutes are spent. `codec_steps` of encoder and decoder together; `learn_s` seconds of training each model."""

    codec_steps: int
    learn_s: float
    models: int

    @staticmethod
    def of(minutes: float, shares: Sequence[float], gpu: bool) -> Plan:
        """Return the plan of a budget, after `prepare`: a quarter for the codec, the rest for the models in equal parts.

        A model on a part of the data is trained as long as that on all of it.
        """
        return Plan(round(minutes * (60 if gpu else 8)), 0.75 * 60 * minutes / (1 + len(shares)), 1 + len(shares))


def on_gpu() -> bool:
    """Return True if torch finds a GPU."""
    import torch

    return torch.cuda.is_available()


def prepare(work: Path) -> dict[str, Any]:
    """Run `voxmill prepare` on the training recordings; return what was kept."""
    settings = [part for setting in PREPARE for part in ("--set", setting)]
    wait(voxmill(work, "prepare.log", "prepare", "recordings/lines.jsonl", "--out", "corpus", *settings))
    return kept(work)


def kept(work: Path) -> dict[str, Any]:
    """Return kept segments and minutes by language, and the reasons of the others."""
    from catalogs.corpus.reader import Corpus

    found: dict[str, dict[str, float]] = {}
    for row in Corpus(work / "corpus").kept().to_pylist():
        group = found.setdefault(row["language"], {"segments": 0, "minutes": 0.0})
        group["segments"] += 1
        group["minutes"] += row["duration_s"] / 60
    return {"kept": {language: {k: round(v, 1) for k, v in group.items()} for language, group in found.items()}}


def train_codec(work: Path, plan: Plan) -> dict[str, Any]:
    """Train encoder and decoder, and store the latents of the corpus."""
    settings = [f"steps={plan.codec_steps}", *_settings("codec")]
    first, before = _steps_done(work / "codec"), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    wait(_train(work, "codec.log", "train-codec", "codec", settings))
    # Of the processor, not of the clock: other programs may come and go. An earlier process may have done the first steps.
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    steps = _steps_done(work / "codec") - first
    if steps >= LEAST_STEPS:
        (work / "codec" / "seconds_per_step").write_text(str(seconds / steps), encoding="utf-8")
    wait(voxmill(work, "encode.log", "encode", "corpus", "--codec", "codec", "--threads", "1"))
    return {
        "steps": plan.codec_steps,
        "seconds_per_step": round(_seconds_per_step(work), 3),
        "weights_m": weights_m(work / "codec" / "audiovae.safetensors"),
    }


def learn(work: Path, plan: Plan) -> dict[str, Any]:
    """Train the model for the plan's time."""
    return _learn(work, plan, "model", ())


def learn_share(work: Path, share: float, plan: Plan) -> dict[str, Any]:
    """Train the same model on a part of the clips, chosen by a hash of their ids: a smaller part lies within a larger one."""
    where = [f"phases.{phase}.where=md5(segment_id) < '{share_limit(share)}'" for phase in ("words", "all")]
    return _learn(work, plan, share_name(share), where)


def _learn(work: Path, plan: Plan, name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Train a model, and the decoder beside it. The decoder continues from where the model before left it."""
    decoder = _train(
        work, "decoder.log", "train-codec", "decoder", [f"steps={_decoder_steps(work, plan)}", *_settings("decoder")]
    )
    model = _train(work, f"{name}.log", "train", "model", [*_settings("model"), f"output={name}", *settings])
    run_for([model, decoder], lambda: trained_s(work / name), plan.learn_s)
    return _learned(work / name)


def share_name(share: float) -> str:
    """Return the folder of a model on a part of the data."""
    return f"model-{round(100 * share)}"


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step_*"))


def give_decoder(work: Path, run: str) -> None:
    """Put the decoder into the checkpoints of a run, when all models are trained.

    Raises ValueError if the run belongs to another encoder.
    """
    from safetensors.torch import load_file

    source = work / "decoder" / "audiovae.safetensors"
    if not source.is_file():
        return
    tensors = load_file(source)
    for checkpoint in checkpoints(work / run):
        for name, tensor in load_file(checkpoint / "audiovae.safetensors").items():
            if name.startswith("encoder.") and not tensor.equal(tensors[name]):
                raise ValueError(f"{checkpoint} was trained on the latents of another encoder: remove {work / run}")
        shutil.copyfile(source, checkpoint / "audiovae.safetensors")


def weights_m(file: Path) -> float:
    """Return the millions of weights in a safetensors file."""
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        shapes = [tensors.get_slice(name).get_shape() for name in tensors.keys()]  # noqa: SIM118
    total = 0
    for shape in shapes:
        size = 1
        for edge in shape:
            size *= edge
        total += size
    return round(total / 1e6, 2)


def losses(run: Path, every: int = 50) -> list[dict[str, float]]:
    """Return the mean losses of a run over stretches of steps."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    rows = [row for row in rows if "loss/diffusion" in row]
    stretches = [rows[at : at + every] for at in range(0, len(rows), every)]
    return [
        {
            "step": stretch[-1]["step"],
            **{name: statistics.fmean(row[f"loss/{name}"] for row in stretch) for name in ("diffusion", "stop")},
        }
        for stretch in stretches
    ]


def _learned(run: Path) -> dict[str, Any]:
    curve = losses(run)
    last = checkpoints(run)[-1]
    return {
        "steps": curve[-1]["step"],
        "trained_minutes": round(trained_s(run) / 60, 1),
        "diffusion": round(curve[-1]["diffusion"], 4),
        "weights_m": weights_m(last / "model.safetensors"),
    }


def _settings(run: str) -> list[str]:
    return list(ON_GPU[run]) if on_gpu() else []


def _train(work: Path, log: str, command: str, recipe: str, settings: Sequence[str]) -> Any:
    given = [part for setting in settings for part in ("--set", setting)]
    return voxmill(work, log, command, str(RECIPES / f"{recipe}.yaml"), *given)


def _decoder_steps(work: Path, plan: Plan) -> int:
    """Return the steps that the decoder can take beside the models. Alone it needs 0.6 of the time of the whole codec."""
    return max(100, round(plan.learn_s * plan.models / _seconds_per_step(work) / 0.6))


def _seconds_per_step(work: Path) -> float:
    """Return the processor seconds of a step of the codec's training, as measured, or as on the machine of docs/result.md."""
    measured = work / "codec" / "seconds_per_step"
    return float(measured.read_text(encoding="utf-8")) if measured.is_file() else 0.7


def _steps_done(run: Path) -> int:
    """Return the last step in the metrics of a run; 0 without a run."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)
