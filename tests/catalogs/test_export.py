"""Exports: what is chosen, how it is divided, and that a killed one ends like an unbroken one."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from exchange_corpora import SPLITS, exchange_corpus, files_of, integers
from fakes.kills import Killed, killed_at

from catalogs.corpus.marks import MarkFile
from catalogs.exchange import selection
from catalogs.exchange.export import export
from catalogs.exchange.formats.base import Format
from catalogs.exchange.formats.hf import HuggingFace
from catalogs.exchange.request import ExchangeError, parse_splits
from catalogs.exchange.splits import text_key
from catalogs.inspection.show import show
from catalogs.query.views import QueryError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("exchange") / "corpus"
    return root, exchange_corpus(root)


@pytest.fixture(scope="module")
def corpus(made: tuple[Path, list[dict[str, Any]]]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def kept(made: tuple[Path, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return made[1]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_no_voice_session_copy_or_text_is_in_two_splits(
    corpus: Path, kept: list[dict[str, Any]], tmp_path: Path
) -> None:
    places: dict[str, set[str]] = defaultdict(set)
    filled = set()
    for seed in range(2):
        out = tmp_path / str(seed)
        summary = export(corpus, "voxcpm", out, splits=parse_splits(SPLITS), seed=seed, audio="none")
        places.clear()
        for split in ("train", "validation", "test"):
            for line in lines(out / f"{split}.jsonl") if (out / f"{split}.jsonl").is_file() else ():
                for key in (line["session"], line["speaker"], text_key(line["text"])):
                    places[key].add(split)
                places[f"id {line['id']}"].add(split)
            filled |= {split} if summary.splits[split]["clips"] else set()
        assert all(len(found) == 1 for found in places.values())
        # The planted copy is in sessions 0 and 5, which have nothing else in common.
        copies = [row["segment_id"] for row in kept if row["audio"] == kept[1]["audio"]]
        assert len(copies) == 2 and len({*places[f"id {copies[0]}"], *places[f"id {copies[1]}"]}) == 1
        assert summary.clips == len(kept)
    assert filled == {"train", "validation", "test"}


def test_equal_texts_can_be_left_out_instead(corpus: Path, kept: list[dict[str, Any]], tmp_path: Path) -> None:
    left_out = 0
    for seed in range(2):
        out = tmp_path / str(seed)
        summary = export(
            corpus, "nemo", out, splits=parse_splits(SPLITS), seed=seed, same_text="leave-out", audio="none"
        )
        texts = [{text_key(line["text"]) for line in lines(file)} for file in sorted(out.glob("*.jsonl"))]
        assert sum(map(len, texts)) == len(set().union(*texts))
        assert summary.clips + summary.counts["left_out_same_text"] == len(kept)
        left_out += summary.counts["left_out_same_text"]
        assert json.loads((out / "export.json").read_text())["counts"]["left_out_same_text"] <= 1
    assert left_out > 0


@pytest.mark.parametrize("to", ["hf", "lhotse", "webdataset", "ljspeech"])
def test_a_killed_export_ends_like_an_unbroken_one(
    to: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: Any
) -> None:
    monkeypatch.setattr(Format, "part_rows", 7)
    asked: dict[str, Any] = {"splits": parse_splits(SPLITS), "prefix": "/data"}
    with killed_at(10**9, monkeypatch) as changes:
        export(corpus, to, tmp_path / "whole", **asked)
    whole = files_of(tmp_path / "whole")
    kills = 0
    for _ in range(5):
        try:
            with killed_at(dice.randrange(len(changes) // 2), monkeypatch):
                export(corpus, to, tmp_path / "killed", **asked)
            break
        except Killed:
            kills += 1
    assert kills
    summary = export(corpus, to, tmp_path / "killed", **asked)
    # Nothing is left of the killed ones: neither drafts nor the state.
    assert files_of(tmp_path / "killed") == whole
    assert summary.clips == 40


def test_a_second_run_says_that_it_is_done_and_another_is_refused(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export(corpus, "ljspeech", out)
    before = files_of(out)
    second = export(corpus, "ljspeech", out)
    assert second.done_before and not first.done_before and second.clips == first.clips
    assert files_of(out) == before
    with pytest.raises(ExchangeError, match="other options"):
        export(corpus, "ljspeech", out, where="kept AND language = 'de'")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ExchangeError, match="not empty and not an export"):
        export(corpus, "hf", tmp_path / "mine")
    with pytest.raises(ExchangeError, match="is in the corpus"):
        export(corpus, "hf", corpus / "exported")
    assert files_of(tmp_path / "mine") == {"thesis.txt": b"mine"}


def test_an_unfinished_export_is_only_continued_with_the_same_options(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed), killed_at(12, monkeypatch):
        export(corpus, "voxcpm", tmp_path / "out")
    with pytest.raises(ExchangeError, match="not finished"):
        export(corpus, "voxcpm", tmp_path / "out", sample_rate=8000)


def test_the_condition_chooses_and_a_wrong_one_is_explained(corpus: Path, tmp_path: Path) -> None:
    summary = export(corpus, "nemo", tmp_path / "de", where="kept and language = 'de' -- all of them", audio="none")
    assert {line["language"] for line in lines(tmp_path / "de" / "train.jsonl")} == {"de"}
    assert summary.clips == 20
    for wrong in ("kept and langage = 'de'", "kept) or (1", "kept; drop view segments", "select"):
        with pytest.raises(QueryError):
            export(corpus, "nemo", tmp_path / "wrong", where=wrong)
    with pytest.raises(ExchangeError, match="no clip to export"):
        export(corpus, "nemo", tmp_path / "none", where="duration_s > 1000")
    everything = export(corpus, "hf", tmp_path / "all", where="true")
    assert everything.counts == {"matching": 50, "without_audio": 10}


def test_options_that_do_not_fit_are_one_line(corpus: Path, tmp_path: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("parquet", {}, "unknown format parquet; there are: hf"),
        ("ljspeech", {"audio": "flac"}, "takes audio as wav"),
        ("qwen3-tts", {"sample_rate": 16_000}, "24000 Hz only"),
        ("hf", {"columns": ["snr"]}, "unknown column snr"),
        ("hf", {"text": "snr_db"}, "not a column of text"),
        ("hf", {"sample_rate": 1}, "between 4000"),
        ("hf", {"sample_rate": 0}, "between 4000"),
    ]
    for to, options, message in wrong:
        with pytest.raises(ExchangeError, match=message) as error:
            export(corpus, to, tmp_path / "out", **options)
        assert "\n" not in str(error.value)
    for text in ("train=0.9", "train", "train=0.5,train=0.5", "a b=1", "train=nan", "train=2,test=-1", "../x=1"):
        with pytest.raises(ExchangeError):
            parse_splits(text)


def test_audio_is_copied_or_has_the_same_samples(corpus: Path, kept: list[dict[str, Any]], tmp_path: Path) -> None:
    export(corpus, "voxcpm", tmp_path / "flac")
    export(corpus, "voxcpm", tmp_path / "wav", audio="wav")
    export(corpus, "voxcpm", tmp_path / "8k", sample_rate=8000)
    by_id = {row["segment_id"]: row for row in kept}
    for line in lines(tmp_path / "flac" / "train.jsonl"):
        assert Path(line["audio"]).read_bytes() == by_id[line["id"]]["audio"]
    for line in lines(tmp_path / "wav" / "train.jsonl"):
        data = Path(line["audio"]).read_bytes()
        assert data[:4] == b"RIFF" and integers(data) == integers(by_id[line["id"]]["audio"])
    for line in lines(tmp_path / "8k" / "train.jsonl"):
        samples, rate = integers(Path(line["audio"]).read_bytes())
        assert rate == 8000 and len(samples) == 4 * 12_000 and line["duration"] == 1.5


def test_parts_end_by_clips_or_by_seconds(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_PART_S", 9.0)
    export(corpus, "hf", tmp_path / "seconds")
    monkeypatch.setattr(selection, "_PART_S", 7200.0)
    monkeypatch.setattr(HuggingFace, "part_rows", 15)
    export(corpus, "hf", tmp_path / "clips")
    for name, sizes in (("seconds", [6] * 6 + [4]), ("clips", [15, 15, 10])):
        files = sorted((tmp_path / name / "data").iterdir())
        assert [pq.read_metadata(file).num_rows for file in files] == sizes
    rows = [
        sorted(
            row
            for file in (tmp_path / name / "data").iterdir()
            for row in pq.read_table(file)["segment_id"].to_pylist()
        )
        for name in ("seconds", "clips")
    ]
    assert rows[0] == rows[1] and len(set(rows[0])) == 40


def test_the_card_and_the_manifest_account_for_the_clips(corpus: Path, tmp_path: Path) -> None:
    from catalogs.settings import load_yaml

    export(corpus, "hf", tmp_path / "out", splits=parse_splits(SPLITS))
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    head = load_yaml(card.split("---\n")[1])
    assert set(head["language"]) == {"de", "en"} and head["license"] == "other"
    for words in ("CC-BY-4.0", "CC0-1.0", "not stated", "0123456789abcdef", "| rejected | too_short | 10 |"):
        assert words in card
    told = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert sum(split["clips"] for split in told["splits"].values()) == 40
    assert sum(told["licenses"].values()) == pytest.approx(60) == sum(told["languages"].values())
    assert told["thresholds"]["min_snr_db"] is not None and told["request"]["where"] == "kept"
    assert not (tmp_path / "out" / ".export").exists()


def test_what_people_corrected_is_exported(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    first, second, third = (row["segment_id"] for row in exchange_corpus(root, sessions=1, clips=3))
    words = [{"word": "said", "start": 0.2, "end": 0.9, "p": None}]
    marks = MarkFile(root, "Ann")
    marks.add(first, text="said so", words=words)
    marks.add(second, verdict="drop")
    export(root, "voxcpm", tmp_path / "out", audio="none")
    found = {line["id"]: line for line in lines(tmp_path / "out" / "train.jsonl")}
    assert found.keys() == {first, third}
    assert (found[first]["text"], found[first]["words"]) == ("said so", words)
    assert found[third]["words"][0]["word"] == "größe"
    assert show(root, first).words == words
