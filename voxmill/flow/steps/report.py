"""`report`: the page about a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from voxmill.flow.digests import Digests
from voxmill.flow.steps.base import Cost, Outcome, Step, StepSettings, Takes

if TYPE_CHECKING:
    from voxmill.terminal import Terminal

_PAGE = "report.html"


class ReportSettings(StepSettings):
    """Settings of `report`."""

    corpus: str


class Report(Step):
    """Writes the page about a corpus: what was kept and why not, histograms, playable clips, voices, quarantine."""

    settings_kind = ReportSettings
    takes: ClassVar[Mapping[str, Takes]] = {"corpus": Takes(("corpus",))}

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from catalogs.query.views import build_catalog
        from catalogs.report.report import build_report

        corpus = self.one("corpus").output
        build_catalog(corpus)
        self.output.mkdir(parents=True, exist_ok=True)
        page = build_report(corpus, self.output / _PAGE)
        return Outcome(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB")

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        return "written" if (self.output / _PAGE).is_file() else None

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        return Cost(notes=("time: not measured before it runs",))

    def links(self, result: Mapping[str, Any]) -> list[tuple[str, Path]]:
        """See `Step`."""
        return [("report", self.output / _PAGE)]
