"""The profiles as they resolve: what has a GPU share computes on it, and all stages speak of the same voice prints."""

from __future__ import annotations

import pytest

from catalogs.settings import SettingsError
from catalogs.weights import registry
from pipeline.config import ENCODER_STAGES, PrepareConfig, StagedConfig, load_config
from pipeline.runtime.devices import pick_device
from pipeline.stages import STAGE_GROUPS
from pipeline.stages.embed_speaker import EmbedSpeakerConfig
from pipeline.stages.mine_references import MineReferences, MineReferencesConfig

PROFILES = {"small": ("ge2e", 0.78), "studio": ("ecapa", 0.7)}


def least_cosine(config: PrepareConfig) -> float:
    stage = config.stage("mine_references").build()
    assert isinstance(stage, MineReferences)
    return stage.least_cosine()


@pytest.mark.parametrize(("profile", "encoder", "threshold"), [(p, *of) for p, of in PROFILES.items()])
def test_all_stages_use_the_profiles_encoder_and_its_threshold(profile: str, encoder: str, threshold: float) -> None:
    config = load_config(None, [f"profile={profile}"])
    assert {config.stage(name).config.model_dump()["encoder"] for name in ENCODER_STAGES} == {encoder}
    assert least_cosine(config) == threshold
    assert least_cosine(load_config(None, [f"profile={profile}", "mine_references.threshold=0.5"])) == 0.5


def test_every_gpu_share_is_used_and_every_stage_that_may_use_one_has_it() -> None:
    """Each group with a share has a stage that goes to the GPU by itself; no such stage of the profile goes without."""
    config = load_config(None, ["profile=studio"])
    shares = config.engine.gpus
    for group in STAGE_GROUPS:
        devices = [stage.config.model_dump().get("device") for stage in (config.stage(name) for name in group)]
        assert set(devices) <= {None, "auto"}
        assert ("auto" in devices) == (group[0] in shares), f"{group}: share {shares.get(group[0])}, devices {devices}"
    assert sum(shares.values()) == pytest.approx(1.0), "the shares of one GPU"
    assert all(group.gpus == shares.get(group.stages[0].name, 0.0) for group in config.groups())


@pytest.mark.parametrize("profile", ["small", "studio"])
def test_a_profile_names_the_weights_that_are_pulled_for_it(profile: str) -> None:
    config = load_config(None, [f"profile={profile}", *(["separate.mode=always"] if profile == "studio" else [])])
    assert set(config.weights()) <= set(registry.profile(profile))


def test_one_setting_changes_the_encoder_everywhere() -> None:
    config = load_config(None, ["speaker_encoder=ecapa"])
    assert {config.stage(name).config.model_dump()["encoder"] for name in ENCODER_STAGES} == {"ecapa"}
    assert least_cosine(config) == 0.7


def test_the_purity_that_is_asked_for_is_the_encoder_s_unless_it_is_set() -> None:
    for profile, least in (("small", 0.7), ("studio", 0.35)):
        assert load_config(None, [f"profile={profile}"]).thresholds.min_speaker_purity == least
        given = [f"profile={profile}", "thresholds.min_speaker_purity=0.6"]
        assert load_config(None, given).thresholds.min_speaker_purity == 0.6
        others = load_config(None, [f"profile={profile}", "thresholds.min_snr_db=5"]).thresholds
        assert (others.min_speaker_purity, others.min_snr_db) == (least, 5)
    assert load_config(None, ["thresholds.min_speaker_purity=null"]).thresholds.min_speaker_purity is None


@pytest.mark.parametrize("stage", ENCODER_STAGES)
def test_stages_that_disagree_about_the_encoder_are_told_so(stage: str) -> None:
    with pytest.raises(SettingsError) as told:
        load_config(None, [f"{stage}.encoder=ecapa"])
    assert str(told.value).startswith(f"{stage}.encoder is ecapa, the other stages' is ge2e")
    assert "\n" not in str(told.value) and "speaker_encoder: ecapa" in str(told.value)


def test_configs_made_in_code_are_held_to_it_too() -> None:
    with pytest.raises(ValueError, match=r"embed_speaker.encoder is ecapa"):
        StagedConfig.model_validate({"embed_speaker": EmbedSpeakerConfig(encoder="ecapa")})
    made = StagedConfig.model_validate({"mine_references": MineReferencesConfig(min_s=2.0)})
    assert least_cosine(made) == 0.78


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert pick_device("auto", lambda: 1) == "cuda" and pick_device("auto", lambda: 0) == "cpu"
    assert pick_device("cpu", lambda: 1) == "cpu" and pick_device("cuda", lambda: 0) == "cuda"
    # What an actor without a share is shown.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pick_device("auto", lambda: 1) == "cpu"


def test_a_stage_that_insists_on_a_gpu_needs_a_share() -> None:
    with pytest.raises(SettingsError, match=r"embed_speaker.device: cuda .* engine.gpus.embed_speaker"):
        load_config(None, ["embed_speaker.device=cuda"]).groups()
    for setting in ("engine.gpus={embed_speaker: 0.5}", "engine.executor=inline"):
        assert load_config(None, ["embed_speaker.device=cuda", setting]).groups()


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"transcribe.device: .*'auto', 'cpu' or 'cuda'"):
        load_config(None, ["transcribe.device=gpu"])
