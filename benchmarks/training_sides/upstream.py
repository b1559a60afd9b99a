"""The official package's training code, run in its own environment: `python upstream.py CHECKPOINT THREADS DATA [lora]`.

It follows the fine-tuning guide: manifest, datasets, the loader and the batch processor (which encodes the clips), the model's
forward pass with both losses, AdamW over all trained parameters.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "sides"))

import torch

torch.set_num_threads(int(sys.argv[2]))

from protocol import answer, timed  # noqa: E402
from voxcpm.training import (  # noqa: E402
    Accelerator,
    BatchProcessor,
    build_dataloader,
    load_audio_text_datasets,
)

from voxcpm.model.voxcpm2 import LoRAConfig, VoxCPM2Model  # noqa: E402

DATA, BATCH = Path(sys.argv[3]), 4
LORA = LoRAConfig(enable_lm=True, enable_dit=True, enable_proj=False, r=32, alpha=32) if "lora" in sys.argv else None
MODEL: Any = VoxCPM2Model.from_local(sys.argv[1], optimize=False, training=True, device="cpu", lora_config=LORA)
ACCELERATOR = Accelerator(amp=False)
TOKENIZER = MODEL.text_tokenizer
PROCESSOR = BatchProcessor(config=MODEL.config, audio_vae=MODEL.audio_vae, dataset_cnt=1, device=torch.device("cpu"))
del MODEL.audio_vae
MODEL.train()
OPTIMIZER = torch.optim.AdamW([p for p in MODEL.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.01)
LOADERS: dict[str, Any] = {}
PROCESSED: dict[tuple[str, int], Any] = {}


def _loader(name: str, batch: int) -> Any:
    """Return a loader over the clips of one batch."""
    if name not in LOADERS:
        clips, _ = load_audio_text_datasets(str(DATA / f"{name}.jsonl"))
        LOADERS[name] = clips.map(
            lambda rows: {"text_ids": [TOKENIZER(text) for text in rows["text"]]},
            batched=True,
            remove_columns=["text"],
        )
    chosen = LOADERS[name].select(range(batch * BATCH, (batch + 1) * BATCH))
    return build_dataloader(chosen, accelerator=ACCELERATOR, batch_size=BATCH, num_workers=0)


def _losses(batch: Any, progress: float = 0.0) -> Any:
    fields = ("text_tokens", "text_mask", "audio_feats", "audio_mask", "loss_mask", "position_ids", "labels")
    return MODEL(*(batch[name] for name in fields), progress=progress)


def _update(batch: Any) -> None:
    OPTIMIZER.zero_grad(set_to_none=True)
    losses = _losses(batch)
    (losses["loss/diff"] + losses["loss/stop"]).backward()
    OPTIMIZER.step()


def _processed(name: str, batch: int) -> Any:
    if (name, batch) not in PROCESSED:
        PROCESSED[name, batch] = PROCESSOR(next(iter(_loader(name, batch))))
    return PROCESSED[name, batch]


def step(request: dict[str, Any]) -> float:
    """Return the seconds of one optimizer step; with `encode` from the audio, otherwise from prepared batches."""
    for group in OPTIMIZER.param_groups:
        group["lr"] = request.get("lr", 1e-4)
    if request["encode"]:
        loader = _loader(request["set"], request["batch"])
        return timed(lambda: _update(PROCESSOR(next(iter(loader)))))
    batch = _processed(request["set"], request["batch"])
    return timed(lambda: _update(batch))


@torch.no_grad()
def loss(request: dict[str, Any]) -> float:
    """Return the mean diffusion loss over `batches` batches, with the same random numbers each time."""
    torch.manual_seed(5)
    found = [float(_losses(_processed(request["set"], number))["loss/diff"]) for number in range(request["batches"])]
    return sum(found) / len(found)


def targets(request: dict[str, Any]) -> float:
    """Target patches of a batch."""
    return float(_processed(request["set"], request["batch"])["loss_mask"].sum())


def positions(request: dict[str, Any]) -> float:
    """Positions of a batch that are computed, padding included."""
    return float(_processed(request["set"], request["batch"])["loss_mask"].numel())


if __name__ == "__main__":
    answer({"ready": lambda request: 0.0, "step": step, "loss": loss, "targets": targets, "positions": positions})
