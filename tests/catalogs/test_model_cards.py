"""Cards of models: what the lineage knows is stated, what nobody knows is said, and no license is concluded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from exchange_corpora import exchange_corpus
from lineages import a_lineage, a_row, a_table

from catalogs.corpus.reader import Corpus
from catalogs.exchange.cards.model_card import ModelOptions, model_card
from catalogs.exchange.cards.write import CardError, write_card
from catalogs.lineage.files import TABLE, write_lineage
from catalogs.lineage.record import Ancestor, LicenseShare, LineageError
from voxmill.publish import card

START = Path(__file__).resolve().parents[1] / "fixtures" / "made_by_fae81e6" / "start"
PARENT = Ancestor(1, "start", "openbmb/VoxCPM2", "ab" * 8, False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models") / "corpus"
    exchange_corpus(root, sessions=3, clips=1)
    return root


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(START, folder)
    return folder


def with_lineage(folder: Path, corpus: Path, **changes: Any) -> None:
    """Write a lineage that used two of the three recordings of a corpus, and one that is in no corpus."""
    recordings = Corpus(corpus).table("recordings").to_pylist()
    first, third, second = sorted(recordings, key=lambda row: row["attribution"] is not None)
    shares = {"CC-BY-NC-4.0": LicenseShare(2, 3.0, 5.0), "NOASSERTION": LicenseShare(1, 1.0, 1.5)}
    rows = [
        a_row(1, source_id=first["source_id"], seconds=3600.0, license="CC-BY-NC-4.0", consent="explicit"),
        a_row(2, source_id=second["source_id"], seconds=7200.0, license="CC-BY-NC-4.0", as_reference=1),
        a_row(2, source_id=second["source_id"], seconds=7200.0, license="CC-BY-NC-4.0", generation=1),
        a_row(0, source_id=third["source_id"], seconds=1800.0, held_out=3),
        a_row(3, source_id="gone", seconds=3600.0, synthetic=True),
    ]
    write_lineage(folder, a_lineage(licenses=shares, ancestors=(PARENT,), **changes), a_table(rows))


def test_the_lineage_is_the_table_of_the_card(model: Path, corpus: Path) -> None:
    from huggingface_hub import ModelCard

    with_lineage(model, corpus)
    card, notices = model_card(model, ModelOptions(languages=("en",), datasets=("ana/talks",)))
    write_card(model, card)
    read = ModelCard.load(model / "README.md")
    head = read.data.to_dict()
    assert "license" not in head and head["base_model"] == "openbmb/VoxCPM2" and head["datasets"] == ["ana/talks"]
    assert head["pipeline_tag"] == "text-to-speech" and head["library_name"] == "voxcpm" and head["language"] == ["en"]
    for words in (
        "67,016 weights, 16,000 Hz to 48,000 Hz",
        "No license of the weights is stated.",
        "| CC-BY-NC-4.0 | 2 | 3.00 | 5.00 |",
        "| not stated | 1 | 1.00 | 1.50 |",
        "3 recordings were used up to step 20",
        "Stated consent by hours: not stated 3 h, explicit 1 h.",
        "1 h of it were spoken by a model.",
        "unknown parent: openbmb/VoxCPM2 (start) has no lineage",
        "1.00 h of data without a license",
        "3.00 h of non-commercial data (CC-BY-NC-4.0)",
        "the tokenizer was trained on all texts",
    ):
        assert words in read.text
    assert len(notices) == 1 and "--corpus" in notices[0]


def test_the_credits_are_those_of_the_corpora(model: Path, corpus: Path) -> None:
    with_lineage(model, corpus)
    made, notices = model_card(model, ModelOptions(corpora=(corpus,)))
    text = "\n".join(made.files["ATTRIBUTION.md"]())
    assert "Jane Doe, “Talks”; <https://example.org/talks?v=1>; 1 recording, 2 h" in text
    assert notices == ["1 recordings of the lineage are in none of the given corpora: no credit is known for them"]
    assert "ATTRIBUTION.md" in made.body


def test_a_model_without_a_lineage_says_that_nothing_is_known(model: Path) -> None:
    made, notices = model_card(model, ModelOptions(license="CC BY 4.0", watermark="none", contact="a | b"))
    assert "Unknown training data" in made.body and "No watermark" in made.body and "removed: a / b" in made.body
    assert made.head["license"] == "cc-by-4.0" and "base_model" not in made.head and not made.files
    assert len(notices) == 1 and "lineage.json" in notices[0]


def test_damaged_files_are_one_line(model: Path, corpus: Path) -> None:
    with_lineage(model, corpus)
    (model / TABLE).write_bytes(b"PAR1")
    with pytest.raises(LineageError, match=r"lineage\.parquet cannot be used"):
        model_card(model, ModelOptions())
    (model / "lineage.json").unlink()
    (model / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CardError, match="not a safetensors file"):
        model_card(model, ModelOptions())
    (model / "config.json").write_text("[]")
    with pytest.raises(CardError, match="is damaged"):
        model_card(model, ModelOptions())


def test_options_that_do_not_fit_are_refused(model: Path, corpus: Path, tmp_path: Path) -> None:
    for path, options, words in (
        (corpus, {"license": "mit"}, "for models"),
        (corpus, {"watermark": "none"}, "for models"),
        (model, {"url": "https://example.org"}, "--url is for corpora"),
        (tmp_path, {}, "neither a corpus"),
        (model, {"out": model / "config.json"}, "is a file"),
    ):
        with pytest.raises(CardError, match=words):
            card(path, **options)
    (model / "model.sig").write_text("{}")
    made = card(model)
    assert made.kind == "model" and any("voxmill sign again" in line for line in made.notices)
    assert not any("sign again" in line for line in card(model, out=tmp_path / "elsewhere").notices)
