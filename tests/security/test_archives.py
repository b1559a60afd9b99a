"""Archives and tables that somebody else made: nothing is read or written elsewhere, all that unpacks is bounded."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.inputs import tars
from pipeline.inputs.find import FoundSources, find_sources
from pipeline.inputs.members import LARGEST_MEMBER
from pipeline.inputs.source_kind import BLOCK
from pipeline.inputs.spool import Spool
from pipeline.inputs.store_access import Stores
from pipeline.records import Source

LIMIT_GB = 0.002
"""2 MB: what a member may unpack to in these tests."""
BOMB = 20_000_000
"""Bytes of zeros; packed they are some 20 kB."""


def wav(seconds: float = 0.2) -> bytes:
    """A small recording."""
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros(round(16_000 * seconds)), 16_000, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def make_zip(path: Path, members: list[tuple[str, bytes]], links: tuple[tuple[str, str], ...] = ()) -> Path:
    """A zip of members under whatever names, and of symbolic links."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
        for name, target in links:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return path


def make_tar(path: Path, members: list[tuple[str, bytes]], links: tuple[tuple[str, str], ...] = ()) -> Path:
    """A tar of members under whatever names, and of symbolic and hard links; compressed by its name."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for number, (name, target) in enumerate(links):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.SYMTYPE, tarfile.LNKTYPE)[number % 2], target
            archive.addfile(info)
    return path


MAKERS: dict[str, Callable[..., Path]] = {"a.zip": make_zip, "a.tar": make_tar, "a.tar.gz": make_tar}


def faults(found: FoundSources) -> dict[str, str]:
    """{place: reason} of what was refused; asserts that each is one line."""
    assert all("\n" not in one.error and one.error for one in found.refused)
    return {one.path: one.error for one in found.refused}


def everything(folder: Path) -> set[str]:
    """All paths below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", MAKERS)
def test_members_that_lead_out_are_refused_and_the_others_are_used(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    outside = [f"{tmp_path}/absolute.wav", "../up.wav", "talks/../../up2.wav", "talks\\..\\..\\windows.wav"]
    path = MAKERS[name](inside / name, [(one, wav()) for one in outside] + [("talks/good.wav", wav(0.3))])
    before = everything(tmp_path)
    found = find_sources([str(path)])
    assert [source.relative_path for source in found.sources] == [f"{name}/talks/good.wav"]
    assert len(faults(found)) == len(outside)
    assert all("leads out of the" in reason for reason in faults(found).values())
    copy = Spool(tmp_path / "spool", found.sources).fetch(found.sources[0])
    assert copy.parent == tmp_path / "spool" and copy.read_bytes() == wav(0.3)
    assert everything(tmp_path) - before == {"spool", f"spool/{copy.name}"}


@pytest.mark.parametrize("name", MAKERS)
def test_members_that_are_links_are_refused(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav(0.5))
    path = MAKERS[name](tmp_path / name, [("good.wav", wav())], (("a.wav", str(secret)), ("b.wav", "../secret.wav")))
    found = find_sources([str(path)])
    assert [source.relative_path for source in found.sources] == [f"{name}/good.wav"]
    assert (
        sorted(reason.split(";")[0] for reason in faults(found).values())
        == [f"a link within the {'zip' if name == 'a.zip' else 'tar'}"] * 2
    )


def test_a_text_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret words", encoding="utf-8")
    links = (("good.txt", str(tmp_path / "secret.txt")), ("good.txt", str(tmp_path / "secret.txt")))
    for name, make in MAKERS.items():
        found = find_sources([str(make(tmp_path / name, [("good.wav", wav())], links))])
        assert "secret words" not in {source.text for source in found.sources}


@pytest.mark.parametrize("name", MAKERS)
def test_a_member_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, name: str) -> None:
    path = MAKERS[name](tmp_path / name, [("good.wav", wav()), ("bomb.wav", bytes(BOMB)), ("last.wav", wav(0.3))])
    found = find_sources([str(path)], largest_gb=LIMIT_GB)
    # In a compressed tar what follows can be reached through it only.
    used = ["good.wav"] if name == "a.tar.gz" else ["good.wav", "last.wav"]
    assert [source.relative_path for source in found.sources] == [f"{name}/{one}" for one in used]
    (reason,) = faults(found).values()
    assert (
        reason == "it unpacks to 0.0 GB, more than sources.largest_gb=0.002 allows; raise that, or unpack it yourself"
    )
    assert ("what comes after bomb.wav was not looked at" in " ".join(found.notices)) == (name == "a.tar.gz")
    assert len(find_sources([str(path)]).sources) == 3


def test_a_zip_that_declares_less_than_it_holds_gives_no_more_than_it_declares(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", [("bomb.wav", bytes(BOMB))])
    data = path.read_bytes()
    honest, lie = BOMB.to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert data.count(honest) == 2  # before the member and in the table of contents
    path.write_bytes(data.replace(honest, lie))
    found = find_sources([str(path)], largest_gb=LIMIT_GB)
    assert not found.sources and len(faults(found)) == 1


def test_a_table_with_a_member_that_is_too_large(tmp_path: Path) -> None:
    rows = [{"bytes": bytes(BOMB), "path": "a.wav"}, {"bytes": wav(), "path": "b.wav"}]
    pq.write_table(pa.table({"audio": rows}), tmp_path / "a.parquet", compression="zstd")
    found = find_sources([str(tmp_path / "a.parquet")], largest_gb=LIMIT_GB)
    assert len(found.sources) == 1
    (reason,) = faults(found).values()
    assert "sources.largest_gb" in reason


def test_a_store_that_never_ends_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        """Zeros for ever."""

        given = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            type(self).given += size
            return bytes(size)

    class Opened:
        def __enter__(self) -> Endless:
            return Endless()

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(Stores, "locate", lambda *_: (None, ""))
    monkeypatch.setattr(Stores, "open", lambda *_, **__: Opened())
    monkeypatch.setattr("pipeline.inputs.spool.LARGEST_MEMBER", 3_000_000)
    source = Source("id", "https://example.org/a.wav", "a.wav", "s", bytes=0, content_sha256="")
    listed = Source("id2", "https://example.org/b.wav", "b.wav", "s", bytes=1_500_000, content_sha256="")
    spool = Spool(tmp_path / "spool", [source, listed])
    with pytest.raises(OSError, match=r"its size is not known, and it is larger than 0\.003 GB"):
        spool.fetch(source)
    with pytest.raises(OSError, match="it is larger than when it was listed"):
        spool.fetch(listed)
    assert Endless.given <= 2 * BLOCK  # one of each recording
    assert not list((tmp_path / "spool").iterdir())


def test_the_texts_of_a_tar_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "LARGEST_SUM", 5000)
    members = []
    for number in range(4):
        members += [(f"{number}.wav", wav(0.1 + 0.1 * number)), (f"{number}.txt", b"word " * 400)]
    found = find_sources([str(make_tar(tmp_path / "a.tar", members))])
    assert [bool(source.text) for source in found.sources] == [True, True, False, False]
    left_out = [line for line in found.notices if "larger than 512 MB together" in line]
    assert len(left_out) == 2 and all("\n" not in line for line in left_out)


@pytest.mark.parametrize("written", ["{here}/secret.wav", "../secret.wav", "sub/../../secret.wav", "~/secret.wav"])
def test_rows_that_lead_out_of_their_tables_folder(tmp_path: Path, written: str) -> None:
    (tmp_path / "secret.wav").write_bytes(wav(0.5))
    folder = tmp_path / "table"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "good.wav").write_bytes(wav())
    name = written.format(here=tmp_path)
    rows = [{"bytes": None, "path": name}, {"bytes": None, "path": "sub/good.wav"}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"audio": pa.array(rows, kind)}), folder / "a.parquet")
    found = find_sources([str(folder / "a.parquet")])
    assert [source.path for source in found.sources] == [str(folder / "sub" / "good.wav")]
    (reason,) = faults(found).values()
    assert "is not below the table's folder" in reason and name in reason


def test_the_default_is_eight_gigabytes() -> None:
    from pipeline.config import load_config

    assert load_config().sources.largest_gb * 1e9 == LARGEST_MEMBER == 8e9


def test_the_bound_is_not_in_the_fingerprint_of_a_corpus() -> None:
    from pipeline.config import load_config
    from pipeline.runs.fingerprint import fingerprint

    assert fingerprint(load_config(None, ["sources.largest_gb=20"])) == fingerprint(load_config())
