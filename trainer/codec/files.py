"""The files of a codec: config.json with audio_vae_config, and audiovae.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save

from catalogs.files import write_atomically
from trainer.config import TrainError
from voxcpm.audiovae import AudioVAE, AudioVAEConfig
from voxcpm.weights.checkpoint import check_tensors, find_checkpoint, load_codec, read_tensors


def write_codec(folder: str | Path, codec: AudioVAE) -> Path:
    """Write a codec's weights, then its config, so that a folder with a config is complete. Return the folder."""
    folder = Path(folder)
    tensors = {name: value.detach().cpu().contiguous() for name, value in codec.state_dict().items()}
    write_atomically(folder / "audiovae.safetensors", save(tensors, {"format": "pt"}))
    text = json.dumps({"audio_vae_config": codec.config.to_dict()}, indent=1) + "\n"
    write_atomically(folder / "config.json", text.encode())
    return folder


def read_codec(path_or_id: str | Path) -> AudioVAE:
    """Read the codec of a checkpoint folder, of a hub id, or from the output of `write_codec`; in evaluation mode, gradients off.

    Raises FileNotFoundError, TrainError and CheckpointError.
    """
    folder = find_checkpoint(path_or_id)
    settings = folder / "config.json"
    if not settings.is_file():
        raise TrainError(f"{folder} holds no codec: no config.json (make one with: voxmill train-codec ...)")
    values = json.loads(settings.read_text(encoding="utf-8"))
    if "lm_config" in values:
        return load_codec(folder)
    codec = AudioVAE(AudioVAEConfig.from_dict(values.get("audio_vae_config", {})))
    weights = folder / "audiovae.safetensors"
    if not weights.is_file():
        raise TrainError(f"{folder} holds no codec: no {weights.name}")
    tensors = read_tensors(weights)
    check_tensors(tensors, {name: value.shape for name, value in codec.state_dict().items()}, str(weights))
    codec.load_state_dict(tensors)
    return codec.eval().requires_grad_(False)
