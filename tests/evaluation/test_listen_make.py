"""A listening test that is made from runs: what is in the page, what is in the key, and what must never be in the page."""

from __future__ import annotations

import hashlib
import io
import json
import re
from base64 import b64decode
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import soundfile
from listening_panel import Buzzer, make_items, make_run, read_key

from evaluation.errors import EvaluationError
from evaluation.items import Item
from evaluation.listen import page
from evaluation.listen.make import make_test
from evaluation.listen.page import STRINGS
from evaluation.listen.settings import Kind, ListenSettings
from evaluation.listen.sound import RATE, loudness
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate

SYSTEMS = ("alpha-synthesizer", "beta-synthesizer", "gamma-synthesizer")
QUICK: dict[str, Any] = {"headphone_trials": 1, "tone_s": 0.1, "seed": 5}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return make_items(tmp_path_factory.mktemp("source-clips"), 11, human=True, reference=True)


@pytest.fixture(scope="module")
def runs(items: list[Item], tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("secret-runs")
    return [make_run(root / name, items, name, 100 * number) for number, name in enumerate(SYSTEMS)]


def page_data(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    text = path.read_text()
    found = [re.search(rf'id="{name}">(.*?)</script>', text, re.DOTALL) for name in ("data", "clips")]
    data, clips = (json.loads(one[1]) for one in found if one)
    return data, {name: b64decode(value) for name, value in clips.items()}


@pytest.mark.parametrize(
    ("kind", "embed"),
    [("acr", True), ("cmos", True), ("ab", True), ("abx", True), ("mushra", True), ("acr", False), ("mushra", False)],
)
def test_nothing_in_the_page_names_a_system(runs: list[Run], tmp_path: Path, kind: Any, embed: bool) -> None:
    settings = ListenSettings(kind=kind, embed=embed, items=4, sessions=4, human=True, show_text=True, **QUICK)
    test = make_test(runs, tmp_path / "test", settings)
    sent = sorted(path for path in (tmp_path / "test" / "send").rglob("*") if path.is_file())
    assert test.page in sent and test.key.parent not in test.page.parents and test.key not in sent
    everything = b"\n".join(str(path.relative_to(tmp_path)).encode() + b"\n" + path.read_bytes() for path in sent)
    _, clips = page_data(test.page)
    everything += b"".join(clips.values())
    secrets = [
        *SYSTEMS,
        "synthesizer",
        "buzzer",
        "sentence-",
        "secret-runs",
        "source-clips",
        str(tmp_path),
        "keep-private",
    ]
    secrets += [item.id for item in runs[0].items] + [str(run.root) for run in runs]
    assert not [secret for secret in secrets if secret.lower().encode() in everything.lower()]
    names = [path.stem for path in sent if path != test.page] or list(clips)
    key = read_key(tmp_path / "test")
    assert set(names) == set(key["clips"]) and names == sorted(names)
    assert len(names) == test.clips and all(re.fullmatch("[0-9a-f]{12}", name) for name in names)


def test_the_key_states_what_each_clip_is(runs: list[Run], tmp_path: Path) -> None:
    make_test(runs, tmp_path / "test", ListenSettings(items=6, sessions=3, audio="flac", human=True, **QUICK))
    key = read_key(tmp_path / "test")
    _, clips = page_data(tmp_path / "test" / "send" / "listen.html")
    assert key["systems"] == [*SYSTEMS, "human"]
    spoken = Counter((row["system"], row["item"]) for row in key["clips"].values() if row["use"] == "system")
    assert set(spoken.values()) == {1}
    for name, data in clips.items():
        row = key["clips"][name]
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert len(samples) / rate == pytest.approx(row["seconds"], abs=0.01)
        if row["use"] in ("system", "volume", "gold, clean"):
            assert rate == RATE and loudness(samples) == pytest.approx(row["lufs"], abs=0.1)
            assert row["lufs"] == pytest.approx(-23.0, abs=0.02) or row["limited"]
    for trial in key["trials"].values():
        if trial["role"] == "main":
            rows = [key["clips"][clip] for clip in trial["clips"]]
            assert [row["system"] for row in rows] == trial["systems"] and {row["item"] for row in rows} == {
                trial["item"]
            }


def test_sessions_of_the_page_are_balanced(runs: list[Run], tmp_path: Path) -> None:
    made = make_test(runs, tmp_path / "test", ListenSettings(items=9, sessions=6, **QUICK))
    data, _ = page_data(made.page)
    key = read_key(tmp_path / "test")
    heard: Counter[tuple[str, str]] = Counter()
    for number, session in enumerate(data["sessions"], 1):
        rows = [key["trials"][trial["id"]] for trial in session]
        assert {row["session"] for row in rows} == {number}
        roles = [row["role"] for row in rows]
        assert roles[:3] == ["headphone", "training", "training"]
        assert Counter(roles[3:]) == {"main": 9, "repeat": 1, "attention": 2, "gold": 1}
        main = [row for row in rows if row["role"] in ("main", "repeat")]
        assert all(a["systems"] != b["systems"] for a, b in pairwise(main))
        assert Counter(row["systems"][0] for row in main if row["role"] == "main") == dict.fromkeys(SYSTEMS, 3)
        heard.update((row["item"], row["systems"][0]) for row in main if row["role"] == "main")
        assert not {row["item"] for row in rows if row["role"] == "training"} & set(key["items"])
    assert set(heard.values()) == {2} and len(heard) == 27


def test_sides_of_a_comparison_are_balanced_and_may_be_against_one_system(runs: list[Run], tmp_path: Path) -> None:
    settings = ListenSettings(kind="cmos", items=8, sessions=4, against=SYSTEMS[0], **QUICK)
    make_test(runs, tmp_path / "test", settings)
    rows = [row for row in read_key(tmp_path / "test")["trials"].values() if row["role"] == "main"]
    sides = Counter(tuple(row["systems"]) for row in rows)
    assert len(sides) == 4 and set(sides.values()) == {8} and all(SYSTEMS[0] in pair for pair in sides)


def test_mushra_hides_its_reference_and_has_two_anchors(runs: list[Run], tmp_path: Path) -> None:
    make_test(runs, tmp_path / "test", ListenSettings(kind="mushra", items=4, sessions=2, **QUICK))
    key = read_key(tmp_path / "test")
    data, clips = page_data(tmp_path / "test" / "send" / "listen.html")
    for session in data["sessions"]:
        places = []
        for trial in session:
            if trial["layout"] != "sliders":
                continue
            rows = [key["clips"][clip] for clip in trial["clips"]]
            names = [row["system"] if row["use"] == "system" else row["use"] for row in rows]
            assert sorted(names) == sorted([*SYSTEMS, "human", "anchor-3500", "anchor-7000"])
            hidden = trial["clips"][names.index("human")]
            assert clips[hidden] != clips[trial["reference"]]
            assert abs(len(clips[hidden]) - len(clips[trial["reference"]])) < 0.2 * len(clips[hidden])
            places.append(names.index("human"))
        assert len(places) == 6
    assert "gold" not in {row["role"] for row in key["trials"].values()}


def test_items_that_a_system_failed_are_left_out_and_counted(
    items: list[Item], runs: list[Run], tmp_path: Path
) -> None:
    broken = make_run(tmp_path / "run", items[:9], "broken", 900, broken=("sentence-1", "sentence-4"))
    made = make_test([runs[0], broken], tmp_path / "test", ListenSettings(sessions=2, **QUICK))
    assert made.common_items == 7 and made.items == 7
    assert made.left_out == {"broken: error": 2, "broken: not spoken": 2}
    assert read_key(tmp_path / "test")["left_out"] == made.left_out


def test_systems_of_other_rates_cannot_be_told_by_the_file(items: list[Item], runs: list[Run], tmp_path: Path) -> None:
    system = Buzzer("wide", 3, rate=24000)
    wide = create_run(tmp_path / "run", {"name": "wide", "system": system.describe()}, items, [0])
    generate(wide, system)
    made = make_test([runs[0], wide], tmp_path / "test", ListenSettings(items=4, sessions=2, audio="flac", **QUICK))
    _, clips = page_data(made.page)
    key = read_key(tmp_path / "test")
    rates = {
        soundfile.info(io.BytesIO(clips[name])).samplerate for name, row in key["clips"].items() if "system" in row
    }
    assert rates == {RATE}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "cmos", "against": "delta"}, "no system 'delta'"),
        ({"kind": "mushra", "reference": "delta"}, "no system 'delta'"),
    ],
)
def test_a_wrong_name_is_one_clear_line(runs: list[Run], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message) as caught:
        make_test(runs, tmp_path / "test", ListenSettings(**change, **QUICK))
    assert "\n" not in str(caught.value) and not (tmp_path / "test").exists()


def test_a_scale_is_named_once() -> None:
    with pytest.raises(ValueError, match="a scale is named twice"):
        ListenSettings(scales=("naturalness", "naturalness"))


def test_what_cannot_be_a_test_is_refused(items: list[Item], runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="needs 2 systems"):
        make_test(runs[:1], tmp_path / "a", ListenSettings(kind="ab", **QUICK))
    bare = make_run(tmp_path / "bare", make_items(tmp_path / "none", 3), "bare", 7)
    with pytest.raises(EvaluationError, match="no item in common"):
        make_test([runs[0], bare], tmp_path / "b", ListenSettings(**QUICK))
    with pytest.raises(EvaluationError, match="no reference clip: 3"):
        make_test([bare], tmp_path / "b", ListenSettings(scales=("similarity",), **QUICK))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(EvaluationError, match="not empty"):
        make_test(runs, tmp_path / "full", ListenSettings(**QUICK))
    twice = make_run(tmp_path / "x" / SYSTEMS[0], items, SYSTEMS[0], 1)
    with pytest.raises(EvaluationError, match="two runs are named"):
        make_test([runs[0], twice], tmp_path / "c", ListenSettings(**QUICK))


def test_a_secret_seed_makes_another_test_each_time(runs: list[Run], tmp_path: Path) -> None:
    settings = ListenSettings(items=3, sessions=2, headphone_trials=0, attention=0)
    tests = [make_test(runs, tmp_path / name, settings) for name in ("one", "two")]
    assert tests[0].id != tests[1].id
    assert not set(read_key(tmp_path / "one")["clips"]) & set(read_key(tmp_path / "two")["clips"])


def test_every_language_has_every_word() -> None:
    assert set(STRINGS) == {"en", "de", "zh", "es", "fr"}
    fields = {name: set(re.findall(r"\{\w+\}", text)) for name, text in STRINGS["en"].items()}
    for language, words in STRINGS.items():
        assert {name: set(re.findall(r"\{\w+\}", text)) for name, text in words.items()} == fields, language
        assert all(text.strip() for text in words.values())
        for name in ("naturalness", "similarity", "instruction", "compare"):
            labels = [text for key, text in words.items() if re.fullmatch(rf"{name}_\d", key)]
            assert len(set(labels)) == len(labels), (language, name)


def test_the_language_of_the_page_is_that_of_most_items(tmp_path: Path) -> None:
    from dataclasses import replace

    german = [replace(item, language="de") for item in make_items(tmp_path / "de", 3)]
    run = make_run(tmp_path / "run", [*german, *make_items(tmp_path / "en", 2)], "one", 0)
    settings = ListenSettings(sessions=1, **QUICK)
    assert '<html lang="de">' in make_test([run], tmp_path / "a", settings).page.read_text()
    other = make_test([run], tmp_path / "b", settings.model_copy(update={"language": "zh", "title": "A <b> & c"}))
    text = other.page.read_text()
    assert '<html lang="zh">' in text and "<title>A &lt;b> &amp; c</title>" in text and "<b> & c" not in text


def test_the_scripts_use_every_word_and_no_other() -> None:
    folder = Path(page.__file__).parent
    scripts = "\n".join(path.read_text() for path in folder.glob("*.js"))
    used = set(re.findall(r'word\("(\w+)"', scripts)) | set(re.findall(r'shown\("(\w+)"', scripts)) | {"no_script"}
    used |= {name for pair in re.findall(r'word\([^)]*\? "(\w+)" : "(\w+)"', scripts) for name in pair}
    made = {"intro", "question"} | {"naturalness", "similarity", "instruction", "compare", "prefer", "tones", "sliders"}
    extra = {name for name in STRINGS["en"] if name not in used}
    assert used <= set(STRINGS["en"]) and all(name.rpartition("_")[0] in made for name in extra)
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|eval\(|innerHTML", scripts)
    kinds = get_args(Kind)
    assert {f"intro_{kind}" for kind in kinds} == {name for name in STRINGS["en"] if name.startswith("intro_")}
