"""Latents beside a corpus: what is stored equals what the codec makes, killed passes resume, another codec's are never used."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import soundfile
import torch
from fakes.logs import logged
from fakes.processes import PATIENCE_S
from forked import Forked

import trainer.encode_corpus
from catalogs.corpus.commit import CorpusError, UnitContent, commit_unit
from catalogs.corpus.fsck import fsck
from catalogs.corpus.latents import LatentForm, StoredLatents, latent_files, stored_codecs, write_latents
from catalogs.corpus.reader import Corpus
from catalogs.corpus.thresholds import change_thresholds
from trainer import train
from trainer.config import TrainError
from trainer.data.clip_encoder import ClipEncoder, codec_digest, from_bits, latent_form, to_bits
from trainer.data.corpora import Corpora
from trainer.data.latent_cache import Latents
from trainer.encode_corpus import encode_corpus
from voxcpm.audiovae import AudioVAE
from voxcpm.config import VoxCPM2Config
from voxcpm.weights.checkpoint import load_codec
from voxmill import cli

BF16 = 2**-8


@pytest.fixture(scope="module")
def start(golden: Path) -> Path:
    return golden / "checkpoint"


@pytest.fixture(scope="module")
def config(start: Path) -> VoxCPM2Config:
    return VoxCPM2Config.load(start)


@pytest.fixture
def codec(start: Path) -> AudioVAE:
    return load_codec(start)


@pytest.fixture
def corpus(speech: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return copytree(speech, tmp_path / "corpus")


@pytest.fixture(scope="module")
def encoded(speech: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with all latents. Not to be changed."""
    folder = copytree(speech, tmp_path_factory.mktemp("encoded") / "corpus")
    stats = encode_corpus(folder, start, "cpu")
    assert stats.encoded == len(Corpora([folder]).kept()) and stats.already == 0
    return folder


def patches_of(seconds: float, config: VoxCPM2Config) -> int:
    return -(-round(seconds * 16_000) // config.patch_samples)


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A watch that interrupts the pass once `count` segments are done; every segment is a separate file."""
    monkeypatch.setattr(trainer.encode_corpus, "_COMMIT_S", 0.01)

    def watch(done: int, of: int, speech_s: float) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return watch


def test_stored_latents_are_the_codecs_to_bfloat16(
    encoded: Path, speech: Path, codec: AudioVAE, config: VoxCPM2Config
) -> None:
    stored = Latents(Corpora([encoded]), codec, config)
    fresh = Latents(Corpora([speech]), codec, config)
    for segment, row in Corpora([speech]).kept().items():
        patches = patches_of(row["duration_s"], config)
        ours, theirs = stored.get(segment, patches), fresh.get(segment, patches)
        assert ours.shape == theirs.shape and ours.dtype == torch.float32
        assert torch.equal(ours, theirs.bfloat16().float())
        assert ((ours - theirs).abs() <= BF16 * theirs.abs() + 1e-9).all()
    assert stored.encoded_s == 0.0 and stored.notes == []
    assert fresh.encoded_s == pytest.approx(
        sum(row["duration_s"] for row in Corpora([speech]).kept().values()), rel=1e-3
    )


def test_the_encoder_of_training_is_the_codecs(speech: Path, codec: AudioVAE, config: VoxCPM2Config) -> None:
    """Folded and in short passes, against the trainable form in one."""
    corpora = Corpora([speech])
    segment, row = next(iter(corpora.kept().items()))
    clip, patches = corpora.clip(segment), patches_of(row["duration_s"], config)
    padded = np.pad(clip, (0, patches * config.patch_samples - len(clip)))
    with torch.no_grad():
        wanted = codec.encode(torch.from_numpy(padded)[None, None])[0].T.reshape(patches, config.patch_size, -1)
    assert (ClipEncoder(codec, config.patch_size)(clip, patches) - wanted).abs().max() < 1e-5
    assert not any(p.requires_grad for p in codec.parameters())
    codec.state_dict()  # still the trainable form: it goes into checkpoints


def test_clips_encoded_together_are_those_encoded_alone(speech: Path, codec: AudioVAE, config: VoxCPM2Config) -> None:
    """As on a GPU: right padded to the longest, which a causal encoder does not notice."""
    corpora = Corpora([speech])
    rows = list(corpora.kept().values())[:3]
    clips = [corpora.clip(row["segment_id"]) for row in rows]
    patches = [patches_of(row["duration_s"], config) for row in rows]
    assert len(set(patches)) > 1
    alone = [ClipEncoder(codec, config.patch_size)(clip, count) for clip, count in zip(clips, patches, strict=True)]
    together = ClipEncoder(codec.fold_weight_norm(), config.patch_size)
    codec.encode(torch.zeros(1, 1, 640))
    for one, own in zip(together.encode_all(clips, patches), alone, strict=True):
        assert one.shape == own.shape
        assert (one - own).abs().max() < 1e-5


def test_training_reads_them_instead_of_the_audio(
    encoded: Path, start: Path, codec: AudioVAE, config: VoxCPM2Config
) -> None:
    corpora = Corpora([encoded])
    latents = Latents(corpora, codec, config)

    def no_audio(segment_id: str) -> np.ndarray:
        raise AssertionError("the audio was read")

    corpora.clip = no_audio  # type: ignore[method-assign, assignment]
    segment, row = next(iter(corpora.kept().items()))
    assert len(latents.get(segment, patches_of(row["duration_s"], config)))


def test_a_run_on_stored_latents_learns_what_one_on_audio_does(encoded: Path, runs, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    on_audio = train(runs.config(tmp_path / "audio", latent_cache=None, steps=3))
    on_stored = train(runs.config(tmp_path / "stored", corpus=str(encoded), latent_cache=None, steps=3))
    assert on_stored.first_loss == pytest.approx(on_audio.first_loss, rel=5e-3)
    assert on_stored.layouts == on_audio.layouts and on_stored.languages == on_audio.languages


def test_an_interrupted_pass_goes_on(
    corpus: Path, start: Path, codec: AudioVAE, config: VoxCPM2Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = len(Corpora([corpus]).kept())
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(corpus, start, "cpu", watch=stop_after(6, monkeypatch))
    done = StoredLatents(corpus, latent_form(codec, config.patch_size))
    assert len(done) == 5, "the sixth was not written yet"
    again = encode_corpus(corpus, start, "cpu")
    assert (again.already, again.encoded) == (5, total - 5)
    assert encode_corpus(corpus, start, "cpu").encoded == 0
    assert len(StoredLatents(corpus, latent_form(codec, config.patch_size))) == total
    assert fsck(corpus) == []


def encode_and_die(corpus: Path, start: Path) -> None:
    """Encode; SIGKILL at the fourth clip."""

    def watch(done: int, of: int, speech_s: float) -> None:
        if done >= 4:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.encode_corpus._COMMIT_S = 0.01
    encode_corpus(corpus, start, "cpu", watch=watch)


@pytest.mark.kill
def test_killed_it_loses_nothing_and_repeats_nothing(corpus: Path, start: Path, encoded: Path, tmp_path: Path) -> None:
    assert Forked(tmp_path / "log", {}, encode_and_die, corpus, start).wait(PATIENCE_S) == -signal.SIGKILL
    before = {path: path.read_bytes() for path in latent_files(corpus)}
    assert len(before) == 3
    stats = encode_corpus(corpus, start, "cpu")
    assert stats.already == 3
    assert all(path.read_bytes() == data for path, data in before.items())
    assert all(problem.severity == "notice" for problem in fsck(corpus))
    form = LatentForm(stats.codec, 4, 64)
    mine, unbroken = StoredLatents(corpus, form), StoredLatents(encoded, form)
    for segment in Corpora([corpus]).kept():
        assert np.array_equal(mine.get(segment), unbroken.get(segment))  # type: ignore[arg-type]


def test_latents_of_another_codec_are_told_and_not_used(
    encoded: Path, speech: Path, codec: AudioVAE, config: VoxCPM2Config
) -> None:
    with torch.no_grad():
        bias = codec.encoder.fc_mu.bias
        assert isinstance(bias, torch.Tensor)
        bias += 0.5
    corpora = Corpora([encoded])
    latents = Latents(corpora, codec, config)
    (note,) = latents.notes
    assert "latents of another codec" in note and codec_digest(codec) in note and "voxmill encode" in note
    assert "\n" not in note
    segment, row = next(iter(corpora.kept().items()))
    patches = patches_of(row["duration_s"], config)
    wanted = ClipEncoder(codec, config.patch_size)(Corpora([speech]).clip(segment), patches)
    assert torch.equal(latents.get(segment, patches), wanted)
    assert latents.encoded_s > 0


def test_a_decoder_that_was_trained_on_keeps_the_latents(encoded: Path, codec: AudioVAE, config: VoxCPM2Config) -> None:
    with torch.no_grad():
        next(codec.decoder.parameters()).mul_(2)
    latents = Latents(Corpora([encoded]), codec, config)
    assert latents.notes == [] and stored_codecs(encoded) == [codec_digest(codec)]


def test_two_codecs_latents_lie_side_by_side(
    corpus: Path, start: Path, codec: AudioVAE, config: VoxCPM2Config, tmp_path: Path
) -> None:
    from trainer.codec.files import write_codec

    with torch.no_grad():
        bias = codec.encoder.fc_mu.bias
        assert isinstance(bias, torch.Tensor)
        bias += 0.5
    other = write_codec(tmp_path / "codec", codec)
    encode_corpus(corpus, start, "cpu")
    said: list[str] = []
    stats = logged(said.append, encode_corpus, corpus, other, "cpu")
    assert stats.encoded == len(Corpora([corpus]).kept()) and len(stored_codecs(corpus)) == 2
    assert len(said) == 1 and "other codecs" in said[0]
    segment, row = next(iter(Corpora([corpus]).kept().items()))
    patches = patches_of(row["duration_s"], config)
    own = Latents(Corpora([corpus]), load_codec(start), config).get(segment, patches)
    shifted = Latents(Corpora([corpus]), codec, config).get(segment, patches)
    assert (shifted - own - 0.5).abs().max() < 0.03


def test_segments_that_come_later_are_encoded_by_the_next_pass(corpus: Path, start: Path) -> None:
    everything = len(Corpora([corpus]).kept())
    lengths = sorted(row["duration_s"] for row in Corpora([corpus]).kept().values())
    change_thresholds(corpus, [f"max_duration_s={lengths[4] + 0.001}"])
    first = encode_corpus(corpus, start, "cpu")
    assert first.encoded == 5 < everything
    change_thresholds(corpus, ["max_duration_s=300"])
    second = encode_corpus(corpus, start, "cpu")
    assert (second.already, second.encoded) == (first.encoded, everything - first.encoded)


def process_again(root: Path) -> list[str]:
    """Commit the first unit once more with other audio under the same ids; returns the ids of its clips."""
    corpus = Corpus(root)
    record = next(iter(corpus.records))
    rows, wanted = [], set(record["source_ids"])
    for row in corpus.index.to_pylist():
        if row["source_id"] in wanted:
            values = {name: value for name, value in row.items() if name not in ("shard", "row")}
            if row["shard"] is not None:
                samples, rate = corpus.read_audio(row["segment_id"])
                sink = io.BytesIO()
                soundfile.write(sink, samples[::-1], rate, format="FLAC")
                values["audio"] = sink.getvalue()
            rows.append(values)
    recordings = [row for row in corpus.table("recordings").to_pylist() if row["source_id"] in wanted]
    sessions = record["session_ids"]
    commit_unit(root, UnitContent("f" * 16, record["fingerprint"], sessions, rows, recordings, generation=1))
    assert Corpus(root).index.column("segment_id").to_pylist() != [] and len(Corpus(root)) == len(corpus)
    return [row["segment_id"] for row in rows if row.get("audio") and row["kept"]]


def test_latents_of_a_segment_that_was_processed_again_are_made_again(
    encoded: Path, start: Path, codec: AudioVAE, config: VoxCPM2Config, tmp_path: Path
) -> None:
    corpus = copytree(encoded, tmp_path / "corpus")
    rows, form = Corpora([corpus]).kept(), latent_form(codec, config.patch_size)
    cached = Latents(Corpora([corpus]), codec, config, tmp_path / "cache")
    cached._stored = {}
    before = {name: cached.get(name, patches_of(row["duration_s"], config)) for name, row in rows.items()}
    again = process_again(corpus)
    assert again and set(again) < rows.keys()
    stored = StoredLatents(corpus, form)
    assert len(stored) == len(rows) - len(again) and not any(name in stored for name in again)
    notices = [problem for problem in fsck(corpus) if "processed again" in problem.what]
    assert [problem.severity for problem in notices] == ["notice"] and notices[0].path.startswith("latents/")
    wanted = {}
    for name in again:
        patches = patches_of(rows[name]["duration_s"], config)
        wanted[name] = ClipEncoder(codec, config.patch_size)(Corpora([corpus]).clip(name), patches)
        # From the folder of a run before, and without anything stored for it beside the corpus.
        fresh = Latents(Corpora([corpus]), codec, config, tmp_path / "cache")
        assert torch.equal(fresh.get(name, patches), wanted[name]) and not torch.equal(wanted[name], before[name])
    stats = encode_corpus(corpus, start, "cpu")
    assert (stats.encoded, stats.already) == (len(again), len(rows) - len(again))
    assert encode_corpus(corpus, start, "cpu").encoded == 0
    latents = Latents(Corpora([corpus]), codec, config)
    for name in again:
        patches = patches_of(rows[name]["duration_s"], config)
        assert torch.equal(latents.get(name, patches), wanted[name].bfloat16().float())
    assert latents.encoded_s == 0.0


def test_fsck_proves_latents_too(encoded: Path, tmp_path: Path) -> None:
    corpus = copytree(encoded, tmp_path / "corpus")
    assert fsck(corpus) == []
    first, second, third, *_ = latent_files(corpus)
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(bytes(data))
    second.write_bytes(second.read_bytes()[:-40])
    (third.parent / ".draft").write_bytes(b"half")
    found = {problem.path: problem for problem in fsck(corpus)}
    for path in (first, second):
        problem = found[path.relative_to(corpus).as_posix()]
        assert problem.severity == "error" and "voxmill encode again" in problem.what
    assert found[(third.parent / ".draft").relative_to(corpus).as_posix()].severity == "notice"
    assert len(found) == 3


def test_a_damaged_file_of_latents_is_one_line(
    encoded: Path, tmp_path: Path, codec: AudioVAE, config: VoxCPM2Config
) -> None:
    corpus = copytree(encoded, tmp_path / "corpus")
    latent_files(corpus)[0].write_bytes(b"not arrow")
    with pytest.raises(TrainError, match="arrow") as raised:
        Latents(Corpora([corpus]), codec, config)
    assert "\n" not in str(raised.value)


def test_latents_of_another_length_than_the_row_are_refused(
    encoded: Path, codec: AudioVAE, config: VoxCPM2Config
) -> None:
    latents = Latents(Corpora([encoded]), codec, config)
    segment, row = next(iter(Corpora([encoded]).kept().items()))
    with pytest.raises(TrainError, match="voxmill fsck"):
        latents.get(segment, patches_of(row["duration_s"], config) + 1)


def test_bits_are_bfloat16_and_shapes_are_checked(tmp_path: Path) -> None:
    values = torch.randn(3, 4, 64)
    assert torch.equal(from_bits(to_bits(values)), values.bfloat16().float())
    with pytest.raises(ValueError, match="segment a"):
        write_latents(tmp_path, LatentForm("c", 4, 64), "unit", [("a", np.zeros((3, 2, 64), np.uint16))])


def test_a_corpus_that_cannot_be_written_to_is_told_before_the_codec_is_read(
    corpus: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    def read(path: object) -> None:
        raise AssertionError("the codec was read")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(trainer.encode_corpus, "_read", read)
    with pytest.raises(CorpusError, match=r"cannot be written to \(Permission denied\): make it writable"):
        encode_corpus(corpus, start)


def test_the_command(
    corpus: Path,
    start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["voxmill", "encode", *arguments])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    status, told, wrong = run(str(corpus), "--codec", str(start), "--device", "cpu", "--json")
    result = json.loads(told)
    assert status == 0 and result["encoded"] == len(Corpora([corpus]).kept()), wrong
    assert Corpus(corpus).path.joinpath("latents", result["codec"]).is_dir()
    status, _, wrong = run(str(tmp_path), "--codec", str(start))
    assert status == 1 and "is not a corpus" in wrong and wrong.count("\n") == 1
    status, _, wrong = run(str(corpus), "--codec", str(corpus))
    assert status == 1 and "holds no codec" in wrong and wrong.count("\n") == 1
