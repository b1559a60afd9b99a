"""No file that a user may be handed runs code when it is read: each place that reads one is given hostile pickles.

Every test ends by looking for the canary that the pickle would have made.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hostile import OldEnums, Reduced, pickles, torch_file
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, BytesStorageMetadata, Metadata

from catalogs.corpus.thresholds import Thresholds, load_thresholds
from catalogs.settings import SettingsError, load_settings
from catalogs.weights import registry, verify
from evaluation.errors import EvaluationError
from evaluation.metrics.quality.distillmos import Distillmos
from evaluation.metrics.quality.distillmos_net import load_net
from pipeline.audio.demucs_net import load_demucs
from pipeline.config import StagedConfig
from pipeline.stage import LoadError
from pipeline.stages.separate import Separate, SeparateConfig
from pipeline.voice.encoders import load_encoder
from pipeline.voice.ge2e import Ge2e
from trainer.checkpoint.restore import Saved, saved_state
from trainer.checkpoint.shards import read_shards
from trainer.codec.config import CodecConfig
from trainer.codec.files import read_codec
from trainer.codec.resume import read_state as read_codec_state
from trainer.config import TrainConfig, TrainError
from trainer.data.latent_cache import Latents
from voxcpm.config import VoxCPM2Config
from voxcpm.errors import CheckpointError
from voxcpm.inference.prompt_cache import load_prompt_cache
from voxcpm.sequence.text_tokenizer import TextTokenizer
from voxcpm.weights.checkpoint import load_backbone, load_codec
from voxcpm.weights.lora import read_lora
from voxmill.terminal import explain

KINDS = tuple(pickles(Path("canary")))


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """What hostile files try to make."""
    return tmp_path / "canary"


def refused(error: pytest.ExceptionInfo[BaseException], canary: Path) -> str:
    """The one line that a refusal said; asserts that it is one, and that nothing ran."""
    assert not canary.exists()
    words = str(error.value)
    assert "\n" not in words and words
    return words


# -- the shards of a resume folder -------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A resume state as torch writes it: float32, bfloat16, int64 and a number, one tensor in two dimensions."""
    folder = tmp_path / "shards"
    dcp.save(stored(), storage_writer=FileSystemWriter(folder), no_dist=True)
    return folder


def stored() -> dict[str, torch.Tensor]:
    """The tensors of `shards`."""
    return {
        "weights/a": torch.arange(6.0).view(2, 3),
        "weights/b": torch.ones(4, dtype=torch.bfloat16),
        "optimizer/step/a": torch.tensor(7),
        "average/a": torch.tensor(0.5),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_metadata(shards: Path, canary: Path, kind: str) -> None:
    (shards / ".metadata").write_bytes(pickles(canary)[kind])
    with pytest.raises(TrainError, match="describes no tensor") as error:
        read_shards(shards, {"weights/a": torch.zeros(2, 3)})
    refused(error, canary)


def test_metadata_of_torch_is_still_read(shards: Path) -> None:
    found = {name: torch.zeros_like(value) for name, value in stored().items()}
    read_shards(shards, found)
    for name, value in stored().items():
        assert torch.equal(found[name], value), name


class _Asked:
    def __reduce__(self) -> Any:
        return getattr, (_MEM_FORMAT_ENCODING, "__subclasses__")


def test_metadata_of_older_pythons(shards: Path) -> None:
    def pickled(value: object) -> bytes:
        OldEnums(data := io.BytesIO()).dump(value)
        return data.getvalue()

    (shards / ".metadata").write_bytes(written := pickled(pickle.loads((shards / ".metadata").read_bytes())))
    assert b"getattr" in written
    test_metadata_of_torch_is_still_read(shards)
    (shards / ".metadata").write_bytes(pickle.dumps(_Asked()))
    with pytest.raises(TrainError, match="describes no tensor"):
        read_shards(shards, {"weights/a": torch.zeros(2, 3)})


def change(shards: Path, how: Callable[[Metadata], None]) -> None:
    """Write the description of the shards again, changed."""
    metadata = pickle.loads((shards / ".metadata").read_bytes())
    how(metadata)
    (shards / ".metadata").write_bytes(pickle.dumps(metadata))


def test_a_value_that_is_not_a_tensor(shards: Path, canary: Path) -> None:
    # torch itself unpickles such values without `weights_only`.
    data = io.BytesIO()
    torch.save(torch.zeros(1), data)
    (evil,) = [data for name, data in pickles(canary).items() if name == "reduce"]
    (shards / "__0_0.distcp").write_bytes(evil)

    def as_bytes(metadata: Metadata) -> None:
        metadata.state_dict_metadata["weights/a"] = BytesStorageMetadata()
        for index in metadata.storage_data:
            metadata.storage_data[index].offset, metadata.storage_data[index].length = 0, len(evil)

    change(shards, as_bytes)
    with pytest.raises(TrainError, match="describes no tensor") as error:
        read_shards(shards, {"weights/a": torch.zeros(2, 3)})
    refused(error, canary)


def test_a_tensor_that_is_hostile(shards: Path, canary: Path) -> None:
    torch.save(torch.zeros(2, 3), shards / "plain.pt")
    torch_file(shards / "__0_0.distcp", canary)
    size = (shards / "__0_0.distcp").stat().st_size

    def everything(metadata: Metadata) -> None:
        for place in metadata.storage_data.values():
            place.offset, place.length = 0, size

    change(shards, everything)
    with pytest.raises(TrainError) as error:
        read_shards(shards, {"weights/a": torch.zeros(2, 3)})
    refused(error, canary)


@pytest.mark.parametrize("name", ["../other/__0_0.distcp", "/etc/passwd", "sub/__0_0.distcp", ".."])
def test_shards_outside_the_folder(shards: Path, canary: Path, name: str) -> None:
    (shards.parent / "other").mkdir()
    shutil.copy(shards / "__0_0.distcp", shards.parent / "other")

    def elsewhere(metadata: Metadata) -> None:
        for place in metadata.storage_data.values():
            place.relative_path = name

    change(shards, elsewhere)
    with pytest.raises(TrainError, match="not in this folder") as error:
        read_shards(shards, {"weights/a": torch.zeros(2, 3)})
    refused(error, canary)


# -- files of torch ----------------------------------------------------------------------------------------------------


def hostile_files(folder: Path, canary: Path) -> list[bytes]:
    """Contents of a hostile `.pt`: `torch.save`'s zip and the bare pickles that the old format consists of."""
    return [torch_file(folder / "evil.pt", canary).read_bytes(), *pickles(canary).values()]


def test_a_state_to_resume_from(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "resume" / "step_0000001.pt"
    path.parent.mkdir()
    for content in hostile_files(tmp_path, canary):
        path.write_bytes(content)
        with pytest.raises(TrainError, match="cannot be read") as error:
            saved_state(Saved(1, path, None))
        refused(error, canary)


def test_a_codecs_state_to_resume_from(tmp_path: Path, canary: Path) -> None:
    for content in hostile_files(tmp_path, canary):
        (tmp_path / "resume.pt").write_bytes(content)
        with pytest.raises(TrainError, match="cannot be read") as error:
            read_codec_state(tmp_path, CodecConfig(corpus=str(tmp_path), output=str(tmp_path)))
        refused(error, canary)


@pytest.fixture
def checkpoint(golden: Path, tmp_path: Path) -> Path:
    """A tiny checkpoint that may be changed."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(golden / "checkpoint", folder)
    return folder


def test_a_models_weights(checkpoint: Path, tmp_path: Path, canary: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    for content in hostile_files(tmp_path, canary):
        (checkpoint / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read") as error:
            load_backbone(checkpoint)
        refused(error, canary)


def test_a_codecs_weights(checkpoint: Path, tmp_path: Path, canary: Path) -> None:
    for file in checkpoint.glob("audiovae.*"):
        file.unlink()
    for content in hostile_files(tmp_path, canary):
        (checkpoint / "audiovae.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read") as error:
            load_codec(checkpoint)
        refused(error, canary)


def test_an_adapter(tmp_path: Path, canary: Path) -> None:
    for name in ("lora_weights.ckpt", "lora_weights.safetensors"):
        folder = tmp_path / name.partition(".")[2]
        folder.mkdir()
        for content in hostile_files(tmp_path, canary):
            (folder / name).write_bytes(content)
            with pytest.raises(CheckpointError, match="cannot be read") as error:
                read_lora(folder)
            refused(error, canary)


def test_a_kept_voice(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "voice.safetensors"
    for content in hostile_files(tmp_path, canary):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="prompt cache") as error:
            load_prompt_cache(path)
        refused(error, canary)


def test_a_codec_that_was_trained(tmp_path: Path, canary: Path) -> None:
    # Small: the network is built before its weights are read.
    small = '{"audio_vae_config": {"encoder_dim": 4, "decoder_dim": 64}}'
    (tmp_path / "config.json").write_text(small, encoding="utf-8")
    for content in hostile_files(tmp_path, canary):
        (tmp_path / "audiovae.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read") as error:
            read_codec(tmp_path)
        refused(error, canary)


def test_a_tokenizer(checkpoint: Path, canary: Path) -> None:
    for content in pickles(canary).values():
        (checkpoint / "tokenizer.json").write_bytes(content)
        with pytest.raises(CheckpointError, match="tokenizer") as error:
            TextTokenizer.load(checkpoint)
        refused(error, canary)


def test_latents_in_a_cache(golden: Path, tmp_path: Path, canary: Path) -> None:
    codec, config = load_codec(golden / "checkpoint"), VoxCPM2Config.load(golden / "checkpoint")
    shape = (2, config.patch_size, config.feat_dim)
    shard = "segments/aa/unit.0123456789abcdef.arrow"
    corpora: Any = SimpleNamespace(parts=(), place=lambda segment_id: (None, shard, 0))
    latents = Latents(corpora, codec, config, tmp_path)
    latents._write("ab1", torch.ones(shape))
    (path,) = tmp_path.rglob("ab1.0123456789abcdef.npy")
    assert latents._read("ab1", 2) is not None
    np.save(path, np.array([Reduced(canary)], dtype=object), allow_pickle=True)
    for content in (path.read_bytes(), *pickles(canary).values()):
        path.write_bytes(content)
        # The clip is encoded again.
        assert latents._read("ab1", 2) is None
    assert not canary.exists()


# -- pretrained weights ------------------------------------------------------------------------------------------------


def test_a_separation_network(tmp_path: Path, canary: Path) -> None:
    pytest.importorskip("demucs")
    path = tmp_path / "955717e8-8726e21a.th"
    for content in hostile_files(tmp_path, canary):
        path.write_bytes(content)
        with pytest.raises(LoadError, match="not a Demucs network") as error:
            load_demucs(path)
        refused(error, canary)


def test_a_speaker_encoder(tmp_path: Path, canary: Path) -> None:
    for content in hostile_files(tmp_path, canary):
        (tmp_path / "pretrained.pt").write_bytes(content)
        with pytest.raises(LoadError, match="not the GE2E speaker encoder") as error:
            Ge2e(tmp_path)
        refused(error, canary)


def test_a_network_of_speech_quality(tmp_path: Path, canary: Path) -> None:
    for content in hostile_files(tmp_path, canary):
        (tmp_path / "net.pt").write_bytes(content)
        with pytest.raises(EvaluationError, match="not the Distill-MOS network") as error:
            load_net(tmp_path / "net.pt")
        refused(error, canary)


@pytest.fixture
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights from somebody else, in which all weights are looked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VOXMILL_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("VOXMILL_OFFLINE", "1")
    return tmp_path / "models"


@pytest.mark.parametrize("name", ["ge2e", "ecapa", "distillmos", "htdemucs", "htdemucs-ft-vocals"])
def test_weights_that_are_not_the_pinned_ones(handed: Path, canary: Path, name: str) -> None:
    (handed / name).mkdir(parents=True)
    for file in registry.weights(name).files:
        path = handed / name / file.path
        torch_file(path, canary)
        if path.suffix == ".yaml":
            path.write_text(f"modules: !apply:os.mkdir [{canary}]\n", encoding="utf-8")
    load: dict[str, Callable[[], object]] = {
        "ge2e": lambda: load_encoder("ge2e", "cpu"),
        "ecapa": lambda: load_encoder("ecapa", "cpu"),
        "distillmos": Distillmos().load,
    }
    stage = Separate(SeparateConfig(mode="always", model=name, min_gain=None)) if name not in load else None
    with pytest.raises(verify.DigestMismatch, match="not the pinned file") as error:
        load.get(name, lambda: stage.load() if stage else None)()
    refused(error, canary)


@pytest.mark.parametrize("ending", verify.RUNS_CODE)
def test_weights_without_a_digest_that_can_run_code(
    handed: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    entry = verify.Weights(
        name="stranger",
        role="test",
        library="torch",
        license="MIT",
        files=(verify.WeightFile("config.json", "", 0), verify.WeightFile(f"weights{ending}", "", 0)),
        hub="somebody/stranger",
        revision="main",
    )
    monkeypatch.setattr(registry, "registry", lambda: {"stranger": entry})
    (handed / "stranger").mkdir(parents=True)
    for file in entry.files:
        (handed / "stranger" / file.path).write_bytes(pickles(canary)["reduce"])
    for load in (registry.resolve, lambda name: registry.resolve_file(name, ending)):
        with pytest.raises(verify.NotPinned, match=f"weights{ending} can run code") as error:
            load("stranger")
        refused(error, canary)


def test_no_weights_of_the_registry_are_refused() -> None:
    for entry in registry.registry().values():
        registry._refuse_unpinned(entry)


def test_only_the_pinned_file_of_a_folder_is_loaded(
    handed: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stranger's file of the same kind beside it comes first by name.
    folder = handed / "toy"
    folder.mkdir(parents=True)
    (folder / "b.th").write_bytes(b"the pinned one")
    torch_file(folder / "a.th", canary)
    pin = hashlib.sha256(b"the pinned one").hexdigest()
    entry = verify.Weights("toy", "test", "torch", "MIT", (verify.WeightFile("b.th", pin, 14),))
    monkeypatch.setattr(registry, "registry", lambda: {"toy": entry})
    assert registry.resolve_file("toy", ".th") == folder / "b.th"


# -- YAML --------------------------------------------------------------------------------------------------------------


def yamls(canary: Path) -> list[str]:
    """Tags that PyYAML's unsafe loader and HyperPyYAML's follow."""
    return [
        f"a: !!python/object/apply:os.mkdir ['{canary}']\n",
        f"a: !!python/object/new:os.mkdir ['{canary}']\n",
        f"a: !!python/name:os.mkdir\nb: !apply:os.mkdir ['{canary}']\n",
    ]


def test_settings(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "settings.yaml"
    for text in yamls(canary):
        path.write_text(text, encoding="utf-8")
        for kind in (StagedConfig, TrainConfig, CodecConfig, Thresholds):
            with pytest.raises(SettingsError) as error:
                load_settings(kind, path)
            refused(error, canary)
            with pytest.raises(SettingsError) as error:
                load_settings(kind, None, [f"seed={text.splitlines()[0].removeprefix('a: ')}"])
            refused(error, canary)


def test_the_thresholds_of_a_corpus(tmp_path: Path, canary: Path) -> None:
    for name in ("thresholds.yaml", "prepare.yaml"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        for text in yamls(canary):
            (folder / name).write_text(text, encoding="utf-8")
            with pytest.raises(Exception, match="could not determine a constructor") as error:
                load_thresholds(folder)
            assert not canary.exists() and "\n" not in explain(error.value)
