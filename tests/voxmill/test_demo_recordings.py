"""The demo's recordings hold what `gold.jsonl` says, where it says it, and are never mistaken for somebody's own."""

from __future__ import annotations

import json
import os
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.records import PCM_RATE, Recording, Session, Source
from pipeline.stages.decode import Decode, DecodeConfig
from voxmill.demo_prompts import (
    LANGUAGES,
    RATE,
    DemoRecordingsUnavailable,
    choose_prompts,
    is_clean,
    read_g722,
    read_transcripts,
    unpack_packages,
)
from voxmill.demo_recordings import DemoSet, make_demo_recordings

MINUTES = 0.4


def quiet(line: str) -> None:
    """Progress that nobody reads."""


@pytest.fixture(scope="module")
def packages() -> Path:
    """The unpacked packages where an earlier run has fetched them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voxmill" / "debian"
    if not (cache / "unpacked" / ".complete").is_file():
        pytest.skip(f"the Asterisk prompts are not in {cache}: voxmill demo fetches them")
    return unpack_packages(quiet)


@pytest.fixture(scope="module")
def demo(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> DemoSet:
    return make_demo_recordings(tmp_path_factory.mktemp("demo") / "recordings", MINUTES, say=quiet)


def decode(path: Path) -> Session:
    source = Source(str(path), str(path), path.name, "s", path.stat().st_size, "")
    return Decode(DecodeConfig())(Session("s", "", "", [Recording(source)]))


def test_every_prompt_is_where_gold_says_in_every_container(demo: DemoSet, packages: Path) -> None:
    """Decoded as the pipeline does, each prompt lies within 2 ms of its place: encoders' delays are taken away."""
    voices = {p.name[:2]: p for p in (packages / "usr/share/asterisk/sounds").iterdir()}
    sessions = {path: decode(demo.folder / path) for path in {prompt.path for prompt in demo.gold}}
    assert len(sessions) == 2 * len(LANGUAGES)
    assert len({Path(path).suffix for path in sessions}) >= 8
    for prompt in demo.gold:
        session = sessions[prompt.path]
        assert not session.quarantine
        slack = round(0.2 * PCM_RATE)
        pcm = session.pcm(session.recordings[0].source.source_id, prompt.start_s - 0.2, prompt.end_s + 0.2)
        clean = read_g722(voices[prompt.language] / f"{prompt.name}.g722")
        heard = pcm.astype(np.float32) / 32768
        size = 2 ** int(np.ceil(np.log2(len(heard) + len(clean))))
        match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(clean, size)), size)
        place = int(np.argmax(match[: 2 * slack]))
        assert abs(place - slack) <= 0.002 * PCM_RATE, (prompt.path, prompt.name)
        found = heard[place : place + len(clean)]
        assert np.corrcoef(found, clean[: len(found)])[0, 1] > 0.97
        assert prompt.end_s - prompt.start_s == pytest.approx(len(clean) / RATE)


def test_pauses_vary_and_are_a_quiet_room(demo: DemoSet) -> None:
    lengths = []
    for before, after in pairwise(demo.gold):
        if before.path == after.path:
            lengths.append(after.start_s - before.end_s)
    assert min(lengths) >= 0.25 - 1e-3 and max(lengths) <= 2.5 + 1e-3
    assert np.std(lengths) > 0.4
    for path in ("en/part1.wav", "ru/part1.aiff"):
        session = decode(demo.folder / path)
        prompts = [prompt for prompt in demo.gold if prompt.path == path]
        for before, after in pairwise(prompts):
            pause = session.pcm(session.recordings[0].source.source_id, before.end_s, after.start_s) / 32768
            assert -70 < 20 * np.log10(np.sqrt(np.mean(pause**2))) < -60


def test_sessions_are_mostly_prompts_longer_than_two_seconds(demo: DemoSet) -> None:
    for language in LANGUAGES:
        lengths = [p.end_s - p.start_s for p in demo.gold if p.language == language]
        assert MINUTES * 60 * 0.95 <= sum(lengths) <= MINUTES * 60 + 17
        assert any(length <= 2 for length in lengths)
        assert sum(length for length in lengths if length > 2) > 0.8 * sum(lengths)


def test_same_seed_same_bytes_other_seed_other_prompts(packages: Path, tmp_path: Path) -> None:
    """Also of the compressed containers, whose identity makes the segment ids of a corpus. A few prompts show it, too."""
    one, again = (make_demo_recordings(tmp_path / name / "recordings", 0.1, say=quiet) for name in "ab")
    files = sorted(path.relative_to(one.folder) for path in one.folder.rglob("*") if path.is_file())
    assert len(files) == 13 and {prompt.language for prompt in one.gold} == set(LANGUAGES)
    for file in files:
        assert (again.folder / file).read_bytes() == (one.folder / file).read_bytes(), file
    assert again.gold == one.gold and again.gold_file.read_bytes() == one.gold_file.read_bytes()
    other = make_demo_recordings(tmp_path / "c" / "recordings", 0.1, seed=8, say=quiet)
    assert [p.name for p in other.gold] != [p.name for p in one.gold]


def test_odd_files_are_what_they_are_listed_as(demo: DemoSet) -> None:
    assert len(demo.broken) == 2 and len(demo.music) == 1
    for path in demo.broken:
        session = decode(path)
        assert session.quarantine and session.quarantine[0].stage == "decode"
    session = decode(demo.music[0])
    assert not session.quarantine and session.recordings[0].duration_s == pytest.approx(20)
    rows = [json.loads(line) for line in demo.gold_file.read_text(encoding="utf-8").splitlines()]
    assert {"music": ["odds/tune.flac"]} in rows and demo.gold_file.parent != demo.folder


def test_a_finished_set_is_used_as_it_is(demo: DemoSet) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.folder.rglob("*")}
    lines: list[str] = []
    assert make_demo_recordings(demo.folder, MINUTES, say=lines.append) == demo
    assert lines == [] and before == {path: path.stat().st_mtime_ns for path in demo.folder.rglob("*")}
    assert make_demo_recordings(demo.folder, 3.0, say=lines.append) == demo
    assert len(lines) == 1 and "minutes per language 0.4 and seed 7" in lines[0]


def test_own_recordings_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "recordings" / "monday").mkdir(parents=True)
    (tmp_path / "recordings" / "monday" / "talk.wav").write_bytes(b"mine")
    lines: list[str] = []
    made = make_demo_recordings(tmp_path / "recordings", say=lines.append)
    assert made == DemoSet(tmp_path / "recordings", (), (), ())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["talk.wav"]
    assert lines == [f"using the recordings that are in {tmp_path / 'recordings'}"]


def test_a_run_that_was_killed_is_made_again_not_taken_for_somebody_s_own(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("voxmill.demo_recordings._add_odds", killed)
        with pytest.raises(KeyboardInterrupt):
            make_demo_recordings(tmp_path / "recordings", 0.1, say=quiet)
    assert not (tmp_path / "recordings").exists()
    (tmp_path / "recordings").mkdir()
    made = make_demo_recordings(tmp_path / "recordings", 0.1, say=quiet)
    assert made.gold and all((made.folder / prompt.path).is_file() for prompt in made.gold)
    assert {path.name for path in tmp_path.iterdir()} == {"recordings", "gold.jsonl"}
    # A corpus is not expected to hold a recording that somebody has taken away.
    (made.folder / made.gold[0].path).unlink()
    lines: list[str] = []
    fewer = make_demo_recordings(made.folder, 0.1, say=lines.append)
    assert {p.path for p in made.gold} - {p.path for p in fewer.gold} == {made.gold[0].path}
    assert len(lines) == 1 and lines[0].strip().startswith("1 of the demo's recordings") and "left out" in lines[0]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_senseless_minutes_are_refused(minutes: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="minutes per language"):
        make_demo_recordings(tmp_path / "recordings", minutes, say=quiet)


def test_without_apt_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemoRecordingsUnavailable) as caught:
        make_demo_recordings(tmp_path / "recordings", say=quiet)
    assert "has no apt-get" in str(caught.value) and "recordings of your own" in str(caught.value)
    assert "\n" not in str(caught.value) and not (tmp_path / "recordings").exists()


@pytest.mark.parametrize("root", [True, False])
def test_a_download_that_fails_says_why_and_leaves_nothing_half(
    root: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in apt-get without a network; the lists of packages are fetched by root alone."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, body in (
        ("apt-get", f'echo "$1" >> {tmp_path}/calls\n: > half.deb\necho "E: no network" >&2\nexit 100'),
        ("dpkg", "exit 1"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    with pytest.raises(DemoRecordingsUnavailable, match=r"E: no network.*recordings of your own"):
        unpack_packages(quiet)
    wanted = ["download", "update", "download"] if root else ["download"]
    assert (tmp_path / "calls").read_text().split() == wanted
    assert list((tmp_path / "cache" / "voxmill" / "debian").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Please enter your phone number.", True),
        ("Do you want to hear it? Press 1", True),
        ("C'è un saluto: premere 1", True),
        ("Voulez-vous l'écouter ? Appuyez sur 1.", True),
        ("[beep ascending]", False),
        ("press * to toggle pause", False),
        ("(10 seconds of silence)", False),
        ("La chiamata non pu? essere completata", False),
        ("La conferenza ? piena.", False),
        ("... in linea. confbridge-mute-in: Per disattivare", False),
        ("...", False),
        ("", False),
    ],
)
def test_only_words_alone_are_a_transcript(text: str, clean: bool) -> None:
    assert is_clean(text) is clean


def test_prompts_are_chosen_with_their_own_transcripts(packages: Path) -> None:
    for language in LANGUAGES:
        texts = read_transcripts(packages, language)
        assert len(texts) > 400
        prompts = choose_prompts(packages, language, 20, random.Random(1))
        assert all(texts[prompt.name] == prompt.text for prompt in prompts)
        assert 19 <= sum(prompt.duration_s for prompt in prompts) < 20 + 17
        assert len({prompt.name for prompt in prompts}) == len(prompts)
