"""What a run trains: a model, its codec and its tokenizer, from a checkpoint or from scratch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from catalogs.corpus import Corpus
from trainer.codec import train_codec
from trainer.config import TrainConfig, TrainError
from trainer.data import clip_16k
from trainer.sizes import config_dict
from trainer.tokenizer import train_tokenizer
from voxcpm.audiovae import AudioVAE
from voxcpm.checkpoint import build_codec, find_checkpoint, load_backbone, load_codec, save_pretrained
from voxcpm.config import VoxCPM2Config
from voxcpm.model import VoxCPM2
from voxcpm.text import TextTokenizer

_CODEC_CLIPS = 64


@dataclass
class Trainee:
    """Everything that a checkpoint holds; `folder` is where codec and tokenizer files are copied from."""

    config: VoxCPM2Config
    model: VoxCPM2
    codec: AudioVAE
    tokenizer: TextTokenizer
    folder: Path


def build(config: TrainConfig, corpus: Corpus, start: Path | None, say: Callable[[str], None]) -> Trainee:
    """The trainee of a run: from `start` (a checkpoint of this run), from `model.start`, or from scratch.

    Raises TrainError, and what the checkpoint loader raises for a folder that is none.
    """
    if start is None and config.model.start is not None:
        start = find_checkpoint(config.model.start)
    if start is None:
        start = _from_scratch(config, corpus, say)
    model = load_backbone(start, dtype="float32").requires_grad_(True).train()
    return Trainee(VoxCPM2Config.load(start), model, load_codec(start), TextTokenizer.load(start), start)


def _from_scratch(config: TrainConfig, corpus: Corpus, say: Callable[[str], None]) -> Path:
    """A fresh checkpoint folder in the run's output: tokenizer and codec trained on the corpus, random weights."""
    folder = Path(config.output) / "start"
    kept = corpus.kept().to_pylist()
    texts = [row["text"] for row in kept if row["text"]]
    if not texts:
        raise TrainError(f"the corpus {corpus.path} has no kept segment with text: a tokenizer needs some")
    texts += [row["full"] for row in corpus.annotations("descriptions").to_pylist() if row["full"]]
    assets = Path(config.output) / ".assets"
    train_tokenizer(texts, config.model.vocabulary, assets)
    tokenizer = TextTokenizer.load(assets)
    model_config = VoxCPM2Config.from_dict(config_dict(config.model.size, tokenizer.size))
    torch.manual_seed(config.seed)
    codec = build_codec(model_config)
    chosen = sorted(kept, key=lambda row: row["segment_id"])[:_CODEC_CLIPS]
    say(f"tokenizer: {tokenizer.size} entries; codec: {config.model.codec_steps} steps on {len(chosen)} clips")
    clips = [clip_16k(corpus, row["segment_id"]) for row in chosen]
    train_codec(codec, clips, config.model.codec_steps, config.seed, say)
    model = VoxCPM2.from_config(model_config, torch.Generator().manual_seed(config.seed))
    return save_pretrained(folder, model, model_config, source=assets, codec=codec)
