"""What vLLM-Omni's VoxCPM2 takes of `tts_model`, read from its wheel: every attribute is there, and its own code runs on them.

Its talker needs vllm and a GPU. The functions that touch the model need torch only, and are taken out of the file by name.
"""

from __future__ import annotations

import ast
import copy
import zipfile
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import soundfile
import torch
from official_sources import vllm_omni_wheel
from torch import Tensor, nn
from voxcpm_fixtures import GoldenSet

from voxcpm import VoxCPM
from voxcpm.inference.speaker import VoxCPM2Model
from voxcpm.model.flow import Solver
from voxcpm.weights.lora import adapters, merge_lora

TALKER = "vllm_omni/model_executor/models/voxcpm2/voxcpm2_talker.py"
ADAPTERS = "vllm_omni/model_executor/models/voxcpm2/lora.py"
#: What is taken out: functions and classes without vllm.
TAKEN = (
    "is_cjk_char",
    "build_cjk_split_map",
    "split_multichar_chinese",
    "_encode_raw_audio",
    "_install_locdit_fused_mlp",
    "_CFMBufferManager",
    "_optimized_solve_euler_with_noise",
)


@pytest.fixture(scope="module")
def files(request: pytest.FixtureRequest) -> dict[str, bytes]:
    with zipfile.ZipFile(vllm_omni_wheel(request.config)) as wheel:
        return {name: wheel.read(name) for name in (TALKER, ADAPTERS)}


@pytest.fixture(scope="module")
def talker(files: dict[str, bytes]) -> ast.Module:
    return ast.parse(files[TALKER])


@pytest.fixture(scope="module")
def theirs(talker: ast.Module) -> dict[str, Any]:
    """The functions of `TAKEN`, by name."""
    taken = [node for node in talker.body if getattr(node, "name", None) in TAKEN]
    annotations = ast.parse("from __future__ import annotations").body
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "MethodType": MethodType}
    scope["_NvtxRange"] = _Nothing
    exec(compile(ast.Module([*annotations, *taken], []), TALKER, "exec"), scope)  # the wheel is pinned by digest
    assert scope.keys() >= set(TAKEN)
    return scope


class _Nothing:
    """Stands for a range of NVIDIA's profiler."""

    def __init__(self, name: str) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


@pytest.fixture
def tts(golden_set: GoldenSet) -> VoxCPM2Model:
    """As its talker loads it."""
    model = VoxCPM.from_pretrained(str(golden_set.checkpoint), load_denoiser=False, optimize=False)
    return model.tts_model.to("cpu")


def attributes(tree: ast.Module) -> set[str]:
    """Every NAME of `tts.NAME`, `self.tts.NAME` and `self._tts.NAME`, unless it is assigned only."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of = node.value
            name = of.id if isinstance(of, ast.Name) else of.attr if isinstance(of, ast.Attribute) else ""
            if name in ("tts", "_tts"):
                found.add(node.attr)
    return found


def test_all_22_attributes_are_there(talker: ast.Module, tts: VoxCPM2Model) -> None:
    wanted = attributes(talker)
    assert len(wanted) == 22
    assert not {name for name in wanted if not hasattr(tts, name)}
    assert isinstance(tts, nn.Module) and isinstance(tts.fusion_concat_proj.weight, Tensor)


def test_its_functions_encode_and_split(theirs: dict[str, Any], tts: VoxCPM2Model) -> None:
    wav = torch.randn(9000, generator=torch.Generator().manual_seed(1)) / 10
    for padding in ("left", "right"):
        feat = theirs["_encode_raw_audio"](tts, wav, 16000, padding)
        assert feat.shape == (4, tts.patch_size, tts.feat_dim)
    whole = tts.text_tokenizer.tokenizer
    split = theirs["build_cjk_split_map"](whole)
    text = "你好世界, hello"
    ids = theirs["split_multichar_chinese"](whole.convert_tokens_to_ids(whole.tokenize(text)), split)
    assert split and ids == tts.text_tokenizer(text)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_its_solver_on_our_estimator_gives_what_ours_gives(
    rows: int, fused: bool, theirs: dict[str, Any], tts: VoxCPM2Model
) -> None:
    if fused:
        assert theirs["_install_locdit_fused_mlp"](tts.feat_decoder.estimator) > 0
    width = tts.lm_to_dit_proj.out_features + tts.res_to_dit_proj.out_features
    torch.manual_seed(rows)
    draw = torch.randn
    mu, cond, noise = draw(rows, width), draw(rows, tts.feat_dim, 4) / 2, draw(rows, tts.feat_dim, 4)
    sizes = (tts.feat_dim, tts.patch_size, width, rows)
    buffers = theirs["_CFMBufferManager"](torch.device("cpu"), torch.float32, *sizes)
    with torch.inference_mode():
        got = theirs["_optimized_solve_euler_with_noise"](
            tts.feat_decoder, mu, tts.patch_size, cond, noise, 10, 2.0, buffers
        )
        ours = tts.feat_decoder.solve(mu, cond.mT, noise.mT, 2.0, Solver(10)).mT
    torch.testing.assert_close(got, ours, atol=1e-4, rtol=1e-4)
    rate = torch.tensor([tts.audio_vae.out_sample_rate], dtype=torch.int32)
    wav = tts.audio_vae.decode(got, sr_cond=rate)
    assert wav.shape == (rows, 1, 4 * tts.audio_vae.decode_chunk_size) and bool(wav.isfinite().all())


def test_its_decode_step_is_ours(tts: VoxCPM2Model) -> None:
    """The talker's step between two patches, with its own towers in the place of ours: projections, stop, next embedding."""
    lm, residual = torch.randn(2, 2, tts.config.lm_config.hidden_size)
    patches = torch.randn(2, tts.patch_size, tts.feat_dim)
    backbone = tts.backbone
    with torch.inference_mode():
        stop = tts.stop_head(tts.stop_actn(tts.stop_proj(lm)))
        mu = torch.cat([tts.lm_to_dit_proj(lm), tts.res_to_dit_proj(residual)], dim=-1)
        embedded = tts.enc_to_lm_proj(tts.feat_encoder(patches.unsqueeze(1))).squeeze(1)
        torch.testing.assert_close(stop, backbone.stop_logits(lm))
        torch.testing.assert_close(mu, backbone.condition(lm, residual))
        torch.testing.assert_close(embedded, backbone.embed_patches(patches))


def test_it_merges_an_adapter_as_we_do(tts: VoxCPM2Model, golden_set: GoldenSet, files: dict[str, bytes]) -> None:
    ours, adapter = copy.deepcopy(tts), golden_set.folder / "lora"
    scope: dict[str, Any] = {}
    exec(compile(files[ADAPTERS], ADAPTERS, "exec"), scope)
    merged = scope["merge_voxcpm2_lora"](str(adapter), base_lm=tts.base_lm, residual_lm=tts.residual_lm, tts=tts)
    ours.load_lora_weights(adapter)
    assert merged == len(adapters(ours))
    merge_lora(ours.backbone)
    torch.testing.assert_close(tts.state_dict(), ours.state_dict())


def test_the_towers_can_be_given_away(tts: VoxCPM2Model, golden_set: GoldenSet, tmp_path: Path) -> None:
    names = {name for name, _ in tts.residual_lm.named_parameters()}
    assert "layers.0.self_attn.q_proj.weight" in names and "norm.weight" in names
    before = len(list(tts.parameters()))
    del tts.base_lm
    tts.base_lm = None
    del tts.residual_lm
    tts.residual_lm = None
    assert len(list(tts.parameters())) < before and not hasattr(tts.backbone, "base_lm")
    # What it still calls needs no tower.
    soundfile.write(tmp_path / "ref.wav", golden_set["generation"]["ref_wav_16k"].numpy(), 16000)
    cache = tts.build_prompt_cache(None, None, str(tmp_path / "ref.wav"))
    tokens, features, text_mask, audio_mask = tts._make_ref_prefix(cache["ref_audio_feat"], torch.device("cpu"))
    assert len(tokens) == len(features) == int((text_mask + audio_mask).sum()) == len(cache["ref_audio_feat"]) + 2
