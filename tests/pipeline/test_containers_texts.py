"""Metadata of a recording is found wherever it lies, everything left out is reported, and lists may name URLs."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fakes.recordings import noise, write
from packed import KINDS, RATE, STEMS, TEXTS, add, make_folder, pack

from pipeline.inputs.find import FoundSources, find_sources
from pipeline.inputs.spool import fetch
from pipeline.records import Source, TimedText


def told(found: FoundSources) -> dict[str, tuple[str | None, tuple[TimedText, ...], str | None]]:
    return {Path(source.relative_path).stem: (source.text, source.spans, source.language) for source in found.sources}


@pytest.mark.parametrize("language", [None, "de", "English"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_tells_the_same_however_it_is_packed(kind: str, language: str | None, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    plain = find_sources([str(folder)], language=language)
    found = find_sources([pack(folder, kind, tmp_path / "in")], language=language)
    assert told(found) == told(plain)
    assert set(told(found)) == set(STEMS) and not found.refused
    assert told(found)["json"][1] == (TimedText(0.1, 0.4, "One."),)
    assert told(found)["srt"][1][1] == TimedText(0.5, 0.9, "My name is Allison.")
    assert told(found)["listed"][0] == "from the list"
    assert ("Guten Abend" in str(told(found)["de"][0])) == (language != "English")
    assert found.aside.left == plain.aside.left and found.ignored == len(TEXTS) + 2
    (notice,) = found.notices
    assert "broken.srt: this transcript was left out: no line has a time" in notice
    sizes = {source.relative_path.rpartition("/")[2]: source.bytes for source in plain.sources}
    for source in found.sources:
        copy = source.path if kind == "file-url" else fetch(source, tmp_path / "spool")
        assert Path(copy).stat().st_size == sizes[source.relative_path.rpartition("/")[2]]


def test_a_session_is_the_folder_however_it_is_packed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    for kind in KINDS:
        found = find_sources([pack(folder, kind, tmp_path / kind)])
        (session,) = {source.session_id for source in found.sources}
        assert session.endswith("day")


def test_a_tars_json_may_tell_a_language_by_name_or_dialect(tmp_path: Path) -> None:
    names = {"Spanish": "es", "pt-BR": "pt-BR", "Sichuanese": "zh-x-sichuan", "no language": None}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, name in enumerate(names):
            facts = {
                "lang": name,
                "session_id": "mine",
                "licence": "CC0",
                "segments": [{"text": "x", "start": 9, "end": 3}],
            }
            add(tar, f"{number}.wav", f"audio {number}".encode())
            add(tar, f"{number}.json", json.dumps(facts).encode())
    found = find_sources([str(tmp_path / "a.tar")])
    assert [source.language for source in found.sources] == list(names.values())
    assert {(source.session_id, source.rights.license, source.text) for source in found.sources} == {
        ("mine", "CC0-1.0", None)
    }
    assert sum("'no language' is not a language" in notice for notice in found.notices) == 1
    assert sum("the time 9 to 3 s is impossible" in notice for notice in found.notices) == len(names)


def test_members_of_one_key_belong_together_but_their_own_transcript_counts_first(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("7.left.wav", "7.right.wav", "8.mono.wav"):
            add(tar, name, name.encode())
        for name in ("7.left.txt", "7.right.txt", "8.normalized.txt"):
            add(tar, name, f"said in {name}".encode())
    found = find_sources([str(tmp_path / "a.tar")])
    assert {name: text for name, (text, *_) in told(found).items()} == {
        "7.left": "said in 7.left.txt",
        "7.right": "said in 7.right.txt",
        "8.mono": "said in 8.normalized.txt",
    }


def test_a_link_in_a_tar_is_refused_and_not_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "a.wav", b"audio")
        for name, kind in (("b.wav", tarfile.SYMTYPE), ("c.wav", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "a.wav"
            tar.addfile(link)
    found = find_sources([str(tmp_path / "a.tar")])
    assert [source.relative_path for source in found.sources] == ["a.tar/a.wav"]
    assert [row.error for row in found.refused] == ["a link within the tar; pack the files themselves (tar -h)"] * 2


def test_a_name_that_is_no_text_is_refused_and_stops_nothing(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", encoding="latin-1", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("café.wav", "café.srt", "café.7z", "a.wav"):
            add(tar, name, name.encode())
    found = find_sources([str(tmp_path / "a.tar")])
    assert [source.relative_path for source in found.sources] == ["a.tar/a.wav"]
    assert [row.error for row in found.refused] == ["its name is not valid UTF-8; rename it"]
    assert all(line.encode() for line in [*found.notices, found.refused[0].path]) and len(found.notices) == 2


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "tar"])
def test_a_tar_that_is_damaged_in_the_middle_gives_what_is_before(kind: str, tmp_path: Path) -> None:
    path = Path(pack(make_folder(tmp_path), kind, tmp_path / "in"))
    data = bytearray(path.read_bytes())
    # In a plain tar the header of a member, else whatever lies in the middle.
    middle = data.index(b"vtt.wav") if kind == "tar" else len(data) // 2
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(data)
    found = find_sources([str(path)])
    assert 0 < len(found.sources) < len(STEMS)
    assert [row.path for row in found.refused] == [f"file://{path}"] and "damaged after" in found.refused[0].error


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with recordings in every kind of container, and with some that cannot be opened."""
    import datasets

    folder = make_folder(tmp_path)
    root = tmp_path / "in"
    for kind in ("tar", "tgz", "zip"):
        pack(folder, kind, root / "deep")
    pack(make_folder(tmp_path / "other", seed=50), "tar", root)
    wavs = [write(tmp_path / f"{i}.wav", noise(0.5, RATE, seed=90 + i), RATE) for i in range(2)]
    rows = {"audio": [{"bytes": p.read_bytes(), "path": p.name} for p in wavs], "text": ["a", "b"]}
    table = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    table.to_parquet(str(root / "deep" / "part.parquet"))
    table.save_to_disk(str(root / "deep" / "set"))
    datasets.Dataset.from_dict({"x": [1]}).to_parquet(str(root / "numbers.parquet"))
    with zipfile.ZipFile(root / "outer.zip", "w") as archive:
        archive.write(root / "talks.tar", "inner.tar")
    (root / "a.7z").write_bytes(b"7z")
    (root / "b.wav.gz").write_bytes(b"gz")
    (root / "bad.zip").write_bytes(b"no zip at all")
    return root


def test_what_containers_in_a_folder_hold_is_found_and_what_cannot_be_opened_is_said(mixed: Path) -> None:
    for arguments in ([str(mixed)], [f"{mixed}/**"], [f"{mixed}/*", f"{mixed}/deep/*"]):
        found = find_sources(arguments)
        holders: dict[str, int] = {}
        for source in found.sources:
            name = source.relative_path.split("/day/")[0].rpartition("/0000")[0] or source.relative_path.split("/./")[0]
            name = name.split("/day/")[0]
            holders[name.rpartition("/")[2]] = holders.get(name.rpartition("/")[2], 0) + 1
        count = len(STEMS)
        assert holders == {"talks.tar": 2 * count, "talks.tgz": count, "talks.zip": count, "part.parquet": 2, "set": 2}
        assert [Path(row.path).name for row in found.refused] == ["bad.zip"]
        assert "cannot be listed" in found.refused[0].error
        (notice,) = [notice for notice in found.notices if "archives" in notice]
        assert "(3, e.g. " in notice
        assert found.aside.left[".parquet"] == 1 and found.aside.left[".7z"] == 1 and found.aside.left[".gz"] == 1


def test_shards_of_one_name_in_two_folders_are_different_sessions(mixed: Path, tmp_path: Path) -> None:
    tars = [str(mixed / "talks.tar"), str(mixed / "deep" / "talks.tar")]
    for arguments in ([str(mixed)], tars):
        sources = [source for source in find_sources(arguments).sources if "talks.tar::" in f"{source.path}::"]
        sessions = {source.path.partition("::")[2]: source.session_id for source in sources}
        assert len(sessions) == 2 and len(set(sessions.values())) == 2


def test_tars_and_zips_behind_a_url_are_walked_through(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    memory = fsspec.filesystem("memory")
    for kind in ("tar", "zip"):
        path = pack(folder, kind, tmp_path / "packed")
        memory.pipe(f"/bucket-w/shards/{Path(path).name}", Path(path).read_bytes())
    memory.pipe("/bucket-w/shards/bad.tar", b"not a tar" * 200)
    memory.pipe("/bucket-w/shards/part.parquet", b"PAR1")
    found = find_sources(["memory://bucket-w/shards"])
    assert len(found.sources) == 2 * len(STEMS)
    assert told(found) == told(find_sources([str(folder)]))
    assert [row.path for row in found.refused] == ["memory:///bucket-w/shards/bad.tar"]
    assert any("(1, e.g. shards/part.parquet)" in notice for notice in found.notices)
    assert (
        fetch(found.sources[0], tmp_path / "spool").is_file() and fetch(found.sources[-1], tmp_path / "spool").is_file()
    )


@pytest.fixture
def places(tmp_path: Path) -> dict[str, bytes]:
    """URLs of recordings with their content: on this machine, in a store, in a tar, in a zip."""
    data = {}
    for number, name in enumerate(("a.wav", "b.wav", "c.wav", "d.wav", "e.wav")):
        data[name] = write(tmp_path / "data" / name, noise(0.5, RATE, seed=number), RATE).read_bytes()
    with tarfile.open(tmp_path / "data" / "shard.tar", "w") as tar:
        add(tar, "./deep/c.wav", data["c.wav"])
        add(tar, "./deep/c.srt", TEXTS["srt.srt"].encode())
    with zipfile.ZipFile(tmp_path / "data" / "all.zip", "w") as archive:
        archive.writestr("d.wav", data["d.wav"])
        archive.writestr("d.txt", "in the zip")
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket-m/talks/b.wav", data["b.wav"])
    memory.pipe("/bucket-m/talks/b.txt", b"beside it")
    return {
        f"file://{tmp_path}/data/a.wav": data["a.wav"],
        "memory://bucket-m/talks/b.wav": data["b.wav"],
        f"tar://deep/c.wav::file://{tmp_path}/data/shard.tar": data["c.wav"],
        "zip://d.wav::all.zip": data["d.wav"],
        "e.wav": data["e.wav"],
    }


def content(source: Source, spool: Path) -> bytes:
    return (fetch(source, spool) if "://" in source.path else Path(source.path)).read_bytes()


def test_a_manifest_may_name_urls(places: dict[str, bytes], tmp_path: Path) -> None:
    rows = [{"path": url, "session": "s", "language": "Spanish"} for url in places]
    rows[1]["text"] = "the manifest counts"
    (tmp_path / "data" / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = find_sources([f"{tmp_path}/data/m.jsonl"])
    assert not found.refused and not found.notices
    assert sorted(content(source, tmp_path / "spool") for source in found.sources) == sorted(places.values())
    assert {(source.session_id, source.language) for source in found.sources} == {("s", "es")}
    texts = {source.path.partition("::")[0].rpartition("/")[2]: source.text for source in found.sources}
    assert texts["b.wav"] == "the manifest counts" and texts["d.wav"] == "in the zip"
    assert texts["c.wav"] == "Good evening. My name is Allison." and texts["e.wav"] is None


def test_a_file_list_may_name_urls(places: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "data" / "list.txt").write_text("\n".join(places), encoding="utf-8")
    found = find_sources([f"{tmp_path}/data/list.txt"])
    assert not found.refused and len(found.sources) == len(places)
    assert sorted(content(source, tmp_path / "spool") for source in found.sources) == sorted(places.values())
    by_name = {source.relative_path: source.session_id for source in found.sources}
    assert by_name["bucket-m/talks/b.wav"] == "bucket-m/talks"


def test_a_url_that_leads_nowhere_is_one_refused_row(places: dict[str, bytes], tmp_path: Path) -> None:
    wrong = {
        "memory://bucket-m/gone.wav": "nothing is there",
        "memory://bucket-m/talks": "a folder, not a recording: give it as a separate source",
        "tar://deep/gone.wav::shard.tar": "the archive has no such member",
        "tar://x.wav::gone.tar": "No such file or directory",
    }
    (tmp_path / "data" / "list.txt").write_text("\n".join(["a.wav", *wrong]), encoding="utf-8")
    found = find_sources([f"{tmp_path}/data/list.txt"])
    assert [source.relative_path for source in found.sources] == ["a.wav"]
    assert len(found.refused) == len(wrong)
    for url, reason in wrong.items():
        assert any(reason in row.error for row in found.refused if url.partition("::")[0] in row.path), url


def test_archives_named_by_a_list_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(20):
            add(tar, f"{number}.wav", f"audio {number}".encode())
    rows = [json.dumps({"path": f"tar://{number}.wav::a.tar"}) for number in range(20)]
    (tmp_path / "m.jsonl").write_text("\n".join(rows), encoding="utf-8")
    opened: list[object] = []
    real = tarfile.open

    def counted(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(tarfile, "open", counted)
    assert len(find_sources([f"{tmp_path}/m.jsonl"]).sources) == 20
    assert len(opened) == 1
