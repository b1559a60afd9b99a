"""The official package's module paths: every name is there, and what it names behaves as its caller expects."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from first_models import FirstModel
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tensor_closeness import assert_close
from torch import nn
from voxcpm_fixtures import GoldenSet

import voxcpm
from voxcpm import cli, official
from voxcpm.errors import AudioError, CheckpointError
from voxcpm.inference import denoise
from voxcpm.inference.timestamps import (
    TimestampItem,
    align_audio_file,
    extract_timestamp_items,
    split_word_items_to_chars,
)
from voxcpm.model import utils
from voxcpm.model.backbone import VoxCPM2
from voxcpm.sequence.text_tokenizer import TextTokenizer
from voxcpm.weights.lora import LoRALinear

#: Of rivals' code and documentation: module, names. The table in voxcpm/official.py and the files below it must have all.
WANTED = {
    "model": "VoxCPM2Model VoxCPMModel",
    "model.utils": "resolve_runtime_device pick_runtime_dtype get_dtype auto_select_device next_and_close"
    " materialize_generation_seed apply_generation_seed mask_multichar_chinese_tokens",
    "model.voxcpm": "VoxCPMModel LoRAConfig",
    "model.voxcpm2": "VoxCPM2Model LoRAConfig VoxCPMConfig",
    "modules.audiovae": "AudioVAEV2 AudioVAEConfigV2 AudioVAE AudioVAEConfig",
    "modules.layers": "ScalarQuantizationLayer",
    "modules.layers.lora": "LoRALinear apply_lora_to_named_linear_modules",
    "modules.minicpm4": "MiniCPM4Config MiniCPMModel",
    "modules.locdit": "VoxCPMLocDiTV2 VoxCPMLocDiT UnifiedCFM CfmConfig",
    "modules.locenc": "VoxCPMLocEnc",
    "training": "validate_manifest ValidationResult",
    "training.validate": "validate_manifest ValidationResult",
    "timestamps": "TimestampItem TimestampResult align_audio_file",
    "timestamps.base": "TimestampItem TimestampResult",
    "timestamps.stable_ts": "split_word_items_to_chars",
    "cli": "main _build_parser load_model detect_model_architecture align_audio_file VoxCPM sf",
    "zipenhancer": "ZipEnhancer",
    "utils.text_normalize": "TextNormalizer",
}


def official_module(name: str) -> Any:
    return importlib.import_module(f"voxcpm.{name}")


@pytest.mark.parametrize("name", WANTED)
def test_every_name_is_there(name: str) -> None:
    module = official_module(name)
    assert all(hasattr(module, wanted) for wanted in WANTED[name].split())


@pytest.mark.parametrize("name", official.NAMES)
def test_every_row_of_the_table_leads_somewhere(name: str) -> None:
    module = official_module(name)
    assert set(module.__all__) == official.NAMES[name].keys()
    assert all(getattr(module, public) is not None for public in module.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


def test_other_modules_are_still_not_found() -> None:
    for name in ("modules.nothing", "nothing", "training.data"):
        with pytest.raises(ModuleNotFoundError):
            official_module(name)
    official.install()
    assert sum(isinstance(finder, official.OfficialNames) for finder in sys.meta_path) == 1


def test_the_paths_cost_no_torch() -> None:
    code = (
        "import sys, voxcpm, voxcpm.modules.locdit, voxcpm.timestamps.base, voxcpm.cli\n"
        "from importlib.util import find_spec\n"
        "assert find_spec('voxcpm.zipenhancer') and 'torch' not in sys.modules and 'soundfile' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(voxcpm.__file__).parents[1])


def test_the_first_version_by_its_official_names(first: FirstModel) -> None:
    """Its model is ours, and its codec and LocDiT are built as the official package builds them, with the same numbers."""
    model = official_module("model").VoxCPMModel.from_local(str(first.checkpoint), optimize=False, device="cpu")
    assert type(model) is official_module("model.voxcpm2").VoxCPM2Model and "fusion_concat_proj" not in dir(
        model.backbone
    )
    assert {name: list(x.shape) for name, x in model.state_dict().items()} == first.about["shapes"]
    sizes = json.loads((first.checkpoint / "config.json").read_text(encoding="utf-8"))
    codec_names, locdit = official_module("modules.audiovae"), official_module("modules.locdit")
    codec = codec_names.AudioVAE(config=codec_names.AudioVAEConfig(**sizes["audio_vae_config"]))
    codec.load_state_dict(model.audio_vae.state_dict())
    rate = codec.sample_rate
    # Stored by another machine, whose processor may round otherwise.
    assert_close(codec.encode(first["clip"][None], rate), first["clip_latents"], 1e-5)
    assert_close(codec.decode(first["clip_latents"]), first["decoded"], 1e-6)
    assert codec_names.AudioVAE().decoder_context_frames and codec_names.AudioVAEConfig().decode_hop == 640
    towers = sizes["lm_config"] | {
        "vocab_size": 0,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
    }
    config = official_module("modules.minicpm4").MiniCPM4Config(**towers)
    estimator = locdit.VoxCPMLocDiT(config, in_channels=16)
    flow = locdit.UnifiedCFM(16, locdit.CfmConfig(), estimator)
    flow.load_state_dict(model.feat_decoder.state_dict())
    mu = model.backbone.condition(first["basic.lm_hidden"], first["basic.residual_hidden"])
    before = torch.cat((torch.zeros_like(first["basic.patches"][:1]), first["basic.patches"][:-1]))
    with mock.patch.object(torch, "randn", lambda *_, **__: first["basic.noise"]):
        patches = flow(mu, 10, model.patch_size, before.mT, cfg_value=2.0)
    assert_close(patches.mT, first["basic.patches"], 1e-5)


# -- the model's parts ---------------------------------------------------------------------------------------------------


def test_parts_by_their_official_constructors(golden_set: GoldenSet, golden_backbone: VoxCPM2) -> None:
    """Build LocDiT, LocEnc, the flow, FSQ and a tower as a converter does, and load the checkpoint's weights into them."""
    config = golden_backbone.config
    lm = config.lm_config.to_dict()
    lm_config = official_module("modules.minicpm4").MiniCPM4Config(**lm)
    assert lm_config.rope_scaling == config.lm_config.rope_scaling

    def local(section: Any) -> Any:
        widths = {"hidden_size": section.hidden_dim, "intermediate_size": section.ffn_dim, "vocab_size": 0,
                  "num_attention_heads": section.num_heads, "num_hidden_layers": section.num_layers,
                  "kv_channels": section.kv_channels}  # fmt: skip
        return official_module("modules.minicpm4").MiniCPM4Config(**{**lm, **widths})

    locdit, cfm = official_module("modules.locdit"), config.dit_config.cfm_config.to_dict()
    estimator = locdit.VoxCPMLocDiTV2(local(config.dit_config), in_channels=config.feat_dim)
    hidden = config.lm_config.hidden_size
    parts = {
        "base_lm": official_module("modules.minicpm4").MiniCPMModel(lm_config),
        "feat_encoder": official_module("modules.locenc").VoxCPMLocEnc(local(config.encoder_config), config.feat_dim),
        "feat_decoder": locdit.UnifiedCFM(
            in_channels=config.feat_dim, cfm_params=locdit.CfmConfig(**cfm), estimator=estimator, mean_mode=False
        ),
        "fsq_layer": official_module("modules.layers").ScalarQuantizationLayer(
            hidden, hidden, config.scalar_quantization_latent_dim, config.scalar_quantization_scale
        ),
    }
    tensors = load_file(golden_set.checkpoint / "model.safetensors")
    for name, part in parts.items():
        own = {
            key.removeprefix(f"{name}."): value.float() for key, value in tensors.items() if key.startswith(f"{name}.")
        }
        part.load_state_dict(own, strict=True)
    stored = golden_set["modules"]
    with torch.no_grad():
        t, x, cond, mu = (stored[f"locdit_{name}"] for name in ("t", "x", "cond", "mu"))
        torch.testing.assert_close(
            parts["feat_decoder"].estimator(x, mu, t, cond, stored["locdit_dt"]),
            stored["locdit_out_dt"],
            atol=1e-4,
            rtol=1e-4,
        )
        torch.testing.assert_close(
            parts["feat_encoder"](stored["locenc_in"]), stored["locenc_out"], atol=1e-4, rtol=1e-4
        )
        given_in = stored["base_lm_prefill_in"]
        out, caches = parts["base_lm"](inputs_embeds=given_in, is_causal=True)
        torch.testing.assert_close(out, stored["base_lm_prefill_out"], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(parts["fsq_layer"](out), golden_backbone.fsq_layer(out))
    heads, width = config.tslm.kv_heads, config.tslm.head_dim
    assert len(caches) == config.tslm.layers
    assert {tuple(k.shape) for pair in caches for k in pair} == {(given_in.shape[0], heads, given_in.shape[1], width)}


def test_adapters_by_the_official_constructor() -> None:
    linear = nn.Linear(6, 4)
    adapted = LoRALinear(base=linear, r=2, alpha=4.0)
    x = torch.randn(3, 6)
    with torch.no_grad():
        assert adapted.weight is linear.weight and torch.equal(adapted(x), linear(x))
        adapted.lora_B.normal_()
        added = x @ adapted.lora_A.T @ adapted.lora_B.T * 2
        torch.testing.assert_close(adapted(x), linear(x) + added)
        adapted.set_enabled(False)
        assert torch.equal(adapted(x), linear(x)) and not adapted.enabled
        adapted.set_enabled(True)
        adapted.reset_lora_parameters()
        assert torch.equal(adapted(x), linear(x)) and bool(adapted.lora_A.any())
    net = nn.ModuleDict(
        {"q_proj": nn.Linear(2, 2), "deep": nn.ModuleDict({"v_proj": nn.Linear(2, 2), "other": nn.Linear(2, 2)})}
    )
    wrap = official_module("modules.layers.lora").apply_lora_to_named_linear_modules
    for _ in range(2):  # an adapted linear is not adapted again
        wrap(net, target_submodule_names=["q_proj", "v_proj"], r=2, alpha=2, dropout=0.0)
    found = {name for name, module in net.named_modules() if isinstance(module, LoRALinear)}
    assert found == {"q_proj", "deep.v_proj"} and set(net.state_dict()) >= {"q_proj.weight", "q_proj.lora_A"}


# -- model.utils ---------------------------------------------------------------------------------------------------------


@given(cuda=st.booleans(), mps=st.booleans(), wanted=st.sampled_from([None, "auto", "cpu", "mps", "cuda", "cuda:1", " CPU "]),
       configured=st.sampled_from(["cuda", "cuda:1", "mps", "cpu", "tpu"]))  # fmt: skip
def test_a_device_that_is_there_or_an_error(cuda: bool, mps: bool, wanted: str | None, configured: str) -> None:
    here = {"cuda": cuda, "mps": mps, "cpu": True}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: cuda)
        patched.setattr(utils, "_has_mps", lambda: mps)
        try:
            device = utils.resolve_runtime_device(wanted, configured)
        except ValueError as error:
            assert wanted is not None and not here[wanted.partition(":")[0]] and "not available" in str(error)
            return
    assert here[device.partition(":")[0]]
    if wanted not in (None, "auto"):
        assert device == wanted.strip().lower()
    elif here.get(configured.partition(":")[0]):
        assert device == configured


def test_seeds_and_generators() -> None:
    assert utils.materialize_generation_seed(3) == 3
    utils.apply_generation_seed(11)
    first = utils.materialize_generation_seed(None)
    utils.apply_generation_seed(11)
    assert utils.materialize_generation_seed(None) == first
    closed = []

    def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    assert utils.next_and_close(numbers()) == 1 and closed
    with pytest.raises(CheckpointError, match="int4"):
        utils.get_dtype("int4")


@given(st.text("你好世界 helo,。▁", max_size=12))
def test_a_masked_tokenizer_gives_the_models_ids(golden_tokenizer: TextTokenizer, text: str) -> None:
    masked = utils.mask_multichar_chinese_tokens(golden_tokenizer.tokenizer)
    assert masked(text) == golden_tokenizer(text) and masked.tokenize(text) == golden_tokenizer.pieces(text)


# -- timestamps ----------------------------------------------------------------------------------------------------------

_words = st.lists(st.builds(TimestampItem, st.text("ab 你", max_size=4), st.floats(0, 9), st.floats(0, 9)), max_size=5)


@given(_words)
def test_characters_share_the_time_of_their_word(words: list[TimestampItem]) -> None:
    characters = split_word_items_to_chars(words)
    assert "".join(c.text for c in characters) == "".join(w.text.strip() for w in words)
    assert all(c.level == "char" and len(c.text) == 1 and c.start <= c.end for c in characters)
    rest = iter(characters)
    for word in words:
        own = [next(rest) for _ in word.text.strip()]
        if own:
            assert own[0].start == word.start and own[-1].end == pytest.approx(max(word.start, word.end))


def test_an_aligners_result_may_be_mappings_or_objects() -> None:
    words = [{"word": " Hello", "start": 0.1, "end": 0.5}, {"word": " ", "start": 0.5, "end": 0.6}]
    mapping = {"segments": [{"text": " Hello", "start": 0.1, "end": 0.6, "words": words}]}
    segment = types.SimpleNamespace(text="Hello", start=0.1, end=0.6, words=[types.SimpleNamespace(**w) for w in words])
    for result in (mapping, types.SimpleNamespace(segments=[segment])):
        assert extract_timestamp_items(result, "word") == [TimestampItem("Hello", 0.1, 0.5, "word")]
        assert extract_timestamp_items(result, "segment") == [TimestampItem("Hello", 0.1, 0.6, "segment")]
        assert len(extract_timestamp_items(result, "char")) == 5
    assert extract_timestamp_items({"segments": [{"text": "a", "words": None}]}, "word") == []


def test_the_fields_of_an_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    whisper = types.SimpleNamespace(align=lambda audio, text, language: {"segments": []})
    library = types.SimpleNamespace(load_model=lambda name, device: whisper)
    monkeypatch.setitem(sys.modules, "stable_whisper", library)
    found = align_audio_file(audio_path="a.wav", text="Hi", sample_rate=48000, language="en")
    assert list(found)[:-1] == ["audio_path", "sample_rate", "backend", "level", "text", "items", "warning"]
    assert found["items"] == [] and "no part" in found["warning"] and found["language"] == "en"
    for wrong in ({"level": "line"}, {"backend": "mfa"}):
        with pytest.raises(ValueError, match="is not one of"):
            align_audio_file(audio_path="a.wav", text="Hi", sample_rate=48000, **wrong)  # type: ignore[arg-type]


# -- clips and texts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 48000])
def test_loudness_is_that_of_the_standard(rate: int) -> None:
    pyloudnorm = pytest.importorskip("pyloudnorm")
    draw = np.random.default_rng(1)
    low = np.sin(2 * np.pi * 80 * np.arange(3 * rate) / rate) / 4
    with_pause = np.concatenate([draw.normal(0, 0.1, 2 * rate), np.zeros(2 * rate), draw.normal(0, 0.02, rate)])
    for wav in (low, with_pause, draw.normal(0, 0.3, rate)):
        expected = pyloudnorm.Meter(rate).integrated_loudness(wav)
        assert denoise.loudness(wav.astype(np.float32), rate) == pytest.approx(expected, abs=0.3)
    assert denoise.loudness(np.zeros(rate, np.float32), rate) == -70


def test_a_clip_is_denoised_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "load_denoiser", lambda path: lambda wav: wav / 2)
    enhancer = official_module("zipenhancer").ZipEnhancer("somewhere")
    noisy = np.random.default_rng(1).normal(0, 0.02, 24000).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", noisy, 24000)
    out = enhancer.enhance(str(tmp_path / "in.wav"), output_path=str(tmp_path / "out.wav"))
    wav, rate = soundfile.read(out, dtype="float32")
    assert out == str(tmp_path / "out.wav") and (rate, len(wav)) == (16000, 16000)
    assert denoise.loudness(wav, rate) == pytest.approx(-20, abs=0.2)
    made = enhancer.enhance(str(tmp_path / "in.wav"), normalize_loudness=False)
    assert denoise.loudness(soundfile.read(made, dtype="float32")[0], rate) < -30
    Path(made).unlink()
    with pytest.raises(FileNotFoundError):
        enhancer.enhance(str(tmp_path / "nowhere.wav"))
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    with pytest.raises(AudioError):
        enhancer.enhance(str(tmp_path / "silent.wav"))


def test_texts_are_normalized() -> None:
    normalizer = official_module("utils.text_normalize").TextNormalizer()
    assert normalizer.normalize("I have 21 **cats**.") == "I have twenty-one cats."
    with pytest.raises(ValueError, match="split"):
        normalizer.normalize("a", split=True)


# -- the command line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("openbmb/VoxCPM2", None, "voxcpm2"),
        ("openbmb/VoxCPM1.5", None, "voxcpm"),
        ("openbmb/VoxCPM-0.5B", None, "voxcpm"),
        ("my/model", None, None),
        ("VoxCPM2-folder", '{"architecture": "VoxCPM"}', "voxcpm"),
        ("VoxCPM1.5-folder", '{"architecture": "voxcpm2"}', "voxcpm2"),
        ("folder", "{}", "voxcpm"),
        ("broken", "[1", None),
        ("list", "[1]", None),
    ],
)
def test_the_architecture_of_a_model(name: str, config: str | None, expected: str | None, tmp_path: Path) -> None:
    flag, place = "--hf-model-id", name
    if config is not None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config, encoding="utf-8")
        flag, place = "--model-path", str(tmp_path / name)
    options = cli._build_parser().parse_args(["design", "-t", "Hi", "-o", "x.wav", flag, place])
    assert cli.detect_model_architecture(options) == expected


def test_a_reference_for_the_first_version_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ref.wav").write_bytes(b"RIFF")
    monkeypatch.setattr(cli, "load_model", lambda options: pytest.fail("loaded"))
    words = ["clone", "-t", "Hi", "-ra", str(tmp_path / "ref.wav"), "-o", "x.wav", "--hf-model-id", "openbmb/VoxCPM1.5"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2 and "--reference-audio needs a VoxCPM2 model" in capsys.readouterr().err
