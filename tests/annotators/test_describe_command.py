"""`voxmill describe` and `voxmill verify` with services: what is printed, what is sent, and how they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from asked_clips import KEY, clean_environment
from fakes.gemini_server import GeminiServer
from fakes.openai_server import OpenAIServer
from paid_corpus import kept, paid_corpus, rows_of

from catalogs.corpus.reader import Corpus
from voxmill import cli


@dataclass
class Ran:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


class Run:
    """Runs commands in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> Ran:
        self._monkeypatch.setattr("sys.argv", ["voxmill", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = self._capsys.readouterr()
        assert KEY not in out + err and "Traceback" not in err
        return Ran(int(stop.value.code or 0), out, err)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    clean_environment(monkeypatch)
    return Run(monkeypatch, capsys)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return paid_corpus(tmp_path / "corpus", units=2, clips=8)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, run: Run) -> Iterator[GeminiServer]:
    with GeminiServer(KEY) as running:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", running.url)
        yield running


GEMINI = ("--annotator", "gemini")


def test_a_dry_run_prints_the_price_and_sends_nothing(
    root: Path, server: GeminiServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    ran = run("describe", root, *GEMINI, "--all", "--dry-run", "--cap-usd", "0.05")
    assert ran.status == 0 and not server.requests and not list((root / "annotations").glob("*"))
    assert "selected: 16 of 16 kept segments" in ran.out and "worst case $" in ran.out
    assert "gemini-3.8-flash (standard)" in ran.out and "surely pays for the first" in ran.out
    found = json.loads(run("describe", root, *GEMINI, "--all", "--dry-run", "--json").out)
    assert (
        found["clips"] == 16 and 0 < found["expected_usd"] < found["worst_case_usd"] and found["cap_pays_for"] is None
    )


def test_nothing_that_costs_money_starts_without_a_cap(root: Path, server: GeminiServer, run: Run) -> None:
    ran = run("describe", root, *GEMINI)
    assert ran.status == 1 and "costs money" in ran.err and "--cap-usd" in ran.err and ran.err.count("\n") == 1
    assert not server.requests and not list((root / "annotations").glob("*"))


def test_describe_and_verify_from_nothing_to_the_catalog(root: Path, server: GeminiServer, run: Run) -> None:
    ran = run("describe", root, *GEMINI, "--all", "--cap-usd", "1", "--json")
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    assert found["clips"] == {"ok": 16} and found["spent_usd"] == pytest.approx(server.spent_nano / 1e9, abs=1e-5)
    name = found["annotator"]
    assert rows_of(root, name).keys() == kept(root) and f"--annotator {name}" in ran.err
    asked = len(server.requests)
    again = run("describe", root, *GEMINI, "--all", "--cap-usd", "1")
    assert again.status == 0 and len(server.requests) == asked and "16 ok" in again.out
    ran = run("verify", root, "--json")
    assert ran.status == 0, ran.err
    (verified,) = json.loads(ran.out)
    assert verified["annotator"] == name and sum(verified["verdicts"].values()) == 16
    ran = run(
        "query", root, "select count(*) as n, count(DISTINCT annotator) as annotators from descriptions", "--json"
    )
    assert json.loads(ran.out) == [{"n": 32, "annotators": 2}]
    assert all(KEY.encode() not in path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_a_larger_limit_extends_the_selection(root: Path, server: GeminiServer, run: Run) -> None:
    for limit in (3, 6):
        ran = run("describe", root, *GEMINI, "--all", "--limit", str(limit), "--cap-usd", "1", "--json")
        assert json.loads(ran.out)["clips"] == {"ok": limit}
    assert set(server.asked.values()) == {1} and len(server.asked) == 6


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [("429_day", 3, "quota"), ("other_model", 4, "answered instead of"), ("404", 5, "answered 404")],
)
def test_a_service_that_fails_for_good_has_a_status_of_its_own(
    fault: str, status: int, words: str, root: Path, server: GeminiServer, run: Run
) -> None:
    server.fail("*", 1, fault)
    ran = run("describe", root, *GEMINI, "--cap-usd", "1")
    assert ran.status == status and words in ran.err and len(ran.err.strip().splitlines()) == 1, ran.err


def test_a_wrong_key_and_a_missing_key(
    root: Path, server: GeminiServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "another"
    ran = run("describe", root, *GEMINI, "--cap-usd", "1")
    assert ran.status == 5 and "key" in ran.err.lower() and ran.err.strip().count("\n") == 0
    monkeypatch.delenv("GEMINI_API_KEY")
    ran = run("describe", root, *GEMINI, "--cap-usd", "1")
    assert ran.status == 5 and "GEMINI_API_KEY is not set" in ran.err


def test_a_server_of_ones_own_needs_no_cap(root: Path, run: Run) -> None:
    with OpenAIServer("") as server:
        chat = ("--annotator", "chat", "--base-url", f"{server.url}/v1", "--model", "moss-audio-8b-thinking")
        ran = run("describe", root, *chat, "--limit", "4", "--languages", "en,own", "--json")
    assert ran.status == 0, ran.err
    found = json.loads(ran.out)
    assert found["clips"] == {"ok": 4} and found["spent_usd"] == 0
    rows = [row for row in rows_of(root, found["annotator"]).values() if row["status"] == "ok"]
    assert {caption["language"] for row in rows for caption in row["captions"]} >= {"en"}  # type: ignore[attr-defined]


def test_options_of_services_do_not_fit_an_offline_annotator(root: Path, run: Run) -> None:
    ran = run("describe", root, "--model", "gemini-3.8-flash", "--cap-usd", "2")
    assert ran.status == 1 and "leave out --model, --cap-usd" in ran.err
    assert "costs nothing" in run("describe", root, "--dry-run").err
    ran = run("describe", root, "--annotator", "acousic")
    assert "acoustic" in ran.err and "gemini-batch" in ran.err and ran.status == 1


def test_verify_without_anything_to_verify(root: Path, run: Run) -> None:
    ran = run("verify", root)
    assert ran.status == 1 and "voxmill describe" in ran.err
    run("describe", root)
    assert Corpus(root).annotations("descriptions").num_rows == 16
    assert "voxmill describe" in run("verify", root).err
    ran = run("verify", root, "--annotator", "acoustic", "--json")
    assert json.loads(ran.out)[0]["verdicts"] == {"agree": 16}
    assert run("verify", root, "--annotator", "acoustic", "--experts", "gender, ").status == 0
    assert "no expert" in run("verify", root, "--annotator", "acoustic", "--experts", "nobody").err
