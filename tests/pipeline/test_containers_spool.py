"""Recordings are copied out of their containers byte for byte, each container opened once for a session."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes.recordings import noise, write
from packed import RATE, add

from pipeline.config import load_config
from pipeline.forecast.forecast import list_recordings
from pipeline.forecast.sample import Excerpt, write_piece
from pipeline.inputs.find import find_sources
from pipeline.inputs.spool import Spool, fetch
from pipeline.inputs.store_access import Stores
from pipeline.inputs.tars import Tar
from pipeline.records import Recording, Session, Source
from pipeline.stages.decode import Decode, DecodeConfig

KINDS = ("tar", "tar.gz", "zip", "parquet", "dataset")
COUNT = 40


@pytest.fixture
def wavs(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "wavs" / f"{i:02}.wav", noise(0.2 + i / 100, RATE, seed=i), RATE) for i in range(COUNT)]


def pack(wavs: list[Path], kind: str, to: Path) -> Path:
    """The files as one container, in an order that is not that of their names."""
    mixed = random.Random(1).sample(wavs, len(wavs))
    path = to / f"all.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for wav in mixed:
                archive.write(wav, wav.name)
    elif kind.startswith("tar"):
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as tar:
            for wav in mixed:
                add(tar, wav.name, wav.read_bytes())
    else:
        import datasets

        rows = {"audio": [{"bytes": wav.read_bytes(), "path": wav.name} for wav in wavs]}
        table = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
        if kind == "parquet":
            table.to_parquet(str(path), batch_size=10)
        else:
            table.save_to_disk(str(path))
    return path


def count_calls(monkeypatch: pytest.MonkeyPatch, *places: tuple[Any, str]) -> list[str]:
    """The names of functions as they are called from now on."""
    calls: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return real(*args, **kwargs)

        return call

    for place, name in places:
        monkeypatch.setattr(place, name, counted(name, getattr(place, name)))
    return calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_is_opened_once_for_all_recordings_of_a_session(
    kind: str, wavs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    sources = find_sources([str(pack(wavs, kind, tmp_path))]).sources
    assert len(sources) == COUNT
    calls = count_calls(
        monkeypatch,
        (Stores, "open"),
        (tarfile, "open"),
        (zipfile.ZipFile, "_RealGetContents"),
        (pq, "ParquetFile"),
        (pq.ParquetFile, "iter_batches"),
        (datasets, "load_from_disk"),
    )
    worked: list[str] = []
    spool = Spool(tmp_path / "spool", sources, worked.append)
    copies = [spool.fetch(source).read_bytes() for source in sources]
    assert sorted(copies) == sorted(wav.read_bytes() for wav in wavs)
    expected = {
        "tar": ["open"],
        "tar.gz": ["open", "open"],
        "zip": ["open", "_RealGetContents"],
        "parquet": ["ParquetFile", *["iter_batches"] * 4],
        "dataset": ["load_from_disk"],
    }
    assert calls == expected[kind]
    assert set(worked) == {source.source_id for source in sources}
    # What is there already is not copied again.
    assert [Spool(tmp_path / "spool", []).fetch(source).read_bytes() for source in sources] == copies
    assert calls == expected[kind]
    assert len(list((tmp_path / "spool").iterdir())) == COUNT


@pytest.mark.parametrize("kind", KINDS)
def test_some_of_a_containers_recordings_are_copied_and_no_others(kind: str, wavs: list[Path], tmp_path: Path) -> None:
    sources = find_sources([str(pack(wavs, kind, tmp_path))]).sources
    some = random.Random(2).sample(sources, 7)
    spool = Spool(tmp_path / "spool", some[:5])
    for source in some:
        assert spool.fetch(source).stat().st_size == source.bytes
    assert len(list((tmp_path / "spool").iterdir())) == 7


def test_a_pass_that_breaks_costs_only_the_recording_that_was_asked_for(
    wavs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = find_sources([str(pack(wavs, "tar.gz", tmp_path))]).sources[:5]
    read, passes = Tar.read, []

    def lost_once(
        kind: Tar, container: str, wanted: Sequence[Source], stores: Stores
    ) -> Iterator[tuple[Source, Iterator[bytes]]]:
        passes.append(len(wanted))
        for item in read(kind, container, wanted, stores):
            yield item
            if len(passes) == 1:
                raise OSError("connection lost")

    monkeypatch.setattr(Tar, "read", lost_once)
    spool = Spool(tmp_path / "spool", sources)
    fetched = []
    for source in sources:
        try:
            fetched.append(spool.fetch(source))
        except OSError as error:
            assert "connection lost" in str(error) and not fetched
    assert len(fetched) >= 4 and passes[0] == 5 and set(passes[1:]) == {1}


def test_a_compressed_tar_is_read_no_further_than_the_last_recording_that_is_wanted(
    wavs: list[Path], tmp_path: Path
) -> None:
    path = pack(wavs, "tar.gz", tmp_path)
    sources = find_sources([str(path)]).sources
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    first = [Path(name).name for name in (s.relative_path for s in sources)]
    order = [wav.name for wav in random.Random(1).sample(wavs, len(wavs))][:5]
    wanted = [sources[first.index(name)] for name in order]
    assert all(Spool(tmp_path / "spool", wanted).fetch(source).is_file() for source in wanted)


def test_what_is_missing_or_damaged_costs_only_itself(wavs: list[Path], tmp_path: Path) -> None:
    path = pack(wavs, "zip", tmp_path)
    sources = find_sources([str(path)]).sources
    data = bytearray(path.read_bytes())
    at = data.index(b"07.wav")
    data[at + 60] ^= 0xFF
    path.write_bytes(data.replace(b"09.wav", b"xx.wav"))
    spool = Spool(tmp_path / "spool", sources)
    lost = {}
    for source in sources:
        try:
            spool.fetch(source)
        except OSError as error:
            assert error.errno is None
            lost[source.relative_path] = str(error)
    assert set(lost) == {"all.zip/07.wav", "all.zip/09.wav"}
    assert "CRC" in lost["all.zip/07.wav"]
    assert lost["all.zip/09.wav"] == "cannot be fetched (it is not there any more)"
    assert len(list((tmp_path / "spool").iterdir())) == COUNT - 2


def test_a_tar_that_was_written_anew_gives_no_wrong_recording(wavs: list[Path], tmp_path: Path) -> None:
    path = pack(wavs, "tar", tmp_path)
    sources = find_sources([str(path)]).sources
    with tarfile.open(path, "w") as tar:
        for wav in wavs:
            add(tar, wav.name, wav.read_bytes())
    kept = 0
    by_name = {wav.name: wav for wav in wavs}
    spool = Spool(tmp_path / "spool", sources)
    for source in sources:
        try:
            copy = spool.fetch(source).read_bytes()
        except OSError as error:
            assert "has changed since it was listed" in str(error)
            continue
        kept += 1
        assert copy == by_name[source.relative_path.rpartition("/")[2]].read_bytes()
    assert kept < COUNT


def test_a_full_disk_is_nobodys_fault(wavs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = find_sources([str(pack(wavs, "tar", tmp_path))]).sources
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if self.parent.name == "spool":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        Spool(tmp_path / "spool", sources).fetch(sources[0])
    assert caught.value.errno == errno.ENOSPC
    assert not list((tmp_path / "spool").iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_decode_fetches_a_session_at_once_and_quarantines_what_cannot_be_had(
    kind: str, wavs: list[Path], tmp_path: Path
) -> None:
    wavs[3].write_bytes(b"\x00\x01no audio" * 20)
    sources = find_sources([str(pack(wavs[:8], kind, tmp_path))]).sources
    session = Session("s", "f", str(tmp_path / "spool"), [Recording(source) for source in sources])
    worked: list[str] = []
    decode = Decode(DecodeConfig())
    decode.report_item = lambda source_id, done_s: worked.append(source_id)
    decode(session)
    assert [len(row.path) > 0 and row.stage for row in session.quarantine] == ["decode"]
    assert np.isclose(sorted(r.duration_s for r in session.usable()), [0.2 + i / 100 for i in range(8) if i != 3]).all()
    assert set(worked) == {source.source_id for source in sources}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_a_container_that_has_not_changed_is_not_read_again_for_its_hashes(
    kind: str, wavs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(wavs, kind, tmp_path)
    rows = [json.dumps({"path": f"{kind.partition('.')[0]}://{wav.name}::{path.name}"}) for wav in wavs]
    (tmp_path / "m.jsonl").write_text("\n".join(rows), encoding="utf-8")
    hashes: dict[tuple[str, int, int], str] = {}
    first = find_sources([str(path)], hashes=hashes)
    assert sorted(hashes.values()) == sorted(source.content_sha256 for source in first.sources)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
        again = find_sources([str(path)], hashes=hashes)
        assert len(find_sources([f"{tmp_path}/m.jsonl"], hashes=hashes).sources) == COUNT
    assert again.sources == first.sources
    wavs[5].write_bytes(wavs[6].read_bytes())
    os.utime(pack(wavs, kind, tmp_path), ns=(1, 1))
    assert find_sources([str(path)], hashes=hashes).sources[5].source_id != first.sources[5].source_id


@pytest.mark.parametrize("kind", KINDS)
def test_a_forecast_reads_what_it_hears_and_no_more_for_the_hashes(kind: str, wavs: list[Path], tmp_path: Path) -> None:
    path = pack(wavs, kind, tmp_path)
    found = list_recordings([str(path)], tmp_path / "no corpus", load_config())
    assert len(found.sources) == COUNT and len({source.source_id for source in found.sources}) == COUNT
    piece = Excerpt(found.sources[7], 0.0, found.sources[7].bytes / 32_000)
    assert write_piece(piece, tmp_path / "piece.wav", tmp_path / "scratch") == pytest.approx(0.27, abs=0.01)


def test_one_recording_by_itself(wavs: list[Path], tmp_path: Path) -> None:
    source: Source = find_sources([str(pack(wavs, "tar", tmp_path))]).sources[11]
    assert fetch(source, tmp_path / "spool").read_bytes() == wavs[11].read_bytes()
