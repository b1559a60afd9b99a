"""Checkpoint folders in the official layout: config.json, model.safetensors, the codec's file, the tokenizer's files.

Unlike in the official code, reading is strict: a missing, unexpected, misshapen or NaN tensor is an error that names it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from voxcpm.config import VoxCPM2Config
from voxcpm.errors import CheckpointError, first_line
from voxcpm.model.backbone import VoxCPM2
from voxcpm.model.utils import get_dtype
from voxcpm.weights.atomic import replace_folder, set_aside

if TYPE_CHECKING:
    from voxcpm.audiovae import AudioVAE

HUB_ID = "openbmb/VoxCPM2"
CODEC_PREFIX = "audio_vae."
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenization_voxcpm2.py")


def parse_dtype(name: str | torch.dtype) -> torch.dtype:
    """Return the torch dtype of a name in a config. Raises CheckpointError for an unknown name."""
    return name if isinstance(name, torch.dtype) else get_dtype(name)


def find_checkpoint(
    path_or_id: str | Path,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    revision: str | None = None,
) -> Path:
    """Return the folder of a checkpoint: a folder as given, otherwise that of a hub id, fetched with huggingface_hub.

    Raises FileNotFoundError, which says what to do, if it is not a local folder and cannot be fetched.
    """
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return path
    aside = set_aside(path)
    if aside is not None:
        raise FileNotFoundError(
            f"no checkpoint folder at {path}: a save was killed while it replaced it; run:"
            f" mv {shlex.quote(str(aside))} {shlex.quote(str(path))}"
        )
    text = str(path_or_id)
    if path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1:
        raise FileNotFoundError(f"no checkpoint folder at {path_or_id}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.pth", "*.bin", "*.model"]
    try:
        return Path(
            snapshot_download(
                text,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                allow_patterns=patterns,
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = first_line(error)
        tried = "found in the local cache" if local_files_only else "fetched from the hub"
        raise FileNotFoundError(
            f"{text} is not a local folder and could not be {tried} ({reason}); give the checkpoint's folder"
        ) from None


def read_tensors(path: Path, leave_mapped: Callable[[str], bool] = lambda name: False) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file or a torch file (`weights_only`, `state_dict` unwrapped).

    Each tensor of a safetensors file has separate memory, except those with a name that `leave_mapped` selects. These share
    a mapping of the file, for a caller that soon converts all of them to another form. (The pages of all tensors of a mapping
    stay resident while one of them is alive.) Raises CheckpointError if the file cannot be read.
    """
    try:
        if path.suffix == ".safetensors":
            tensors = {}
            for mapped in (True, False):
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118 (not a dict)
                        if leave_mapped(name) == mapped:
                            tensors[name] = file.get_tensor(name) if mapped else file.get_tensor(name).clone()
            return tensors
        values: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}: {first_line(error)})") from None
    if isinstance(values, Mapping) and isinstance(values.get("state_dict"), Mapping):
        values = values["state_dict"]
    return dict(values)


def _first_file(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has none of {', '.join(names)}: it is not a complete checkpoint of VoxCPM")


def model_file(folder: Path) -> Path:
    """The file with the model's weights. Raises FileNotFoundError if there is none."""
    return _first_file(folder, ("model.safetensors", "pytorch_model.bin"))


def codec_file(folder: Path) -> Path:
    """The file with the codec's weights. Raises FileNotFoundError if there is none."""
    return _first_file(folder, ("audiovae.safetensors", "audiovae.pth"))


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size], where: str) -> None:
    """Raise CheckpointError if tensors are missing, unexpected, misshapen or not finite; the message names them."""
    problems = []
    for title, names in (
        ("missing", sorted(expected.keys() - tensors.keys())),
        ("unexpected", sorted(tensors.keys() - expected.keys())),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            problems.append(f"{title}: {', '.join(names[:5])}{more}")
    for name in expected.keys() & tensors.keys():
        if tensors[name].shape != expected[name]:
            problems.append(f"{name} has shape {list(tensors[name].shape)}, the config asks for {list(expected[name])}")
    if not problems:
        problems = [
            f"{name} holds NaN or infinite values"
            for name, tensor in tensors.items()
            # The sum of a tensor is finite only if every element is (float32 sums of weights do not overflow).
            if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32))
        ]
    if problems:
        raise CheckpointError(f"{where}: {'; '.join(problems[:8])}")


class _NoInitialisation(TorchFunctionMode):
    """While active, torch.nn.init does nothing.

    The weights are replaced anyway, and initializing them on the meta device imports torch's compiler (1 to 2 s).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _fill(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    check_tensors(tensors, {name: value.shape for name, value in module.state_dict().items()}, where)
    module.load_state_dict(tensors, strict=True, assign=True)


def load_backbone(
    folder: str | Path,
    dtype: str | torch.dtype | None = None,
    device: torch.device | str = "cpu",
    to_be_packed: bool = False,
) -> VoxCPM2:
    """Load the model of a checkpoint folder, in the config's dtype or another, ready for inference, gradients off.

    to_be_packed: `pack_linears` comes next, so the linears' weights need no separate memory until then.

    Raises FileNotFoundError and CheckpointError.
    """
    folder = Path(folder)
    config = VoxCPM2Config.load(folder)
    path = model_file(folder)
    wanted = parse_dtype(dtype if dtype is not None else config.dtype)
    with _NoInitialisation():
        model = VoxCPM2.from_config(config, device="meta")
    linears = {f"{name}.weight" for name, module in model.named_modules() if type(module) is nn.Linear and to_be_packed}
    tensors = {
        name: value
        for name, value in read_tensors(path, linears.__contains__).items()
        if not name.startswith(CODEC_PREFIX)
    }
    _fill(model, {name: value.to(wanted) for name, value in tensors.items()}, str(path))
    return model.to(device).eval().requires_grad_(False)


def build_codec(config: VoxCPM2Config) -> AudioVAE:
    """Build the codec of a config, without trained weights."""
    from voxcpm.audiovae import AudioVAE, AudioVAEConfig

    return AudioVAE(AudioVAEConfig.from_dict(config.audio_vae_config))


def load_codec(folder: str | Path, device: torch.device | str = "cpu", to_be_folded: bool = False) -> AudioVAE:
    """Load the codec of a checkpoint folder, always float32: `audiovae.safetensors`, otherwise `audiovae.pth`.

    A folder that holds only a codec (`voxmill train-codec`) has a config without `lm_config`.

    to_be_folded: `fold_weight_norm` comes next, so the decoder needs no separate memory until then.

    Raises FileNotFoundError and CheckpointError.
    """
    from voxcpm.audiovae import AudioVAE, AudioVAEConfig

    folder = Path(folder)
    path = codec_file(folder)
    settings = _codec_settings(folder)
    with torch.device("meta"), _NoInitialisation():
        codec = AudioVAE(AudioVAEConfig.from_dict(settings))
    tensors = {
        name.removeprefix(CODEC_PREFIX): value.float() if value.is_floating_point() else value
        for name, value in read_tensors(path, lambda name: to_be_folded and ".decoder." in f".{name}").items()
    }
    _fill(codec, tensors, str(path))
    return codec.to(device).eval().requires_grad_(False)


def _codec_settings(folder: Path) -> Mapping[str, Any]:
    """Return `audio_vae_config` of a checkpoint, or of a folder with only a codec."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "lm_config" not in values:
            return dict(values["audio_vae_config"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # It is described by the error of the next line.
    return VoxCPM2Config.load(folder).audio_vae_config


def save_pretrained(
    folder: str | Path,
    model: VoxCPM2 | Mapping[str, Tensor],
    config: VoxCPM2Config,
    source: str | Path | None = None,
    codec: AudioVAE | Mapping[str, Tensor] | None = None,
    dtype: str | torch.dtype | None = None,
    complete: Callable[[Path], None] | None = None,
) -> Path:
    """Write a checkpoint in the official layout and return its folder. It appears whole or not at all, and replaces an older one.

    model: a model or its full state dict.
    source: the checkpoint folder from which the tokenizer (and codec) files are copied.
    codec: a codec or its state dict; None: copied from `source`.
    dtype: of the written weights, also written to the config; None: the config's.
    complete: called with the folder before it appears under its name, to write further files into it.

    Raises ValueError if `source` has no tokenizer.
    """
    folder = Path(folder)
    if source is not None and not (Path(source) / "tokenizer.json").is_file():
        raise ValueError(f"{source} has no tokenizer.json for the checkpoint {folder}")
    wanted = parse_dtype(dtype if dtype is not None else config.dtype)
    config = config.with_dtype(str(wanted).removeprefix("torch."))
    tensors = model.state_dict() if isinstance(model, nn.Module) else model
    codec_tensors = codec.state_dict() if isinstance(codec, nn.Module) else codec
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.parent / f".{folder.name}.{uuid4().hex[:8]}.tmp"
    fresh.mkdir()
    try:
        save_file(
            {
                name: value.detach().to(device="cpu", dtype=wanted).contiguous().clone()
                for name, value in tensors.items()
            },
            fresh / "model.safetensors",
            metadata={"format": "pt"},
        )
        (fresh / "config.json").write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
        copied: tuple[str, ...] = TOKENIZER_FILES
        if codec_tensors is not None:
            whole = {name: value.detach().cpu().contiguous().clone() for name, value in codec_tensors.items()}
            save_file(whole, fresh / "audiovae.safetensors", metadata={"format": "pt"})
        else:
            copied += ("audiovae.safetensors", "audiovae.pth")
        for name in copied:
            if source is not None and (Path(source) / name).is_file():
                shutil.copyfile(Path(source) / name, fresh / name)
        if complete is not None:
            complete(fresh)
        for path in fresh.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        replace_folder(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return folder
