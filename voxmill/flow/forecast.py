"""`voxmill run --dry-run`: what each step will take, and all of them. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from catalogs.durations import duration_text
from catalogs.files import one_line
from voxmill.flow.build import chosen_steps, open_flow
from voxmill.flow.fingerprints import Verdict, digests_of, plan
from voxmill.flow.settings import FlowSettings, Prices
from voxmill.flow.steps.base import Cost, Step
from voxmill.terminal import Terminal

_AMOUNTS = ("hours", "gpu_hours", "usd", "disk_bytes")


@dataclass(frozen=True)
class Forecast:
    """The costs of the steps that are due, and the verdicts of all chosen ones."""

    verdicts: dict[str, Verdict]
    costs: dict[str, Cost]

    @property
    def total(self) -> Cost:
        """The sums of what is known. An amount that is known for no step is None."""
        return Cost(self._sum("hours"), self._sum("gpu_hours"), self._sum("usd"), self._sum("disk_bytes"))

    def _sum(self, amount: str) -> float | None:
        known: list[float] = [value for cost in self.costs.values() if (value := getattr(cost, amount)) is not None]
        return sum(known) if known or not self.costs else None

    def unknown(self, amount: str) -> list[str]:
        """Return the steps for which an amount is unknown."""
        return [name for name, cost in self.costs.items() if getattr(cost, amount) is None]


def forecast_flow(
    settings: FlowSettings, first: str | None = None, last: str | None = None, terminal: Terminal | None = None
) -> Forecast:
    """Return the forecast of the steps that `run_flow` would run. Raises SettingsError and FlowError as `run_flow`."""
    terminal = terminal or Terminal(quiet=True)
    folder, steps = open_flow(settings)
    verdicts = plan(steps, digests_of(folder), chosen_steps(list(steps), first, last))
    due = [name for name, verdict in verdicts.items() if verdict.action != "done"]
    return Forecast(verdicts, {name: _cost(steps[name], settings.prices, terminal) for name in due})


def _cost(step: Step, prices: Prices, terminal: Terminal) -> Cost:
    try:
        found = step.forecast(terminal)
    except (ValueError, OSError, RuntimeError) as error:
        return Cost(None, None, None, None, (f"unknown: {one_line(error)}",))
    return priced(found, prices)


def priced(cost: Cost, prices: Prices) -> Cost:
    """Add the price of machines to what services cost. The price of a GPU is needed; machines without one may be left out."""
    if cost.usd is None:
        return cost
    if cost.gpu_hours is None:
        return replace(cost, usd=None)
    if cost.gpu_hours:
        if prices.gpu_usd_per_hour is None:
            return replace(cost, usd=None, notes=(*cost.notes, "money: give prices.gpu_usd_per_hour"))
        return replace(cost, usd=cost.usd + prices.gpu_usd_per_hour * cost.gpu_hours)
    if prices.cpu_usd_per_hour is None:
        return cost
    return replace(cost, usd=None if cost.hours is None else cost.usd + prices.cpu_usd_per_hour * cost.hours)


def show_forecast(found: Forecast, terminal: Terminal) -> None:
    """Print the forecast as a table, the reasons of what is unknown, and the totals."""
    rows = []
    for name, verdict in found.verdicts.items():
        cost = found.costs.get(name)
        amounts = ["", "", "", ""] if cost is None else _cells(cost)
        rows.append([name, state_words(verdict), *amounts])
    total = _cells(found.total)
    for place, amount in enumerate(_AMOUNTS):
        if found.unknown(amount):
            total[place] = f"{total[place]} + ?" if total[place] != "?" else "?"
    rows.append(["total", "", *total])
    terminal.table("", ["step", "state", "time", "GPU hours", "USD", "disk"], rows)
    for name, cost in found.costs.items():
        for note in cost.notes:
            terminal.say(f"{name}: {note}")
    terminal.say("nothing was written; the same command without --dry-run does the work")


def state_words(verdict: Verdict) -> str:
    """Return what is to be done with a step, in words."""
    return {"done": "up to date", "run": f"will run ({verdict.reason})", "waits": f"runs {verdict.reason}"}[
        verdict.action
    ]


def _cells(cost: Cost) -> list[str]:
    return [
        "?" if cost.hours is None else duration_text(cost.hours * 3600),
        "?" if cost.gpu_hours is None else f"{cost.gpu_hours:.2f}",
        "?" if cost.usd is None else f"{cost.usd:,.2f}",
        "?" if cost.disk_bytes is None else size_words(cost.disk_bytes),
    ]


def size_words(size: float) -> str:
    """Return bytes in words."""
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def forecast_values(found: Forecast) -> dict[str, object]:
    """Return the forecast for `--json`."""
    return {
        "steps": {
            name: {"action": verdict.action, "reason": verdict.reason, **_values(found.costs.get(name))}
            for name, verdict in found.verdicts.items()
        },
        "total": _values(found.total),
        "unknown": {amount: found.unknown(amount) for amount in _AMOUNTS},
    }


def _values(cost: Cost | None) -> Mapping[str, object]:
    return {} if cost is None else {amount: getattr(cost, amount) for amount in _AMOUNTS} | {"notes": list(cost.notes)}
