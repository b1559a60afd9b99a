"""Recordings behind http URLs, from a real server on this machine that can be made to fail."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fakes.http_files import Fate, HttpFiles
from fakes.recordings import noise, write

from catalogs.urls import public, redacted
from pipeline.inputs import store_access
from pipeline.inputs.find import FoundSources, SourceError, find_sources
from pipeline.inputs.spool import Spool, fetch
from pipeline.inputs.store_access import Stores
from pipeline.records import Recording, Session, Source
from pipeline.stage import StoreError
from pipeline.stages.decode import Decode, DecodeConfig

RATE = 16_000
QUICK = Stores(timeout_s=0.5, tries=2)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_access, "_PAUSE_S", 0.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpFiles]:
    folder = tmp_path / "served"
    for number, name in enumerate(("a.wav", "b c.wav", "day/1.wav", "day/2.wav")):
        write(folder / "talks" / name, noise(0.5 + 0.1 * number, RATE, seed=number), RATE)
    (folder / "talks/day/1.txt").write_text("what is said", encoding="utf-8")
    (folder / "talks/cover.jpg").write_bytes(b"no audio")
    with HttpFiles(folder) as files:
        yield files


def names(found: FoundSources) -> list[str]:
    return [source.relative_path for source in found.sources]


def decoded(sources: list[Source], spool: Path) -> Session:
    session = Session("s", "f", str(spool), [Recording(source) for source in sources])
    Decode(DecodeConfig(store_timeout_s=QUICK.timeout_s, store_tries=QUICK.tries))(session)
    return session


def test_a_file_and_a_folder_of_links_are_found_with_their_sizes_and_texts(server: HttpFiles, tmp_path: Path) -> None:
    (one,) = find_sources([f"{server.url}/talks/b%20c.wav"]).sources
    file = server.folder / "talks/b c.wav"
    assert (one.relative_path, one.bytes) == ("b c.wav", file.stat().st_size)
    assert fetch(one, tmp_path / "spool").read_bytes() == file.read_bytes()
    for argument in (f"{server.url}/talks", f"{server.url}/talks/"):
        found = find_sources([argument])
        assert names(found) == ["talks/a.wav", "talks/b c.wav", "talks/day/1.wav", "talks/day/2.wav"]
        assert [source.session_id for source in found.sources[2:]] == ["talks/day", "talks/day"]
        assert found.sources[2].text == "what is said" and not found.refused
        assert found.passed_over() == "other files, left alone or read as transcripts: 1 .jpg, 1 .txt"
    session = decoded(found.sources, tmp_path / "spool2")
    assert [round(recording.duration_s, 2) for recording in session.usable()] == [0.5, 0.6, 0.7, 0.8]


def test_a_manifest_and_a_list_name_urls(server: HttpFiles, tmp_path: Path) -> None:
    rows = [
        {"path": f"{server.url}/talks/a.wav", "text": "hello", "session": "mine"},
        {"path": f"{server.url}/talks/gone.wav"},
        {"path": f"{server.url}/talks/"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = find_sources([f"{tmp_path}/m.jsonl"])
    assert [(source.text, source.session_id) for source in found.sources] == [("hello", "mine")]
    assert sorted(row.error for row in found.refused) == [
        "a web page, not a recording: give it as a separate source",
        "nothing is there",
    ]
    assert {row.cause for row in found.refused} == {"data"}
    (tmp_path / "list.txt").write_text(f"{server.url}/talks/a.wav\n{server.url}/talks/day/1.wav\n", encoding="utf-8")
    assert len(find_sources([f"{tmp_path}/list.txt"]).sources) == 2


@pytest.mark.parametrize("fate", ["404", "500", "403", "half", "hang"])
def test_a_file_that_is_gone_is_the_datas_fault_and_a_store_that_fails_is_not(
    server: HttpFiles, tmp_path: Path, fate: Fate
) -> None:
    sources = find_sources([f"{server.url}/talks"], stores=QUICK).sources
    server.fail("talks/a.wav", fate)
    with pytest.raises(OSError) as raised:
        fetch(sources[0], tmp_path / "spool", QUICK)
    assert isinstance(raised.value, StoreError) == (fate != "404")
    words = {
        "404": "nothing is there (the server answered 404)",
        "500": "the server answered 500 Internal Server Error",
        "403": "the server answered 403 Forbidden",
        "half": "the answer broke off before its end",
        "hang": "no answer within 0.5 s",
    }
    assert raised.value.errno is None and str(raised.value) == f"cannot be fetched ({words[fate]})"
    assert not list((tmp_path / "spool").iterdir())
    server.mend()
    assert fetch(sources[0], tmp_path / "spool", QUICK).read_bytes() == (server.folder / "talks/a.wav").read_bytes()


@pytest.mark.parametrize("fate", ["500", "half", "hang"])
def test_a_request_that_fails_once_is_made_again(server: HttpFiles, tmp_path: Path, fate: Fate) -> None:
    sources = find_sources([f"{server.url}/talks"], stores=QUICK).sources
    server.fail("talks/a.wav", fate, times=1, methods=("GET",))
    copy = fetch(sources[0], tmp_path / "spool", QUICK)
    assert copy.read_bytes() == (server.folder / "talks/a.wav").read_bytes()
    server.fail("talks/a.wav", "500", times=2)
    assert names(find_sources([f"{server.url}/talks/a.wav"], stores=QUICK)) == ["a.wav"]


def test_a_store_that_fails_while_files_are_listed_refuses_only_those(server: HttpFiles, tmp_path: Path) -> None:
    server.fail("talks/day/1.wav", "500")
    found = find_sources([f"{server.url}/talks"], stores=QUICK)
    assert len(found.sources) == 3
    assert [(row.path, row.error) for row in found.refused] == [
        (f"{server.url}/talks/day/1.wav", "cannot be read (the server answered 500 Internal Server Error)")
    ]
    assert [row.cause for row in found.refused] == ["machine"]
    server.mend()
    server.fail("talks/", "500")
    with pytest.raises(SourceError, match=r"the server answered 500.*nothing was started"):
        find_sources([f"{server.url}/talks/"], stores=QUICK)
    with pytest.raises(SourceError, match="nothing is there"):
        find_sources([f"{server.url}/nothing.wav"], stores=QUICK)


def test_a_server_that_is_down_stops_the_listing_of_a_long_list(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with HttpFiles(tmp_path / "empty") as gone:
        lines = [f"{gone.url}/{number}.wav" for number in range(200)]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SourceError, match="the store does not answer: 20 files in a row"):
        find_sources([f"{tmp_path}/list.txt"], stores=QUICK)


def packed(server: HttpFiles, kind: str) -> str:
    """An archive of twelve recordings of 100 kB on the server; its URL."""
    wavs = [write(server.folder / "in" / f"{i}.wav", noise(3.2, RATE, seed=i), RATE) for i in range(12)]
    if kind == "zip":
        with zipfile.ZipFile(server.folder / "many.zip", "w") as archive:
            for wav in wavs:
                archive.write(wav, wav.name)
    else:
        with tarfile.open(server.folder / f"many.{kind}", "w:gz" if kind.endswith("gz") else "w") as tar:
            for wav in wavs:
                tar.add(wav, wav.name)
    return f"{server.url}/many.{kind}"


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("ranges", [True, False])
def test_archives_behind_urls_give_their_members(server: HttpFiles, tmp_path: Path, kind: str, ranges: bool) -> None:
    url = packed(server, kind)
    server.ranges = ranges
    if kind == "zip" and not ranges:
        with pytest.raises(SourceError, match="does not send parts of files"):
            find_sources([url])
        return
    found = find_sources([url])
    assert len(found.sources) == 12 and not found.refused
    spool = Spool(tmp_path / "spool", found.sources)
    for source in found.sources:
        name = Path(source.relative_path).name
        assert spool.fetch(source).read_bytes() == (server.folder / "in" / name).read_bytes()


def test_a_member_of_a_tar_is_fetched_by_its_place_alone(server: HttpFiles, tmp_path: Path) -> None:
    sources = find_sources([packed(server, "tar")]).sources
    server.forget()
    fetch(sources[7], tmp_path / "spool")
    assert sum(request.sent for request in server.requests) == sources[7].bytes
    offset, size = sources[7].extent or (0, 0)
    assert [r.range for r in server.requests if r.method == "GET"] == [f"bytes={offset}-{offset + size - 1}"]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_whose_store_fails_is_not_called_damaged(server: HttpFiles, tmp_path: Path, kind: str) -> None:
    url = packed(server, kind)
    sources = find_sources([url]).sources
    server.fail(f"many.{kind}", "half", methods=("GET",))
    with pytest.raises(StoreError):
        fetch(sources[3], tmp_path / "spool", QUICK)
    with pytest.raises(SourceError, match="run the same command again"):
        find_sources([url], stores=QUICK)
    (row,) = find_sources([f"{server.url}/"], stores=QUICK).refused
    assert row.path == url and "damaged" not in row.error
    server.mend()
    server.fail(f"many.{kind}", "half", times=1, methods=("GET",))
    assert find_sources([url], stores=QUICK).sources == sources


def test_what_lets_one_in_is_kept_nowhere_and_is_no_part_of_a_name(server: HttpFiles, tmp_path: Path) -> None:
    host = server.url.removeprefix("http://")
    plain = find_sources([f"{server.url}/talks/a.wav"]).sources[0]
    for number in (1, 2):
        url = f"http://anna:geheim@{host}/talks/a.wav?X-Amz-Signature=abc{number}&X-Amz-Date=2026&v=3"
        (tmp_path / "list.txt").write_text(url, encoding="utf-8")
        (listed,) = find_sources([f"{tmp_path}/list.txt"]).sources
        assert listed.relative_path == f"{host}/talks/a.wav?v=3"
        (given,) = find_sources([url.replace("&v=3", "")]).sources
        assert given.source_id == plain.source_id
        session = decoded([listed], tmp_path / f"spool{number}")
        assert session.recordings[0].duration_s == 0.5
    server.fail("talks/a.wav", "500")
    (refused,) = find_sources([f"{tmp_path}/list.txt"], stores=QUICK).refused
    with pytest.raises(SourceError) as stopped:
        find_sources([url], stores=QUICK)
    for text in (refused.path, refused.error, str(stopped.value)):
        assert "geheim" not in text and "abc2" not in text


def test_a_changed_file_behind_a_url_is_another_recording(server: HttpFiles) -> None:
    url = f"{server.url}/talks/a.wav"
    before = find_sources([url]).sources[0]
    assert find_sources([url]).sources[0] == before
    write(server.folder / "talks/a.wav", noise(0.4, RATE, seed=9), RATE)
    assert find_sources([url]).sources[0].source_id != before.source_id


@pytest.mark.parametrize("given", ["argument", "list", "manifest"])
def test_what_cannot_be_opened_here_stops_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    def without_libraries(protocol: str) -> None:
        if protocol in ("http", "s3"):
            raise ImportError("no library")
        raise ValueError(f"Protocol not known: {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", without_libraries)
    store_access._lacking.cache_clear()
    write(tmp_path / "ok.wav", noise(0.5, RATE, seed=1), RATE)
    for url, words in (
        ("http://host/a.wav?token=abc", r"http://host/a.wav: http:// .* pip install 'voxmill\[pipeline\]'"),
        ("s3://bucket/a.wav", r"pip install 'voxmill\[s3\]'"),
        ("zip://a.wav::htp://host/a.zip", "htp:// is not a protocol"),
    ):
        argument = url
        if given == "list":
            argument = f"{tmp_path}/list.txt"
            Path(argument).write_text(f"ok.wav\n{url}\n", encoding="utf-8")
        if given == "manifest":
            argument = f"{tmp_path}/m.jsonl"
            Path(argument).write_text(json.dumps({"path": url}), encoding="utf-8")
        if url.startswith("zip"):
            monkeypatch.setattr(
                fsspec, "get_filesystem_class", lambda p: without_libraries(p) if p != "zip" else object
            )
        with pytest.raises(SourceError, match=words):
            find_sources([argument])
    store_access._lacking.cache_clear()


def test_a_folder_that_needs_a_library_stops_the_run_and_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "ok.wav", noise(0.5, RATE, seed=1), RATE)
    (tmp_path / "table").mkdir()
    (tmp_path / "table/state.json").write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r"pip install 'voxmill\[hf\]'"):
        find_sources([str(tmp_path)])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a:b@host/x.wav?id=5&sig=q&se=1#f", "https://host/x.wav?id=5"),
        ("zip://in/a.wav::https://a:b@host/x.zip?token=q", "zip://in/a.wav::https://host/x.zip"),
        ("s3://bucket/a b?.wav", "s3://bucket/a b?.wav"),
        ("/data/a:b@c?token=q.wav", "/data/a:b@c?token=q.wav"),
        ("https://host/d?k=" + "s" * 40, "https://host/d?k=~" + hashlib.sha256(b"s" * 40).hexdigest()[:8]),
    ],
)
def test_urls_as_they_are_shown(url: str, shown: str) -> None:
    assert public(url) == shown and public(shown) == shown
    if " " not in url:
        assert redacted(f"failed, url='{url}'") == f"failed, url='{shown}'"
