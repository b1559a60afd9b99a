"""Every export is opened by the tool that it is for, if that tool installs here, otherwise checked by what it documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exchange_corpora import SPLITS, exchange_corpus, held, integers

from catalogs.corpus.fsck import fsck
from catalogs.corpus.reader import Corpus
from catalogs.exchange.export import export
from catalogs.exchange.importing import import_corpus
from catalogs.exchange.request import parse_splits
from catalogs.vocabulary.licenses import canonical
from voxcpm.sequence.training_manifest import validate_manifest


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exchange") / "corpus"
    exchange_corpus(root)
    return root


@pytest.fixture(scope="module")
def clips(corpus: Path) -> dict[str, dict[str, Any]]:
    return held(corpus)


Exported = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The export of the corpus in a format, made once."""
    folder = tmp_path_factory.mktemp("exported")

    def made(to: str) -> Path:
        export(corpus, to, folder / to)  # The second time it only says that it is done.
        return folder / to

    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_datasets_loads_the_folder_with_its_splits(
    corpus: Path, clips: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    export(corpus, "hf", tmp_path / "out", splits=parse_splits(SPLITS), seed=1)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    told = json.loads((tmp_path / "out" / "export.json").read_text())["splits"]
    assert {split: len(rows) for split, rows in loaded.items()} == {
        split: own["clips"] for split, own in told.items() if own["clips"]
    }
    found: dict[str, Any] = {}
    for split in loaded.values():
        assert isinstance(split.features["audio"], datasets.Audio)
        for row in split.cast_column("audio", datasets.Audio(decode=False)):
            found[row["segment_id"]] = {
                "samples": integers(row["audio"]["bytes"]),
                **{key: row[key] for key in ("words", *next(iter(clips.values()))) if key != "samples"},
            }
    assert found == clips


def test_lhotse_loads_cuts_with_words(exported: Exported, clips: dict[str, dict[str, Any]]) -> None:
    lhotse = pytest.importorskip("lhotse")
    out = exported("lhotse")
    cuts = lhotse.CutSet.from_file(out / "train_cuts.jsonl.gz")
    recordings = lhotse.RecordingSet.from_file(out / "train_recordings.jsonl.gz")
    supervisions = lhotse.SupervisionSet.from_file(out / "train_supervisions.jsonl.gz")
    lhotse.validate(cuts)
    lhotse.validate_recordings_and_supervisions(recordings, supervisions)
    count = 0
    for cut in cuts:
        own, (said,) = clips[cut.id], cut.supervisions
        assert (said.text, said.language, said.speaker) == (own["text"], own["language"], own["speaker"])
        assert (said.custom or {}).get("license") == own["license"]
        assert [item.symbol for item in said.alignment["word"]] == [word["word"] for word in own["words"]]
        assert [item.end for item in said.alignment["word"]] == pytest.approx(
            [w["end"] for w in own["words"]], abs=1e-6
        )
        assert cut.load_audio().shape == (1, cut.num_samples)
        count += 1
    assert count == len(clips)


def test_webdataset_reads_the_tars(exported: Exported, clips: dict[str, dict[str, Any]]) -> None:
    webdataset = pytest.importorskip("webdataset")
    found = {}
    for sample in webdataset.WebDataset(str(exported("webdataset") / "train-000000.tar"), shardshuffle=False):
        about = json.loads(sample["json"])
        found[about["id"]] = {"samples": integers(sample["flac"]), **{k: about.get(k) for k in about}}
    assert found.keys() == clips.keys()
    for name, own in clips.items():
        assert own == {key: found[name].get(key) for key in own}


@pytest.mark.parametrize("to", ["croissant", "hf"])
def test_mlcroissant_reads_the_description(to: str, exported: Exported) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    described = mlcroissant.Dataset(jsonld=str(exported(to) / "croissant.json"))
    assert described.metadata.name == "exchanged" and not described.metadata.ctx.issues.errors
    first = next(iter(described.records("segments")))
    assert first["segments/language"] in (b"en", b"de")


def test_the_manifest_of_the_official_trainer_is_valid(corpus: Path, tmp_path: Path) -> None:
    export(corpus, "voxcpm", tmp_path / "out", sample_rate=16_000)
    report = validate_manifest(tmp_path / "out" / "train.jsonl")
    assert report.is_valid and not report.warnings and report.total_samples == 40 and report.has_ref_audio > 0
    ids = {line["audio"]: line for line in lines(tmp_path / "out" / "train.jsonl")}
    for line in ids.values():
        if "ref_audio" in line:
            assert ids[line["ref_audio"]]["speaker"] == line["speaker"] and line["ref_audio"] != line["audio"]


def test_manifests_have_the_fields_that_their_readers_name(exported: Exported) -> None:
    import soundfile

    # What each reader takes of a line: see docs/exchange.md for the versions that were read.
    needed: dict[str, tuple[str, dict[str, type]]] = {
        "nemo": ("train.jsonl", {"audio_filepath": str, "duration": float, "text": str}),
        "pocket-tts": (
            "train_aligned.jsonl",
            {"path": str, "duration": float, "transcript": str, "words": list, "start": float},
        ),
        "dots": ("train.jsonl", {"fid": str, "audio": str, "text": str}),
        "qwen3-tts": ("train_raw.jsonl", {"audio": str, "text": str, "ref_audio": str, "language": str}),
    }
    for to, (name, fields) in needed.items():
        folder = exported(to)
        rows = lines(folder / name)
        assert len(rows) == 40
        for row in rows:
            assert {key: type(row[key]) for key in fields} == fields
            path = next(row[key] for key in ("audio_filepath", "path", "audio") if key in row)
            file = soundfile.info(folder / path)
            assert file.samplerate == (24_000 if to == "qwen3-tts" else file.samplerate)
            if "duration" in row:
                assert row["duration"] == pytest.approx(file.duration, abs=1e-6)
            if to == "qwen3-tts":
                assert soundfile.info(row["ref_audio"]).samplerate == 24_000 and row["language"] in (
                    "English",
                    "German",
                )


def test_lj_speech_has_a_wav_for_each_line(exported: Exported, clips: dict[str, dict[str, Any]]) -> None:
    folder = exported("ljspeech")
    rows = [line.split("|") for line in (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()]
    assert {row[0]: row[1] for row in rows} == {
        name: " ".join(own["text"].replace("|", " ").split()) for name, own in clips.items()
    }
    for stem, _, _ in rows:
        assert integers((folder / "wavs" / f"{stem}.wav").read_bytes()) == clips[stem]["samples"]


@pytest.mark.parametrize("to", ["hf", "voxcpm", "webdataset", "lhotse", "ljspeech", "nemo", "pocket-tts", "dots"])
def test_what_was_exported_comes_back_the_same(
    to: str, exported: Exported, corpus: Path, clips: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    summary = import_corpus(exported(to), tmp_path / "back")
    assert held(tmp_path / "back") == clips
    assert summary.clips == 40 and not summary.quarantined and not summary.rounded
    assert not [problem for problem in fsck(tmp_path / "back") if problem.severity == "error"]
    before, after = Corpus(corpus), Corpus(tmp_path / "back")
    name = next(iter(clips))
    assert after.segment(name)["snr_db"] is None and after.segment(name)["embedding"] is None
    if to in ("hf", "voxcpm", "webdataset", "lhotse", "nemo"):
        # FLAC is copied byte by byte, both ways.
        assert all(after.audio_buffer(one).equals(before.audio_buffer(one)) for one in clips)


def test_real_speech_is_imported_exported_and_loaded(corpora: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [row for row in lines(corpora / "manifest.jsonl") if row["channels"] == 1 and row.get("text")]
    chosen = [row | {"path": str(corpora / row["path"])} for row in rows[::9] if row["duration_s"] < 20]
    (tmp_path / "list.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in chosen), encoding="utf-8")
    summary = import_corpus(tmp_path / "list.jsonl", tmp_path / "corpus", roots=[corpora])
    assert summary.clips == len(chosen) > 10 and not summary.quarantined
    asked = parse_splits("train=0.6,test=0.4")
    export(tmp_path / "corpus", "hf", tmp_path / "out", splits=asked, same_text="leave-out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    voices = {split: set(rows["speaker"]) for split, rows in loaded.items()}
    assert voices["train"] and voices["test"] and not voices["train"] & voices["test"]
    licenses = {canonical(row["license"]) for row in chosen}
    assert {license for rows in loaded.values() for license in rows["license"]} <= licenses
    originals = {integers(Path(row["path"]).read_bytes()) for row in chosen}
    for split in loaded.values():
        for row in split.cast_column("audio", datasets.Audio(decode=False)):
            assert integers(row["audio"]["bytes"]) in originals
