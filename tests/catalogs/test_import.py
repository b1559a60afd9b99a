"""Imports: what was exported comes back, foreign manifests become a corpus, and bad rows are named."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from exchange_corpora import exchange_corpus, files_of, held, integers
from fakes.kills import Killed, killed_at
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.corpus.fsck import fsck
from catalogs.exchange import importing
from catalogs.exchange.export import export
from catalogs.exchange.importing import import_corpus
from catalogs.exchange.request import ExchangeError
from catalogs.exchange.stored_audio import stored
from catalogs.query.views import query


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exchange") / "corpus"
    exchange_corpus(root)
    return root


def wav(path: Path, samples: Any, rate: int = 16_000, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def noise(seed: int, seconds: float = 0.5, rate: int = 16_000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20_000, 20_000, round(seconds * rate)).astype(np.int16)


def manifest(folder: Path, rows: list[Any], name: str = "train.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def reasons(root: Path) -> list[str]:
    return [str(error) for (error,) in query(root, "SELECT error FROM quarantine ORDER BY path")[1]]


def test_an_imported_corpus_works_with_all_commands(corpus: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from voxmill.cli import app

    export(corpus, "webdataset", tmp_path / "out")
    root = tmp_path / "back"
    for command in (
        ["import", str(tmp_path / "out"), "--out", str(root)],
        ["fsck", str(root)],
        ["catalog", str(root)],
        ["report", str(root)],
        ["export", str(root), str(tmp_path / "again"), "--to", "nemo", "--license-allow", "CC0-1.0"],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output)
    told = json.loads((tmp_path / "again" / "export.json").read_text())
    assert set(told["licenses"]) == {"CC0-1.0"}
    done = CliRunner().invoke(app, ["prepare", str(tmp_path / "out"), "--out", str(root)])
    assert done.exit_code != 0


def test_training_plans_with_an_imported_corpus(corpus: Path, tmp_path: Path) -> None:
    from trainer.data.corpora import Corpora

    export(corpus, "hf", tmp_path / "out")
    import_corpus(tmp_path / "out", tmp_path / "back")
    assert len(Corpora([tmp_path / "back"], tmp_path).table) == 40


def test_a_killed_import_ends_like_an_unbroken_one(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: Any
) -> None:
    monkeypatch.setattr(importing, "_UNIT_ROWS", 9)
    export(corpus, "webdataset", tmp_path / "out")
    with killed_at(10**9, monkeypatch) as changes:
        import_corpus(tmp_path / "out", tmp_path / "whole")
    kills = 0
    for _ in range(5):
        try:
            with killed_at(dice.randrange(len(changes) // 2), monkeypatch):
                import_corpus(tmp_path / "out", tmp_path / "killed")
            break
        except Killed:
            kills += 1
    summary = import_corpus(tmp_path / "out", tmp_path / "killed")
    assert kills and summary.clips + summary.already == 40
    assert held(tmp_path / "killed") == held(tmp_path / "whole") == held(corpus)
    names = [{name for name in files_of(tmp_path / root) if name.startswith("units/")} for root in ("whole", "killed")]
    assert names[0] == names[1]
    assert not [problem for problem in fsck(tmp_path / "killed") if problem.severity == "error"]
    again = import_corpus(tmp_path / "out", tmp_path / "killed")
    assert (again.clips, again.already) == (0, 40)


def test_rows_that_cannot_be_used_are_in_the_quarantine(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    wav(folder / "good.wav", noise(1))
    wav(folder / "stereo.wav", np.stack([noise(2), noise(3)], axis=1))
    (folder / "cut.flac").write_bytes(_flac(noise(4))[:2000])
    (folder / "text.wav").write_text("not audio")
    wav(tmp_path / "secret.wav", noise(5))
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    rows = [
        {"id": "a", "audio": "good.wav", "text": "fine", "license": "CC BY 4.0", "language": "en"},
        {"id": "b", "audio": "stereo.wav", "text": "two"},
        {"id": "c", "audio": "cut.flac", "text": "half"},
        {"id": "d", "audio": "text.wav", "text": "none"},
        {"id": "e", "audio": "../secret.wav", "text": "out"},
        {"id": "f", "audio": str(tmp_path / "secret.wav"), "text": "out"},
        {"id": "g", "audio": "link.wav", "text": "out"},
        {"id": "h", "audio": "https://example.com/a.wav", "text": "far"},
        {"id": "i", "audio": "gone.wav", "text": "gone"},
        {"id": "a", "audio": "good.wav", "text": "again"},
        {"id": "j", "text": "no audio"},
        "{not json",
        "[1, 2]",
        {"id": "k", "audio": "good.wav", "text": "words", "words": [{"word": "x", "start": "soon"}]},
        {"id": "l", "audio": "good.wav", "text": "late", "offset": 7, "duration": 2},
        {"id": "m\n", "audio": "good.wav", "text": "odd name"},
        {"id": "n" * 300, "audio": "good.wav", "text": "long name"},
        {"id": "o", "audio": "\0", "text": "nul"},
        {"id": "p", "audio": ".", "text": "a folder"},
    ]
    summary = import_corpus(manifest(folder, rows), tmp_path / "corpus")
    assert summary.clips == 2 and summary.quarantined == len(rows) - 2
    assert set(held(tmp_path / "corpus")) == {"a", "m"} and held(tmp_path / "corpus")["a"]["license"] == "CC-BY-4.0"
    found = reasons(tmp_path / "corpus")
    assert len(found) == summary.quarantined and all("\n" not in reason for reason in found)
    for words, count in (
        ("outside of", 3),
        ("not a file of this machine", 2),
        ("channels", 1),
        ("not a JSON object", 2),
    ):
        assert sum(words in reason for reason in found) == count, (words, found)
    assert not [problem for problem in fsck(tmp_path / "corpus") if problem.severity == "error"]
    allowed = import_corpus(folder / "train.jsonl", tmp_path / "with-root", roots=[tmp_path])
    assert allowed.clips == 5
    with pytest.raises(ExchangeError, match="does not exist"):
        import_corpus(tmp_path / "nothing", tmp_path / "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExchangeError, match="is none of"):
        import_corpus(tmp_path / "empty", tmp_path / "x")


def _flac(samples: np.ndarray, rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, samples, rate, format="FLAC", subtype=subtype)
    return sink.getvalue()


def test_rows_may_be_added_to_a_source(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    rows = [{"id": f"c{n}", "audio": wav(folder / f"{n}.wav", noise(n)).name, "text": str(n)} for n in range(5)]
    assert import_corpus(manifest(folder, rows[:3]), tmp_path / "corpus").clips == 3
    summary = import_corpus(manifest(folder, rows), tmp_path / "corpus")
    assert (summary.clips, summary.already, summary.quarantined) == (2, 3, 0)
    assert len(held(tmp_path / "corpus")) == 5


def test_tables_of_others_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for n in range(2):
        wav(folder / "wavs" / f"LJ-{n}.wav", noise(n))
        wav(folder / f"{n}.wav", noise(n))
    (folder / "metadata.csv").write_text("LJ-0|Dr. One|Doctor One\nLJ-1|Two|\n", encoding="utf-8")
    import_corpus(folder / "metadata.csv", tmp_path / "lj")
    assert {name: row["text"] for name, row in held(tmp_path / "lj").items()} == {"LJ-0": "Doctor One", "LJ-1": "Two"}
    with (folder / "list.csv").open("w", newline="") as sink:
        table = csv.writer(sink)
        table.writerows([["path", "sentence", "client_id", "locale"], ["0.wav", 'said "a, b"', "s1", "de"]])
    import_corpus(folder / "list.csv", tmp_path / "csv", license="CC0-1.0")
    (row,) = held(tmp_path / "csv").values()
    assert (row["text"], row["speaker"], row["language"], row["license"]) == ('said "a, b"', "s1", "de", "CC0-1.0")


def test_a_part_of_a_file_is_cut_by_samples(tmp_path: Path) -> None:
    samples = noise(7, seconds=3)
    wav(tmp_path / "in" / "long.wav", samples)
    rows = [{"audio_filepath": "long.wav", "offset": 1.0, "duration": 0.5, "text": "middle"}]
    import_corpus(manifest(tmp_path / "in", rows), tmp_path / "corpus")
    (row,) = held(tmp_path / "corpus").values()
    assert row["samples"] == ((samples[16_000:24_000].astype(np.int32) << 16).tobytes(), 16_000)


def test_a_datasets_folder_is_read_without_the_library(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="writes the folder")
    data = [_flac(noise(n)) for n in range(3)]
    audio = pa.array([{"bytes": one, "path": "a.flac"} for one in data])
    made = datasets.Dataset(pa.table({"audio": audio, "text": ["a", "b", "c"], "id": ["x", "y", "z"]}))
    made = made.cast_column("audio", datasets.Audio(decode=False))
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "saved"))
    import_corpus(tmp_path / "saved", tmp_path / "corpus")
    assert {name: row["samples"] for name, row in held(tmp_path / "corpus").items()} == dict(
        zip("xyz", map(integers, data), strict=True)
    )


def test_paths_in_tables_stay_in_their_folder(tmp_path: Path) -> None:
    wav(tmp_path / "secret.wav", noise(1))
    audio = pa.array([{"bytes": None, "path": "../secret.wav"}, {"bytes": None, "path": None}])
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"audio": audio, "text": ["a", "b"]}), tmp_path / "in" / "t.parquet")
    assert import_corpus(tmp_path / "in" / "t.parquet", tmp_path / "corpus").quarantined == 2
    (tmp_path / "in" / "broken.parquet").write_bytes(b"PAR1 not a table PAR1")
    assert import_corpus(tmp_path / "in" / "broken.parquet", tmp_path / "other").quarantined == 1


def test_a_hostile_tar_and_ids_that_are_paths_write_nothing_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "in"
    folder.mkdir(parents=True)
    secret = wav(tmp_path / "secret.flac", noise(9))
    with tarfile.open(folder / "hostile.tar", "w") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        for number, name in enumerate(("../../evil", "/abs/evil", "fine")):
            add(f"{name}.flac", _flac(noise(number)))
            add(f"{name}.json", json.dumps({"id": f"../../../{name}", "text": "x", "speaker": "../s"}).encode())
        for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "hard"), (tarfile.CHRTYPE, "device")):
            member = tarfile.TarInfo(f"{name}.flac")
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
        add("deep.flac", _flac(noise(5)))
        add("deep.json", b"[" * 100_000)
        add("text.txt", b"no audio")
    whole = (folder / "hostile.tar").read_bytes()
    (folder / "torn.tar").write_bytes(whole[:8000])
    before = set(tmp_path.rglob("*"))
    summary = import_corpus(folder / "hostile.tar", tmp_path / "a" / "b" / "corpus")
    assert (summary.clips, summary.quarantined) == (3, 5)
    assert import_corpus(folder / "torn.tar", tmp_path / "a" / "b" / "other").quarantined == 1
    for to in ("voxcpm", "webdataset", "ljspeech"):
        export(tmp_path / "a" / "b" / "corpus", to, tmp_path / "a" / "b" / "out" / to)
    places = [tmp_path / "a" / "b" / name for name in ("corpus", "other", "out")]
    made = set(tmp_path.rglob("*")) - before
    assert not [path for path in made if not any(path.is_relative_to(place) for place in places)]
    back = import_corpus(places[2] / "voxcpm", tmp_path / "a" / "b" / "back")
    assert back.clips == 3 and held(tmp_path / "a" / "b" / "back") == held(places[0])


@settings(max_examples=40)
@given(
    st.sampled_from(["PCM_16", "PCM_24", "PCM_U8", "PCM_32", "FLOAT", "DOUBLE"]),
    st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=50),
    st.sampled_from([8000, 16_000, 44_100, 48_000]),
)
def test_samples_that_24_bits_hold_are_kept(subtype: str, values: list[int], rate: int) -> None:
    low = {"PCM_16": 16, "PCM_U8": 24}.get(subtype, 8)
    samples = np.array(values, dtype=np.int64) >> (low - 8) << low
    sink = io.BytesIO()
    soundfile.write(sink, samples / 2.0**31, rate, format="WAV", subtype=subtype)
    found = stored(sink.getvalue(), None, None)
    assert found.is_exact and (found.rate, found.frames) == (rate, len(values))
    assert integers(found.flac)[0] == samples.astype(np.int32).tobytes()


def test_lossy_audio_is_counted(tmp_path: Path) -> None:
    tone = np.sin(np.arange(8000) / 20).astype(np.float32) / 3
    for name, kind in (("a.ogg", "VORBIS"), ("b.wav", "FLOAT")):
        (tmp_path / "in").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "in" / name, tone * np.float32(0.123456), 16_000, subtype=kind)
    rows = [{"audio": "a.ogg", "text": "a"}, {"audio": "b.wav", "text": "b"}]
    summary = import_corpus(manifest(tmp_path / "in", rows), tmp_path / "corpus")
    assert (summary.clips, summary.rounded) == (2, 2)
