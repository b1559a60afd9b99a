"""`encode`: the codec's latents beside a corpus, so that training does not encode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from catalogs.durations import duration_text
from catalogs.settings import SettingsError
from voxmill.flow.digests import Digests, digest_of
from voxmill.flow.steps.base import AmendingStep, Cost, Outcome, StepSettings, Takes, before

if TYPE_CHECKING:
    from voxmill.terminal import Terminal

_MB_PER_HOUR = 12
"""Of latents, as in the help of `voxmill encode`."""


class EncodeSettings(StepSettings):
    """Settings of `encode`. One of `codec` and `checkpoint` is given."""

    corpus: str
    codec: str | None = None
    """A step that gives a codec or a model."""
    checkpoint: str | None = None
    """A checkpoint folder or hub id that is not of this flow."""
    device: str = "auto"
    batch_s: float = 240.0
    threads: int | None = None


class Encode(AmendingStep):
    """Stores latents. They change the speed of training, not its result: no later step depends on them."""

    settings_kind = EncodeSettings
    is_read = False
    takes: ClassVar[Mapping[str, Takes]] = {
        "corpus": Takes(("corpus",), facet="segments"),
        "codec": Takes(("codec", "model"), required=False),
    }

    @property
    def source(self) -> str:
        """The codec's folder or hub id. Raises SettingsError if there are none or two."""
        given = [str(step.output) for step in self.many("codec")] + [self.settings.checkpoint]
        named = [one for one in given if one]
        if len(named) != 1:
            raise SettingsError(f"step {self.name}: give one of codec (a step) and checkpoint (a folder or hub id)")
        return named[0]

    def effective(self) -> dict[str, Any]:
        """See `Step`."""
        return {"checkpoint": self.settings.checkpoint}

    def check(self) -> None:
        """See `Step`."""
        super().check()
        _ = self.source

    def run(self, terminal: Terminal) -> Outcome:
        """See `Step`."""
        from trainer.encode_corpus import encode_corpus
        from trainer.runtime.device import cpu_threads
        from voxmill.flow.steps.train import model_folder
        from voxmill.progress import EncodeProgress

        steps = self.many("codec")
        source = model_folder(steps[0]) if steps and steps[0].gives == "model" else self.source
        chosen = self.settings
        with EncodeProgress(terminal) as progress, cpu_threads(chosen.threads), terminal.printing("trainer"):
            stats = encode_corpus(self.output, source, chosen.device, chosen.batch_s, progress)
        line = f"{stats.encoded} segments encoded ({duration_text(stats.speech_s)}), {stats.already} were done"
        return Outcome(line, {"codec": stats.codec})

    def digest(self, result: Mapping[str, Any], digests: Digests) -> str | None:
        """See `Step`: the latent files of the codec by name."""
        found = sorted(path.name for path in (self.output / "latents" / str(result.get("codec"))).glob("*/*.arrow"))
        return digest_of(found) if found else None

    def forecast(self, terminal: Terminal) -> Cost:
        """See `Step`."""
        kept = kept_seconds(self)
        if kept is None:
            return Cost(gpu_hours=None, usd=None, notes=(f"unknown {before([self.one('corpus').name])}",))
        size = kept / 3600 * _MB_PER_HOUR * 1e6
        return Cost(None, None, None, size, ("time: not measured before it runs",))


def kept_seconds(step: AmendingStep) -> float | None:
    """Return the kept seconds of the corpus of a step; None if it does not exist yet."""
    from catalogs.corpus.commit import CorpusError
    from catalogs.query.views import query

    try:
        return float(query(step.output, "select coalesce(sum(duration_s), 0) from segments where kept")[1][0][0])
    except (CorpusError, OSError, ValueError):
        return None
