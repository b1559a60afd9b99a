"""Recordings in tars, zips, tables and behind URLs: listed with their metadata, fetched byte for byte."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from fakes.recordings import noise, write

from pipeline.inputs.find import find_sources
from pipeline.inputs.kinds import is_container, list_members
from pipeline.inputs.manifests import SourceError
from pipeline.inputs.source_kind import Listing
from pipeline.inputs.spool import fetch
from pipeline.records import Recording, Session
from pipeline.runs.plan import promised_seconds
from pipeline.stages.decode import Decode, DecodeConfig

RATE = 16_000


@pytest.fixture
def wavs(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "wavs" / f"{i}.wav", noise(0.5 + i, RATE, seed=i), RATE) for i in range(3)]


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def shard(tmp_path: Path, wavs: list[Path]) -> Path:
    path = tmp_path / "in" / "shard-000.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for i, wav in enumerate(wavs):
            add(tar, f"a/{i}.json", json.dumps({"transcript": f"words {i}", "lang": "en", "speed": 1}).encode())
            add(tar, f"a/{i}.wav", wav.read_bytes())
        add(tar, "a/3.flac", b"no audio at all")
        add(tar, "a/3.txt", b" said \n")
    return path


def test_a_webdataset_shard_is_a_session_with_its_texts(shard: Path, wavs: list[Path], tmp_path: Path) -> None:
    for arguments in ([str(shard)], [str(shard.parent)], [str(shard.parent / "*.tar")]):
        found = find_sources(arguments)
        assert [s.relative_path for s in found.sources] == [
            f"shard-000.tar/a/{n}" for n in ("0.wav", "1.wav", "2.wav", "3.flac")
        ]
        assert not found.refused
    source = found.sources[1]
    assert (source.text, source.language, source.session_id) == ("words 1", "en", "shard-000.tar/a")
    assert found.sources[3].text == "said"
    assert source.content_sha256 == hashlib.sha256(wavs[1].read_bytes()).hexdigest()
    assert fetch(source, tmp_path / "spool").read_bytes() == wavs[1].read_bytes()
    assert promised_seconds(source) == pytest.approx(1.5, abs=0.01)


def test_decode_reads_members_and_quarantines_the_one_that_is_no_audio(shard: Path, tmp_path: Path) -> None:
    sources = find_sources([str(shard)]).sources
    session = Session("s", "f", str(tmp_path / "spool"), [Recording(source) for source in sources])
    Decode(DecodeConfig())(session)
    assert [r.duration_s for r in session.usable()] == [0.5, 1.5, 2.5]
    assert [q.path for q in session.quarantine] == [sources[3].path]
    assert all(Path(r.path).parent == tmp_path / "spool" for r in session.recordings)


def test_a_broken_shard_gives_what_is_whole_and_is_named(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    found = find_sources([str(shard)])
    assert 1 <= len(found.sources) < 4
    assert len(found.refused) == 1
    assert "damaged" in found.refused[0].error
    shard.write_bytes(b"not a tar" * 200)
    with pytest.raises(SourceError, match="not a tar"):
        find_sources([str(shard)])
    beside = find_sources([str(shard.parent)])
    assert [q.path for q in beside.refused] == [str(shard)]


def test_a_container_that_cannot_be_read_is_one_line(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(SourceError, match=r"/shard-000\.tar: cannot be read: permission denied"):
            find_sources([str(shard)])
        assert [row.path for row in find_sources([str(shard.parent)]).refused] == [str(shard)]


def test_a_zip_and_a_url(wavs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(wavs[0], "deep/0.wav")
        archive.write(wavs[1], "1.wav")
        archive.writestr("readme.txt", "hello")
    found = find_sources([str(path)]).sources
    assert [s.relative_path for s in found] == ["all.zip/1.wav", "all.zip/deep/0.wav"]
    assert fetch(found[1], tmp_path / "spool").read_bytes() == wavs[0].read_bytes()
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/talks/1.wav", wavs[1].read_bytes())
    memory.pipe("/bucket/talks/notes.txt", b"-")
    (source,) = find_sources(["memory://bucket/talks"]).sources
    assert (source.path, source.relative_path) == ("memory:///bucket/talks/1.wav", "talks/1.wav")
    assert fetch(source, tmp_path / "spool").read_bytes() == wavs[1].read_bytes()
    with pytest.raises(SourceError, match="nothing is there"):
        find_sources(["memory://bucket/none"])
    with pytest.raises(SourceError, match="gopher:// is not a protocol"):
        find_sources(["gopher://x/y.wav"])
    memory.rm("/bucket/talks/1.wav")
    with pytest.raises(OSError, match="cannot be fetched"):
        fetch(source, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("kind", ["disk", "splits", "parquet"])
def test_a_table_of_the_datasets_library(kind: str, wavs: list[Path], tmp_path: Path) -> None:
    import datasets

    rows = {"audio": [{"bytes": p.read_bytes(), "path": p.name} for p in wavs], "sentence": ["a", "b", "c"]}
    # Cast afterwards: encoding audio would need torchcodec, which the pipeline does not.
    table = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    path = tmp_path / ("set.parquet" if kind == "parquet" else "set")
    if kind == "parquet":
        table.to_parquet(str(path))
    elif kind == "splits":
        datasets.DatasetDict({"train": table, "test": table.select([0])}).save_to_disk(str(path))
    else:
        table.save_to_disk(str(path))
    assert is_container(str(path))
    found = find_sources([str(path)]).sources
    assert [s.text for s in found if "/test/" not in s.relative_path] == ["a", "b", "c"]
    assert len(found) == (4 if kind == "splits" else 3)
    last = found[-1]
    samples, rate = soundfile.read(fetch(last, tmp_path / "spool"))
    assert rate == RATE
    assert np.array_equal(samples, soundfile.read(wavs[2])[0])


def test_a_table_without_audio_is_no_container(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_dict({"text": ["a"]})
    table.to_parquet(str(tmp_path / "x.parquet"))
    table.save_to_disk(str(tmp_path / "set"))
    assert not is_container(str(tmp_path / "x.parquet"))
    with pytest.raises(SourceError, match="no Audio column"):
        list(list_members(str(tmp_path / "set"), Listing()))
