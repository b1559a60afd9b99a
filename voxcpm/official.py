"""The official package's module paths that have no file here, for code written for that package. Nothing of ours imports them.

`import voxcpm` adds a finder that makes these modules when they are imported. Their names are imported on first use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from voxcpm.lazy import exported

_ROOT = "voxcpm."
_MANIFEST = dict.fromkeys(("ValidationResult", "validate_manifest"), "voxcpm.sequence.training_manifest")
_TIMES = "voxcpm.inference.timestamps"

#: Module below `voxcpm` -> its public names -> the module (and the name there, if it is another one) that defines them.
NAMES: dict[str, dict[str, str]] = {
    "modules": {},
    "modules.audiovae": {
        "AudioVAEV2": "voxcpm.audiovae:AudioVAE",
        "AudioVAEConfigV2": "voxcpm.audiovae:AudioVAEConfig",
        "AudioVAE": "voxcpm.audiovae.official",
        "AudioVAEConfig": "voxcpm.audiovae.official",
    },
    "modules.layers": {"ScalarQuantizationLayer": "voxcpm.model.fsq:FSQ"},
    "modules.layers.lora": {
        "LoRALinear": "voxcpm.weights.lora",
        "apply_lora_to_named_linear_modules": "voxcpm.weights.lora",
    },
    "modules.minicpm4": {"MiniCPM4Config": "voxcpm.model.official", "MiniCPMModel": "voxcpm.model.official"},
    "modules.locenc": {"VoxCPMLocEnc": "voxcpm.model.official"},
    "modules.locdit": {
        "CfmConfig": "voxcpm.config:CFMConfig",
        "UnifiedCFM": "voxcpm.model.official",
        "VoxCPMLocDiTV2": "voxcpm.model.official",
        "VoxCPMLocDiT": "voxcpm.model.official",
    },
    "training": _MANIFEST,
    "training.validate": _MANIFEST,
    "timestamps": {"TimestampItem": _TIMES, "TimestampResult": _TIMES, "align_audio_file": _TIMES},
    "timestamps.base": {"TimestampItem": _TIMES, "TimestampResult": _TIMES},
    "timestamps.stable_ts": {"extract_timestamp_items": _TIMES, "split_word_items_to_chars": _TIMES},
    "utils": {},
    "utils.text_normalize": {"TextNormalizer": "voxcpm.inference.normalize_text"},
    "zipenhancer": {"ZipEnhancer": "voxcpm.inference.denoise"},
}


class OfficialNames(MetaPathFinder, Loader):
    """Find and make the modules of `NAMES`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module in the table, None for any other."""
        name = fullname.removeprefix(_ROOT)
        if name == fullname or name not in NAMES:
            return None
        return ModuleSpec(fullname, self, is_package=any(other.startswith(f"{name}.") for other in NAMES))

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names."""
        names = NAMES[module.__name__.removeprefix(_ROOT)]
        module.__doc__ = "Names of the official package; see voxcpm.official."
        module.__dict__.update(__all__=sorted(names), __getattr__=exported(module.__name__, names))


def install() -> None:
    """Add the finder after Python's own, once."""
    if not any(isinstance(finder, OfficialNames) for finder in sys.meta_path):
        sys.meta_path.append(OfficialNames())
