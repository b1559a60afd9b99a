"""The model's `config.json` as frozen dataclasses; every field of the official file, with the official defaults.

Unknown fields are kept in `extra` and written back, so that loading and saving a config loses nothing.

`architecture` is "voxcpm2", or "voxcpm" for VoxCPM 0.5B and VoxCPM1.5. In the latter the states of TSLM and RALM are added, not
concatenated, and no sequence has a reference clip. The properties of `VoxCPM2Config` say which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

from voxcpm.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of config.json that can be read from a dict and written to one."""

    SECTIONS: ClassVar[Mapping[str, type[Section]]] = {}
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """Read a section. Raises CheckpointError if it is not an object or lacks a required field, which the message names."""
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{where} must be an object, not {type(values).__name__}")
        known = {f.name: f for f in fields(cls) if f.name != "extra"}
        required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
        if missing := [name for name in required if name not in values]:
            raise CheckpointError(f"{where} lacks the field(s) {', '.join(missing)}")
        read: dict[str, Any] = {}
        for name in known.keys() & values.keys():
            value = values[name]
            section = cls.SECTIONS.get(name)
            if section is not None and value is not None:
                value = section.from_dict(value, f"{where}: {name}")
            elif isinstance(value, list):
                value = tuple(value)
            read[name] = value
        return cls(**read, extra={k: v for k, v in values.items() if k not in known})

    def to_dict(self) -> dict[str, Any]:
        """The section as JSON values, unknown fields included. Fields without a value are left out: the official package refuses
        `"kv_channels": null`."""
        written: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "extra" or (value is None and f.default is None):
                continue
            if isinstance(value, Section):
                value = value.to_dict()
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Mapping):
                value = dict(value)
            written[f.name] = value
        return {**written, **self.extra}


@dataclass(frozen=True, kw_only=True)
class RopeScaling(Section):
    """LongRoPE: per-frequency stretching factors for contexts beyond and within the original length."""

    type: str = "longrope"
    long_factor: tuple[float, ...]
    short_factor: tuple[float, ...]
    original_max_position_embeddings: int


@dataclass(frozen=True, kw_only=True)
class LMConfig(Section):
    """The MiniCPM4 backbone (TSLM); the other towers take heads, eps, rope and muP from here."""

    SECTIONS: ClassVar[Mapping[str, type[Section]]] = {"rope_scaling": RopeScaling}
    bos_token_id: int = 1
    eos_token_id: int = 2
    hidden_size: int
    intermediate_size: int
    max_position_embeddings: int
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    vocab_size: int
    use_mup: bool = True
    scale_emb: float
    dim_model_base: int
    scale_depth: float
    kv_channels: int | None = None
    no_rope: bool = False


@dataclass(frozen=True, kw_only=True)
class LocalConfig(Section):
    """Widths of LocEnc and LocDiT, the two towers that process the frames of one patch."""

    hidden_dim: int = 1024
    ffn_dim: int = 4096
    num_heads: int = 16
    num_layers: int = 4
    kv_channels: int | None = None


@dataclass(frozen=True, kw_only=True)
class CFMConfig(Section):
    """Conditional flow matching. `solver`, `sigma_min`, `reg_loss_type`, `inference_cfg_rate` are not used."""

    sigma_min: float = 1e-6
    solver: str = "euler"
    t_scheduler: str = "log-norm"
    training_cfg_rate: float = 0.1
    inference_cfg_rate: float = 1.0
    reg_loss_type: str = "l1"
    ratio_r_neq_t_range: tuple[float, float] = (0.25, 0.75)
    noise_cond_prob_range: tuple[float, float] = (0.0, 0.0)
    noise_cond_scale: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DiTConfig(LocalConfig):
    """LocDiT and its flow. Mean mode is read from `dit_mean_mode`, not from the official file's `mean_mode`.

    In a file of the architecture "voxcpm" that field is beside `dit_config`, not in it.
    """

    SECTIONS: ClassVar[Mapping[str, type[Section]]] = {"cfm_config": CFMConfig}
    dit_mean_mode: bool = False
    cfm_config: CFMConfig = field(default_factory=CFMConfig)


@dataclass(frozen=True)
class TowerConfig:
    """One transformer tower, with the values from `lm_config` resolved."""

    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    eps: float
    residual_scale: float  #: factor on both residual branches (muP: scale_depth / sqrt(layers), otherwise 1)
    rope_theta: float | None  #: None: no positions (NoPE)
    rope_factors: tuple[float, ...]  #: [head_dim / 2]
    rope_amplitude: float
    max_positions: int
    vocab: int = 0


FIRST, SECOND = "voxcpm", "voxcpm2"
"""The architectures: of VoxCPM 0.5B and VoxCPM1.5, and of VoxCPM2."""
_FIRST_DEFAULTS: Mapping[str, Any] = {
    "patch_size": 2, "residual_lm_num_layers": 6, "scalar_quantization_latent_dim": 256, "max_length": 4096,
}  # fmt: skip
_FIRST_CODEC: Mapping[str, Any] = {"decoder_dim": 1536, "decoder_rates": [8, 8, 5, 2]}
"""Defaults of the architecture "voxcpm" that differ from those below."""


@dataclass(frozen=True, kw_only=True)
class VoxCPM2Config(Section):
    """All of config.json. Sizes in the paper's notation: H = lm hidden, P = patch_size, D = feat_dim."""

    SECTIONS: ClassVar[Mapping[str, type[Section]]] = {
        "lm_config": LMConfig,
        "encoder_config": LocalConfig,
        "dit_config": DiTConfig,
    }
    architecture: str = "voxcpm"
    lm_config: LMConfig
    patch_size: int = 4
    feat_dim: int = 64
    residual_lm_num_layers: int = 8
    residual_lm_no_rope: bool = False
    scalar_quantization_latent_dim: int = 512
    scalar_quantization_scale: int = 9
    encoder_config: LocalConfig = field(default_factory=LocalConfig)
    dit_config: DiTConfig = field(default_factory=DiTConfig)
    audio_vae_config: Mapping[str, Any] = field(default_factory=dict)  #: the codec's config; see voxcpm.audiovae
    max_length: int = 8192
    device: str = "cuda"
    dtype: str = "bfloat16"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> Self:
        """Read and check a config. Raises CheckpointError for an unknown architecture or for inconsistent values."""
        if isinstance(values, Mapping):
            architecture = str(values.get("architecture", FIRST)).lower()
            if architecture not in (FIRST, SECOND):
                raise CheckpointError(
                    f"{where} has architecture {architecture!r}, which is neither {FIRST!r} (VoxCPM 0.5B and VoxCPM1.5)"
                    f" nor {SECOND!r}: give a checkpoint of one of them"
                )
            values = {**values, "architecture": architecture}
            if architecture == FIRST:
                values = _first_values(values)
        config = super().from_dict(values, where)
        config.check(where)
        return config

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read `config.json` of a checkpoint folder. Raises FileNotFoundError, and CheckpointError if it is invalid."""
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(_instead(Path(folder)))
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON: {error}") from None
        return cls.from_dict(values, str(path))

    def check(self, where: str = "config.json") -> None:
        """Raise CheckpointError if the sizes are inconsistent or `t_scheduler` is unknown."""
        lm = self.lm_config
        for name, heads in (
            ("lm_config", lm.num_attention_heads),
            ("encoder_config", self.encoder_config.num_heads),
            ("dit_config", self.dit_config.num_heads),
        ):
            if heads % lm.num_key_value_heads:
                raise CheckpointError(
                    f"{where}: {name} has {heads} heads, not a multiple of {lm.num_key_value_heads} kv heads"
                )
        for name in ("tslm", "ralm", "locenc", "locdit"):
            tower: TowerConfig = getattr(self, name)
            if tower.rope_theta is not None and len(tower.rope_factors) != tower.head_dim // 2:
                raise CheckpointError(
                    f"{where}: rope_scaling has {len(tower.rope_factors)} factors, {name}'s heads of {tower.head_dim} "
                    f"need {tower.head_dim // 2}"
                )
        if self.dit_config.cfm_config.t_scheduler not in ("log-norm", "uniform"):
            raise CheckpointError(f"{where}: t_scheduler must be log-norm or uniform")

    @property
    def tslm(self) -> TowerConfig:
        """The text-semantic language model (`base_lm`)."""
        lm = self.lm_config
        return self._lm_tower(lm.num_hidden_layers, lm.no_rope, lm.vocab_size)

    @property
    def adds_states(self) -> bool:
        """Return True if states are added: RALM's input is h' + embedding, and LocDiT's condition is one sum.

        VoxCPM2 concatenates them (`fusion_concat_proj`) and gives LocDiT two tokens.
        """
        return self.architecture == FIRST

    @property
    def takes_references(self) -> bool:
        """Return True if a clip can set the voice without being continued (`103 [reference] 104`)."""
        return self.architecture == SECOND

    def check_reference(self) -> None:
        """Raise ValueError if the model takes no reference clips."""
        if not self.takes_references:
            raise ValueError(
                "this checkpoint is VoxCPM 0.5B or VoxCPM1.5, which takes no reference clip: give the clip as the prompt, with its"
                " text, or use VoxCPM2"
            )

    @property
    def prefix_tokens(self) -> int:
        """LocDiT's tokens before the previous patch: the time, which the condition is added to or follows in two tokens."""
        return 1 if self.adds_states else 3

    @property
    def ralm(self) -> TowerConfig:
        """The residual acoustic language model (`residual_lm`): the TSLM's widths, a separate depth, in VoxCPM2 often no RoPE."""
        no_rope = self.lm_config.no_rope if self.architecture == FIRST else self.residual_lm_no_rope
        return self._lm_tower(self.residual_lm_num_layers, no_rope, 0)

    @property
    def locenc(self) -> TowerConfig:
        """The local encoder of P frames (`feat_encoder.encoder`): 1 + P tokens."""
        return self._local_tower(self.encoder_config, self.patch_size + 1)

    @property
    def locdit(self) -> TowerConfig:
        """The local diffusion transformer (`feat_decoder.estimator.decoder`): prefix_tokens + P + P tokens."""
        return self._local_tower(self.dit_config, 2 * self.patch_size + self.prefix_tokens)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the codec's input, Hz."""
        return int(self.audio_vae_config.get("sample_rate", 16000))

    @property
    def out_sample_rate(self) -> int:
        """Sample rate of the codec's output, Hz."""
        return int(self.audio_vae_config.get("out_sample_rate", 48000))

    @property
    def patch_samples(self) -> int:
        """Input samples per patch (2560 at 16 kHz in the release)."""
        return self.patch_size * prod(self.audio_vae_config.get("encoder_rates", (2, 5, 8, 8)))

    @property
    def out_patch_samples(self) -> int:
        """Output samples per patch (7680 at 48 kHz in the release)."""
        return self.patch_size * prod(self.audio_vae_config.get("decoder_rates", (8, 6, 5, 2, 2, 2)))

    @property
    def patch_seconds(self) -> float:
        """Duration of a patch in seconds: 0.16 in VoxCPM2 and VoxCPM1.5, 0.08 in VoxCPM 0.5B."""
        return self.patch_samples / self.sample_rate

    def with_dtype(self, dtype: str) -> Self:
        """The same config with another weight dtype ("float32", "bfloat16", "float16")."""
        return replace(self, dtype=dtype)

    def _lm_tower(self, layers: int, no_rope: bool, vocab: int) -> TowerConfig:
        lm = self.lm_config
        head_dim = lm.kv_channels or lm.hidden_size // lm.num_attention_heads
        sizes = (lm.hidden_size, lm.intermediate_size, lm.num_attention_heads)
        return self._tower(*sizes, head_dim, layers, no_rope, lm.max_position_embeddings, vocab)

    def _local_tower(self, local: LocalConfig, tokens: int) -> TowerConfig:
        head_dim = local.kv_channels or local.hidden_dim // local.num_heads
        return self._tower(
            local.hidden_dim,
            local.ffn_dim,
            local.num_heads,
            head_dim,
            local.num_layers,
            self.lm_config.no_rope,
            tokens,
            0,
        )

    def _tower(
        self, hidden: int, ffn: int, heads: int, head_dim: int, layers: int, no_rope: bool, positions: int, vocab: int
    ) -> TowerConfig:
        from math import log, sqrt

        lm = self.lm_config
        factors: tuple[float, ...] = (1.0,) * (head_dim // 2)
        amplitude = 1.0
        if (scaling := lm.rope_scaling) is not None:
            original = scaling.original_max_position_embeddings
            # The choice depends on the configured context only, not on the length of a sequence.
            factors = scaling.long_factor if lm.max_position_embeddings > original else scaling.short_factor
            amplitude = sqrt(1.0 + log(lm.max_position_embeddings / original) / log(original))
        return TowerConfig(
            hidden=hidden,
            ffn=ffn,
            heads=heads,
            kv_heads=lm.num_key_value_heads,
            head_dim=head_dim,
            layers=layers,
            eps=lm.rms_norm_eps,
            # muP's depth scale uses the number of layers of this tower.
            residual_scale=lm.scale_depth / sqrt(layers) if lm.use_mup else 1.0,
            rope_theta=None if no_rope else lm.rope_theta,
            rope_factors=tuple(factors),
            rope_amplitude=amplitude,
            max_positions=positions,
            vocab=vocab,
        )


def _first_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json of the architecture "voxcpm" with its defaults, in VoxCPM2's fields.

    Its codec decodes to the rate that it encodes, has no rate condition, and pads strided convolutions differently.
    """
    filled = {**_FIRST_DEFAULTS, **values}
    codec = filled.get("audio_vae_config")
    if codec is None or isinstance(codec, Mapping):
        codec = {**_FIRST_CODEC, **(codec or {})}
        same = {"out_sample_rate": codec.get("sample_rate", 16000), "sr_bin_boundaries": None, "even_padding": True}
        filled["audio_vae_config"] = {**codec, **same}
    if isinstance(filled.get("dit_config"), Mapping):
        filled["dit_config"] = {**filled["dit_config"], "dit_mean_mode": filled.get("dit_mean_mode", False)}
    return filled


def _instead(folder: Path) -> str:
    """Return the message for a folder that is not a checkpoint. It names the folder that was probably meant."""
    if any(folder.glob("lora_weights.*")):
        merged = folder.resolve().parent.parent / "merged"
        other = f", or use {merged}" if (merged / "config.json").is_file() else ""
        return (
            f"{folder} is a LoRA adapter, not a model: give the model it was trained on, and the adapter as --lora"
            f" (lora_weights_path){other}"
        )
    for name in ("latest", "merged"):
        if (folder / name / "config.json").is_file():
            return f"{folder} is not a checkpoint; did you mean {folder / name}?"
    return f"{folder / 'config.json'} not found: a checkpoint folder of VoxCPM holds config.json"
