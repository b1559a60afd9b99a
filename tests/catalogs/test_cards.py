"""Cards: read by their readers, no private data, the strictest obligation stated, and what a person wrote stays."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exchange_corpora import exchange_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from catalogs.corpus.fsck import fsck
from catalogs.exchange.cards.attribution import Credit, address, attribution_lines
from catalogs.exchange.cards.corpus_card import corpus_card, kept_facts
from catalogs.exchange.cards.data_card import data_body, description
from catalogs.exchange.cards.hub import front_matter, license_head, license_url
from catalogs.exchange.cards.rai import StageUse, protocol
from catalogs.exchange.cards.write import Card, CardError, write_card
from catalogs.settings import load_yaml
from catalogs.vocabulary.licenses import canonical, licenses

RULE_PATH = "/home/ana/private/*"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with rights, and settings that name a path of this machine."""
    root = tmp_path_factory.mktemp("cards") / "corpus"
    exchange_corpus(root)
    rules = {"sources": {"rights": [{"match": RULE_PATH, "license": "CC0-1.0"}], "session": "folder"}}
    (root / "prepare.yaml").write_text(json.dumps({"profile": "small", **rules}))
    return root


@pytest.fixture(scope="module")
def facts(corpus: Path) -> dict[str, Any]:
    found = kept_facts(corpus)
    return found | {"description": description(found)}


@pytest.fixture(scope="module")
def written(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The card of the corpus, in its folder."""
    stages = [StageUse("transcribe", "3", {"whisper-base": "d0" * 32}), StageUse("segment", "2", {})]
    write_card(corpus, corpus_card(corpus, stages, "voices@example.org", "https://example.org/corpus"))
    return corpus


def test_the_hub_s_own_classes_read_the_head(written: Path) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(written / "README.md")
    head = card.data.to_dict()
    assert head["license"] == "other" and head["license_name"] == "mixed"  # CC0, CC-BY and clips without a license
    assert sorted(head["language"]) == ["de", "en"] and head["pretty_name"] == "exchanged"
    assert head["task_categories"] == ["text-to-speech"] and head["size_categories"] == ["n<1K"]
    assert head["annotations_creators"] == ["machine-generated"]
    for words in (
        "0.01 h of data without a license",
        "transcribe, version 3, with whisper-base (sha256 d0d0",
        "min_snr_db",
    ):
        assert words in card.text
    assert "To have a voice removed: voices@example.org" in card.text


def test_datasets_loads_the_corpus_by_the_head(written: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(written), cache_dir=str(tmp_path), split="train")
    assert len(loaded) == 40 and isinstance(loaded.features["audio"], datasets.Audio)
    assert loaded.cast_column("audio", datasets.Audio(decode=False))[0]["audio"]["bytes"][:4] == b"fLaC"


def test_mlcroissant_reads_the_description_and_its_rai_keys(written: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    read = mlcroissant.Dataset(jsonld=str(written / "croissant.json"))
    about, issues = read.metadata, read.metadata.ctx.issues
    assert not issues.errors and about.url == "https://example.org/corpus"
    assert set(about.license) == {license_url("CC0-1.0"), license_url("CC-BY-4.0")}
    assert "transcribe, version 3, with whisper-base (sha256 d0d0d0d0d0d0d0d0)" in about.data_preprocessing_protocol
    assert any("whisper-base" in line for line in about.machine_annotation_tools)
    assert any("de" in line and "en" in line for line in about.data_biases)
    assert "too_short" in about.data_collection_missing_data and about.data_use_cases and about.data_limitations
    assert "voices@example.org" in about.data_release_maintenance_plan
    rows = {row["segments/segment_id"] for row in read.records("segments")}
    assert len(rows) == 50  # kept and rejected


def test_nothing_private_is_in_the_files_and_the_corpus_stays_whole(written: Path) -> None:
    for name in ("README.md", "croissant.json", "ATTRIBUTION.md"):
        text = (written / name).read_text(encoding="utf-8")
        assert RULE_PATH not in text and str(written) not in text and "/tmp" not in text
        assert not re.search(r"\bP[147]\b", text), "a pseudonym of a speaker"
    assert "Owners name 3 speakers by pseudonyms" in (written / "README.md").read_text()
    assert fsck(written) == []


def test_each_credit_has_one_entry_and_all_recordings_are_counted(written: Path) -> None:
    text = (written / "ATTRIBUTION.md").read_text(encoding="utf-8")
    entries = [line for line in text.splitlines() if line.startswith("* ")]
    assert len([line for line in entries if "Jane Doe" in line and "<https://example.org/talks?v=1>" in line]) == 1
    counts = [re.findall(r"(\d+) recordings?,", line)[-1] for line in entries]
    assert sum(map(int, counts)) == 10
    assert text.index("Asks: the author is named.") < text.index("## No license is stated")


LICENSES = st.lists(st.sampled_from([*licenses(), "LicenseRef-mine", ""]), min_size=1, max_size=4, unique=True)


@settings(max_examples=80)
@given(stated=LICENSES)
def test_the_head_never_says_more_than_all_parts_state(stated: list[str]) -> None:
    head = license_head(stated)
    named = head["license"] if isinstance(head["license"], list) else [head["license"]]
    if {"other", "unknown"}.isdisjoint(named):
        assert {canonical(name) for name in named} == {*stated}
        assert len(named) == len(stated) and "" not in stated and "LicenseRef-mine" not in stated
    if "" in stated:
        assert named == (["unknown"] if stated == [""] else ["other"])
    assert ("license_name" in head) == (named == ["other"])
    assert load_yaml(front_matter(head)) == head


@settings(max_examples=40)
@given(stated=st.dictionaries(st.sampled_from([*licenses(), "LicenseRef-mine", ""]), st.floats(36, 1e6), min_size=1))
def test_the_card_states_every_obligation_the_strictest_first(stated: dict[str, float], facts: dict[str, Any]) -> None:
    body = data_body(facts | {"licenses": stated}, "")
    obligations = body.partition("## Obligations")[2].partition("\n## ")[0]
    known = {name: licenses()[name] for name in stated if name in licenses()}
    words = [
        ("without a license", "" in stated),
        ("not in the table", "LicenseRef-mine" in stated),
        ("non-commercial", any(not one.commercial for one in known.values())),
        ("forbids changes", any(not one.derivatives for one in known.values())),
        ("share-alike", any(one.share_alike for one in known.values())),
        ("must be named", any(one.attribution for one in known.values())),
    ]
    assert [said in obligations for said, _ in words] == [holds for _, holds in words]
    places = [obligations.index(said) for said, holds in words if holds]
    assert places == sorted(places)


@settings(max_examples=30)
@given(st.text(), st.text())
def test_what_a_corpus_says_stays_in_its_line(text: str, url: str) -> None:
    lines = list(attribution_lines(text, [Credit(None, text or None, url, 1, 3600.0)]))
    assert sum(line.startswith("* ") for line in lines) == 1 and not any(line.splitlines()[1:] for line in lines)
    assert not any("<" in line.replace(f"<{address(url)}>", "").replace("&lt;", "") for line in lines)


def test_addresses_of_this_machine_are_left_out() -> None:
    for path in ("/home/ana/talk.wav", "file:///home/ana", "C:\\talks", "", None):
        assert address(path) is None
    assert address("https://example.org/a b") == "https://example.org/a%20b"


def test_what_is_not_known_is_said(facts: dict[str, Any]) -> None:
    assert "Versions of the stages and models: not known here." in protocol(facts, None)
    assert "imported" in protocol(facts | {"settings": {}}, None)[0]


CARD = Card({"license": "mit"}, "# one\n\ntext", {"ATTRIBUTION.md": lambda: ["a", "b"]})
LATER = Card({"license": "other"}, "# two\n\ntext", {"ATTRIBUTION.md": lambda: ["c"]})


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_text_of_a_person_around_the_card_stays(tmp_path: Path) -> None:
    write_card(tmp_path, CARD)
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace("---\n\n<!--", "---\n\nBefore.\n\n<!--") + "\nAfter.\n")
    write_card(tmp_path, LATER)
    text = readme.read_text()
    assert text.startswith('---\nlicense: "other"\n---\n\nBefore.\n\n<!-- card by voxmill') and text.endswith(
        "\nAfter.\n"
    )
    assert "# two" in text and "# one" not in text and (tmp_path / "ATTRIBUTION.md").read_text() == "c\n"
    before = contents(tmp_path)
    write_card(tmp_path, LATER)
    assert contents(tmp_path) == before


def test_a_head_that_a_person_changed_stays(tmp_path: Path) -> None:
    write_card(tmp_path, CARD)
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text().replace('license: "mit"', 'license: "mit"\nextra_gated_prompt: "agree"'))
    _, notices = write_card(tmp_path, LATER)
    assert 'license: "mit"\nextra_gated_prompt: "agree"\n---' in readme.read_text() and "# two" in readme.read_text()
    assert len(notices) == 1 and "head was changed" in notices[0]
    assert write_card(tmp_path, LATER, force=True)[1] == [] and 'license: "other"\n---' in readme.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "README.md").write_text("# mine\n"), "written by a person"),
        (lambda folder: edit(folder / "README.md", "# one", "# mine"), "between its marks"),
        (lambda folder: (folder / "ATTRIBUTION.md").write_text("mine\n"), "changed by a person"),
    ],
)
def test_what_a_person_wrote_is_refused_before_anything_is_written(
    change: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    write_card(tmp_path, CARD)
    change(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(CardError, match=words):
        write_card(tmp_path, LATER)
    assert contents(tmp_path) == before
    write_card(tmp_path, LATER, force=True)
    assert "# two" in (tmp_path / "README.md").read_text() and "# one" not in (tmp_path / "README.md").read_text()


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("at", range(3))
def test_a_run_that_was_killed_is_run_again(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before the first, the second and the third file is in its place: the same command then writes them all."""
    write_card(tmp_path, Card({}, "# old", {"ATTRIBUTION.md": lambda: ["o"], "croissant.json": lambda: ["{}"]}))
    later = Card({}, "# new", {"ATTRIBUTION.md": lambda: ["n"], "croissant.json": lambda: ["[]"]})
    replace, count = os.replace, iter(range(10))

    def stopped(source: Any, target: Any) -> None:
        if next(count) == at:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("os.replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_card(tmp_path, later)
    monkeypatch.undo()
    write_card(tmp_path, later)
    found = contents(tmp_path)
    assert (found["ATTRIBUTION.md"], found["croissant.json"]) == ("n\n", "[]\n") and "# new" in found["README.md"]
