"""The report's part on descriptions, and the notes of passes, which may be absent, damaged or hostile."""

from __future__ import annotations

import json
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from described_corpus import captions, described_corpus, write

from catalogs.corpus.commit import create_corpus
from catalogs.corpus.schema import CHECKS, DESCRIPTIONS
from catalogs.report.pass_files import PassFiles, read_pass_files
from catalogs.report.report import build_report

pytest.importorskip("jinja2")
EVIL = "<script>alert(1)</script>"

PASS = {
    "annotator": "llm@1", "provider": "llm", "model": "llm", "prompt_version": "1", "languages": ["en", "zh"], "free": False,
    "kept": 4, "selected": 4, "clips": {"ok": 3, "blocked": 1, "failed": 0, "unasked": 0},
    "requests": {"answered": 3, "unknown": 1}, "spent_usd": 2.0, "unknown_usd": 0.5, "cap_usd": 4.0, "cap_reached": True,
    "stopped": "a quota is used up", "at": "2026-11-29T10:00:00+00:00",
}  # fmt: skip
VERIFY = {
    "annotator": "llm@1", "experts": ["gender", "age"], "verdicts": {"agree": 1, "repaired": 1, "dropped": 1}, "prose_only": 0,
    "leaks": 1, "invalid": 2, "retrieval": {"tried": 400, "top1": 0.25, "expected": 0.05}, "at": "2026-11-29T11:00:00Z",
}  # fmt: skip


def note(root: Path, content: Any, file: str = "pass.json", name: str = "llm@1") -> Path:
    path = root / "annotations" / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


class _Page(HTMLParser):
    """The text of the section on descriptions, and that all its elements are closed."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.words, self.open = [], list[str]()  # type: ignore[var-annotated]
        page = build_report(root, audio_bytes=0).read_text(encoding="utf-8")
        assert "<script>alert" not in page
        start = page.index('<h2 id="descriptions"')
        self.html = page[start : page.index("<h2>", start)]
        self.feed(self.html)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_shows_what_was_said_found_spent_and_dropped(tmp_path: Path) -> None:
    root = tmp_path / "c"
    described_corpus(root)
    note(root, PASS)
    note(root, VERIFY, "verify.json")
    page = _Page(root)
    for words in (
        "llm@1 llm llm-001 3 3 300 150 $1.5000 $1,200.00 $375.00",
        "spent $2.0000 , of it $0.5000 perhaps not billed , cap $4.0000 cap reached",
        "stopped: a quota is used up",
        "4 clips selected of 4 kept: 3 ok, 1 blocked",
        "requests: 3 answered, 1 unknown",
        "llm@1 English 2 50.0 % 50.0 % 0.0 % 0.0 % 0.0 %",
        "llm@1 Chinese 1 0.0 % 0.0 % 100.0 % 0.0 % 100.0 %",
        "llm@1: contradicted descriptions 1, of them in the prose alone, with right attributes, 0.",
        "verified 2026-11-29 11:00 with the experts gender, age. 2 rows hold no valid description. Leak test: 25.0 % of 400"
        " captions are closest to their own transcript, by chance 5.0 % the captions follow the words",
        "gender 66.7 % 33.3 % 0.0 % 0.0 % 2 50.0 %",
        "gender female male 1 female 2",
        "llm@1 gender 1 1",
        "llm@1 blocked SAFETY 1 25.0 % blocked:SAFETY",
        "llm@1 dropped leak 1 25.0 %",
        "full en 2 50.0 % 4 4 0.50 a young woman 100.0 %",
        "llm@1 1 1 100.0 % 0.0 % 100.0 % 100.0 % 0.50",
        "selected for llm@1 4",
        "gender: male → female",
        "full en A young man speaks. A young woman speaks.",
        "full zh 她说斑马。",
        "not compared",
    ):
        assert words in page.text, (words, page.text)
    assert "<del>A young man speaks.</del> A young woman speaks." in page.html
    assert page.html.count("<del>") == 4, "both captions of the repaired and of the dropped description"


def test_hostile_rows_and_notes_are_text(tmp_path: Path) -> None:
    root = tmp_path / "c"
    one, two, *_ = described_corpus(root)
    evil: dict[str, Any] = {"segment_id": one, "annotator": EVIL, "model": EVIL, "model_version": EVIL, "status": "ok"}
    spoken = [{"register": EVIL, "language": EVIL, "text": EVIL + "\ud800\u202e"}]
    repaired = {"verdict": "repaired", "segment_id": two}
    rows = [
        evil
        | repaired
        | {"captions": captions(EVIL, EVIL), "answered": json.dumps({"captions": spoken}), "evidence": EVIL},
        evil | {"verdict": "dropped", "labels": {"gender": EVIL, "texture": [EVIL]}, "answered": '{"captions": [3]}'},
        evil | {"verdict": "agree", "captions": [{"register": None}], "answered": '{"captions": 1}'},
        evil | {"verdict": None, "captions": None, "answered": "[" * 100_000, "brief": EVIL},
        evil | {"verdict": EVIL, "status": f"failed:{EVIL}: {EVIL}", "tokens_in": 2**62, "cost_usd": float("nan")},
        evil | {"verdict": EVIL},
    ]
    write(root, "evil", rows, DESCRIPTIONS)
    names = ("annotator", "attribute", "claimed", "found", "source", "action", "register", "language")
    check = dict.fromkeys(names, EVIL) | {"segment_id": two, "p": float("inf")}
    write(root, "evil/checks", [check | {"state": "contradict", "where": place} for place in ("json", EVIL)], CHECKS)
    note(root, dict.fromkeys(PASS, EVIL) | {"clips": {EVIL: 3}}, name=EVIL.replace("/", "|"))
    note(root, dict.fromkeys(VERIFY, EVIL) | {"experts": [EVIL]}, "verify.json", name=EVIL.replace("/", "|"))
    text = _Page(root).text
    assert f"heard: {EVIL}" in text and f"gender: {EVIL} · texture: {EVIL}" in text and "\u202e" not in text


def test_notes_without_descriptions_have_a_page(tmp_path: Path) -> None:
    create_corpus(tmp_path / "c")
    note(tmp_path / "c", PASS | {"cap_usd": None, "stopped": None, "cap_reached": False})
    note(tmp_path / "c", "{", "verify.json")
    text = _Page(tmp_path / "c").text
    assert "No segment has a description yet" in text and "spent $2.0000" in text and "cap $" not in text
    assert "annotations/llm@1/verify.json cannot be read and is left out" in text


def test_notes_are_read_as_written(tmp_path: Path) -> None:
    note(tmp_path, PASS)
    note(tmp_path, VERIFY, "verify.json")
    found = read_pass_files(tmp_path)
    [paid], [verified] = found.passes, found.verified
    assert (paid.spent_usd, paid.unknown_usd, paid.cap_usd, paid.cap_share, paid.unknown_share) == (
        2,
        0.5,
        4,
        0.5,
        0.125,
    )
    assert (paid.at, paid.stopped, paid.requests) == ("2026-11-29 10:00", "a quota is used up", PASS["requests"])
    assert paid.clips == {"ok": 3, "blocked": 1} and paid.cap_reached and not paid.free
    assert (verified.experts, verified.top1, verified.tried, verified.leaking) == (["gender", "age"], 0.25, 400, True)
    note(tmp_path, VERIFY | {"retrieval": {"tried": 100, "top1": 0.11, "expected": 0.05}}, "verify.json")
    assert not read_pass_files(tmp_path).verified[0].leaking, "within three standard deviations of chance"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spent_usd", "2"), ("spent_usd", float("nan")), ("spent_usd", -1), ("spent_usd", 1e300), ("spent_usd", True),
        ("cap_usd", []), ("clips", [1]), ("clips", {"ok": "many"}), ("requests", None), ("experts", "en"), ("at", "soon"),
        ("at", 7), ("stopped", {"a": 1}), ("kept", float("inf")), ("free", "yes"), ("retrieval", [1]), ("invalid", -1),
    ],
)  # fmt: skip
def test_a_value_that_is_not_as_expected_counts_as_absent(tmp_path: Path, name: str, value: object) -> None:
    known, file = (PASS, "pass.json") if name in PASS else (VERIFY, "verify.json")
    note(tmp_path, known | {name: value}, file)
    given = read_pass_files(tmp_path)
    assert len(given.passes + given.verified) == 1
    note(tmp_path, {key: usual for key, usual in known.items() if key != name}, file)
    assert given == read_pass_files(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "[" * 100_000, '{"kept": ' + "1" * 5000 + "}", "\x00\xff", "x" * (1 << 20) + "x"]
)
def test_damaged_notes_are_named_and_left_out(tmp_path: Path, content: str) -> None:
    note(tmp_path, content)
    assert read_pass_files(tmp_path) == PassFiles(unreadable=["annotations/llm@1/pass.json"])


def test_only_plain_files_of_the_corpus_are_opened(tmp_path: Path) -> None:
    elsewhere = note(tmp_path / "elsewhere", PASS)
    base = tmp_path / "c" / "annotations"
    (base / "link").mkdir(parents=True)
    (base / "link" / "pass.json").symlink_to(elsewhere)
    (base / "folder" / "pass.json").mkdir(parents=True)
    (base / "pipe").mkdir()
    # To open it would wait forever.
    os.mkfifo(base / "pipe" / "pass.json")
    (base / "away").symlink_to(elsewhere.parent)
    found = read_pass_files(tmp_path / "c")
    assert not found.passes and found.unreadable == [f"annotations/{n}/pass.json" for n in ("folder", "link", "pipe")]


def test_texts_are_short_lines(tmp_path: Path) -> None:
    note(tmp_path, PASS | {"stopped": "a\n\tb\u202ec\ud800 " + "x" * 10_000, "clips": {str(n): 1 for n in range(1000)}})
    [paid] = read_pass_files(tmp_path).passes
    assert paid.stopped.startswith("a b c x") and len(paid.stopped) == 160 and len(paid.clips) == 20
    paid.stopped.encode()
