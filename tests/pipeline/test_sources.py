"""Finding recordings: sessions, names, manifests, and everything that is refused with a reason."""

from __future__ import annotations

import csv
import json
import os
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogs.corpus.commit import create_corpus
from pipeline.inputs.find import FoundSources, SourceError, find_sources


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"audio of {name}".encode())


def names(found: FoundSources) -> list[str]:
    return [source.relative_path for source in found.sources]


def sessions(found: FoundSources) -> dict[str, str]:
    return {source.relative_path: source.session_id for source in found.sources}


def test_a_session_is_the_folder_and_a_file_at_the_top_is_one_by_itself(tmp_path: Path) -> None:
    put(tmp_path, "b.wav", "a.wav", "show/1.wav", "show/2.wav", "show/extra/3.wav")
    found = find_sources([str(tmp_path)])
    assert sessions(found) == {
        "a.wav": "a.wav",
        "b.wav": "b.wav",
        "show/1.wav": "show",
        "show/2.wav": "show",
        "show/extra/3.wav": "show/extra",
    }
    assert names(found) == sorted(names(found))
    assert find_sources([str(tmp_path)], session="file").sources[2].session_id == "show/1.wav"


def test_ids_depend_on_name_and_content_only(tmp_path: Path) -> None:
    put(tmp_path / "one", "x/a.wav")
    put(tmp_path / "two", "x/a.wav")
    (first,) = find_sources([str(tmp_path / "one")]).sources
    (second,) = find_sources([str(tmp_path / "two")]).sources
    assert first.source_id == second.source_id and len(first.source_id) == 16
    (tmp_path / "two/x/a.wav").write_bytes(b"other")
    assert find_sources([str(tmp_path / "two")]).sources[0].source_id != first.source_id


def test_other_files_are_counted_and_hidden_ones_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "a.json", "notes.MD", "cover.jpg", ".hidden.wav", ".git/x.wav", "no_extension")
    found = find_sources([str(tmp_path)])
    assert names(found) == ["a.wav", "no_extension"] and found.ignored == 3 and not found.refused
    assert found.passed_over() == "other files, left alone or read as transcripts: 1 .json, 1 .jpg, 1 .md"
    (tmp_path / "a.json").unlink()
    assert find_sources([str(tmp_path / "a.wav")]).passed_over() == ""


def test_link_loops_end_and_a_file_reached_twice_is_taken_once(tmp_path: Path) -> None:
    put(tmp_path, "s/a.wav")
    (tmp_path / "s/loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "s/again.wav").symlink_to(tmp_path / "s/a.wav")
    found = find_sources([str(tmp_path), str(tmp_path / "s/a.wav")])
    assert len(found.sources) == 1 and found.repeated == 2


def test_what_cannot_be_opened_is_refused_with_a_reason(tmp_path: Path) -> None:
    put(tmp_path, "good.wav")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.wav").symlink_to(tmp_path / "circle.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket.wav"))
    found = find_sources([str(tmp_path)])
    listening.close()
    reasons = {Path(row.path).name: row.error for row in found.refused}
    assert names(found) == ["good.wav"] and all(row.stage == "sources" for row in found.refused)
    assert reasons == {
        "dangling.wav": "a symbolic link that leads nowhere",
        "circle.wav": "a symbolic link that leads nowhere",
        "pipe.wav": "not a file (a pipe)",
        "socket.wav": "not a file (a socket)",
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "secret.wav")
    (tmp_path / "secret.wav").chmod(0)
    (row,) = find_sources([str(tmp_path)]).refused
    assert row.error == "permission denied"


def test_odd_names_are_taken_and_one_that_is_no_text_is_refused(tmp_path: Path) -> None:
    odd = ["with space.wav", "line\nbreak.wav", "Имя ‘q’ 空格 é.wav", "-dash [1].wav"]
    put(tmp_path, *odd)
    with open(os.fsencode(tmp_path) + b"/latin\xe9.wav", "wb") as file:  # noqa: PTH123 - a name that is not text
        file.write(b"x")
    found = find_sources([str(tmp_path)])
    assert sorted(names(found)) == sorted(odd)
    (row,) = found.refused
    assert row.error == "its name is not valid UTF-8; rename it" and row.path.endswith("latin\\xe9.wav")


def test_a_pattern_keeps_folders_apart_as_sessions(tmp_path: Path) -> None:
    put(tmp_path, "mon/1.wav", "tue/1.wav", "tue/1.txt")
    assert sessions(find_sources([f"{tmp_path}/*/1.*"])) == {"mon/1.wav": "mon", "tue/1.wav": "tue"}
    assert set(sessions(find_sources([f"{tmp_path}/**"])).values()) == {"mon", "tue"}


def test_files_of_one_name_given_by_themselves_are_different_sessions(tmp_path: Path) -> None:
    put(tmp_path, "mon/1.wav", "tue/1.wav")
    found = find_sources([f"{tmp_path}/mon/1.wav", f"{tmp_path}/tue/1.wav"])
    assert sorted(source.session_id for source in found.sources) == ["mon/1.wav", "tue/1.wav"]


def test_folders_of_one_name_under_two_roots_are_different_sessions(tmp_path: Path) -> None:
    put(tmp_path, "x/r/day/1.wav", "y/r/day/2.wav", "z/day/3.wav")
    roots = [f"{tmp_path}/x/r", f"{tmp_path}/y/r", f"{tmp_path}/z"]
    found = find_sources(roots)
    assert len({source.session_id for source in found.sources}) == 3
    assert sessions(found)["day/3.wav"] == "z/day"


def test_a_copy_with_the_same_name_under_another_root_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "x", "day/1.wav")
    put(tmp_path / "y", "day/1.wav")
    found = find_sources([f"{tmp_path}/x", f"{tmp_path}/y"])
    assert len(found.sources) == 1
    assert "the same name and content as" in found.refused[0].error


ROWS: list[dict[str, str | None]] = [
    {"path": "a.wav", "session": "s1", "language": "fr", "text": "bonjour, toi", "license": "CC0"},
    {"path": "sub/b.wav", "session": "s1", "language": "", "text": None, "license": None},
]


def write_manifest(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        quote = '"' if path.suffix == ".csv" else ""
        lines = [mark.join(ROWS[0])]
        lines += [mark.join(f"{quote}{value or ''}{quote}" for value in row.values()) for row in ROWS]
        path.write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    else:
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_a_manifest_says_session_language_text_and_license(tmp_path: Path, ending: str) -> None:
    put(tmp_path, "a.wav", "sub/b.wav")
    write_manifest(tmp_path / f"list.{ending}")
    first, second = find_sources([f"{tmp_path}/list.{ending}"], language="de").sources
    assert (first.session_id, first.language, first.text, first.rights.license) == (
        "s1",
        "fr",
        "bonjour, toi",
        "CC0-1.0",
    )
    assert (second.session_id, second.language, second.text, second.rights.license) == ("s1", "de", None, None)
    assert second.path == f"{tmp_path}/sub/b.wav"


def test_other_tools_column_names_are_understood(tmp_path: Path) -> None:
    put(tmp_path, "a.wav")
    row = {"audio_filepath": "a.wav", "sentence": "hello", "locale": "en", "duration": 1.0}
    (tmp_path / "m.json").write_text(json.dumps(row), encoding="utf-8")
    (source,) = find_sources([f"{tmp_path}/m.json"]).sources
    assert (source.text, source.language, source.session_id) == ("hello", "en", "a.wav")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"path": "a.wav"}\n{"path": ', "line 2: not JSON"),
        ('{"text": "x"}', "row 1: a manifest needs a `path`"),
        ("[1, 2]", "line 1: expected an object"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_bad_manifest_stops_with_the_line_that_is_wrong(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError, match=words):
        find_sources([str(path)])
    (tmp_path / "m.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(SourceError, match="not a readable Parquet file"):
        find_sources([f"{tmp_path}/m.parquet"])


def test_a_file_that_a_list_names_and_that_is_not_there_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "in/a.wav")
    (tmp_path / "list.txt").write_text("# mine\nin/a.wav\n\nin/gone.wav\n", encoding="utf-8")
    found = find_sources([f"{tmp_path}/list.txt"])
    assert sessions(found) == {"in/a.wav": "in"}
    assert found.refused[0].error == "no such file or directory"


def test_an_argument_that_is_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        find_sources([f"{tmp_path}/nothing*"])


def test_the_text_beside_a_recording_is_its_transcript(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    (tmp_path / "a.txt").write_text("  two\nlines ", encoding="utf-8")
    (tmp_path / "b.txt").write_text("привет", encoding="utf-16")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    found = find_sources([str(tmp_path)])
    assert [source.text for source in found.sources] == ["two lines", "привет", None, None]
    assert found.ignored == 3
    (notice,) = found.notices
    assert notice.endswith("c.txt: this transcript is not UTF-8 text and was left out")


def test_unchanged_files_are_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.wav")
    hashes: dict[tuple[str, int, int], str] = {}
    first = find_sources([str(tmp_path)], hashes=hashes).sources[0]
    assert list(hashes.values()) == [first.content_sha256]
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.inputs.hashes.sha256_of", lambda *given: pytest.fail("hashed again"))
        patch.setattr("pipeline.inputs.find.sha256_of", lambda *given: pytest.fail("hashed again"))
        assert find_sources([str(tmp_path)], hashes=hashes).sources[0] == first
    (tmp_path / "a.wav").write_bytes(b"audio OF a.wav")
    os.utime(tmp_path / "a.wav", ns=(1, 1))
    assert find_sources([str(tmp_path)], hashes=hashes).sources[0].source_id != first.source_id


def test_the_order_of_arguments_does_not_matter(tmp_path: Path) -> None:
    put(tmp_path / "x", "m/1.wav", "n/2.wav")
    put(tmp_path / "y", "m/3.wav")
    forward = find_sources([f"{tmp_path}/x", f"{tmp_path}/y"])
    assert forward.sources == find_sources([f"{tmp_path}/y", f"{tmp_path}/x"]).sources


def test_what_a_manifest_says_counts_before_what_a_folder_says(tmp_path: Path) -> None:
    put(tmp_path, "day/a.wav")
    (tmp_path / "m.jsonl").write_text('{"path": "day/a.wav", "session": "mine", "text": "hi"}', encoding="utf-8")
    for arguments in ([f"{tmp_path}/m.jsonl", str(tmp_path)], [str(tmp_path), f"{tmp_path}/m.jsonl"]):
        (source,) = find_sources(arguments).sources
        assert (source.session_id, source.text) == ("mine", "hi")


def test_a_real_manifest(corpora: Path) -> None:
    rows = [json.loads(line) for line in (corpora / "world/manifest.jsonl").read_text().splitlines()]
    found = find_sources([str(corpora / "world/manifest.jsonl")])
    assert not found.refused and len(found.sources) + found.repeated == len(rows)
    by_name = {row["path"]: row for row in rows}
    for source in found.sources:
        row = by_name[source.relative_path]
        assert source.text == (row["transcript"] or source.text) and source.language == row["language"]


def ljspeech(root: Path) -> Path:
    put(root, "wavs/a.wav")
    (root / "metadata.csv").write_text("a|said|said out\n", encoding="utf-8")
    return root


def test_transcripts_are_read_from_what_was_given_and_not_from_above_it(tmp_path: Path) -> None:
    root = ljspeech(tmp_path / "home")
    (root / "list.txt").write_text("wavs/a.wav\n", encoding="utf-8")
    (root / "m.jsonl").write_text('{"path": "wavs/a.wav"}', encoding="utf-8")
    for inside in (str(root), f"{root}/*/*.wav", f"{root}/list.txt", f"{root}/m.jsonl"):
        assert [source.text for source in find_sources([inside]).sources] == ["said"], inside
    for outside in (f"{root}/wavs", f"{root}/wavs/a.wav", f"{root}/wavs/*.wav"):
        assert [source.text for source in find_sources([outside]).sources] == [None], outside
    # Beside a file that was given is not above it.
    (root / "wavs/metadata.csv").write_text("file_name,text\na.wav,beside\n", encoding="utf-8")
    assert find_sources([f"{root}/wavs/a.wav"]).sources[0].text == "beside"


@pytest.mark.parametrize("first", ["list", "manifest"])
def test_a_field_may_be_long_whatever_was_read_before(tmp_path: Path, first: str) -> None:
    said, before = "word " * 60_000, csv.field_size_limit()
    put(tmp_path, "a.wav", "b/b.wav")
    (tmp_path / "b/metadata.csv").write_text(f"file_name,text\nb.wav,{said}\n", encoding="utf-8")
    (tmp_path / "m.csv").write_text(f"path,text\na.wav,{said}\n", encoding="utf-8")
    arguments = [f"{tmp_path}/b", f"{tmp_path}/m.csv"]
    for argument in arguments if first == "list" else arguments[::-1]:
        found = find_sources([argument])
        assert [source.text.split() for source in found.sources if source.text] == [said.split()]
        assert not found.notices and csv.field_size_limit() == before


def test_a_field_that_is_too_long_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inputs.csv_rows.LARGEST_FIELD", 1 << 20)
    put(tmp_path, "a.wav")
    (tmp_path / "m.csv").write_text(f"path,text\na.wav,{'x' * (2 << 20)}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"m.csv, line 2: a field is longer than 1 MB"):
        find_sources([f"{tmp_path}/m.csv"])
    (tmp_path / "m.csv").rename(tmp_path / "metadata.csv")
    (notice,) = find_sources([str(tmp_path)]).notices
    assert "metadata.csv: this list of transcripts was left out: line 2: a field is longer than 1 MB" in notice


def test_a_corpus_among_the_recordings_is_passed_over_with_one_line(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "day/corpus/tmp/w-1/spool/x.flac", "day/corpus/segments/s.wav", "units/b.wav")
    create_corpus(tmp_path / "made")
    (tmp_path / "made").rename(tmp_path / "new")
    for path in (tmp_path / "new").iterdir():
        if path.is_dir():
            (tmp_path / "day/corpus" / path.name).mkdir(exist_ok=True)
        else:
            path.rename(tmp_path / "day/corpus" / path.name)
    for argument in (str(tmp_path), f"{tmp_path}/**"):
        found = find_sources([argument])
        assert names(found) == ["a.wav", "units/b.wav"]
        assert [line for line in found.notices if "day" in line] == [
            f"{tmp_path}/day/corpus is a corpus: it is passed over"
        ]


def test_a_word_that_is_no_language_is_one_line_with_the_nearest(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    rows = [("a", "klingon"), ("b", "klingon"), ("c", "Germann"), ("d", "German")]
    (tmp_path / "m.csv").write_text(
        "path,language\n" + "".join(f"{name}.wav,{word}\n" for name, word in rows), encoding="utf-8"
    )
    found = find_sources([f"{tmp_path}/m.csv"], language="fr")
    assert [source.language for source in found.sources] == [None, None, None, "de"]
    klingon, germann = found.notices
    assert "'klingon' is not a language" in klingon and "found by listening (recordings: 2, e.g. a.wav)" in klingon
    assert "did you mean German (de)?" in germann


def test_columns_that_are_not_used_are_named_once(tmp_path: Path) -> None:
    put(tmp_path, "a.wav", "b.wav")
    (tmp_path / "m.csv").write_text("file,lang,speaker,Text\na.wav,en,s1,hi\nb.wav,de,s2,ho\n", encoding="utf-8")
    found = find_sources([f"{tmp_path}/m.csv"])
    assert [source.language for source in found.sources] == ["en", "de"]
    (notice,) = found.notices
    assert "m.csv: columns that are not used: speaker, Text (used are path, session, language, text, license" in notice
    (tmp_path / "n.csv").write_text("audio_path,locale,sentence\na.wav,en,hi\n", encoding="utf-8")
    found = find_sources([f"{tmp_path}/n.csv"])
    assert not found.notices and (found.sources[0].language, found.sources[0].text) == ("en", "hi")
    (tmp_path / "o.csv").write_text("voice,said\na.wav,en,one too many\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"row 1: a manifest needs a `path`.*columns here: voice, said"):
        find_sources([f"{tmp_path}/o.csv"])
