"""The Gemini judge against a local server: strict answers, nulls that are bounded, the judge's own flips, money, and resuming."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.annotator_service import Heard
from fakes.gemini_server import GeminiServer, get

from annotators.paid.limits import Clock
from annotators.paid.pass_options import PassOptions
from evaluation.items import Item
from evaluation.metrics import judge_instruct, load_metrics
from evaluation.metrics.judge_instruct import DIMENSIONS, DRAWS, JudgeInstruct, estimate, read_prompt
from evaluation.runs.folder import Run, create_run
from evaluation.runs.generate import generate
from evaluation.runs.score import Scored, score, table_of
from evaluation.systems.base import Ask, Speech

KEY = "a-key-that-nobody-else-has"
MODEL = "gemini-3.1-pro-preview"
RATE = 16_000


class Judge(GeminiServer):
    """Answers with the text that `say` gives for the level of a clip and the number of the question about it."""

    def __init__(self, say: Callable[[int, int], str]) -> None:
        super().__init__(KEY)
        self.say = say
        self.told: list[tuple[str, ...]] = []

    def _listen(self, body: Mapping[str, Any]) -> tuple[list[Heard], list[str]]:
        heard, texts = super()._listen(body)
        self.told.append(tuple(texts))
        return heard, texts

    def answers(self, heard: Sequence[Heard], schema: Mapping[str, Any] | None, fault: str) -> str:
        (clip,) = heard
        assert schema is not None and get(schema["properties"], "consistent") == {"type": "boolean"}
        return self.say(int(clip.truth.seconds), self.asked[clip.hash])


def verdict(value: Any) -> str:
    return json.dumps({**dict.fromkeys((*DIMENSIONS, "conflict"), "x"), "consistent": value})


class Seconds:
    """Speaks noise of as many seconds as the text says; `crash` fails."""

    name, batch, seeded = "seconds", 1, True

    def describe(self) -> dict[str, Any]:
        return {"kind": "seconds"}

    def speak(self, asks: Sequence[Ask]) -> list[Speech | Exception]:
        return [self._one(ask.item.text) for ask in asks]

    def _one(self, text: str) -> Speech | Exception:
        if text == "crash":
            return ValueError("crashed")
        size = int(text) * RATE + RATE // 2
        return Speech((0.1 * np.sin(np.arange(size) * 0.05 * (1 + int(text)))).astype(np.float32), RATE)

    def close(self) -> None:
        self.name = ""


@pytest.fixture(autouse=True)
def no_other_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    for name in ("VOXMILL_JUDGE_USD", "VOXMILL_JUDGE_MODEL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(judge_instruct, "SAMPLE", 10**9)
    yield


def options() -> PassOptions:
    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    return PassOptions(clock=Clock(sleep=at_once))


def metric(server: Judge, cap: float | None = 5.0) -> JudgeInstruct:
    return JudgeInstruct(cap, MODEL, server.url, options())


def made(folder: Path, texts: Sequence[str], language: str = "en") -> Run:
    items = [Item(text, language, text, instruction=f"A calm voice, number {text}.") for text in texts]
    run = create_run(folder, {"system": Seconds().describe()}, items, (1,))
    generate(run, Seconds())
    return run


def rows_of(run: Run, judge: JudgeInstruct) -> dict[str, dict[str, Any]]:
    found = table_of(run, judge, {judge.name: judge}).by_key()
    return {run.by_id[item_id].text: row for (item_id, _), row in found.items()}


def judged(run: Run, judge: JudgeInstruct) -> tuple[Scored, dict[str, dict[str, Any]]]:
    return score(run, [judge]), rows_of(run, judge)


def test_true_false_and_what_is_neither(tmp_path: Path) -> None:
    said = {
        1: verdict(True),
        2: verdict(False),
        3: verdict("true"),
        4: "so { garbled",
        5: f"Well:\n```json\n{verdict(True)}\n```",
    }
    with Judge(lambda number, asked: said[number]) as server:
        run = made(tmp_path / "run", ["1", "2", "3", "4", "5", "crash"])
        judge = metric(server)
        scored, rows = judged(run, judge)
        assert scored.not_measured == {} and scored.rows == {"judge_instruct": 6}
    assert {text: row["passed"] for text, row in rows.items()} == {
        "1": 1.0, "2": 0.0, "3": None, "4": None, "5": 1.0, "crash": 0.0,
    }  # fmt: skip
    assert [rows[text]["null"] for text in "12345"] == [0, 0, 1, 1, 0]
    # The bounds enclose what any answer would have given.
    assert [(rows[text]["low"], rows[text]["high"]) for text in "1234"] == [(1, 1), (0, 0), (0, 1), (0, 1)]
    assert "'true', neither true nor false" in rows["3"]["verdicts"][0] and "no JSON object" in rows["4"]["verdicts"][0]
    assert rows["1"]["model"] == f"{MODEL}-001" and json.loads(rows["1"]["answer"])["gender"] == "x"
    # What does not parse is asked once more, and then counts as missing.
    assert sorted(server.asked.values()) == [1, 1, 1, 2, 2]


def test_the_instruction_is_asked_in_the_prompt_of_the_language(tmp_path: Path) -> None:
    with Judge(lambda number, asked: verdict(True)) as server:
        score(made(tmp_path / "en", ["1"]), [metric(server)])
        score(made(tmp_path / "zh", ["2"], "zh"), [metric(server)])
    (english, chinese) = ["\n".join(texts) for texts in server.told]
    assert "You judge synthetic speech" in english and "The instruction was:\n\nA calm voice, number 1." in english
    assert "你负责评判合成语音" in chinese and "指令如下：\n\nA calm voice, number 2." in chinese
    assert "number 2" not in english


def test_nothing_is_paid_twice(tmp_path: Path) -> None:
    with Judge(lambda number, asked: verdict(True)) as server:
        run = made(tmp_path / "run", ["1", "2"])
        judged(run, metric(server))
        spent = server.spent_micro
        # As if a kill had lost the rows: the replies are in the ledger.
        for part in run.root.glob("rows/judge_instruct@*/*.parquet"):
            part.unlink()
        _, rows = judged(run, metric(server))
        assert server.spent_micro == spent and len(server.requests) == 2 and rows["1"]["passed"] == 1.0
        generate(
            create_run(
                run.root, {"system": Seconds().describe()}, [*run.items, Item("3", "en", instruction="x")], (1,)
            ),
            Seconds(),
        )
        judged(Run(run.root), metric(server))
        assert len(server.requests) == 3


def test_a_tenth_is_asked_three_times_and_flips_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_instruct, "SAMPLE", 1)
    said: dict[int, list[Any]] = {1: [True, True, True], 2: [True, False, True], 3: [False, "no", False]}
    with Judge(lambda number, asked: verdict(said[number][min(asked, DRAWS) - 1])) as server:
        _, rows = judged(
            made(tmp_path / "run", ["1", "2", "3"]), JudgeInstruct(5, MODEL, server.url, PassOptions(concurrency=1))
        )
    assert rows["1"]["flip"] == 0.0 and rows["1"]["verdicts"] == ["true"] * 3
    # Two of three pairs of draws differ, whichever came first.
    assert rows["2"]["flip"] == pytest.approx(2 / 3) and sorted(rows["2"]["verdicts"]) == ["false", "true", "true"]
    assert rows["3"]["flip"] == 0.0


def test_one_in_ten_is_in_the_sample_and_stays_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluation.metrics.base import Take

    monkeypatch.setattr(judge_instruct, "SAMPLE", 10)
    takes = [Take(Item(f"text {number}", "en"), 1, "ok", None) for number in range(3000)]
    drawn = [judge_instruct.draws_of(take) for take in takes]
    assert set(drawn) == {1, DRAWS} and drawn == [judge_instruct.draws_of(take) for take in takes]
    # 10 % of 3000: 300, standard deviation 16.
    assert 220 < drawn.count(DRAWS) < 380


def test_a_throttled_service_is_waited_for(tmp_path: Path) -> None:
    with Judge(lambda number, asked: verdict(True)) as server:
        for nth in (1, 2):
            server.fail("*", nth, "429")
        scored, rows = judged(made(tmp_path / "run", ["1", "2"]), metric(server))
    assert scored.not_measured == {} and [row["passed"] for row in rows.values()] == [1.0, 1.0]


def test_a_used_up_quota_is_told_and_the_next_run_resumes(tmp_path: Path) -> None:
    with Judge(lambda number, asked: verdict(True)) as server:
        server.fail("*", 1, "429_day")
        run = made(tmp_path / "run", ["1"])
        scored, rows = judged(run, metric(server))
        assert "the judge stopped: the quota is used up" in scored.not_measured["judge_instruct"] and rows == {}
        scored, rows = judged(run, metric(server))
    assert scored.not_measured == {} and rows["1"]["passed"] == 1.0


def test_the_budget_of_a_run_is_kept_and_may_be_raised(tmp_path: Path) -> None:
    with Judge(lambda number, asked: verdict(True)) as server:
        run = made(tmp_path / "run", ["1", "2", "3", "4"])
        scored, rows = judged(run, metric(server, 0.04))
        assert "the budget of 0.04 USD is used up; raise VOXMILL_JUDGE_USD" in scored.not_measured["judge_instruct"]
        assert rows == {} and server.spent_micro <= 40_000 and len(server.requests) < 4
        before = len(server.requests)
        scored, rows = judged(run, metric(server, 5.0))
    assert scored.not_measured == {} and len(rows) == 4 and len(server.requests) == 4 and before > 0


def test_without_a_budget_or_a_key_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path / "run", ["1"])
    with Judge(lambda number, asked: verdict(True)) as server:
        scored, _ = judged(run, metric(server, None))
        assert "give a budget for the run, such as VOXMILL_JUDGE_USD=5" in scored.not_measured["judge_instruct"]
        monkeypatch.delenv("GEMINI_API_KEY")
        scored, _ = judged(run, metric(server))
        assert "GEMINI_API_KEY is not set" in scored.not_measured["judge_instruct"]
        scored, _ = judged(run, JudgeInstruct(5, "gemini-9-nobody", server.url))
        assert "no price of gemini-9-nobody" in scored.not_measured["judge_instruct"] or "not set" in str(scored)
        assert server.requests == []


def test_the_prompt_is_part_of_the_rows_and_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from evaluation.metrics.base import fingerprint

    (judge,) = load_metrics(["judge_instruct"])
    before = fingerprint(judge, {})
    changed = tmp_path / "prompt.md"
    changed.write_text(judge_instruct.PROMPT.read_text(encoding="utf-8") + "\nBe strict.", encoding="utf-8")
    monkeypatch.setattr(judge_instruct, "PROMPT", changed)
    judge_instruct.prompt_hash.cache_clear()
    assert fingerprint(judge, {}) != before
    judge_instruct.prompt_hash.cache_clear()


def test_the_prompts_name_every_field() -> None:
    prompt = read_prompt()
    assert set(prompt) == {(kind, language) for kind in ("rules", "question", "closing") for language in ("en", "zh")}
    for language in ("en", "zh"):
        assert all(name in prompt["rules", language] for name in DIMENSIONS)
        assert "consistent" in prompt["closing", language] and "{instruction}" in prompt["question", language]


def test_the_estimate_encloses_what_is_then_paid(tmp_path: Path) -> None:
    texts = ["1", "2", "3"]
    with Judge(lambda number, asked: verdict(True)) as server:
        run = made(tmp_path / "run", texts)
        found = estimate(run.items, seconds=2.5, model=MODEL)
        judge = metric(server)
        judged(run, judge)
        from annotators.paid.ledger import Ledger

        (path,) = run.root.glob("judge/*.sqlite")
        ledger = Ledger(path, f"gemini-judge@{judge._judge('en').prompt_version}")
        spent = ledger.totals().spent / 1e6
        ledger.close()
    assert found["calls"] == 3 and 0 < found["expected_usd"] < found["most_usd"]
    assert found["expected_usd"] / 4 < spent < found["most_usd"]
    assert estimate([Item("no instruction", "en")], model=MODEL)["calls"] == 0
