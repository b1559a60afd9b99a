"""Make the golden numbers of VoxCPM 0.5B and VoxCPM1.5 with the official package, in its own environment.

    make upstream-venv && .upstream-venv/bin/python tests/voxcpm/golden_v1/make.py

Each folder beside this file gets a tiny checkpoint with random weights in the official layout and what the official code makes
of it on one CPU thread in float32: latents with known noise, audio, latents of clips, the losses of a training step, and all
that with a LoRA. README.md describes the files. Seeds are fixed, so the same versions of torch give the same files.
"""

# mypy: ignore-errors
# The imported package is the official one, which mypy does not find: it has the import name of ours.

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from transformers import LlamaTokenizerFast
from voxcpm.modules.audiovae import AudioVAE, AudioVAEConfig
from voxcpm.training.packers import AudioFeatureProcessingPacker

from voxcpm.model.voxcpm import LoRAConfig, VoxCPMConfig, VoxCPMModel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
LEARNT = ("The quick brown fox jumps over the lazy dog.", "你好世界", "Pack my box with five dozen jugs.")
"""The tokenizer is trained on these."""
TEXTS = {
    "basic": "Hello 你好, world",
    "continuation": "and the voice goes on.",
    "prompt": "The fox speaks first, ",
}
PATCHES, STEPS, CFG = 6, 10, 2.0
MARGIN = 2e-4
"""The smallest distance of any FSQ value to a rounding boundary: noise of float32 must not flip a level."""

FACTORS = [1.0, 1.25, 1.75, 3.0]
LOCAL = {"hidden_dim": 16, "ffn_dim": 32, "num_heads": 2, "num_layers": 2}
SMALL = {
    "lm_config": {
        "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 512,
        "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000,
        "rope_scaling": {"type": "longrope", "long_factor": FACTORS[::-1], "short_factor": FACTORS,
                         "original_max_position_embeddings": 512},
        "vocab_size": 512, "use_mup": False, "scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4,
    },
    "feat_dim": 16,
    "scalar_quantization_latent_dim": 16,
    "encoder_config": LOCAL,
    "dit_config": {**LOCAL, "cfm_config": {"inference_cfg_rate": 2.0}},
    "device": "cpu",
    "dtype": "float32",
}  # fmt: skip
LONG_ROPE = {**SMALL["lm_config"], "use_mup": True, "scale_emb": 3, "max_position_embeddings": 1024}
CONFIGS: dict[str, dict[str, Any]] = {
    # As in the release: no codec rates and no sizes that are the defaults of this architecture.
    "voxcpm-0.5b": {
        "architecture": "voxcpm",
        **SMALL,
        "residual_lm_num_layers": 2,
        "audio_vae_config": {"encoder_dim": 4, "latent_dim": 16, "decoder_dim": 64},
    },
    # The codec of 1.5, muP and the long factors. There is no `architecture`, which means the same.
    "voxcpm1.5": {
        **SMALL,
        "lm_config": LONG_ROPE,
        "patch_size": 4,
        "residual_lm_num_layers": 1,
        "max_length": 512,
        "audio_vae_config": {"encoder_dim": 2, "encoder_rates": [2, 3, 6, 7, 7], "latent_dim": 16, "decoder_dim": 64,
                             "decoder_rates": [7, 7, 6, 3, 2], "sample_rate": 44100},
    },
}  # fmt: skip


def clip(rate: int, seconds: float, seed: int) -> torch.Tensor:
    """Return a voice-like clip [S]: a gliding pulse train with harmonics and noise."""
    source = torch.Generator().manual_seed(seed)
    time = torch.arange(round(rate * seconds)) / rate
    phase = 2 * torch.pi * (110 + 15 * seed + 30 * time) * time
    tones = sum(torch.sin(k * phase) / k for k in range(1, 6))
    noise = torch.randn(len(time), generator=source)
    return (0.15 * tones + 0.02 * noise) * (0.6 + 0.4 * torch.sin(7 * time))


def randomize(parameters: dict[str, torch.Tensor], seed: int) -> None:
    """Give all that is constant at first (biases, norms, alphas) values; round all to bfloat16, as which they are stored."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in parameters.items():
            drawn = torch.randn(value.shape, generator=source)
            if "norm" in name or name.endswith("alpha"):
                value.copy_(1 + 0.2 * drawn)
            elif name.endswith("embed_tokens.weight"):
                value.copy_(0.7 * drawn)
            elif name.endswith("bias"):
                value.copy_(0.1 * drawn)
            value.copy_(value.bfloat16())


def level(codec: AudioVAE) -> None:
    """Scale the last layers so that latents of a clip have a deviation of about 1 and the audio is far below full scale."""
    *_, last, _ = codec.decoder.model
    heard: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda _, __, output: heard.append(output))
    with torch.no_grad():
        latents = codec.encode(clip(codec.sample_rate, 0.5, 6)[None, None], codec.sample_rate)
        codec.encoder.fc_mu.weight_g.copy_((codec.encoder.fc_mu.weight_g / latents.std()).bfloat16())
        codec.decode(torch.randn(1, codec.latent_dim, 20, generator=torch.Generator().manual_seed(1)))
        last.weight_g.copy_((last.weight_g * 0.3 / heard[0].std()).bfloat16())
    hook.remove()


def store(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors to a file, those of a checkpoint as bfloat16."""
    half = path.name != "golden.safetensors"
    whole = {name: (x.detach().bfloat16() if half else x.detach().clone()).contiguous() for name, x in tensors.items()}
    save_file(whole, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int) -> VoxCPMModel:
    """Write a checkpoint with random weights and load it as the official package does."""
    spec = importlib.util.spec_from_file_location("tokenizer", ROOT / "trainer" / "model" / "tokenizer.py")
    assert spec is not None and spec.loader is not None
    tokenizer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tokenizer)
    tokenizer.train_tokenizer(LEARNT * 3, config["lm_config"]["vocab_size"], folder)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    torch.manual_seed(seed)
    codec = AudioVAE(AudioVAEConfig(**config["audio_vae_config"]))
    randomize(dict(codec.named_parameters()), seed)
    level(codec)
    store(folder / "audiovae.safetensors", codec.state_dict())
    # A first model gives the names and the official initial weights (its loader ignores what is missing), a second one reads them.
    store(folder / "model.safetensors", {})
    fresh = VoxCPMModel.from_local(str(folder), optimize=False, device="cpu")
    backbone = {name: x for name, x in fresh.named_parameters() if not name.startswith("audio_vae.")}
    randomize(backbone, seed)
    store(folder / "model.safetensors", backbone)
    return VoxCPMModel.from_local(str(folder), optimize=False, device="cpu")


@contextmanager
def recorded(*names: str) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Record what the named functions of torch return, in order."""
    found: dict[str, list[torch.Tensor]] = {"all": []}

    def record(name: str, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            made = function(*args, **kwargs)
            found.setdefault(name, []).append(made.clone())
            found["all"].append(made.clone())
            return made

        return call

    with mock.patch.multiple(torch, **{name: record(name, getattr(torch, name)) for name in names}):
        yield found


@contextmanager
def watched(model: VoxCPMModel, laid_out: dict[str, torch.Tensor]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Record the states that condition each patch, the stop logits, and how near FSQ comes to a rounding boundary."""
    seen: dict[str, list[torch.Tensor]] = {"lm": [], "residual": [], "stop": [], "margin": []}
    scale = model.fsq_layer.scale

    def note(name: str, value: torch.Tensor) -> None:
        seen[name].append(value.detach().clone())

    def margin(_: Any, __: Any, output: torch.Tensor) -> None:
        # At positions of text the levels are discarded.
        prefill = output.dim() == 3 and output.shape[1] > 1
        level = torch.tanh(output[:, laid_out["audio_mask"].bool()] if prefill else output) * scale
        if level.numel():
            note("margin", ((level - level.floor()) - 0.5).abs().min() / scale)

    hooks = [
        model.lm_to_dit_proj.register_forward_hook(lambda _, given, __: note("lm", given[0])),
        model.res_to_dit_proj.register_forward_hook(lambda _, given, __: note("residual", given[0])),
        model.stop_head.register_forward_hook(lambda _, __, output: note("stop", output)),
        model.fsq_layer.in_proj.register_forward_hook(margin),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def generate(model: VoxCPMModel, name: str, text: str, cache: dict[str, Any] | None, seed: int) -> tuple[Any, float]:
    """Generate PATCHES patches; return (the tensors of this run, the smallest margin)."""
    torch.manual_seed(seed)
    laid_out: dict[str, torch.Tensor] = {}
    inner = model._inference

    def inference(tokens: Any, text_mask: Any, features: Any, audio_mask: Any, **options: Any) -> Any:
        laid_out.update(text_tokens=tokens[0].long(), audio_mask=audio_mask[0].long(), audio_feat=features[0])
        return inner(tokens, text_mask, features, audio_mask, **options)

    with (
        recorded("randn") as drawn,
        watched(model, laid_out) as seen,
        mock.patch.object(model, "_inference", inference),
    ):
        wav, _, patches = model.generate_with_prompt_cache(
            text, cache, min_len=PATCHES, max_len=PATCHES, inference_timesteps=STEPS, cfg_value=CFG
        )
    new = patches[len(patches) - PATCHES :]
    tensors = {
        **laid_out,
        "noise": torch.cat(drawn["randn"]),
        "patches": new,
        "lm_hidden": torch.cat(seen["lm"]),
        "residual_hidden": torch.cat(seen["residual"]),
        "stop_logits": torch.cat(seen["stop"]),
        "wav": wav[0],
    }
    return {f"{name}.{key}": value for key, value in tensors.items()}, float(torch.stack(seen["margin"]).min())


def train(model: VoxCPMModel, rate: int, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Add a packed batch, the random numbers of a step and its losses to `tensors`; return the norms of the gradients."""
    packer = AudioFeatureProcessingPacker(1, 256, model.patch_size, model.feat_dim, model.audio_vae)
    clips = [clip(rate, 0.7, 1), clip(rate, 0.4, 2)]
    ids = [torch.tensor(model.text_tokenizer(TEXTS[mode])) for mode in ("basic", "continuation")]
    pad = torch.nn.utils.rnn.pad_sequence
    packed = packer(
        pad(clips, batch_first=True, padding_value=-100.0),
        pad(ids, batch_first=True, padding_value=-100),
        torch.ones(2, dtype=torch.long),
        torch.zeros(2, dtype=torch.long),
        [False, False],
    )
    names = ("text_tokens", "text_mask", "audio_feats", "audio_mask", "loss_mask", "position_ids", "labels")
    batch = {name: packed[name] for name in names}
    model.train()
    torch.manual_seed(5)
    with recorded("rand", "randn", "randn_like") as drawn:
        losses = model(**batch)
    order = (
        "cfg_keep_uniform",
        "cond_noise_uniform",
        "cond_noise_normal",
        "r_draw",
        "t_draw",
        "rt_mask_uniform",
        "z_normal",
    )
    assert len(drawn["all"]) == len(order)
    tensors |= {f"packed.{name}": value.contiguous() for name, value in batch.items()}
    tensors |= {f"rng.{name}": value for name, value in zip(order, drawn["all"], strict=True)}
    (losses["loss/diff"] + losses["loss/stop"]).backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters() if p.grad is not None}
    found = {"diffusion": losses["loss/diff"].item(), "stop": losses["loss/stop"].item(), "gradient_norms": norms}
    model.eval()
    model.zero_grad()
    return found


def add_lora(model: VoxCPMModel, folder: Path, text: str, seed: int) -> tuple[dict[str, torch.Tensor], float]:
    """Write an adapter with random weights; return what the adapted model generates, and the smallest margin."""
    settings = {"enable_lm": True, "enable_dit": True, "enable_proj": True, "r": 2, "alpha": 4}
    model.lora_config = LoRAConfig(**settings)
    model._apply_lora()
    source = torch.Generator().manual_seed(seed)
    weights = {name: x for name, x in model.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for value in weights.values():
            value.copy_((0.2 * torch.randn(value.shape, generator=source)).bfloat16())
    folder.mkdir(exist_ok=True)
    store(folder / "lora_weights.safetensors", weights)
    about = {"base_model": "", "lora_config": model.lora_config.model_dump()}
    (folder / "lora_config.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    made, margin = generate(model, "lora", text, None, 9)
    return {name: made[name] for name in ("lora.noise", "lora.patches")}, margin


def make(name: str, config: dict[str, Any], seed: int) -> float:
    """Make one folder; return the smallest margin of its runs."""
    folder = HERE / name
    model = write_checkpoint(folder / "checkpoint", config, seed)
    rate, codec = model.sample_rate, model.audio_vae
    tensors: dict[str, torch.Tensor] = {"clip": clip(rate, 0.43, 3), "prompt": clip(rate, 0.75, 4)}
    with torch.inference_mode():
        tensors["clip_latents"] = codec.encode(tensors["clip"][None, None], rate)
        tensors["decoded"] = codec.decode(tensors["clip_latents"])
    import torchaudio

    prompt = tensors["prompt"][None]
    with mock.patch.object(torchaudio, "load", lambda path: (prompt, rate)):
        cache = model.build_prompt_cache(TEXTS["prompt"], "prompt.wav")
    tensors["prompt_feat"] = cache["audio_feat"]
    basic, first = generate(model, "basic", TEXTS["basic"], None, 7)
    continued, second = generate(model, "continuation", TEXTS["continuation"], cache, 8)
    tensors |= basic | continued
    about = {
        "seed": seed,
        "texts": TEXTS,
        "target_tokens": {mode: len(model.text_tokenizer(text)) for mode, text in TEXTS.items()},
        "loss": train(model, rate, tensors),
        "shapes": {key: list(value.shape) for key, value in model.state_dict().items()},
        "torch": torch.__version__,
    }
    added, third = add_lora(model, folder / "lora", TEXTS["basic"], seed)
    tensors |= added
    about["margin"] = min(first, second, third)
    store(folder / "golden.safetensors", tensors)
    (folder / "meta.json").write_text(json.dumps(about, ensure_ascii=False) + "\n", encoding="utf-8")
    return about["margin"]


def published(patch: int, ralm: int, local: int, codec: dict[str, Any]) -> dict[str, Any]:
    """Count the tensors and weights of the official classes at a released model's sizes, and hash their names and shapes."""
    factors = [1.0] * 32
    lm = SMALL["lm_config"] | {
        "hidden_size": 1024, "intermediate_size": 4096, "max_position_embeddings": 32768, "num_attention_heads": 16,
        "num_hidden_layers": 24, "vocab_size": 73448,
        "rope_scaling": {"type": "longrope", "long_factor": factors, "short_factor": factors,
                         "original_max_position_embeddings": 32768},
    }  # fmt: skip
    towers = {"hidden_dim": 1024, "ffn_dim": 4096, "num_heads": 16, "num_layers": local}
    config = VoxCPMConfig(
        lm_config=lm,
        patch_size=patch,
        residual_lm_num_layers=ralm,
        encoder_config=towers,
        dit_config={**towers, "cfm_config": {}},
        max_length=8,
        device="cpu",
    )
    with torch.device("meta"):
        model = VoxCPMModel(config, LlamaTokenizerFast.from_pretrained(HERE / "voxcpm-0.5b" / "checkpoint"),
                            AudioVAE(AudioVAEConfig(**codec)), device="cpu")  # fmt: skip
    parts: dict[str, dict[str, Any]] = {"model": {}, "codec": {}}
    for name, value in model.state_dict().items():
        part = "codec" if name.startswith("audio_vae.") else "model"
        parts[part][name.removeprefix("audio_vae.")] = value
    return {
        part: {
            "tensors": len(found),
            "weights": sum(value.numel() for value in found.values()),
            "sha256": hashlib.sha256(
                "".join(f"{name} {list(found[name].shape)}\n" for name in sorted(found)).encode()
            ).hexdigest(),
        }
        for part, found in parts.items()
    }


def main() -> None:
    """Make both folders, each with the first seed that keeps FSQ away from its rounding boundaries, and published.json."""
    torch.set_num_threads(1)
    for name, config in CONFIGS.items():
        for seed in range(100):
            margin = make(name, config, seed)
            print(f"{name}: seed {seed}, margin {margin:.2g}", file=sys.stderr)
            if margin >= MARGIN:
                break
    long_codec = CONFIGS["voxcpm1.5"]["audio_vae_config"] | {"encoder_dim": 64, "latent_dim": 64, "decoder_dim": 2048}
    sizes = {"openbmb/VoxCPM-0.5B": published(2, 6, 4, {}), "openbmb/VoxCPM1.5": published(4, 8, 8, long_codec)}
    (HERE / "published.json").write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
