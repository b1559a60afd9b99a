"""LoRA adapters in the official format: keys `<linear>.lora_A [r, in]`, `<linear>.lora_B [out, r]`, and `lora_config.json`.

y = W x + b + dropout(B A x) * alpha / r: the dropout is on the adapter's output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import sqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from voxcpm.errors import CheckpointError
from voxcpm.kernels.int8_linear import is_quantised
from voxcpm.kernels.packed_linear import PackedLinear, unpack_linears
from voxcpm.model.backbone import VoxCPM2

_ATTENTION = ("q_proj", "v_proj", "k_proj", "o_proj")
_PROJECTIONS = ("enc_to_lm_proj", "lm_to_dit_proj", "res_to_dit_proj", "fusion_concat_proj")


@dataclass(frozen=True)
class LoRAConfig:
    """The linears that get an adapter, and its size. LocEnc never gets one."""

    enable_lm: bool = False  #: target_modules_lm in TSLM and RALM
    enable_dit: bool = False  #: target_modules_dit in LocDiT
    enable_proj: bool = False  #: target_proj_modules
    r: int = 8
    alpha: float = 16
    dropout: float = 0.0
    target_modules_lm: tuple[str, ...] = _ATTENTION
    target_modules_dit: tuple[str, ...] = _ATTENTION
    target_proj_modules: tuple[str, ...] = _PROJECTIONS

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> LoRAConfig:
        """Read the content of `lora_config.json` (with or without the outer key `lora_config`); unknown fields are ignored."""
        values = values.get("lora_config", values)
        names = {f.name for f in fields(LoRAConfig)}
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names}
        return LoRAConfig(**known)

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


class LoRALinear(nn.Linear):
    """A linear with an adapter; `weight` and `bias` are the base linear's tensors, under the same names."""

    lora_A: nn.Parameter  # noqa: N815 (the names are the checkpoint's)
    lora_B: nn.Parameter  # noqa: N815
    scale: float
    dropout: float
    enabled: bool
    _base: PackedLinear | None  #: the base in the CPU's inference form, if it had that form; not in the state dict

    def __init__(self, base: nn.Linear | PackedLinear, r: int, alpha: float = 1.0, dropout: float = 0.0) -> None:
        """Wrap a linear; its weights are shared, not copied. A is Kaiming uniform (a = sqrt 5), B zero."""
        linear = base.plain() if isinstance(base, PackedLinear) else base
        with torch.device("meta"):
            super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        device, dtype = linear.weight.device, linear.weight.dtype
        self.lora_A = nn.Parameter(torch.empty(r, linear.in_features, device=device, dtype=dtype))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, r, device=device, dtype=dtype))
        if linear.weight.device.type != "meta":
            nn.init.kaiming_uniform_(self.lora_A, a=sqrt(5))
        self.scale, self.dropout, self.enabled = alpha / r, dropout, True
        # Not a registered submodule. Its kernel is still used, so that with a disabled adapter the output is the same bit for bit.
        object.__setattr__(self, "_base", base if isinstance(base, PackedLinear) else None)
        self.training = linear.training

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        y: Tensor = F.linear(x, self.weight, self.bias) if self._base is None else self._base(x)
        if not self.enabled:
            return y
        added = F.linear(F.linear(x, self.lora_A), self.lora_B)
        return y + F.dropout(added, self.dropout, self.training) * self.scale

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        object.__setattr__(self, "_base", None)  # its layout is for the old device and dtype
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def set_enabled(self, enabled: bool) -> None:
        """Enable or disable the adapter."""
        self.enabled = enabled

    def reset_lora_parameters(self) -> None:
        """Reinitialize the adapter, so that it adds nothing."""
        with torch.no_grad():
            nn.init.kaiming_uniform_(self.lora_A, a=sqrt(5))
            self.lora_B.zero_()

    def plain(self) -> nn.Linear:
        """Return the base linear, not packed."""
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        linear.weight, linear.bias = self.weight, self.bias
        linear.training = self.training
        return linear


def _targets(model: VoxCPM2, config: LoRAConfig) -> Iterator[str]:
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, PackedLinear)):
            continue
        last = name.rsplit(".", 1)[-1]
        if (
            (config.enable_lm and name.startswith(("base_lm.", "residual_lm.")) and last in config.target_modules_lm)
            or (config.enable_dit and name.startswith("feat_decoder.") and last in config.target_modules_dit)
            or (config.enable_proj and name in config.target_proj_modules)
        ):
            yield name


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, last, module)


def _repacked(adapted: LoRALinear, plain: nn.Linear) -> nn.Module:
    if adapted._base is None:
        return plain
    return PackedLinear(plain.weight, plain.bias).train(plain.training)


def adapters(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted linears by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def apply_lora(model: VoxCPM2, config: LoRAConfig, train: bool = False) -> list[str]:
    """Add adapters to the model (existing ones are removed first); return the names of the adapted linears.

    train: freeze everything else. Raises ValueError if the config selects no linear or the model is int8.
    """
    if is_quantised(model):
        raise ValueError("an int8 model takes no adapters: load it in float32 or bfloat16")
    remove_lora(model)
    if train:
        unpack_linears(model)
    names = list(_targets(model, config))
    if not names:
        raise ValueError("the LoRA config reaches no layer: set enable_lm, enable_dit or enable_proj")
    for name in names:
        linear = model.get_submodule(name)
        assert isinstance(linear, (nn.Linear, PackedLinear))
        _replace(model, name, LoRALinear(linear, config.r, config.alpha, config.dropout))
    for name, parameter in model.named_parameters():
        if train or ".lora_" in name:
            parameter.requires_grad_(train and ".lora_" in name)
    model.lora_config = config
    return names


def apply_lora_to_named_linear_modules(
    root: nn.Module, *, target_submodule_names: Sequence[str], r: int, alpha: float, dropout: float
) -> None:
    """Give every linear below `root` whose last name is a target an adapter: the official function, for its callers."""
    for name, module in list(root.named_modules()):
        linear = isinstance(module, (nn.Linear, PackedLinear)) and not isinstance(module, LoRALinear)
        if linear and name.rpartition(".")[2] in target_submodule_names:
            _replace(root, name, LoRALinear(module, r, alpha, dropout))


def remove_lora(model: VoxCPM2) -> None:
    """Remove all adapters; the base weights are unchanged."""
    for name, module in adapters(model).items():
        _replace(model, name, module._base if module._base is not None else module.plain())
    model.lora_config = None


def reset_lora(model: nn.Module) -> None:
    """Reinitialize the adapters: A Kaiming uniform, B zero, so that they add nothing."""
    for module in adapters(model).values():
        module.reset_lora_parameters()


def enable_lora(model: nn.Module, enabled: bool) -> None:
    """Enable or disable the adapters without removing them."""
    for module in adapters(model).values():
        module.set_enabled(enabled)


def merge_lora(model: VoxCPM2) -> None:
    """Add the adapters to the base weights (W + alpha/r B A) and remove them. They cost no time then; this cannot be undone."""
    for name, module in adapters(model).items():
        with torch.no_grad():
            added = module.lora_B.float() @ module.lora_A.float() * module.scale
            merged = (module.weight.float() + added).to(module.weight.dtype)
            plain = module.plain()
            plain.weight = nn.Parameter(merged, requires_grad=module.weight.requires_grad)
        _replace(model, name, _repacked(module, plain))
    model.lora_config = None


def lora_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors under their official keys."""
    return {
        f"{name}.{part}": getattr(module, part).detach()
        for name, module in adapters(model).items()
        for part in ("lora_A", "lora_B")
    }


def read_lora(path: str | Path) -> tuple[LoRAConfig | None, dict[str, Tensor]]:
    """Read the config (None without a lora_config.json) and the tensors of an adapter folder or file.

    Raises FileNotFoundError and CheckpointError.
    """
    from voxcpm.weights.checkpoint import read_tensors

    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        found = [path / n for n in ("lora_weights.safetensors", "lora_weights.ckpt") if (path / n).is_file()]
        if not found:
            raise FileNotFoundError(f"{path} holds no lora_weights.safetensors")
        path = found[0]
    elif not path.is_file():
        raise FileNotFoundError(f"no LoRA weights at {path}")
    tensors = read_tensors(path)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values")
    settings = folder / "lora_config.json"
    if not settings.is_file():
        return None, tensors
    return LoRAConfig.from_dict(json.loads(settings.read_text(encoding="utf-8"))), tensors


def load_lora(
    model: VoxCPM2, path: str | Path, config: LoRAConfig | None = None, override: bool = False
) -> tuple[list[str], list[str]]:
    """Load adapter weights; return (loaded keys, skipped keys). A key is skipped if the model has no such adapter.

    The folder's lora_config.json sets rank and scale. `config` is used only if there is none, or with `override`. If there
    is a config, its adapters replace those of the model.

    Raises CheckpointError if shapes differ, adapter tensors are missing, or no key fits.
    """
    own, tensors = read_lora(path)
    return put_lora(model, (config or own) if override else (own or config), tensors, path)


def put_lora(
    model: VoxCPM2, settings: LoRAConfig | None, tensors: Mapping[str, Tensor], path: str | Path
) -> tuple[list[str], list[str]]:
    """Do what `load_lora` does with what was read from `path`. settings: None keeps the model's adapters."""
    if settings is not None:
        apply_lora(model, settings)
    elif not adapters(model):
        raise CheckpointError(
            f"{path} has no lora_config.json: pass a LoRAConfig (its rank and alpha are not in the weights)"
        )
    places = lora_state_dict(model)
    loaded, skipped = [], []
    for key, tensor in tensors.items():
        if key not in places:
            skipped.append(key)
            continue
        if places[key].shape != tensor.shape:
            raise CheckpointError(f"{path}: {key} has shape {list(tensor.shape)}, rank {settings and settings.r} asks for "
                                  f"{list(places[key].shape)}")  # fmt: skip
        places[key].copy_(tensor)
        loaded.append(key)
    if not loaded:
        raise CheckpointError(f"{path}: none of its {len(tensors)} tensors belongs to an adapted layer")
    if lacking := sorted(places.keys() - set(loaded)):
        raise CheckpointError(f"{path} lacks {lacking[0]} and {len(lacking) - 1} more adapter tensors")
    return loaded, skipped


def save_lora(
    folder: str | Path, model: nn.Module | Mapping[str, Tensor], config: LoRAConfig, base_model: str = ""
) -> None:
    """Write `lora_weights.safetensors` and `lora_config.json`, each atomically. model: a model or its `lora_state_dict`."""
    tensors = lora_state_dict(model) if isinstance(model, nn.Module) else model
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".lora_weights.tmp"
    save_file({k: v.cpu().contiguous() for k, v in tensors.items()}, temporary, metadata={"format": "pt"})
    temporary.replace(folder / "lora_weights.safetensors")
    text = json.dumps({"base_model": base_model, "lora_config": config.to_dict()}, indent=1) + "\n"
    temporary = folder / ".lora_config.tmp"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / "lora_config.json")
