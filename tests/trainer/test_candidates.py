"""The candidate table: what the corpora hold, built once, whole or not at all, and again if it is damaged or out of date."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_builders import annotate, redone_in_part
from test_train_corpora import decouple

import catalogs.candidates.stored
from catalogs.candidates.build import fill_table
from catalogs.candidates.stored import FOLDER, candidate_table
from catalogs.candidates.table import open_table
from catalogs.corpus.commit import CorpusError
from catalogs.corpus.reader import Corpus
from catalogs.corpus.repair import drop_compaction
from catalogs.corpus.schema import DESCRIPTIONS
from catalogs.corpus.thresholds import change_thresholds
from trainer.config import TrainError, ValidationSettings
from trainer.data.candidates import Candidate, Candidates, spoken_text
from trainer.data.corpora import Corpora
from trainer.data.holdout import data_key, find_candidates, hold_out, stratified
from trainer.data.token_counts import token_counts
from trainer.sample_kinds import CONTINUED_SECONDS, LAYOUTS
from voxcpm.sequence.text_tokenizer import TextTokenizer


@pytest.fixture
def copy(speech: Path, tmp_path: Path) -> Path:
    shutil.copytree(speech, tmp_path / "corpus", ignore=shutil.ignore_patterns(FOLDER))
    return tmp_path / "corpus"


def rewrite_index(corpus: Path, **values: Any) -> None:
    """Set columns of all index rows."""
    drop_compaction(corpus)
    for path in Corpus(corpus).files("index"):
        table = pq.read_table(path)
        for name, value in values.items():
            at = table.schema.get_field_index(name)
            table = table.set_column(
                at, table.schema.field(name), pa.array([value] * len(table), table.field(name).type)
            )
        pq.write_table(table, path)


@pytest.mark.parametrize("made", [False, True])
def test_the_table_holds_what_the_corpus_says(copy: Path, made: bool) -> None:
    """Column by column against the rows as the corpus' own reader gives them."""
    if made:
        decouple(copy)
    corpora = Corpora([copy])
    kept, told = corpora.kept(), corpora.decoupled()
    full, brief = corpora.descriptions(), corpora.descriptions("brief")
    pairs = [pair for pair in corpora.references() if not set(pair) & told.keys() and set(pair) <= kept.keys()]
    found = find_candidates(corpora, "true", 60.0, "a")
    assert [c.segment_id for c in found] == sorted(c.segment_id for c in found)
    recorded = {c.segment_id: c for c in found if c.described_id is None}
    assert recorded.keys() == kept.keys() - told.keys() and found.made.sum() == made
    for segment, candidate in recorded.items():
        row = kept[segment]
        assert (candidate.text, candidate.language, candidate.seconds) == (
            row["text"],
            row["language"],
            row["duration_s"],
        )
        assert (candidate.description, candidate.brief) == (full.get(segment), brief.get(segment))
        assert candidate.references == tuple((r, kept[r]["duration_s"]) for s, r in pairs if s == segment)
    assert any(c.references for c in recorded.values()) and any(c.description for c in recorded.values())
    part = corpora.parts[0]
    for segment in kept:
        assert corpora.place(segment)[1:] == part.place(segment)
    with pytest.raises(TrainError, match="has no audio"):
        corpora.segment("0" * 16)


def test_words_of_an_older_attempt_at_a_recording_are_not_trained_on(tmp_path: Path) -> None:
    again, left = redone_in_part(tmp_path)
    shutil.rmtree(tmp_path / "annotations" / "made")
    for expected in (dict.fromkeys(left, "old"), dict.fromkeys(left, "old") | dict.fromkeys(again, "new")):
        found = find_candidates(Corpora([tmp_path]), "true", 60.0, "a")
        assert {c.segment_id: c.description for c in found if c.description} == expected and len(found) == 6
        annotate(tmp_path, "0" * 16, again, "new")
        shutil.rmtree(tmp_path / "annotations" / "made" / "00")


def test_masks_are_the_layouts_of_the_candidates() -> None:
    found = Candidates.of(
        [
            Candidate(f"{n}", "en", "x", s, d, r, None, None)
            for n, (s, d, r) in enumerate(
                (s, d, r)
                for s in (CONTINUED_SECONDS - 0.01, CONTINUED_SECONDS)
                for d in (None, "calm")
                for r in ((), (("x", 3.0),))
            )
        ]
        + [Candidate("made", "en", "x", 5.0, "calm", (("x", 3.0),), None, "0")]
    )
    for candidate, mask in zip(found, found.kinds().tolist(), strict=True):
        if candidate.described_id is None:
            assert {name for bit, name in enumerate(LAYOUTS) if mask >> bit & 1} == set(candidate.layouts())
        else:
            assert mask == 1 << len(LAYOUTS)


def test_where_is_judged_by_the_corpus_that_the_row_is_taken_from(speech: Path, copy: Path) -> None:
    """The second corpus has the same ids with other words: its words must not choose rows of the first."""
    rewrite_index(copy, text="second words")
    both = Corpora([speech, copy])
    with pytest.raises(TrainError, match="no kept segment"):
        find_candidates(both, "text = 'second words'", 60.0, "a")
    assert len(find_candidates(both, "text <> 'second words'", 60.0, "a")) == len(Corpora([speech]).kept())
    turned = find_candidates(Corpora([copy, speech]), "text = 'second words'", 60.0, "a")
    assert {c.text for c in turned} == {"second words"}


def test_a_segment_that_only_the_second_corpus_keeps_is_read_from_there(speech: Path, copy: Path) -> None:
    """Its row and its audio come from the same corpus."""
    change_thresholds(copy, ["min_dnsmos_ovr=5", "max_duration_s=0.1"])
    both = Corpora([copy, speech])
    found = find_candidates(both, "true", 60.0, "a")
    assert len(found) == len(Corpora([speech]).kept()) and both.place(found[0].segment_id)[0].path == speech


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that tables were built in."""
    found: list[Path] = []
    plain = catalogs.candidates.stored._built

    def counted(parts: Any, base: Path, key: str, *more: Any) -> Any:
        found.append(base / key)
        return plain(parts, base, key, *more)

    monkeypatch.setattr(catalogs.candidates.stored, "_built", counted)
    return found


def content(corpus: Path) -> list[Candidate]:
    return list(find_candidates(Corpora([corpus]), "true", 60.0, "a"))


def test_it_is_built_once_and_again_when_what_it_follows_from_has_changed(copy: Path, builds: list[Path]) -> None:
    first = content(copy)
    assert content(copy) == first and len(builds) == 1
    change_thresholds(copy, ["max_duration_s=1.6"])
    assert len(content(copy)) < len(first) and len(builds) == 2
    change_thresholds(copy, ["max_duration_s=300"])
    content(copy)
    rows = [{"segment_id": c.segment_id, "full": "New words.", "brief": "new", "status": "ok"} for c in first]
    (copy / "annotations" / "later").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=DESCRIPTIONS), copy / "annotations" / "later" / "x.parquet")
    assert {c.description for c in content(copy)} == {"New words."} and len(builds) >= 3
    assert len([path for path in (copy / FOLDER).iterdir() if path.is_dir()]) <= 3


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "json"])
def test_a_damaged_table_is_built_again(copy: Path, builds: list[Path], damage: str) -> None:
    first = content(copy)
    (folder,) = builds
    path = folder / "pairs.bin"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "flip":
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)
    elif damage == "gone":
        (folder / "texts.txt").unlink()
    else:
        (folder / "table.json").write_text("{")
    assert content(copy) == first and len(builds) == 2
    assert content(copy) == first and len(builds) == 2


def test_a_build_that_was_killed_leaves_nothing_that_is_taken_for_a_table(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            catalogs.candidates.stored, "fill_table", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt())
        )
        patch.setattr(shutil, "rmtree", lambda *given, **named: None)  # a process that is killed tidies nothing
        with pytest.raises(KeyboardInterrupt):
            content(copy)
    assert [path.name.startswith(".draft-") for path in (copy / FOLDER).iterdir() if path.is_dir()] == [True]
    assert content(copy)
    assert not list((copy / FOLDER).glob(".draft-*"))


def _open(corpus: Path, start: Any, results: Any) -> None:
    start.wait()
    built: list[Path] = []

    def counted(*given: Any) -> None:
        built.append(corpus)
        fill_table(*given)

    pytest.MonkeyPatch().setattr(catalogs.candidates.stored, "fill_table", counted)
    results.put((len(content(corpus)), len(built)))


def test_of_processes_that_start_together_one_builds(copy: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.SimpleQueue()
    processes = [context.Process(target=_open, args=(copy, start, results)) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    assert {rows for rows, _ in found} == {len(content(copy))} and sum(built for _, built in found) == 1


def test_beside_a_corpus_that_cannot_be_written_to_it_goes_to_the_spare_folder(
    copy: Path, tmp_path: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Path.mkdir

    def refused(self: Path, *given: Any, **named: Any) -> None:
        if self.is_relative_to(copy / FOLDER):
            raise PermissionError(13, "Permission denied", str(self))
        plain(self, *given, **named)

    monkeypatch.setattr(Path, "mkdir", refused)
    parts = [Corpus(copy)]
    first = candidate_table(parts, tmp_path / "spare")
    assert first.folder is not None and first.folder.parent == tmp_path / "spare"
    candidate_table(parts, tmp_path / "spare")
    assert len(builds) == 1, "the second call takes it from the spare folder"
    assert content(copy), "without a spare folder a temporary one serves"


def test_a_corpus_that_cannot_be_read_is_one_line(copy: Path) -> None:
    path = Corpus(copy).files("references")[0]
    path.write_bytes(path.read_bytes()[:20])
    drop_compaction(copy)
    with pytest.raises(CorpusError, match=r"has 20 bytes .*voxmill fsck") as told:
        content(copy)
    assert "\n" not in str(told.value)


def test_token_counts_are_the_tokenizers_and_are_kept(copy: Path, golden: Path) -> None:
    tokenizer = TextTokenizer.load(golden / "checkpoint")
    table = Corpora([copy]).table
    for row, (text, full) in enumerate(
        zip(table.texts.stretch(0, len(table)), table.full.stretch(0, len(table)), strict=True)
    ):
        assert token_counts(table, tokenizer, "text")[row] == len(tokenizer.encode(text))
        wanted = len(tokenizer.encode(spoken_text(text, full))) if full else 0
        assert token_counts(table, tokenizer, "full")[row] == wanted
    assert table.folder is not None
    (path,) = table.folder.glob("tokens-*-text.i32")

    class Asked(TextTokenizer):
        def count(self, texts: list[str]) -> np.ndarray:
            raise AssertionError("they are kept")

    again = open_table(table.folder)
    asked = Asked(tokenizer._bpe)
    assert token_counts(again, asked, "text").tolist() == token_counts(table, tokenizer, "text").tolist()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssertionError, match="they are kept"):
        token_counts(open_table(table.folder), asked, "text")
    assert token_counts(open_table(table.folder), tokenizer, "text").tolist() == [
        len(tokenizer.encode(text)) for text in table.texts.stretch(0, len(table))
    ]


def test_split_chinese_pieces_are_counted_as_they_are_encoded(golden: Path) -> None:
    tokenizer = TextTokenizer.load(golden / "checkpoint")
    texts = ["", " ", "你好世界, hello", "no one's here", "\U0001f600 \u4e2d\u6587"]
    texts += [piece.replace("\u2581", " ") for piece in sorted(tokenizer._chinese)[:50]]
    assert tokenizer.count(texts).tolist() == [len(tokenizer.encode(text)) for text in texts]


def test_groups_are_held_out_together_and_large_ones_are_not() -> None:
    found = [Candidate(f"{n:03d}", "en", "x", 3.0, None, ()) for n in range(120)]
    groups = {f"{n:03d}": "pair" + str(n // 2) for n in range(60)} | {f"{n:03d}": "jingle" for n in range(60, 90)}
    held = hold_out({"a": found}, ValidationSettings(every=1, share=0.4), groups)[1]
    ids = {c.segment_id for c in held}
    assert ids and not ids & {f"{n:03d}" for n in range(60, 90)}
    assert all((f"{n:03d}" in ids) == (f"{n + 1:03d}" in ids) for n in range(0, 60, 2))
    assert ids & {f"{n:03d}" for n in range(60)} and ids & {f"{n:03d}" for n in range(90, 120)}


def test_the_key_changes_with_what_is_trained_on_and_with_nothing_else() -> None:
    from trainer.config import Phase

    plain = [Candidate(f"{n}", "en", "x", 3.0, None, (("r", 2.0),)) for n in range(4)]

    def key(found: list[Candidate]) -> str:
        return data_key(1, {"a": Phase(steps=1)}, {"a": found})

    assert key(plain) == key(plain[::-1]) and key(plain).startswith("3:")
    for change in (
        {"text": "y"}, {"seconds": 3.1}, {"language": "de"}, {"description": "calm"}, {"brief": "calm"},
        {"references": ()}, {"references": (("s", 2.0),)}, {"segment_id": "9"},
    ):  # fmt: skip
        changed = Candidate(**(vars(plain[0]) | change))
        assert key([changed, *plain[1:]]) != key(plain), change


def held_out(counts: dict[str, int]) -> list[Candidate]:
    return [
        Candidate(
            f"{language}{n:04d}",
            language,
            "x",
            1.0 if n % 5 == 0 else 5.0,
            "calm" if n % 3 == 0 else None,
            (("r", 2.0),) if n % 2 == 0 else (),
        )
        for language, count in counts.items()
        for n in range(count)
    ]


def test_what_is_scored_has_every_language_and_every_layout() -> None:
    """A language of 2 % has its one segment of 20, and no layout is more common than it must be."""
    found = held_out({"en": 900, "de": 80, "yo": 20})
    chosen = stratified(found, 20, LAYOUTS)
    assert len(chosen) == 20
    languages = [candidate.language for candidate, _ in chosen]
    assert languages.count("yo") == 1 and languages.count("de") in (1, 2)
    layouts = [layout for _, layout in chosen]
    counts = [layouts.count(layout) for layout in LAYOUTS]
    assert all(layout in candidate.layouts() for candidate, layout in chosen)
    assert min(counts) >= 2 and max(counts) <= 5
    assert stratified(found, 20, LAYOUTS) == chosen
    assert {layout for _, layout in stratified(found, 20, ["design"])} == {"design", "basic"}
    assert len(stratified(found, 5000, LAYOUTS)) == 1000 and len(stratified(found, 2, LAYOUTS)) == 2
