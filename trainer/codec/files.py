"""The files of a codec: config.json with audio_vae_config, and audiovae.safetensors."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save

from catalogs.files import write_atomically
from trainer.config import TrainError
from voxcpm.audiovae import AudioVAE
from voxcpm.weights.checkpoint import find_checkpoint, load_codec


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
    if not (folder / "config.json").is_file():
        raise TrainError(f"{folder} holds no codec: no config.json (make one with: voxmill train-codec ...)")
    if not any((folder / name).is_file() for name in ("audiovae.safetensors", "audiovae.pth")):
        raise TrainError(f"{folder} holds no codec: no audiovae.safetensors")
    return load_codec(folder)
