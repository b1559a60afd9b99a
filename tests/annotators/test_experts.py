"""Experts: the registry, the rules, and the loader of a local model."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from annotators.experts import EXPERTS, expert
from annotators.experts.base import Expert, ExpertError
from annotators.experts.emotion import PROVEN, aroused_p, expressive_score, resting_pitch
from annotators.experts.gender import VoiceClip, female_logit, female_p
from annotators.experts.vocal import FOLDER, load_ears
from annotators.experts.whisper_encoder import Size, log_mel, names_of, scores
from annotators.schema import Clip
from catalogs.extensions import ExtensionError
from pipeline.records import PCM_RATE
from pipeline.voice.prosody import measure_prosody, track_pitch
from pipeline.voice.tract import measure_tract


def test_every_expert_is_made_without_arguments_and_declares_itself() -> None:
    for name in EXPERTS.ours:
        made = expert(name)
        assert made.name == name and made.attribute and made.license and isinstance(made, Expert)


def test_a_non_commercial_expert_is_used_only_if_it_is_allowed() -> None:
    with pytest.raises(ExpertError, match="non-commercial"):
        expert("fakes.experts:Forbidden")
    assert expert("fakes.experts:Forbidden", allow_non_commercial=True).non_commercial
    with pytest.raises(ExtensionError, match="no expert 'gendr'"):
        expert("gendr")


# ---- gender


clips = st.lists(
    st.builds(VoiceClip, st.floats(60, 240), st.one_of(st.none(), st.floats(2800, 5000)), st.floats(0.2, 20)),
    min_size=1,
    max_size=12,
)


@given(clips)
def test_a_higher_voice_and_a_shorter_tract_are_never_more_male(voice: list[VoiceClip]) -> None:
    odds = female_logit(voice)
    assert odds is not None
    higher = [VoiceClip(min(c.pitch_low_hz * 1.04, 249.0), c.formant_hz, c.voiced_s) for c in voice]
    shorter = [VoiceClip(c.pitch_low_hz, c.formant_hz and c.formant_hz * 1.05, c.voiced_s) for c in voice]
    for other in (higher, shorter):
        changed = female_logit(other)
        assert changed is not None and changed >= odds - 1e-9


@given(clips, st.integers(2, 5))
def test_a_voice_is_judged_as_a_whole(voice: list[VoiceClip], times: int) -> None:
    once = female_logit(voice)
    assert female_logit(voice * times) == pytest.approx(once)
    assert female_logit(voice[::-1]) == pytest.approx(once)


def test_a_man_who_shouts_has_no_woman_s_throat() -> None:
    man = [VoiceClip(105.0, 3450.0, 2.0)] * 3
    shouting = [*man, VoiceClip(235.0, 3500.0, 2.0)]
    p = female_p(shouting)
    assert p is not None and p < 0.1
    assert female_p([VoiceClip(260.0, 3500.0, 2.0)]) is None, "heard only while it shouts"
    assert female_p([]) is None


def test_the_pipeline_s_verdict_on_all_moods_of_a_voice_stands() -> None:
    woman = {"pitch_low_hz": 200.0, "formant_hz": 4100.0, "voiced_share": 0.5, "duration_s": 2.0}
    made = expert("gender")
    alone = made.judge_voice([Clip(woman)])
    assert alone is not None and alone["female"] > 0.9
    for told, wanted in ((("female", 0.93), 0.93), (("male", 0.95), None), ((None, None), None)):
        row = woman | {"gender": told[0], "gender_p": told[1]}
        judged = made.judge_voice([Clip(row), Clip(row)])
        assert (judged and judged["female"]) == wanted
    both = [Clip(woman | {"gender": gender, "gender_p": 0.95}) for gender in ("male", "female")]
    assert made.judge_voice(both) is None
    assert made.judge_voice([Clip({"gender": "female", "gender_p": 0.9})]) is None, (
        "decided by pitch alone, by an older version"
    )


def load(path: Path) -> np.ndarray:
    import soxr

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return np.asarray(soxr.resample(mono, rate, PCM_RATE) if rate != PCM_RATE else mono, dtype=np.float32)


@pytest.fixture(scope="module")
def voices(corpora: Path) -> dict[tuple[str, str], list[VoiceClip]]:
    """(gender, voice) of EmoDB and RAVDESS, every fifth clip: what the rule was not fitted on."""
    found: defaultdict[tuple[str, str], list[VoiceClip]] = defaultdict(list)
    rows = [json.loads(line) for line in (corpora / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in [row for row in rows if row["corpus"] in ("RAVDESS", "EmoDB")][::5]:
        key = (row["gender"], row["speaker"])
        samples = load(corpora / row["path"])
        pitch = track_pitch(samples)
        prosody, tract = measure_prosody(samples, pitch), measure_tract(samples, pitch)
        assert prosody is not None and tract is not None
        found[key].append(VoiceClip(prosody.pitch_low_hz, tract.formant_hz, prosody.voiced_share * len(samples)))
    return dict(found)


def test_verdicts_on_real_voices_are_right(voices: dict[tuple[str, str], list[VoiceClip]]) -> None:
    odds = {key: female_logit(found) for key, found in voices.items()}
    given_ = {key: value for key, value in odds.items() if value is not None and abs(value) >= 2.2}
    wrong = [key for key, value in given_.items() if (value > 0) != (key[0] == "female")]
    assert len(voices) == 17 and len(given_) >= 13 and not wrong


def test_men_have_lower_fourth_formants_than_women(voices: dict[tuple[str, str], list[VoiceClip]]) -> None:
    men, women = (
        [c.formant_hz or 0.0 for key, found in voices.items() if key[0] == gender for c in found]
        for gender in ("male", "female")
    )
    assert 3200 < np.median(men) < 3750 < np.median(women) < 4300


# ---- arousal


def test_arousal_rises_with_pitch_above_rest_and_needs_a_proven_language() -> None:
    row = {"expressive_p": 0.6, "pitch_hz": 150.0, "language": "en"}
    calm, moved = aroused_p(row, 145.0), aroused_p(row | {"pitch_hz": 260.0, "expressive_p": 0.9}, 145.0)
    assert calm is not None and moved is not None and calm < moved and moved > 0.8
    assert aroused_p(row, None) is None and aroused_p(row | {"language": "ko"}, 145.0) is None
    assert "ko" not in PROVEN and expressive_score({}, 100.0) is None
    assert resting_pitch([120.0]) is None and resting_pitch([100.0, 140.0, 180.0, 220.0, 260.0]) == 140.0


def test_age_has_no_verdict_without_weights() -> None:
    made = expert("age")
    assert made.judge_voice([Clip({"age": None, "age_p": None}), Clip({})]) is None
    shares = made.judge_voice([Clip({"age": "senior", "age_p": 0.9})] * 2)
    assert shares is not None and max(shares, key=lambda band: shares[band]) == "senior" and shares["young"] < 0.1


# ---- a model in a folder

TINY = Size(d_model=16, encoder_layers=2, encoder_attention_heads=4, num_mel_bins=80, max_source_positions=100)
OUTPUTS = ["emotion:Anger", "voice:AGEV", "voice:GEND"]


def tiny(seed: int = 0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = {
        "conv1.weight": (16, 80, 3), "conv2.weight": (16, 16, 3), "embed_positions.weight": (100, 16), "fc1.weight": (32, 16),
        "fc1.bias": (32,), "fc2.weight": (16, 32), "head.0.weight": (8, 16), "head.0.bias": (8,), "head.1.weight": (3, 8),
        "head.1.bias": (3,), "proj.weight": (16, 16),
    }  # fmt: skip
    made = {}
    for name in sorted(names_of(TINY, 2)):
        shape = next((shape for end, shape in shapes.items() if name.endswith(end)), (16,))
        made[name] = torch.randn(shape, generator=random) * 0.3
    return made


def write(folder: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> Path:
    folder.mkdir(parents=True)
    config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 4, "num_mel_bins": 80,
              "max_source_positions": 100, "outputs": OUTPUTS, **changes}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return folder


def heard(seed: int = 1, rate: int = 16_000) -> Clip:
    samples = np.random.default_rng(seed).normal(0, 0.1, rate)
    sink = io.BytesIO()
    soundfile.write(sink, samples, rate, format="FLAC", subtype="PCM_16")
    return Clip({"segment_id": str(seed)}, sink.getvalue())


def test_features_are_whisper_s() -> None:
    whisper = pytest.importorskip("faster_whisper.feature_extractor")
    samples = np.random.default_rng(2).normal(0, 0.1, 5 * 16_000).astype(np.float32)
    theirs = whisper.FeatureExtractor(feature_size=80)(samples, padding=0)
    ours = log_mel(samples, 80, len(samples))
    frames = min(ours.shape[1], theirs.shape[1])
    assert np.abs(ours[:, : frames - 2] - theirs[:, : frames - 2]).max() < 1e-3


def test_the_encoder_is_that_of_torch() -> None:
    """torch's own layer with normalization first, given the same weights, is an independent reference."""
    tensors = tiny()
    features = torch.from_numpy(log_mel(np.random.default_rng(3).normal(0, 0.1, 32_000), 80, TINY.samples))[None]
    hidden = torch.nn.functional.gelu(
        torch.nn.functional.conv1d(features, tensors["encoder.conv1.weight"], tensors["encoder.conv1.bias"], padding=1)
    )
    hidden = torch.nn.functional.conv1d(
        hidden, tensors["encoder.conv2.weight"], tensors["encoder.conv2.bias"], stride=2, padding=1
    )
    hidden = torch.nn.functional.gelu(hidden).transpose(1, 2) + tensors["encoder.embed_positions.weight"]
    for n in range(2):
        layer = torch.nn.TransformerEncoderLayer(16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=True)
        part = {key.removeprefix(f"encoder.layers.{n}."): value for key, value in tensors.items()}
        projections = [part[f"self_attn.{name}_proj.weight"] for name in "qkv"]
        biases = [part["self_attn.q_proj.bias"], torch.zeros(16), part["self_attn.v_proj.bias"]]
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": torch.cat(projections),
                "self_attn.in_proj_bias": torch.cat(biases),
                "norm1.weight": part["self_attn_layer_norm.weight"],
                "norm1.bias": part["self_attn_layer_norm.bias"],
                "norm2.weight": part["final_layer_norm.weight"],
                "norm2.bias": part["final_layer_norm.bias"],
                **{f"self_attn.out_proj.{k}": part[f"self_attn.out_proj.{k}"] for k in ("weight", "bias")},
                **{f"linear{m}.{k}": part[f"fc{m}.{k}"] for m in (1, 2) for k in ("weight", "bias")},
            }
        )
        hidden = layer.train()(hidden)
    norm = torch.nn.functional.layer_norm(
        hidden, (16,), tensors["encoder.layer_norm.weight"], tensors["encoder.layer_norm.bias"]
    )
    mean = torch.nn.functional.linear(norm.mean(1), tensors["head.0.weight"], tensors["head.0.bias"])
    wanted = torch.nn.functional.linear(
        torch.nn.functional.gelu(mean), tensors["head.1.weight"], tensors["head.1.bias"]
    )
    assert torch.allclose(scores(features, tensors, TINY), wanted, atol=1e-4)


def test_a_local_model_judges_gender_and_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = tiny()
    tensors["head.1.weight"] *= 0
    tensors["head.1.bias"] = torch.tensor([0.0, 5.1, 5.0])
    monkeypatch.setenv(FOLDER, str(write(tmp_path / "ears", tensors)))
    gender, age = expert("ears-gender"), expert("ears-age")
    gender.load()
    age.load()
    man, old = gender.judge_voice([heard(1), heard(2, 48_000)]), age.judge_voice([heard(1)])
    assert man is not None and man["male"] == pytest.approx(1 / (1 + np.exp(-4)))
    assert (
        old is not None and max(old, key=lambda band: old[band]) == "senior" and sum(old.values()) == pytest.approx(1)
    )


def test_scores_do_not_depend_on_the_other_clips(tmp_path: Path) -> None:
    ears = load_ears(write(tmp_path / "ears", tiny(5)))
    alone, together = ears.score([heard(4)]), ears.score([heard(3), heard(4)])
    assert together[1] == alone[0] and together[0] != alone[0] and list(alone[0]) == OUTPUTS


@pytest.mark.parametrize(
    "fault",
    [
        "no folder", "no config", "pickle", "missing", "unknown", "outputs", "shape", "inner shape", "positions", "size",
        "huge", "heads", "list",
    ],
)  # fmt: skip
def test_a_folder_that_is_not_laid_out_so_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    folder, tensors = tmp_path / "ears", tiny()
    if fault == "missing":
        del tensors["encoder.layers.1.fc2.bias"]
    if fault == "unknown":
        tensors["decoder.weight"] = torch.zeros(3)
    if fault == "shape":
        tensors["encoder.conv1.weight"] = torch.zeros(16, 128, 3)
    if fault == "inner shape":
        tensors["encoder.layers.1.self_attn.v_proj.weight"] = torch.zeros(12, 16)
    if fault == "positions":
        tensors["encoder.embed_positions.weight"] = torch.zeros(1, 16)
    wrong: dict[str, dict[str, Any]] = {
        "outputs": {"outputs": ["one"]},
        "size": {"encoder_layers": -1},
        "huge": {"encoder_layers": 10**9},
        "heads": {"encoder_attention_heads": 3},
    }
    changes = wrong.get(fault, {})
    if fault != "no folder":
        write(folder, tensors, **changes)
    if fault == "no config":
        (folder / "config.json").unlink()
    if fault == "list":
        (folder / "config.json").write_text("[]", encoding="utf-8")
    if fault == "pickle":
        torch.save({"x": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(ExpertError) as caught:
        load_ears(folder)
    assert "\n" not in str(caught.value) and "ears" in str(caught.value)


def test_an_expert_without_its_folder_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setenv("VOXMILL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ExpertError, match=rf"models pull humaneness-ears.*{FOLDER}"):
        expert("ears-gender").load()
    monkeypatch.setenv(FOLDER, str(write(tmp_path / "ears", tiny(), outputs=["a", "b", "c"])))
    with pytest.raises(ExpertError, match="GEND"):
        expert("ears-gender").load()


def test_pulled_weights_are_found_and_changed_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setenv("VOXMILL_MODELS", str(tmp_path / "models"))
    folder = write(tmp_path / "models" / "humaneness-ears" / "base", tiny())
    gender = expert("ears-gender")
    gender.load()
    assert gender.judge([heard()])[0] is not None
    (folder.parent / "digests.json").write_text(json.dumps({"base/config.json": "0" * 64}), encoding="utf-8")
    with pytest.raises(ExpertError, match="not the pinned file"):
        expert("ears-gender").load()
