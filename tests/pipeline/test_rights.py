"""Rights of recordings: stated by manifests, containers and rules, recorded with who states them, and required by a run."""

from __future__ import annotations

import csv
import io
import json
import logging
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes.chaos_run import CheapConfig
from fakes.recordings import noise, write
from hypothesis import given
from hypothesis import strategies as st

from catalogs.corpus.fsck import fsck
from catalogs.query.views import query
from catalogs.settings import SettingsError
from catalogs.vocabulary.rights import NO_RIGHTS, Rights, RightsError, rights_of
from pipeline.config import load_config
from pipeline.inputs.find import find_sources
from pipeline.inputs.rights import RightsDesk, RightsRule, load_rules
from pipeline.prepare import prepare
from pipeline.records import Source
from pipeline.runs.fingerprint import fingerprint
from pipeline.runs.summary import Summary
from voxmill import cli

FIELDS = "license, license_source, attribution, source_url, consent, purposes, owner_speaker"


def settings(**sources: Any) -> CheapConfig:
    return CheapConfig(engine={"executor": "inline"}, describe="none", sources=sources)


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """Three recordings in three folders, and a manifest that states the rights to two of them."""
    folder = tmp_path / "in"
    for number, name in enumerate(("ada/talk.wav", "bo/talk.wav", "cy/talk.wav")):
        write(folder / name, noise(2.6, 16_000, seed=number), 16_000)
    rows = [
        {
            "path": "ada/talk.wav",
            "license": "CC BY 4.0",
            "attribution": "Ada,\n Rome",
            "source_url": "https://u:secret@talks.org/1?token=abcdef0123456789",
            "consent": "Public Domain",
            "purposes": ["tts-training", "research", "research"],
            "speaker_id": 7,
        },
        {"path": "bo/talk.wav", "license": "unknown"},
        {"path": "cy/talk.wav", "licence": "https://creativecommons.org/licenses/by-nc/4.0/"},
    ]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def stated(corpus: Path, view: str = "recordings") -> dict[str, tuple[Any, ...]]:
    """The rights of each recording by its folder; of `segments`, those that all of its segments have."""
    _, rows = query(corpus, f"select distinct parse_path(path)[-2], {FIELDS} from {view}")
    found = {row[0]: row[1:] for row in rows}
    assert len(found) == len(rows)
    return found


def test_a_run_records_what_manifest_and_rules_state(
    talks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "rights.yaml"
    rules.write_text(
        "- {match: '*', consent: license, purposes: tts-training; research}\n"
        "- {match: '*/[bc][oy]/*', license: cc0, owner_speaker: BO}\n"
        "- {match: '*/cy/*', owner_speaker: CY, consent: explicit}\n"
        "- {match: 'cy/*', license: MIT}\n",
        encoding="utf-8",
    )
    corpus = tmp_path / "corpus"
    with caplog.at_level(logging.INFO):
        prepare([str(talks / "list.jsonl")], corpus, settings(rights=load_rules(rules)))
    both = ["tts-training", "research"]
    assert stated(corpus) == {
        "ada": ("CC-BY-4.0", "manifest", "Ada, Rome", "https://talks.org/1", "license", both, "7"),
        "bo": ("CC0-1.0", "rules", None, None, "license", both, "BO"),
        "cy": ("CC0-1.0", "rules", None, None, "explicit", both, "CY"),
    }
    assert stated(corpus, "segments") == stated(corpus)
    said = caplog.text
    assert (
        f"rule 4 of the rights matches no recording: cy/* is compared with whole paths, e.g. {talks}/ada/talk" in said
    )
    assert "rule 3" not in said
    assert "rules state another license than came with 1 recording" in said and "cy/talk.wav" in said
    assert not [problem for problem in fsck(corpus) if problem.severity != "notice"]


def test_a_run_that_requires_a_license_refuses_the_rest_until_it_is_stated(
    talks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus, reasons = tmp_path / "corpus", "select parse_path(path)[-2], stage, error, cause from quarantine order by 1"
    with caplog.at_level(logging.INFO):
        summary = prepare([str(talks / "list.jsonl")], corpus, settings(licenses=["commercial"]))
    assert summary.sources == 3 and set(stated(corpus)) == {"ada"}
    asked = "this run takes{} (sources.licenses: commercial)"
    assert query(corpus, reasons)[1] == [
        ("bo", "sources", "no license is stated, and " + asked.format(" only recordings with one"), "data"),
        ("cy", "sources", "its license CC-BY-NC-4.0 is not one that " + asked.format(""), "data"),
    ]
    assert "refused for their license (commercial): 2 recordings (1 without a license, 1 CC-BY-NC-4.0)" in caplog.text
    # The same command refuses them again, and says so once each.
    prepare([str(talks / "list.jsonl")], corpus, settings(licenses=["commercial"]))
    assert len(query(corpus, reasons)[1]) == 2 and set(stated(corpus)) == {"ada"}
    rows = [json.loads(line) for line in (talks / "list.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[1]["license"] = "CC0"
    (talks / "list.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepare([str(talks / "list.jsonl")], corpus, settings(licenses=["commercial"]))
    assert {place: row[0] for place, row in stated(corpus).items()} == {"ada": "CC-BY-4.0", "bo": "CC0-1.0"}
    assert [row[0] for row in query(corpus, reasons)[1]] == ["cy"]
    # Without the condition, the rest comes in; with it again, what is there stays and is not refused.
    prepare([str(talks / "list.jsonl")], corpus, settings())
    assert set(stated(corpus)) == {"ada", "bo", "cy"} and not query(corpus, reasons)[1]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        prepare([str(talks / "list.jsonl")], corpus, settings(licenses=["commercial"]))
    assert not query(corpus, reasons)[1] and "a license that is not allowed now: 1 recording; they stay" in caplog.text


def test_the_license_of_the_corpus_is_the_last_resort(talks: Path, tmp_path: Path) -> None:
    from catalogs.corpus.commit import create_corpus

    corpus = tmp_path / "corpus"
    create_corpus(corpus, license="CC BY-SA 4.0")
    prepare([str(talks / "list.jsonl")], corpus, settings(licenses=["stated"]))
    assert {place: row[:2] for place, row in stated(corpus).items()} == {
        "ada": ("CC-BY-4.0", "manifest"),
        "bo": ("CC-BY-SA-4.0", "corpus"),
        "cy": ("CC-BY-NC-4.0", "manifest"),
    }


def test_rights_change_no_fingerprint() -> None:
    plain = load_config()
    with_rights = load_config(
        None, ["sources.licenses=[commercial]", "sources.rights=[{match: '*', license: CC0, consent: none}]"]
    )
    assert fingerprint(with_rights) == fingerprint(plain)
    assert fingerprint(load_config(None, ["sources.session=file"])) != fingerprint(plain)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_state_rights_too(talks: Path, ending: str) -> None:
    row = {"path": "ada/talk.wav", "license": "cc0", "purposes": "a; b", "consent": "licence", "owner_speaker": "A"}
    if ending == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row))
        writer.writeheader()
        writer.writerow(row)
        (talks / "list.csv").write_text(text.getvalue(), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist([row | {"purposes": ["a", "b"]}]), talks / "list.parquet")
    found = find_sources([str(talks / f"list.{ending}")])
    assert [source.rights for source in found.sources] == [
        Rights("CC0-1.0", "manifest", consent="license", purposes=("a", "b"), owner_speaker="A")
    ]


def test_a_json_in_a_tar_and_a_row_of_a_table_state_rights(talks: Path) -> None:
    audio = (talks / "ada" / "talk.wav").read_bytes()
    with tarfile.open(talks / "set.tar", "w") as tar:
        for name, content in (
            ("1.wav", audio),
            ("1.json", json.dumps({"license": "CC0", "consent": "explicit"}).encode()),
            ("2.wav", audio),
            ("2.json", json.dumps({"license": "CC0", "consent": "perhaps"}).encode()),
        ):
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
    found = find_sources([str(talks / "set.tar")])
    assert [source.rights for source in found.sources] == [
        Rights("CC0-1.0", "sidecar", consent="explicit"),
        NO_RIGHTS,
    ]
    assert any("2.json: its rights were left out: consent is one of explicit" in line for line in found.notices)
    row = {"audio": {"bytes": audio, "path": "a.wav"}, "license": "cc-by-4.0", "attribution": "A"}
    pq.write_table(pa.Table.from_pylist([row]), talks / "hub.parquet")
    (source,) = find_sources([str(talks / "hub.parquet")]).sources
    assert source.rights == Rights("CC-BY-4.0", "manifest", "A")


def test_a_dataset_folder_states_a_license_for_rows_without_one(talks: Path) -> None:
    datasets = pytest.importorskip("datasets")
    audio = (talks / "ada" / "talk.wav").read_bytes()
    rows = [{"bytes": audio, "path": "1.wav"}, {"bytes": audio, "path": "2.wav"}]
    made = datasets.Dataset.from_dict({"audio": rows, "license": ["MIT", None]})
    made = made.cast_column("audio", datasets.Audio(decode=False))
    made.info.license = "cc-by-4.0"
    made.save_to_disk(str(talks / "hub"))
    found = find_sources([str(talks / "hub")])
    assert [source.rights for source in found.sources] == [
        Rights("MIT", "manifest"),
        Rights("CC-BY-4.0", "sidecar"),
    ]


def test_a_consent_that_is_not_known_stops_a_manifest(talks: Path) -> None:
    (talks / "list.jsonl").write_text('{"path": "ada/talk.wav", "consent": "sure"}', encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"list.jsonl, row 1: consent is one of explicit, .*, not 'sure'"):
        find_sources([str(talks / "list.jsonl")])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {match: '*', lisence: CC0}", "rule 1: unknown setting lisence; known keys: attribution, "),
        ("- {match: '*', consent: sure}", "rule 1: consent is one of explicit"),
        ("- {license: CC0}", "rule 1: setting match: field required"),
        ("- {match: '*'}", "states nothing: give one of license, "),
        ("- {match: ' ', license: MIT}", "rule 1: setting match: give a pattern"),
        ("match: '*'", "must hold a list of rules"),
        ("- [", "is not valid YAML"),
    ],
)
def test_rules_that_cannot_be_understood_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "rights.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_rules(tmp_path / "rights.yaml")
    assert (
        says in str(caught.value)
        and "\n" not in str(caught.value)
        and str(tmp_path / "rights.yaml") in str(caught.value)
    )


def test_settings_name_a_license_that_is_not_known() -> None:
    with pytest.raises(SettingsError, match=r"sources.licenses: 'comercial' .* did you mean commercial\?"):
        load_config(None, ["sources.licenses=[comercial]"])


words = st.one_of(st.none(), st.sampled_from(["CC0-1.0", "MIT", "LicenseRef-x"]))
rights = st.builds(
    Rights,
    license=words,
    attribution=st.one_of(st.none(), st.just("A"), st.just("B")),
    consent=st.one_of(st.none(), st.just("none"), st.just("explicit")),
    purposes=st.sampled_from([(), ("a",), ("b", "c")]),
)


@given(rights, rights, rights)
def test_what_is_stated_is_kept_field_by_field(one: Rights, two: Rights, three: Rights) -> None:
    for name in ("license", "attribution", "consent", "purposes"):
        assert getattr(one.over(two), name) == (getattr(one, name) or getattr(two, name))
    assert one.over(two).over(three) == one.over(two.over(three))
    assert one.over(NO_RIGHTS) == one == NO_RIGHTS.over(one)


@given(st.lists(st.tuples(st.sampled_from(["*", "*/z/*", "/b/*", "/[ab]/?.wav"]), words, words), max_size=4))
def test_the_last_rule_that_matches_wins(given_rules: list[tuple[str, str | None, str | None]]) -> None:
    rules = [RightsRule(match=m, license=a, attribution=b) for m, a, b in given_rules if a or b]
    source = Source("1", "/a/1.wav", "1.wav", "s", 1, "0", rights=Rights("ODbL-1.0", "manifest"))
    settled = RightsDesk(rules).settled(source).rights
    matching = [rule for rule in rules if rule.match in ("*", "/[ab]/?.wav")]
    licenses = [rule.license for rule in matching if rule.license]
    assert settled.license == (licenses[-1] if licenses else "ODbL-1.0")
    assert settled.license_source == ("rules" if licenses else "manifest")
    assert settled.attribution == next((r.attribution for r in reversed(matching) if r.attribution), None)


@given(
    st.dictionaries(
        st.sampled_from(["license", "licence", "attribution", "source_url", "purposes", "speaker_id", "consent", "x"]),
        st.recursive(
            st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.binary()),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
            max_leaves=5,
        ),
    )
)
def test_any_row_of_strangers_is_rights_or_one_line(row: dict[str, Any]) -> None:
    try:
        found = rights_of(row, "manifest")
    except RightsError as error:
        assert "\n" not in str(error)
        return
    for text in (found.license, found.attribution, found.source_url, found.owner_speaker, *found.purposes):
        assert text is None or (text and "\n" not in text)
    assert (found.license is None) == (found.license_source is None)


@pytest.mark.parametrize(
    ("options", "rules", "licenses"),
    [
        (["--require-license"], 0, ("stated",)),
        (["--license-allow", "CC0", "--license-allow", "CC-BY-*", "--require-license"], 0, ("CC0", "CC-BY-*")),
        (["--rights", "rights.yaml"], 1, ("any",)),
    ],
)
def test_the_command_passes_what_it_is_given(
    options: list[str], rules: int, licenses: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.chdir(tmp_path)
    Path("rights.yaml").write_text("- {match: '*', license: 'CC BY 4.0', purposes: [a, 'b: c']}", encoding="utf-8")

    def take(paths: Any, out: Any, config: Any, *rest: Any) -> Summary:
        given.append(config)
        return Summary(str(out))

    monkeypatch.setattr("pipeline.prepare.prepare", take)
    monkeypatch.setattr("sys.argv", ["voxmill", "prepare", "in", "--out", "c", *options])
    with suppress(SystemExit):
        cli.main()
    (config,) = given
    assert config.sources.licenses == licenses and len(config.sources.rights) == rules
    for rule in config.sources.rights:
        assert rule.rights() == Rights("CC-BY-4.0", "rules", purposes=("a", "b: c"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--license-allow", "comercial"], "did you mean commercial?"),
        (["--rights", "no.yaml"], "cannot read the rules"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["voxmill", "prepare", "in", "--out", "c", *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr().err.strip()
    assert end.value.code and says in told and "\n" not in told and not (tmp_path / "c").exists()
