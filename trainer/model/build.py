"""Build what a run trains: a model with its codec and tokenizer, from a checkpoint or from scratch."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from torch import nn

from catalogs.files import write_atomically
from trainer.codec.config import CodecFit
from trainer.codec.files import read_codec
from trainer.codec.fit import fit_codec
from trainer.config import TrainConfig, TrainError
from trainer.data.corpora import Corpora
from trainer.data.mixture import hash_number
from trainer.model.base import base_digests
from trainer.model.tokenizer import train_tokenizer
from voxcpm.audiovae import AudioVAE, AudioVAEConfig
from voxcpm.config import VoxCPM2Config
from voxcpm.model.backbone import VoxCPM2
from voxcpm.presets import config_dict
from voxcpm.sequence.text_tokenizer import TextTokenizer
from voxcpm.weights.checkpoint import (
    TOKENIZER_FILES,
    build_codec,
    find_checkpoint,
    load_backbone,
    load_codec,
    save_pretrained,
)
from voxcpm.weights.lora import LoRAConfig, apply_lora

log = logging.getLogger(__name__)

CODEC_CLIPS = 64
"""Clips that a codec is trained on before the first step: the first in order of id."""
_ASSETS = ".assets"


@dataclass
class Trainee:
    """Everything that a checkpoint holds.

    `folder` is the checkpoint that the run resumed or started from. It may be removed during the run as one of the oldest
    checkpoints. `assets` is a folder with the tokenizer's files, kept as long as the run's output.
    """

    config: VoxCPM2Config
    model: VoxCPM2
    codec: AudioVAE
    tokenizer: TextTokenizer
    folder: Path
    assets: Path
    lora: LoRAConfig | None = None
    start: str = ""
    """`model.start` as the user gave it: a hub id or a folder."""
    base: dict[str, str] = field(default_factory=dict)
    """Digests of the weights that adapters are trained over (`trainer.model.base`); empty without adapters."""


def build(config: TrainConfig, corpora: Corpora, resumed: Path | None) -> Trainee:
    """The trainee of a run: from `resumed` (a checkpoint of this run), from `model.start`, or from scratch.

    Weights are float32 and in training mode; frozen ones are bfloat16 if the checkpoint and the arithmetic are. Raises TrainError,
    and what the checkpoint loader raises for a folder that is not a checkpoint.
    """
    settings = config.model
    if settings.start is not None and (resumed is None or settings.lora is not None):
        start = find_checkpoint(settings.start)
    else:
        start = resumed or _from_scratch(config, corpora)
    model = load_backbone(start, dtype="float32").train()
    shape = VoxCPM2Config.load(start)
    lora = None
    if settings.lora is not None:
        lora = LoRAConfig(**settings.lora.model_dump())
        torch.manual_seed(config.seed)
        apply_lora(model, lora, train=True)
        model.train()
        if keeps_half(config, shape):
            keep_in_half(model)
    else:
        model.requires_grad_(True)
    tokenizer = TextTokenizer.load(start)
    assets = _keep_tokenizer(start, Path(config.output) / _ASSETS)
    base = base_digests(start) if lora is not None else {}
    return Trainee(shape, model, load_codec(start), tokenizer, start, assets, lora, config.model.start or "", base)


def _keep_tokenizer(start: Path, assets: Path) -> Path:
    """Copy the tokenizer's files of a checkpoint to `assets`, from where every later checkpoint takes them."""
    for name in TOKENIZER_FILES:
        if (start / name).is_file():
            write_atomically(assets / name, (start / name).read_bytes())
    return assets


def keeps_half(config: TrainConfig, shape: VoxCPM2Config) -> bool:
    """Return True if the frozen weights stay in bfloat16: with adapters, if the checkpoint and the arithmetic are bfloat16."""
    return config.model.lora is not None and config.compute.dtype == shape.dtype == "bfloat16"


def keep_in_half(model: VoxCPM2) -> None:
    """Convert the frozen weights of linears and embeddings to bfloat16, in place. This halves their memory, and is lossless if the
    checkpoint and the arithmetic are bfloat16."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            for name in ("weight", "bias"):
                value = getattr(module, name, None)
                if value is not None and not value.requires_grad:
                    value.data = value.data.to(torch.bfloat16)


def _from_scratch(config: TrainConfig, corpora: Corpora) -> Path:
    """A fresh checkpoint in the run's output: tokenizer and codec given or trained on the corpus, random weights.

    A checkpoint that an earlier, interrupted start of the same run has made is reused.
    """
    output = Path(config.output)
    folder, note = output / "start", output / "start.json"
    kept = corpora.kept()
    key = {"made_of": hash_number(config.model.model_dump(mode="json"), config.seed, sorted(kept))}
    if folder.is_dir() and note.is_file() and json.loads(note.read_text(encoding="utf-8")) == key:
        log.info(f"resuming from {folder}, which was made before")
        return folder
    assets = output / _ASSETS
    tokenizer = _tokenizer(config, corpora, [row["text"] for row in kept.values() if row["text"]], assets)
    given = read_codec(config.model.codec) if config.model.codec is not None else None
    shape = model_config(config, tokenizer.size, given)
    torch.manual_seed(config.seed)
    codec = given or _trained_codec(config, corpora, build_codec(shape), kept)
    model = VoxCPM2.from_config(shape, torch.Generator().manual_seed(config.seed))
    log.info(f"a fresh model: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} million weights")
    save_pretrained(folder, model, shape, source=assets, codec=codec)
    write_atomically(note, json.dumps(key).encode())
    return folder


def _tokenizer(config: TrainConfig, corpora: Corpora, texts: list[str], assets: Path) -> TextTokenizer:
    """The given tokenizer, or one trained on texts and descriptions; its files are put into `assets`."""
    assets.mkdir(parents=True, exist_ok=True)
    if config.model.tokenizer is not None:
        given = Path(config.model.tokenizer).expanduser()
        folder = given if given.is_dir() else given.parent
        if not (folder / "tokenizer.json").is_file():
            raise TrainError(f"model.tokenizer: no tokenizer.json in {folder}")
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                copyfile(folder / name, assets / name)
    else:
        texts += corpora.descriptions().values()
        if not texts:
            raise TrainError(f"{corpora.title} has no kept segment with text: a tokenizer needs some")
        train_tokenizer(texts, config.model.vocabulary, assets)
    tokenizer = TextTokenizer.load(assets)
    log.info(f"tokenizer: {tokenizer.size} entries")
    return tokenizer


def model_config(config: TrainConfig, vocabulary: int, codec: AudioVAE | None) -> VoxCPM2Config:
    """Return the config of a model from scratch. Raises TrainError if the codec has another number of latent channels."""
    values: dict[str, Any] = config.model.config or config_dict(config.model.size, vocabulary)
    values = json.loads(json.dumps(values))
    values.setdefault("lm_config", {})["vocab_size"] = vocabulary
    if codec is not None:
        values["audio_vae_config"] = codec.config.to_dict()
    read = VoxCPM2Config.from_dict(values)
    if codec is not None and AudioVAEConfig.from_dict(read.audio_vae_config) != codec.config:
        raise TrainError(
            f"the codec is not one of the architecture {read.architecture!r}: give a codec of a model of that architecture"
        )
    latent = values.get("audio_vae_config", {}).get("latent_dim", 64)
    if read.feat_dim != latent:
        raise TrainError(f"the codec has {latent} latent channels, the model's feat_dim is {read.feat_dim}")
    return read


def _trained_codec(config: TrainConfig, corpora: Corpora, codec: AudioVAE, kept: dict[str, Any]) -> AudioVAE:
    chosen = sorted(kept)[:CODEC_CLIPS]
    clips = [corpora.clip(segment_id, rate=codec.sample_rate) for segment_id in chosen]
    log.info(f"codec: {config.model.codec_steps} steps on {len(clips)} clips")
    fit_codec(codec, clips, CodecFit(steps=config.model.codec_steps), config.seed, fresh=True)
    return codec
