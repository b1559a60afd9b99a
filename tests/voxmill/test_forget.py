"""`voxmill forget`: the plan, what readers show while it is hidden, what is left when it is erased, and what is refused later."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fakes.forgettable import FORM, SECRET, build, content, decoupled, ids, left_of
from typer.testing import CliRunner

from catalogs.candidates.stored import candidate_table
from catalogs.compaction.records import history_of
from catalogs.corpus.fsck import fsck
from catalogs.corpus.latents import StoredLatents
from catalogs.corpus.marks import Marks
from catalogs.corpus.reader import Corpus
from catalogs.corpus.tombstones import ERASED, HIDDEN, read_tombstones, write_tombstone
from catalogs.exchange.export import export
from catalogs.exchange.request import ExchangeError, Split
from catalogs.inspection.show import UnknownSegmentError, show
from catalogs.inspection.status import status
from catalogs.lineage.files import write_lineage
from catalogs.lineage.record import COLUMNS, Ancestor, DrawnRecording, HeldOut, Lineage
from catalogs.query.views import VIEWS, build_catalog, query
from catalogs.report.report import build_report
from catalogs.weights.checkpoint_files import checkpoint_digest
from trainer.data.corpora import Corpora
from voxmill import forget, list_forgotten, resume_forgetting
from voxmill.cli import app
from voxmill.forgetting.erase import hide
from voxmill.forgetting.plan import prints_of, tombstone_of
from voxmill.forgetting.scope import ForgetError, Request, choose

ONE = (Split("train", 1.0),)


@dataclass
class Made:
    """A corpus and its corpus of synthetic speech; segments of the recording `a` and of the others."""

    root: Path
    gone: set[str]
    others: set[str]
    units: dict[str, Any]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("forget") / "corpus"
    units = build(root)
    decoupled(root.with_name("corpus-decoupled"), units)
    # Copies have it, too: they need not make it.
    build_catalog(root)
    gone = set(ids(units["a"]))
    there = set(Corpus(root).index.column("segment_id").to_pylist())
    return Made(root, gone, there - gone, units)


def copy_of(original: Made, folder: Path) -> Made:
    root = shutil.copytree(original.root, folder / "corpus")
    shutil.copytree(original.root.with_name("corpus-decoupled"), folder / "corpus-decoupled")
    return replace(original, root=root)


@pytest.fixture
def made(original: Made, tmp_path: Path) -> Made:
    return copy_of(original, tmp_path)


@pytest.fixture(scope="module")
def hidden(original: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """With a tombstone and nothing else: as a kill right after the first step leaves it. There is a catalog of before."""
    made = copy_of(original, tmp_path_factory.mktemp("hidden"))
    assert query(made.root, "select count(*) from segments")[1] == [(len(made.gone | made.others),)]
    candidate_table([Corpus(made.root)], made.root.parent)
    chosen = choose(made.root, Request(recording=content("a")))
    write_tombstone(made.root, tombstone_of(chosen, {"by": "recording", "sha256": "0"}, None, None))
    return made


@pytest.fixture(scope="module")
def erased(original: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = copy_of(original, tmp_path_factory.mktemp("erased"))
    plan = forget(made.root, recording=content("a"), requested_by="Ann", reason="asked for it", yes=True)
    assert plan.state == "erased" and plan.problems == ()
    return made


def everything_shown(root: Path, scratch: Path) -> Iterator[tuple[str, str]]:
    """What each way to read a corpus shows, as text."""
    corpus = Corpus(root)
    for kind in ("index", "recordings", "references"):
        yield kind, repr(corpus.table(kind).to_pylist())
        yield f"parts of {kind}", repr([part.to_pylist() for part in corpus.parts(kind)])
    yield "columns", repr([part.to_pylist() for part in corpus.parts("index", ("text",))])
    yield "kept", repr(corpus.kept().to_pylist())
    yield "kept parts", repr([part.to_pylist() for part in corpus.kept_parts(("segment_id", "text"))])
    yield "rows", repr(list(corpus))
    for kind in ("descriptions", "checks", "decoupled"):
        yield f"annotations {kind}", repr(corpus.annotations(kind).to_pylist())
    yield "marks", repr(Marks.of(root))
    yield "history", repr(history_of(root))
    yield "status", repr(status(root))
    for view in VIEWS:
        yield f"view {view}", repr(query(root, f"select * from {view}"))
    if read_tombstones(root)[0].state != ERASED:  # Erased, it is in no file that these could read.
        corpora = Corpora([root], scratch)
        table = corpora.table
        yield "trainer", repr([(table.ids[n], table.texts[n], table.full[n]) for n in range(len(table))])
        yield "trainer's maps", repr([corpora.kept(), corpora.descriptions(), corpora.references()])
        yield "report", build_report(root, scratch / "report.html").read_text()
        export(root, "voxcpm", scratch / "export", where="shard is not null", splits=ONE)
        yield "export", "".join(path.read_text() for path in (scratch / "export").glob("*.jsonl"))
        yield "export's page", (scratch / "export" / "README.md").read_text()


@pytest.mark.parametrize("state", ["hidden", "erased"])
def test_no_way_to_read_a_corpus_shows_it(state: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(state)
    shown = dict(everything_shown(made.root, tmp_path))
    found = {name for name, text in shown.items() for secret in (SECRET, *made.gone) if secret in text}
    # What is hidden is a duplicate of a clip that stays. Only its id is shown, and only until it is erased.
    assert found <= ({"index", "kept", "rows", "view segments"} if state == "hidden" else set())
    assert not any(SECRET in text for text in shown.values())
    corpus = Corpus(made.root)
    assert set(corpus.index.column("segment_id").to_pylist()) == made.others and len(corpus) == len(made.others)
    assert "says" in shown["kept"] and len(query(made.root, "select * from segments")[1]) == len(made.others)
    latents = StoredLatents(made.root, FORM)
    audible = {row["segment_id"] for row in corpus.index.to_pylist() if row["shard"]}
    assert {name for name in made.others if name in latents} == audible & made.others
    for name in sorted(made.gone):
        assert name not in latents and corpus.shard_of(name) is None
        for read in (corpus.read_audio, corpus.segment, corpus.audio_buffer, corpus.place):
            with pytest.raises(KeyError):
                read(name)
        with pytest.raises(UnknownSegmentError):
            show(made.root, name)


def test_nothing_of_it_is_left_in_any_file_and_the_rest_is_as_before(original: Made, erased: Made) -> None:
    derived = erased.root.with_name("corpus-decoupled")
    audio = [
        bytes(Corpus(original.root).audio_buffer(n))[200:260] for n in sorted(original.gone) if _audible(original, n)
    ]
    assert len(audio) == 4
    assert left_of(erased.root, SECRET.encode(), *audio) == []
    assert left_of(derived, SECRET.encode()) == []
    assert fsck(erased.root) == [] and fsck(derived) == []
    before, after = Corpus(original.root), Corpus(erased.root)
    for name in sorted(erased.others):
        if _audible(original, name):
            assert bytes(after.audio_buffer(name)) == bytes(before.audio_buffer(name))
            one, two = before.segment(name), after.segment(name)
            assert {k: v for k, v in one.items() if k not in ("shard", "row")} == {
                k: v for k, v in two.items() if k not in ("shard", "row")
            }
    assert Corpus(derived).kept().column("text").to_pylist() == ["plain"]
    assert after.index.column("duplicate_of").null_count == len(after.index)


def _audible(made: Made, name: str) -> bool:
    return Corpus(made.root).shard_of(name) is not None


def test_the_tombstone_holds_hashes_only(erased: Made) -> None:
    (found,) = read_tombstones(erased.root)
    text = (erased.root / "tombstones" / f"{found.id}.json").read_text()
    assert SECRET not in text and "Ann" not in text and found.reason == "asked for it"
    assert found.content_sha256 == (content("a"),) and found.prints == 4 and len(found.units) == 4
    tombstones, plan = list_forgotten(erased.root)
    assert tombstones == [found] and plan.checkpoints == ()
    with pytest.raises(ForgetError, match=f"forgotten .tombstone {found.id}"):
        forget(erased.root, recording=content("a"))


def test_the_plan_names_everything_and_changes_nothing(made: Made) -> None:
    before = sorted(path.stat().st_mtime_ns for path in made.root.rglob("*") if "compact" not in str(path))
    plan = forget(made.root, recording=f"/data/{SECRET}/talk.wav")
    own, synthetic = plan.corpora
    assert (own.recordings, own.segments, own.kept, own.units) == (1, 5, 4, 4)
    assert (own.references, own.descriptions, own.checks, own.latents, own.marks) == (1, 4, 4, 4, 1)
    assert [row["duplicate_kind"] for row in own.copies] == ["reencode"] and own.linked == ()
    assert (synthetic.segments, synthetic.decoupled) == (2, 2)
    assert not read_tombstones(made.root) and plan.state == "planned"
    files = (p for p in made.root.rglob("*") if "compact" not in str(p) and "catalog" not in p.name)
    assert set(before) >= {path.stat().st_mtime_ns for path in files if path.is_file()}
    with_copies = forget(made.root, recording=content("a"), with_copies=True).corpora[0]
    assert (with_copies.segments, with_copies.partial, with_copies.copies) == (6, 1, ())


def test_a_voice_of_a_session_goes_and_the_rest_of_its_recording_stays(made: Made) -> None:
    c = made.units["c"]
    session, name = c.sessions[0], ids(c)[3]
    plan = forget(made.root, session=session, speaker=f"{session}-spk1", yes=True)
    assert (plan.corpora[0].partial, plan.corpora[0].segments) == (1, 1)
    assert [(row["segment_id"], row["cosine"]) for row in plan.corpora[0].heard] == [(name, None)]
    assert fsck(made.root) == [], "the seconds of the recording are silence now"
    there = set(Corpus(made.root).index.column("segment_id").to_pylist())
    assert there == (made.gone | made.others) - {name}
    assert left_of(made.root, b"c says 3") == []
    silence = query(made.root, f"select silence_s from recordings where session_id = '{session}'")[1]
    assert silence == [(5 * 0.5 + 1.5,)]
    assert query(made.root, "from funnel where outcome = 'unaccounted'")[1] == []


def test_the_plan_of_a_voice_lists_its_segments_the_doubtful_ones_first(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    cosines = {name: 0.6 + number / 100 for number, name in enumerate(sorted(made.others))}
    monkeypatch.setattr("voxmill.forgetting.likeness.segments_like", lambda root, clip, cosine: cosines)
    (plan, *_) = forget(made.root, like=made.root / "corpus.json").corpora
    assert [row["segment_id"] for row in plan.heard if row["cosine"] is not None] == sorted(made.others)
    assert {row["segment_id"] for row in plan.heard} >= made.others
    index = {row["segment_id"]: row for row in query_rows(made.root)}
    for row in plan.heard:
        of = index[row["segment_id"]]
        assert (row["path"], row["start_s"], row["end_s"]) == (of["path"], of["start_s"], of["end_s"])
    command = ["forget", str(made.root), "--like", str(made.root / "corpus.json")]
    printed = CliRunner().invoke(app, command).output
    first = plan.heard[0]
    assert f"{first['segment_id']}: cosine 0.60, {first['start_s']:.1f} to {first['end_s']:.1f} s of " in printed


def test_the_plan_of_a_recording_lists_no_segments(made: Made) -> None:
    assert forget(made.root, recording=content("a")).corpora[0].heard == ()


def query_rows(root: Path) -> list[dict[str, Any]]:
    columns = ("segment_id", "path", "start_s", "end_s")
    return [
        dict(zip(columns, row, strict=True)) for row in query(root, f"select {', '.join(columns)} from segments")[1]
    ]


def test_the_owner_s_name_reaches_all_recordings_of_a_speaker(made: Made) -> None:
    assert forget(made.root, speaker_id="owner-b").corpora[0].segments == 4
    with pytest.raises(ForgetError, match="did you mean owner-b"):
        forget(made.root, speaker_id="owner-bb")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of"),
        ({"speaker": "x"}, "give --session, too"),
        ({"recording": "a", "session": "b"}, "give one of"),
        ({"recording": "/data/c/talk"}, "did you mean /data/c/talk.wav"),
        ({"session": "nobody"}, "no session nobody"),
        ({"recording": "a", "cosine": 0.5}, "goes with --like"),
    ],
)
def test_a_wrong_request_is_one_line(hidden: Made, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ForgetError, match=message) as error:
        forget(hidden.root, **given)
    assert "\n" not in str(error.value)


def test_the_command_says_what_stays_and_resumes(made: Made) -> None:
    run = CliRunner().invoke
    export(made.root, "voxcpm", made.root.parent / "export", splits=ONE)
    told = run(app, ["forget", str(made.root), "--recording", content("a")])
    assert told.exit_code == 0 and "nothing was changed: add --yes" in told.output
    assert "does not make trained weights forget" in told.output and "zero-shot cloning" in told.output
    assert f"out of reach: {made.root.parent / 'export'} (voxcpm, " in told.output
    chosen = choose(made.root, Request(recording=content("a")))
    tombstone = tombstone_of(chosen, {"by": "recording", "sha256": "0"}, None, None)
    hide(made.root, tombstone, prints_of(made.root, chosen))
    assert [found.state for found in read_tombstones(made.root)] == [HIDDEN]
    listed = run(app, ["forget", str(made.root), "--list", "--json"])
    assert json.loads(listed.stdout)["tombstones"][0]["state"] == HIDDEN
    assert run(app, ["forget", str(made.root), "--resume"]).exit_code == 0
    assert left_of(made.root, SECRET.encode()) == [] and resume_forgetting(made.root) == []


def test_an_export_that_was_begun_before_is_not_continued(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    out = made.root.parent / "export"
    with monkeypatch.context() as patched:
        patched.setattr("catalogs.exchange.export._Export._finish", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export(made.root, "voxcpm", out, splits=ONE)
    chosen = choose(made.root, Request(recording=content("a")))
    write_tombstone(made.root, tombstone_of(chosen, {"by": "recording", "sha256": "0"}, None, None))
    with pytest.raises(ExchangeError, match="forgotten something since"):
        export(made.root, "voxcpm", out, splits=ONE)


def test_a_damaged_tombstone_is_not_taken_for_none(made: Made) -> None:
    (made.root / "tombstones").mkdir()
    (made.root / "tombstones" / "abcd1234.json").write_text('{"version": 1}')
    for read in (Corpus, history_of, lambda root: query(root, "from segments")):
        with pytest.raises(ValueError, match=r"tombstones/abcd1234.json is damaged"):
            read(made.root)


def lineage(folder: Path, step: int, *drawn: dict[str, Any], unknown: bool = False) -> None:
    """A checkpoint with the lineage of these recordings."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    plain: dict[str, Any] = {f.name: 0 for f in COLUMNS if pa.types.is_integer(f.type)}
    plain |= {"synthetic": False, "drawn_s": 1.0, "corpus": "c"}
    rows = [DrawnRecording(**(dict.fromkeys(COLUMNS.names) | plain | row)) for row in drawn]
    empty: dict[str, Any] = {one.name: () for one in dataclasses.fields(Lineage)}
    empty |= {
        "digest": checkpoint_digest(folder),
        "kind": "model",
        "step": step,
        "data_key": "k",
        "order_version": 1,
        "seed": 0,
        "licenses": {},
    }
    empty |= {
        "held_out": HeldOut(0, 0, 0.0),
        "voxmill": "0",
        "commit": None,
        "table_rows": 0,
        "table_sha256": "",
        "unnamed_draws": 0,
    }
    empty |= {"ancestors": (Ancestor(1, "start", "base", None, False),) if unknown else (), "schema": 1, "folder": None}
    made = Lineage(**empty)
    write_lineage(folder, made, pa.Table.from_pylist([vars(row) for row in rows], schema=COLUMNS))


def test_the_named_checkpoints_are_those_after_the_first_draw(erased: Made, tmp_path: Path) -> None:
    (tombstone,) = read_tombstones(erased.root)
    a = {"content_sha256": tombstone.content_sha256[0], "source_id": "elsewhere", "draws": 2, "first_step": 15}
    by_id = {"source_id": tombstone.source_ids[0], "as_reference": 1, "first_step": 15, "generation": 1}
    held_out = {"source_id": tombstone.source_ids[0], "held_out": 3, "first_step": None}
    other = {"source_id": "b", "content_sha256": "b", "draws": 7, "first_step": 1}
    lineage(tmp_path / "runs" / "one" / "step_10", 10, other, held_out)
    lineage(tmp_path / "runs" / "one" / "step_20", 20, other, a)
    lineage(tmp_path / "runs" / "one" / "step_30", 30, other, a | {"draws": 3})
    lineage(tmp_path / "runs" / "two" / "step_5", 5, other, by_id)
    lineage(tmp_path / "runs" / "three" / "step_5", 5, other, unknown=True)
    # Other weights than those that the lineage is of, and a run whose checkpoints lie behind a link.
    lineage(tmp_path / "runs" / "five" / "step_5", 5, other)
    (tmp_path / "runs" / "five" / "step_5" / "model.safetensors").write_bytes(b"exchanged")
    lineage(tmp_path / "disk" / "step_5", 5, other)
    (tmp_path / "runs" / "six").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "latest").symlink_to(tmp_path / "disk" / "step_5")
    bare = tmp_path / "runs" / "four" / "base"
    bare.mkdir(parents=True)
    (bare / "config.json").write_text("{}")
    (bare / "model.safetensors").write_bytes(b"x")
    _, plan = list_forgotten(erased.root, tmp_path / "runs")
    found = {
        "/".join(Path(one.path).parts[-2:]): (one.verdict, one.draws, one.as_reference) for one in plan.checkpoints
    }
    assert found == {
        "one/step_10": ("not affected", 0, 0),
        "one/step_20": ("affected", 2, 0),
        "one/step_30": ("affected", 3, 0),
        "two/step_5": ("affected", 0, 1),
        "three/step_5": ("unknown", 0, 0),
        "four/base": ("unknown", 0, 0),
        "five/step_5": ("unknown", 0, 0),
        "six/step_5": ("not affected", 0, 0),
    }
    newest = {Path(run).name: path and Path(path).name for run, path in plan.unaffected.items()}
    assert newest == {"one": "step_10", "two": None, "three": None, "four": None, "five": None, "six": "step_5"}
    told = CliRunner().invoke(app, ["forget", str(erased.root), "--list", "--models", str(tmp_path / "runs")])
    assert "newest unaffected checkpoint: none: train again" in told.output and "no lineage" in told.output


def test_checkpoints_that_drew_only_synthetic_speech_of_it(made: Made, tmp_path: Path) -> None:
    derived = made.root.with_name("corpus-decoupled")
    forget(made.root, recording=content("a"), yes=True)
    (clip, *_) = read_tombstones(derived)[0].source_ids
    lineage(tmp_path / "runs" / "step_1", 1, {"source_id": clip, "synthetic": True, "draws": 1, "first_step": 1})
    lineage(tmp_path / "runs" / "step_2", 2, {"source_id": "b", "draws": 1, "first_step": 1})

    def listed() -> list[str]:
        return [one.verdict for one in list_forgotten(made.root, tmp_path / "runs")[1].checkpoints]

    assert listed() == ["affected", "not affected"]
    shutil.rmtree(derived)
    assert listed() == ["unknown", "unknown"]
    _, plan = list_forgotten(made.root, tmp_path / "runs")
    assert all("corpus-decoupled was made of" in (one.why or "") for one in plan.checkpoints)


def test_a_corpus_without_tombstones_has_no_folder_and_the_same_state(original: Made) -> None:
    from catalogs.compaction.listing import listing
    from catalogs.corpus.tombstones import NOTHING, hidden

    assert hidden(original.root) is NOTHING and not (original.root / "tombstones").exists()
    assert listing(original.root).edition == "" and len(hidden(original.root).ids) == 0
