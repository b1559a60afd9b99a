"""`evaluate`: models before and after, judged on held-out segments of the corpus, and one page that compares them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from catalogs.settings import SettingsError
from catalogs.words import counted
from voxmill.flow.digests import Digests
from voxmill.flow.settings import FlowError
from voxmill.flow.steps.base import Cost, Outcome, Step, StepSettings, Takes, before

if TYPE_CHECKING:
    from evaluation.items import Item
    from voxmill.terminal import Terminal

_PAGE, _TEXT = "report.html", "comparison.md"
_LIST_RECIPES = {"design": "design", "controllable": "controllable"}
"""How items of a corpus are made for a recipe of the system; otherwise as clones."""


class EvaluateSettings(StepSettings):
    """Settings of `evaluate`."""

    models: str | list[str]
    """Steps whose models are judged."""
    systems: dict[str, str] = Field(default_factory=dict)
    """Other systems by name, as `voxmill evaluate run` takes them, or a hub id. They come first: the first is the baseline."""
    corpus: str | None = None
    """A step whose held-out segments are spoken."""
    share: float | None = None
    """Share that is held out. Default: `validation.share` of the first model."""
    on: tuple[str, ...] = ()
    """Test lists beside the corpus, or instead of it."""
    recipe: str = "plain"
    """How checkpoints speak: plain, reference, continuation, both, design or controllable."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Options of checkpoints, e.g. {retry: false}."""
    limit: int | None = None
    """Most items of each list."""
    seeds: int = 1
    metrics: tuple[str, ...] = ("small",)


class Evaluate(Step):
    """Lets systems speak, scores them, and writes a page with the differences and their intervals."""

    settings_kind = EvaluateSettings
    takes: ClassVar[Mapping[str, Takes]] = {
        "models": Takes(("model",), many=True),
        "corpus": Takes(("corpus",), required=False),
    }

    def check(self) -> None:
        """See `Step`."""
        super().check()
        names = [step.name for step in self.many("models")]
        for name in self.settings.systems:
            if name in names or not re.fullmatch(r"[\w.-]+", name):
                raise SettingsError(
                    f"step {self.name}: the system {name!r} must have a name of letters, digits, - and _ that is not that of a"
                    f" model ({', '.join(names)}): rename it"
                )

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`. Each system has a run folder, which resumes."""
        from evaluation.report.page import write_report
        from evaluation.run import evaluate

        items = self._items(terminal)
        runs = []
        self.output.mkdir(parents=True, exist_ok=True)
        for name, (system, options) in self._systems().items():
            terminal.say(f"{name}: {counted(len(items), 'item')}")
            with terminal.counting("takes") as count, terminal.printing("evaluation"):
                done = evaluate(
                    system,
                    items,
                    self.output / name,
                    options,
                    range(self.settings.seeds),
                    self.settings.metrics,
                    name,
                    count,
                )
            runs.append(done.run)
        text = _compared(runs)
        (self.output / _TEXT).write_text(text, encoding="utf-8")
        terminal.say(f"differences with intervals: {self.output / _TEXT}")
        write_report(runs, self.output / _PAGE)
        return Outcome(f"{counted(len(runs), 'system')} on {counted(len(items), 'item')}", {"items": len(items)})

    def _items(self, terminal: Terminal) -> list[Item]:
        from evaluation.lists import open_lists

        specs = list(self.settings.on)
        for corpus in self.many("corpus"):
            options = f",share={self._share():g}"
            if self.settings.recipe in _LIST_RECIPES:
                options += f",recipe={_LIST_RECIPES[self.settings.recipe]}"
            specs.append(f"corpus:{corpus.output}{options}")
        with terminal.printing("evaluation"):
            return open_lists(specs or ["panel"], limit=self.settings.limit)

    def _share(self) -> float:
        """Return the share that the models hold out. Raises FlowError if they hold out none."""
        if self.settings.share is not None:
            return float(self.settings.share)
        first: Any = self.many("models")[0]
        validation = first.config().validation if hasattr(first, "config") else None
        if validation is None or validation.every is None:
            raise FlowError(
                f"step {self.name}: {first.name} holds nothing out, so it has heard every segment of the corpus: set its"
                " validation.every, or judge on other lists with `on`"
            )
        return float(validation.share)

    def _systems(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return (specification, options) by name, the baseline first."""
        found = {name: self._system(given) for name, given in self.settings.systems.items()}
        for step in self.many("models"):
            found[step.name] = _model_system(step.output, self._options())
        return found

    def _system(self, given: str) -> tuple[str, dict[str, Any]]:
        from evaluation.systems import SYSTEMS
        from voxcpm.weights.checkpoint import find_checkpoint

        kind = given.partition(":")[0]
        if kind in SYSTEMS:
            return given, self._options() if kind == "checkpoint" else {}
        return f"checkpoint:{find_checkpoint(given)}", self._options()

    def _options(self) -> dict[str, Any]:
        return {"recipe": self.settings.recipe, **self.settings.set}

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        names = [*self.settings.systems, *(step.name for step in self.many("models"))]
        return digests.files(self.output, [self.output / _PAGE, *(self.output / name / "run.json" for name in names)])

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`: a trial of the first model that exists, scaled to all."""
        from evaluation.run import foresee

        waits = [step.name for setting in self.takes for step in self.many(setting) if not step.output.exists()]
        if waits:
            return Cost(gpu_hours=None, usd=None, notes=(f"unknown {before(waits)}",))
        name, (system, options) = list(self._systems().items())[-1]
        found = foresee(system, self._items(terminal), options, range(self.settings.seeds), self.settings.metrics)
        times = len(self._systems())
        dollars = times * sum(found.dollars.values())
        return Cost(times * found.hours, None, dollars, None, (f"from a trial with {name}, times {times} systems",))

    def links(self, result: Mapping[str, Any]) -> list[tuple[str, Path]]:
        """See `Step`."""
        return [("evaluation report", self.output / _PAGE), ("comparison", self.output / _TEXT)]


def _model_system(output: Path, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the best checkpoint of a training, otherwise the last one; of a best adapter, with the model below it."""
    from voxcpm.weights.checkpoint import find_checkpoint
    from voxmill.flow.steps.train import model_folder_of

    best = output / "best"
    adapter = best / "lora_config.json"
    if adapter.is_file() and not (best / "config.json").is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model", "")
        return f"checkpoint:{find_checkpoint(base)}", {**options, "lora": str(best.resolve())}
    return f"checkpoint:{model_folder_of(output).resolve()}", dict(options)


def _compared(runs: list[Any]) -> str:
    from evaluation.compare import compare

    return compare(runs).text() if len(runs) > 1 else "one system: nothing to compare with\n"
