"""Test sets as the model hub's cache lays them out, without a network."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from list_folders import minimax_folder, put, seed_folder, sound

from evaluation.errors import EvaluationError
from evaluation.lists import open_lists

REVISION = "0123456789abcdef0123456789abcdef01234567"


def archive(path: Path, members: dict[str, bytes]) -> Path:
    """A tar archive as it is on the hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as sink:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            sink.addfile(member, io.BytesIO(data))
    return path


def hub_cache(root: Path, name: str) -> Path:
    """Return the folder of a snapshot in a cache of the hub that has only this data set."""
    folder = root / f"datasets--{name.replace('/', '--')}"
    put(folder / "refs/main", REVISION)
    snapshot = folder / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    return snapshot


def omnivoice_list(folder: Path, rows: int = 3) -> Path:
    """A list and its archive; paths begin with the folder that upstream downloads to."""
    place = "download/tts_eval_datasets/seedtts_testset/en/prompt_wavs"
    lines = [
        {"id": f"u{n}", "text": f"Say {n}.", "ref_text": f"Words {n}.", "ref_audio": f"{place}/p{n % 2}.wav"}
        | ({"language_id": "en", "language_name": "english"} if n else {})
        for n in range(rows)
    ]
    put(folder / "seedtts_test_en.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    members = {f"./seedtts_testset/en/prompt_wavs/p{n}.wav": sound(n) for n in range(2)}
    members |= {f"./seedtts_testset/en/ground_truth_wavs/u{n}.wav": sound(10 + n) for n in (0, 2)}
    archive(folder / "seedtts_testset.tar.gz", members)
    return folder


def test_clips_come_out_of_the_archive_of_a_cached_snapshot(tmp_path: Path) -> None:
    omnivoice_list(hub_cache(tmp_path / "hub", "k2-fsa/TTS_eval_datasets"))
    options = f"offline=yes,hub_cache={tmp_path / 'hub'},cache={tmp_path / 'cache'}"
    for revision in ("", f"@{REVISION}", "@main"):
        items = open_lists([f"hf:k2-fsa/TTS_eval_datasets{revision}:seedtts_test_en,{options}"])
        assert [(item.name, item.text, item.reference_text, item.language, item.list_name) for item in items] == [
            (f"u{n}", f"Say {n}.", f"Words {n}.", "en", "seedtts_test_en") for n in range(3)
        ]
        assert [item.reference.read_bytes() for item in items if item.reference] == [sound(0), sound(1), sound(0)]
        assert [item.human and item.human.read_bytes() for item in items] == [sound(10), None, sound(12)]
        assert all(not item.groups for item in items)


def test_what_is_not_cached_says_how_to_get_it(tmp_path: Path) -> None:
    options = f"offline=yes,hub_cache={tmp_path}"
    with pytest.raises(
        EvaluationError, match=r"is not in the local cache .*hf download --repo-type dataset a/b"
    ) as told:
        open_lists([f"hf:a/b:en,{options}"])
    assert "\n" not in str(told.value)
    put(hub_cache(tmp_path, "a/b") / "other.jsonl", "{}\n")
    with pytest.raises(EvaluationError, match="a/b has no list 'en': it has other"):
        open_lists([f"hf:a/b:en,{options}"])


def test_an_archive_is_read_again_only_for_clips_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = omnivoice_list(tmp_path / "set")
    opened: list[object] = []
    plain = tarfile.open

    def counted(*given: Any, **named: Any) -> Any:
        opened.append(given)
        return plain(*given, **named)

    monkeypatch.setattr(tarfile, "open", counted)
    spec = f"hf:{folder}:seedtts_test_en,cache={tmp_path / 'cache'}"
    first = open_lists([spec])
    assert open_lists([spec]) == first and len(opened) == 1
    clip = first[0].reference
    assert clip is not None
    clip.unlink()
    assert open_lists([spec])[0].reference == clip and clip.is_file() and len(opened) == 2


def test_only_chosen_clips_are_extracted(tmp_path: Path) -> None:
    folder = omnivoice_list(tmp_path / "set")
    (item,) = open_lists([f"hf:{folder}:seedtts_test_en,cache={tmp_path / 'cache'}"], limit=1)
    assert set((tmp_path / "cache").rglob("*.wav")) == {item.reference, item.human} - {None}


@pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "a/../../b.wav"])
def test_a_clip_outside_the_data_set_is_refused(tmp_path: Path, path: str) -> None:
    line = {"id": "u", "text": "Say.", "ref_audio": path, "ref_text": "W.", "language_id": "en"}
    put(tmp_path / "evil.jsonl", json.dumps(line) + "\n")
    with pytest.raises(EvaluationError, match="is not inside the data set"):
        open_lists([f"hf:{tmp_path}:evil"])


def test_faults_of_archives_and_lists_are_one_line(tmp_path: Path) -> None:
    folder = omnivoice_list(tmp_path / "set")
    whole = (folder / "seedtts_testset.tar.gz").read_bytes()
    spec = f"hf:{folder}:seedtts_test_en,cache={tmp_path / 'cache'}"
    put(folder / "seedtts_testset.tar.gz", whole[: len(whole) // 2])
    with pytest.raises(EvaluationError, match=r"seedtts_testset\.tar\.gz cannot be unpacked .*fetch it again"):
        open_lists([spec])
    (folder / "seedtts_testset.tar.gz").unlink()
    with pytest.raises(EvaluationError, match=r"the item u0 has no clip .*p0\.wav; fetch its archive"):
        open_lists([spec])
    put(folder / "seedtts_test_en.jsonl", '{"id": "u", "text": " "}\n')
    with pytest.raises(EvaluationError, match="line 1: text is missing"):
        open_lists([spec])


def test_clips_that_are_unpacked_already_are_found(tmp_path: Path) -> None:
    folder = omnivoice_list(tmp_path / "set")
    with tarfile.open(folder / "seedtts_testset.tar.gz") as source:
        source.extractall(folder, filter="data")
    (folder / "seedtts_testset.tar.gz").unlink()
    items = open_lists([f"hf:{folder}:seedtts_test_en"])
    assert items[0].reference == folder / "seedtts_testset/en/prompt_wavs/p0.wav"
    assert items[2].human == folder / "seedtts_testset/en/ground_truth_wavs/u2.wav"


def test_other_layouts_are_recognized_by_their_files(tmp_path: Path) -> None:
    minimax_folder(tmp_path / "minimax")
    assert len(open_lists([f"hf:{tmp_path / 'minimax'}"])) == 4
    assert [item.list_name for item in open_lists([f"hf:{tmp_path / 'minimax'}:yue"])] == ["minimax-yue"]
    seed_folder(tmp_path / "seed")
    assert [item.list_name for item in open_lists([f"hf:{tmp_path / 'seed'}:en"])] == ["seed-en", "seed-en"]
    instructions = {kind: "Calm." + kind for kind in ("APS", "DSD", "RP")}
    rows = [{"id": "1", "text": "Hi.", **instructions, "reference_audio": {"bytes": sound(1), "path": None}}]
    (tmp_path / "instruct/data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "instruct/data/en-00000-of-00001.parquet")
    items = open_lists([f"hf:{tmp_path / 'instruct'}:en,cache={tmp_path / 'cache'}"])
    assert [item.groups["kind"] for item in items] == ["APS", "DSD", "RP"] and all(item.human for item in items)
    rows = [{"target_text": "Hi.", "prompt_text": "Words.", "prompt_audio": {"bytes": sound(2), "path": None}}]
    (tmp_path / "CV3-Eval/data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "CV3-Eval/data/zero_shot_en-00000-of-00001.parquet")
    (item,) = open_lists([f"hf:{tmp_path / 'CV3-Eval'}:zero_shot_en,cache={tmp_path / 'cache'}"])
    assert item.reference and item.reference.read_bytes() == sound(2) and item.language == "en"
