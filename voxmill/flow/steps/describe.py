"""`describe` and `verify`: descriptions of the voices of a corpus, by `annotators`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxmill.flow.digests import Digests, digest_of
from voxmill.flow.settings import FlowError
from voxmill.flow.steps.base import AmendingStep, Cost, Outcome, StepSettings, before

if TYPE_CHECKING:
    from voxmill.terminal import Terminal


class DescribeSettings(StepSettings):
    """Settings of `describe`: as of `voxmill describe`."""

    corpus: str
    annotator: str = "acoustic"
    model: str | None = None
    base_url: str | None = None
    cap_usd: float | None = None
    limit: int | None = None
    languages: tuple[str, ...] | None = None
    everything: bool = False
    concurrency: int = 16
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    prices: str | None = None


class Describe(AmendingStep):
    """Describes the kept segments in words, offline or by a service with a cap."""

    settings_kind = DescribeSettings

    def effective(self) -> dict[str, Any]:
        """See `Step`. Limits of the service and prices change no description."""
        runtime = {"corpus", "concurrency", "requests_per_minute", "tokens_per_minute", "prices"}
        return dict(self.settings.model_dump(mode="json", exclude=runtime, exclude_defaults=True))

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from annotators.describe import describe
        from annotators.paid.pass_options import PassStats

        with terminal.printing("annotators"):
            stats = describe(self.output, self.settings.annotator, **self._asked(terminal))
        if isinstance(stats, PassStats):
            if stats.jobs_running:
                raise FlowError(
                    f"step {self.name}: {stats.jobs_running} batch jobs are running at the service: run the flow again later"
                )
            return Outcome(stats.line, {"pass": stats.name})
        return Outcome(stats.line, {"pass": stats.annotator})

    def _asked(self, terminal: Terminal) -> dict[str, Any]:
        from annotators.paid.pass_options import PassOptions

        chosen = self.settings
        options = PassOptions(
            cap_usd=chosen.cap_usd,
            concurrency=chosen.concurrency,
            requests_per_minute=chosen.requests_per_minute,
            tokens_per_minute=chosen.tokens_per_minute,
            prices=Path(chosen.prices) if chosen.prices else None,
            say=terminal.say,
            progress=lambda stats: terminal.say(f"  {stats.line}"),
        )
        asked = {name: getattr(chosen, name) for name in ("model", "base_url", "languages", "limit", "everything")}
        return {**asked, "options": options}

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`: the files of the pass by name, since `verify` rewrites them."""
        return pass_files(self.output, [str(result.get("pass"))])

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`. An offline annotator costs no money."""
        from annotators.describe import is_remote, price

        if not is_remote(self.settings.annotator):
            return Cost(usd=0.0, notes=("time: offline, not measured before it runs",))
        if not (self.output / "corpus.json").is_file():
            return Cost(usd=None, notes=(f"price: unknown {before([self.one('corpus').name])}",))
        clips, found, _ = price(self.output, self.settings.annotator, **self._asked(terminal))
        line = f"{clips.first} clips; worst case ${found.worst / 1e6:,.2f}"
        return Cost(found.seconds / 3600, 0.0, found.expected / 1e6, None, (line,))


class VerifySettings(StepSettings):
    """Settings of `verify`."""

    corpus: str
    annotator: str | None = None
    """Folder below annotations/. Default: all that listen to the audio."""
    experts: tuple[str, ...] = ("gender", "age")
    allow_non_commercial: bool = False


class Verify(AmendingStep):
    """Compares descriptions with measures and repairs or drops what they refute."""

    settings_kind = VerifySettings
    follows_amendments = True

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from annotators.verification.answered import passes_to_verify
        from annotators.verification.verify import verify_corpus

        chosen = self.settings
        names = [chosen.annotator] if chosen.annotator else passes_to_verify(self.output)
        lines = []
        for name in names:
            with terminal.printing("annotators"):
                stats = verify_corpus(self.output, name, chosen.experts, chosen.allow_non_commercial)
            lines.append(stats.line)
        return Outcome("; ".join(lines), {"passes": names})

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`."""
        folders = [self.output / "annotations" / name / "verify.json" for name in result.get("passes", ())]
        return digest_of(result["passes"]) if folders and all(path.is_file() for path in folders) else None

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        return Cost(notes=("time: a pass over the descriptions, not measured before it runs",))


def pass_files(corpus: Path, passes: list[str]) -> str | None:
    """Return a digest of the names of the files of passes; None if there are none."""
    found = [
        str(path.relative_to(corpus))
        for name in passes
        for path in (corpus / "annotations" / name).glob("[0-9a-f][0-9a-f]/*.parquet")
    ]
    return digest_of(sorted(found)) if found else None
