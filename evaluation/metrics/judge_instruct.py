"""Whether speech follows an instruction, as Gemini hears it (the protocol of InstructTTSEval, in our own words).

It differs from the official script where that one hides something. Missing answers are counted and bounded. Text such as "true" is
not taken for an answer. A tenth of the takes is asked three times, which shows how often the judge contradicts itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from catalogs.files import one_line
from evaluation.errors import NotMeasuredError
from evaluation.items import Item
from evaluation.metrics.base import Need, Take, Value

if TYPE_CHECKING:
    from annotators.paid.judge_pass import Answered
    from annotators.paid.pass_options import PassOptions
    from annotators.providers.gemini_judge import GeminiJudge
    from annotators.providers.remote import Ask

PROMPT = Path(__file__).parent / "prompts" / "judge_instruct.md"
DEFAULT_MODEL = "gemini-3.1-pro-preview"
CAP, MODEL = "VOXMILL_JUDGE_USD", "VOXMILL_JUDGE_MODEL"
"""Variables with the most that the judge may spend on a run, in USD, and with its model."""
FIELD = "consistent"
DIMENSIONS = (
    "gender", "pitch", "rate", "volume", "age", "clarity", "fluency", "accent", "timbre", "emotion", "intonation", "personality",
)  # fmt: skip
DRAWS, SAMPLE = 3, 10
"""One take in SAMPLE is asked DRAWS times."""
_OUT_TOKENS = 700
"""Expected tokens of an answer with its thoughts, for the estimate."""


class JudgeInstruct:
    """Columns:

    `passed`: 1 if the judge found that the speech agrees with the instruction, 0 if not or if the take failed; None without an
    answer (`null` is then 1). `low`, `high`: the same with missing answers as 0 and as 1. `flip`: share of the pairs of three draws
    that contradict each other, for one take in ten. `verdicts`: true, false or the reason of a missing answer, by draw.
    `answer`: what the judge heard, in JSON. `model`: the one that answered. `prompt`: hash of the prompt file.
    """

    name = "judge_instruct"
    version = 1
    needs: frozenset[Need] = frozenset({"instruction"})
    weights: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("httpx2",)
    values: tuple[Value, ...] = (
        Value("passed", "instruction followed", "%", "higher", 0.0, None, 100.0, 1, 2.0),
        Value("low", "if missing answers are false", "%", "higher", 0.0, None, 100.0, 1, 2.0),
        Value("high", "if missing answers are true", "%", "higher", 0.0, None, 100.0, 1, 2.0),
        Value("null", "missing answers", "%", "lower", None, None, 100.0, 1),
        Value("flip", "the judge contradicts itself", "%", "lower", None, None, 100.0, 1),
    )
    schema = pa.schema(
        [
            *(pa.field(name, pa.float64()) for name in ("passed", "low", "high", "null", "flip")),
            pa.field("verdicts", pa.list_(pa.string())),
            *(pa.field(name, pa.string()) for name in ("answer", "model", "prompt")),
        ]
    )

    def __init__(
        self,
        cap_usd: float | None = None,
        model: str | None = None,
        base_url: str | None = None,
        options: PassOptions | None = None,
    ) -> None:
        """cap_usd, model: default VOXMILL_JUDGE_USD and VOXMILL_JUDGE_MODEL. options: limits of the service; tests give a clock."""
        given = os.environ.get(CAP, "")
        self._cap = cap_usd if cap_usd is not None else float(given) if re.fullmatch(r"\d+(\.\d+)?", given) else None
        self.model = model or os.environ.get(MODEL) or DEFAULT_MODEL
        self._base_url, self._options = base_url, options

    def settings(self) -> dict[str, Any]:
        """See `Metric`."""
        return {"model": self.model, "prompt": prompt_hash(), "draws": DRAWS, "sample": SAMPLE}

    def load(self) -> None:
        """Check that a key, a budget and a price are there. Raises NotMeasuredError."""
        from annotators.paid.prices import PriceError, tariff, today
        from annotators.providers.gemini import KEY
        from annotators.providers.remote import FatalError

        if self._cap is None and (given := os.environ.get(CAP)):
            raise NotMeasuredError(f"{CAP}={given!r} is not an amount of USD; write a number, such as 5")
        if self._cap is None:
            raise NotMeasuredError(f"the judge costs money: give a budget for the run, such as {CAP}=5")
        if importlib.util.find_spec("httpx2") is None:
            raise NotMeasuredError("the judge needs google-genai: install voxmill with the extra `annotate`")
        try:
            self._judge("en").check()
            tariff(self.model).at(today())
        except (FatalError, PriceError, ValueError) as error:
            raise NotMeasuredError(f"the judge cannot be asked ({KEY}, {MODEL}): {one_line(error)}") from None

    def group(self, take: Take) -> str | None:
        """See `Metric`."""
        return None

    def dollars(self, items: Sequence[Item], seconds: float, seeds: int) -> float:
        """Return what judging takes of items is expected to cost in USD; seconds: of audio per take."""
        return estimate(items, seconds, seeds, self.model)["expected_usd"]

    def score(self, takes: Sequence[Take]) -> list[dict[str, Any] | None]:
        """See `Metric`. Raises NotMeasuredError if the budget is used up or the service fails; what was answered stays paid."""
        rows: list[dict[str, Any] | None] = [
            {"passed": 0.0, "low": 0.0, "high": 0.0, "null": 0.0, "prompt": prompt_hash()} for _ in takes
        ]
        for language in ("en", "zh"):
            places = [
                place
                for place, take in enumerate(takes)
                if take.path is not None and _prompt_language(take.item) == language
            ]
            for place, row in zip(places, self._rows(language, [takes[place] for place in places]), strict=True):
                rows[place] = row
        return rows

    def _rows(self, language: str, takes: Sequence[Take]) -> list[dict[str, Any]]:
        if not takes:
            return []
        judge = self._judge(language)
        asks = [[_ask(judge, take, draw) for draw in range(1, draws_of(take) + 1)] for take in takes]
        answers = self._answers(judge, [ask for draws in asks for ask in draws], takes[0])
        return [_row([answers[ask.key] for ask in draws]) for draws in asks]

    def _answers(self, judge: GeminiJudge, asks: Sequence[Ask], first: Take) -> dict[str, Answered]:
        from dataclasses import replace

        from annotators.paid.judge_pass import ask_questions
        from annotators.paid.ledger_file import LedgerError
        from annotators.paid.pass_options import PassOptions, PassStoppedError

        options = replace(self._options or PassOptions(), cap_usd=self._cap)
        assert first.path is not None
        # audio/<aa>/<take>.flac below the run: the budget is that of the run.
        ledger = first.path.parents[2] / "judge" / "ledger.sqlite"
        try:
            answers, stats = ask_questions(judge, asks, ledger, options)
        except (PassStoppedError, LedgerError) as error:
            raise NotMeasuredError(f"the judge stopped: {one_line(error)}") from None
        if any(not answer.asked_enough and answer.found is None for answer in answers.values()):
            why = (
                f"the budget of {self._cap:g} USD is used up; raise {CAP}" if stats.cap_reached else "some got no reply"
            )
            raise NotMeasuredError(
                f"the judge has not heard every take: {why}, then score again (nothing is paid twice)"
            )
        return answers

    def _judge(self, language: str) -> GeminiJudge:
        from annotators.providers.gemini_judge import GeminiJudge

        prompt = read_prompt()
        return GeminiJudge(
            self.model, prompt["rules", language], answer_schema(), FIELD, prompt["closing", language], self._base_url
        )


def estimate(items: Sequence[Item], seconds: float = 6.0, seeds: int = 1, model: str | None = None) -> dict[str, float]:
    """Return `calls`, `expected_usd` and `most_usd` of judging the items that have an instruction. seconds: of audio per take.

    Raises PriceError for a model without a price.
    """
    from annotators.paid.prices import MICRO, tariff, today
    from annotators.providers.remote import Tokens

    metric = JudgeInstruct(model=model)
    asked = [item for item in items if item.instruction]
    calls = seeds * len(asked) * (1 + (DRAWS - 1) / SAMPLE)
    prices, expected, most = tariff(metric.model), 0.0, 0.0
    for item in asked:
        judge = metric._judge(_prompt_language(item))
        request = judge.group([judge.ask(b"", seconds, question_of(item))])[0]
        bound = judge.bound(request)
        text = judge.fixed_text + question_of(item) + json.dumps(judge.schema)
        # A Chinese sign is about one token, four letters are another.
        wide = sum(ord(sign) > 0x2E7F for sign in text)
        usual = Tokens(round(wide + (len(text) - wide) / 4), round(32 * seconds), 0, _OUT_TOKENS)
        expected += prices.at(today()).cost(usual)
        most += prices.bound(bound, today())
    share = calls / max(1, len(asked)) / MICRO
    return {"calls": round(calls), "expected_usd": expected * share, "most_usd": most * share}


def draws_of(take: Take) -> int:
    """Return how often a take is asked about: chosen by a hash, so the sample stays when a list grows."""
    draw = hashlib.sha256(f"judge {take.item.id} {take.seed}".encode()).digest()
    return DRAWS if int.from_bytes(draw[:4], "big") % SAMPLE == 0 else 1


def question_of(item: Item) -> str:
    """Return the text before the audio."""
    return read_prompt()["question", _prompt_language(item)].replace("{instruction}", item.instruction)


def answer_schema() -> dict[str, Any]:
    """Return the schema of an answer: a text per dimension, the conflict, and the verdict."""
    texts = {name: {"type": "string"} for name in (*DIMENSIONS, "conflict")}
    properties = {**texts, FIELD: {"type": "boolean"}}
    return {"type": "object", "properties": properties, "required": list(properties)}


@cache
def read_prompt() -> Mapping[tuple[str, str], str]:
    """Return the sections of the prompt file by kind and language."""
    text = re.sub(r"<!--.*?-->", "", PROMPT.read_text(encoding="utf-8"), flags=re.DOTALL)
    parts = re.split(r"^# (rules|question|closing) (en|zh)$", text, flags=re.MULTILINE)[1:]
    return {
        (kind, language): body.strip()
        for kind, language, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


@cache
def prompt_hash() -> str:
    """Return 8 hex digits of the prompt file."""
    return hashlib.sha256(PROMPT.read_bytes()).hexdigest()[:8]


def _prompt_language(item: Item) -> str:
    """The prompt is in Chinese for Chinese speech, otherwise in English."""
    return "zh" if item.language in ("zh", "yue") else "en"


def _ask(judge: GeminiJudge, take: Take, draw: int) -> Ask:
    assert take.path is not None
    return judge.ask(take.path.read_bytes(), take.seconds, question_of(take.item), draw)


def _row(draws: Sequence[Answered]) -> dict[str, Any]:
    """Return the row of a take. The first draw is its verdict; the others only show how steady the judge is."""
    first = draws[0]
    said = [None if one.found is None else bool(one.found[FIELD]) for one in draws]
    known = [verdict for verdict in said if verdict is not None]
    pairs = list(combinations(known, 2))
    passed = None if said[0] is None else float(said[0])
    return {
        "passed": passed,
        "low": passed or 0.0,
        "high": 1.0 if passed is None else passed,
        "null": float(passed is None),
        "flip": sum(one != other for one, other in pairs) / len(pairs) if pairs else None,
        "verdicts": [
            str(one.error) if verdict is None else str(verdict).lower()
            for verdict, one in zip(said, draws, strict=True)
        ],
        "answer": None if first.found is None else json.dumps(first.found, ensure_ascii=False),
        "model": first.model,
        "prompt": prompt_hash(),
    }
