"""Our parts beside the official package's own, built by the same calls from the same modules, with the same weights and seeds.

The official modules are those of its source distribution; they need torch, pydantic and einops only.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from official_sources import official_sdist
from safetensors.torch import load_file
from torch import Tensor, nn
from voxcpm_fixtures import GoldenSet

Import = Callable[[str], Any]
#: The official modules write each step of the flow and of a tower in another order of operations.
CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 1e-5}
AUDIO: dict[str, Any] = {"atol": 2e-3, "rtol": 0.0}


@pytest.fixture(scope="module")
def both(request: pytest.FixtureRequest) -> Iterator[tuple[Import, Import]]:
    """Import a module below `voxcpm`: (the official one, ours)."""
    pytest.importorskip("einops", reason="the official LocEnc needs einops")
    package = ModuleType("official_voxcpm")
    package.__path__ = [str(official_sdist(request.config) / "src" / "voxcpm")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, package.__name__, package)
        yield tuple(
            lambda name, root=root: importlib.import_module(f"{root}.{name}") for root in (package.__name__, "voxcpm")
        )  # type: ignore[misc]
    for name in [name for name in sys.modules if name.startswith("official_voxcpm.")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def config(golden_set: GoldenSet) -> dict[str, Any]:
    import json

    torch.set_num_threads(1)
    loaded: dict[str, Any] = json.loads((golden_set.checkpoint / "config.json").read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def weights(golden_set: GoldenSet) -> dict[str, Tensor]:
    return load_file(golden_set.checkpoint / "model.safetensors")


def filled(part: Any, prefix: str, weights: dict[str, Tensor]) -> Any:
    own = {name.removeprefix(prefix): value.float() for name, value in weights.items() if name.startswith(prefix)}
    part.load_state_dict(own, strict=True)
    return part.eval().requires_grad_(False)


def local(config: dict[str, Any], section: str) -> dict[str, Any]:
    """The fields of `lm_config` with a local tower's widths, as both packages derive them."""
    widths = config[section]
    return {
        **config["lm_config"],
        "hidden_size": widths["hidden_dim"],
        "intermediate_size": widths["ffn_dim"],
        "num_attention_heads": widths["num_heads"],
        "num_hidden_layers": widths["num_layers"],
        "kv_channels": widths.get("kv_channels"),
        "vocab_size": 0,
    }


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("causal", [True, False])
def test_a_tower(causal: bool, both: tuple[Import, Import], config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    x, found = draw(2, 9, config["lm_config"]["hidden_size"]), []
    for side in both:
        module = side("modules.minicpm4")
        tower = filled(module.MiniCPMModel(module.MiniCPM4Config(**config["lm_config"])), "base_lm.", weights)
        hidden, caches = tower(inputs_embeds=x, is_causal=causal)
        tower.setup_cache(2, 11, "cpu", torch.float32)
        tower.kv_cache.fill_caches(caches)
        steps = [tower.forward_step(draw(2, x.shape[2], seed=i), torch.tensor([tower.kv_cache.step()])) for i in (5, 6)]
        with pytest.raises(ValueError, match="full"):
            tower.kv_cache.step()
        found.append([hidden, *steps, *(part for pair in caches for part in pair)])
    theirs, ours = found
    assert len(theirs) == len(ours) > 1
    for their, our in zip(theirs, ours, strict=True):
        torch.testing.assert_close(our, their, **CLOSE)


@pytest.mark.parametrize(
    "options",
    [
        {"n_timesteps": 10, "cfg_value": 2.0},
        {"n_timesteps": 6, "cfg_value": 1.0, "use_cfg_zero_star": False, "temperature": 0.7, "sway_sampling_coef": 0.5},
        {"n_timesteps": 1, "cfg_value": 3.0},
    ],
    ids=lambda options: str(options["n_timesteps"]),
)
def test_the_flow_with_the_same_seed(
    options: dict[str, Any], both: tuple[Import, Import], config: dict[str, Any], weights: dict[str, Tensor]
) -> None:
    width, patch = config["feat_dim"], config["patch_size"]
    mu, cond, found = draw(2, 2 * config["dit_config"]["hidden_dim"]), draw(2, width, patch, seed=2), []
    for side in both:
        module = side("modules.locdit")
        sizes = side("modules.minicpm4").MiniCPM4Config(**local(config, "dit_config"))
        flow = module.UnifiedCFM(
            in_channels=width,
            cfm_params=module.CfmConfig(**config["dit_config"]["cfm_config"]),
            estimator=module.VoxCPMLocDiTV2(sizes, in_channels=width),
            mean_mode=False,
        )
        torch.manual_seed(9)
        found.append(filled(flow, "feat_decoder.", weights)(mu=mu, patch_size=patch, cond=cond, **options))
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_the_encoder_and_the_quantizer(
    both: tuple[Import, Import], config: dict[str, Any], weights: dict[str, Tensor]
) -> None:
    hidden = config["lm_config"]["hidden_size"]
    latent, scale = config["scalar_quantization_latent_dim"], config["scalar_quantization_scale"]
    encoded, quantized = [], []
    for side in both:
        sizes = side("modules.minicpm4").MiniCPM4Config(**local(config, "encoder_config"))
        encoder = side("modules.locenc").VoxCPMLocEnc(sizes, input_dim=config["feat_dim"])
        encoded.append(filled(encoder, "feat_encoder.", weights)(draw(2, 3, config["patch_size"], config["feat_dim"])))
        layer = side("modules.layers").ScalarQuantizationLayer(hidden, hidden, latent_dim=latent, scale=scale)
        quantized.append(filled(layer, "fsq_layer.", weights)(draw(2, 3, hidden)))
    torch.testing.assert_close(encoded[1], encoded[0], **CLOSE)
    torch.testing.assert_close(quantized[1], quantized[0], **CLOSE)


def test_the_codec(both: tuple[Import, Import], config: dict[str, Any], golden_set: GoldenSet) -> None:
    from voxcpm.weights.checkpoint import codec_file, read_tensors

    stored = read_tensors(codec_file(golden_set.checkpoint))
    wav, z, found = draw(1, 1, 7000) / 10, draw(1, config["feat_dim"], 8, seed=3), []
    for side in both:
        module = side("modules.audiovae")
        codec = filled(module.AudioVAEV2(config=module.AudioVAEConfigV2(**config["audio_vae_config"])), "", stored)
        rate = torch.tensor([24000], dtype=torch.int32)
        with codec.streaming_decode() as decoder:
            parts = [decoder.decode_chunk(part) for part in z.split(4, dim=2)]
        sizes = (codec.latent_dim, codec.chunk_size, codec.decode_chunk_size, codec.sample_rate, codec.out_sample_rate)
        found.append(
            (
                sizes,
                codec.encode(wav, codec.sample_rate),
                codec.decode(z, sr_cond=rate),
                codec.decode(z),
                torch.cat(parts, 2),
            )
        )
    theirs, ours = found
    assert ours[0] == theirs[0]
    torch.testing.assert_close(ours[1], theirs[1], atol=1e-4, rtol=1e-4)
    for our, their in zip(ours[2:], theirs[2:], strict=True):
        torch.testing.assert_close(our, their, **AUDIO)


def test_an_adapter(both: tuple[Import, Import]) -> None:
    x, found = draw(3, 6), []
    for side in both:
        torch.manual_seed(4)
        net: Any = nn.ModuleDict({"q_proj": nn.Linear(6, 4), "other": nn.Linear(6, 4)})
        side("modules.layers.lora").apply_lora_to_named_linear_modules(
            net, target_submodule_names=["q_proj"], r=2, alpha=6.0, dropout=0.0
        )
        net["q_proj"].load_state_dict({**net["q_proj"].state_dict(), "lora_A": draw(2, 6), "lora_B": draw(4, 2)})
        with torch.no_grad():
            on = net["q_proj"](x)
            net["q_proj"].set_enabled(False)
            found.append((set(net.state_dict()), on, net["q_proj"](x)))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[1][1:], found[0][1:])
